/// The geometric median by the smoothed Weiszfeld algorithm, as RFA uses it: the point with the least weighted sum of
/// distances to the updates.
///
/// Tolerates malicious clients with less than half of the weight. Each step is one pass over the updates: it computes a block's weighted
/// mean and adds the block's part of every distance to it. Source: Pillutla, Kakade,
/// Harchaoui 2022, arXiv:1912.13445, Algorithms 2 and 3; started from the weighted mean.
public enum GeometricMedian {
    /// Finds the median.
    ///
    /// - Parameters:
    ///   - columns: The updates.
    ///   - weights: α before normalisation, shape `[count]`, 1 or more.
    ///   - iterationLimit: The most steps.
    ///   - smoothing: ν, the least distance that is used, in parameter units.
    ///   - tolerance: The search ends if a step improves the objective by less than this share of it.
    /// - Returns: Shape `[parameterCount]`, parameter units.
    /// - Throws: ``AggregationError``.
    /// - Complexity: O(n p) time a step.
    public static func aggregate(
        _ columns: UpdateColumns,
        weights: [Int],
        iterationLimit: Int = 32,
        smoothing: Double = 1e-6,
        tolerance: Double = 1e-9
    ) throws(AggregationError) -> [Double] {
        precondition(weights.count == columns.count && weights.allSatisfy { $0 >= 1 }, "a positive weight for each row")
        let total = Double(weights.reduce(0, +))
        let alpha = weights.map { Double($0) / total }
        var shares = alpha
        var (point, distances) = try evaluate(columns, shares: shares)
        var objective = weighted(alpha, distances)
        for _ in 0..<iterationLimit {
            let raw = zip(alpha, distances).map { $0 / max(smoothing, $1) }
            let sum = raw.reduce(0, +)
            shares = raw.map { $0 / sum }
            let next = try evaluate(columns, shares: shares)
            let nextObjective = weighted(alpha, next.distances)
            guard nextObjective <= objective else { break }
            let gain = objective - nextObjective
            (point, distances, objective) = (next.point, next.distances, nextObjective)
            if gain <= tolerance * objective { break }
        }
        return point
    }

    private static func weighted(_ alpha: [Double], _ distances: [Double]) -> Double {
        zip(alpha, distances).reduce(0) { $0 + $1.0 * $1.1 }
    }

    /// The rows' mean with the given shares, and each row's distance to it.
    private static func evaluate(
        _ columns: UpdateColumns,
        shares: [Double]
    ) throws(AggregationError) -> (point: [Double], distances: [Double]) {
        let rows = columns.count
        let blocks = try columns.mapBlocks {
            (block: inout UpdateColumns.Block) throws(AggregationError) -> (point: [Double], squares: [Double]) in
            let width = block.width
            var point = [Double](repeating: 0, count: width)
            for row in 0..<rows {
                let share = shares[row]
                for column in 0..<width { point[column] += share * Double(block.values[row * width + column]) }
            }
            let squares = (0..<rows).map { row -> Double in
                var lanes = SIMD8<Double>(repeating: 0)
                var column = 0
                while column + 8 <= width {
                    var difference = SIMD8<Double>()
                    for lane in 0..<8 {
                        difference[lane] = Double(block.values[row * width + column + lane]) - point[column + lane]
                    }
                    lanes += difference * difference
                    column += 8
                }
                var sum = lanes.sum()
                while column < width {
                    let difference = Double(block.values[row * width + column]) - point[column]
                    sum += difference * difference
                    column += 1
                }
                return sum
            }
            return (point, squares)
        }
        let distances = UpdateColumns.sum(blocks.map(\.squares), count: rows).map { $0.squareRoot() }
        return (blocks.flatMap(\.point), distances)
    }
}
