public import Tensors

/// The sum of clipped updates on the noise grid: what noise is added to (mode `central`).
///
/// Every update's L2 norm on the grid is checked exactly in integers here, whatever its client claimed to have clipped;
/// one that is over the bound is scaled under it. Two passes over each file: norm, then sum.
public enum BoundedSum {
    /// The grid, by its numbers and its two operations.
    public struct Grid: Sendable {
        /// Rounds a value, first multiplied by a weight from 0 to 1, to grid units.
        public var quantize: @Sendable (Float, Double) -> Int64
        /// The factor under the bound for an exact sum of squares; 1 when it is within it.
        public var shrinkFactor: @Sendable (UInt128) -> Double

        /// Names the operations.
        public init(
            quantize: @escaping @Sendable (Float, Double) -> Int64,
            shrinkFactor: @escaping @Sendable (UInt128) -> Double
        ) {
            self.quantize = quantize
            self.shrinkFactor = shrinkFactor
        }
    }

    /// Sums updates.
    ///
    /// - Parameters:
    ///   - updates: Files with the model's layout; a weight of at most `weightCap`.
    ///   - layout: The model's layout.
    ///   - weightCap: The weight that counts as 1.
    ///   - grid: The noise grid.
    ///   - blockElementCount: Parameters a task reads at a time.
    /// - Returns: Shape `[parameterCount]`, grid units.
    /// - Throws: ``AggregationError``.
    public static func sum(
        of updates: [SpooledUpdate],
        layout: ParameterLayout,
        weightCap: Int,
        grid: Grid,
        blockElementCount: Int = 1 << 16
    ) throws(AggregationError) -> [Int64] {
        var factors: [String: Double] = [:]
        for update in updates {
            factors[update.path] = try shrinkFactor(
                of: update,
                weight: share(update, weightCap),
                grid: grid,
                blockElementCount: blockElementCount
            )
        }
        let shrink = factors
        return try BlockFold.fold(updates, layout: layout, blockElementCount: blockElementCount) {
            (sums: inout [Int64], values, update, _) throws(AggregationError) in
            let weight = share(update, weightCap)
            let factor = shrink[update.path] ?? 0
            for index in 0..<sums.count {
                let integer = grid.quantize(values[index], weight)
                // Truncation toward zero cannot raise the norm.
                sums[index] += factor < 1 ? Int64(Double(integer) * factor) : integer
            }
        }
    }

    private static func share(_ update: SpooledUpdate, _ cap: Int) -> Double {
        Double(min(update.weight, cap)) / Double(cap)
    }

    private static func shrinkFactor(
        of update: SpooledUpdate,
        weight: Double,
        grid: Grid,
        blockElementCount: Int
    ) throws(AggregationError) -> Double {
        let file = try BlockFold.open(update)
        let count = file.layout.parameterCount
        var values = [Float](repeating: 0, count: min(count, blockElementCount))
        var squared: UInt128 = 0
        var start = 0
        while start < count {
            let range = start..<min(count, start + blockElementCount)
            try BlockFold.read(file, range, into: &values, path: update.path)
            for index in 0..<range.count {
                guard values[index].isFinite else { throw .valueOutOfRange(index: start + index, bound: .infinity) }
                let magnitude = UInt128(grid.quantize(values[index], weight).magnitude)
                squared += magnitude * magnitude
            }
            start = range.upperBound
        }
        return grid.shrinkFactor(squared)
    }
}
