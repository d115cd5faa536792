/// How far an update stands out: its length against its cohort's, and its direction against the aggregate's.
public struct AnomalyScore: Equatable, Sendable {
    /// L2 norm, parameter units.
    public var norm: Double
    /// The norm over the cohort's median norm.
    public var normRatio: Double
    /// Cosine of the angle to the aggregate, from −1 to 1; `nil` where one of them is zero.
    public var cosine: Double?
}

/// Scores a cohort's updates.
public enum AnomalyScores {
    /// The norms against their median.
    ///
    /// - Parameter norms: Shape `[count]`, at least one.
    /// - Returns: Shape `[count]`; 1 is the median.
    public static func ratios(norms: [Double]) -> [Double] {
        let sorted = norms.sorted()
        let middle = sorted.count / 2
        let median = sorted.count.isMultiple(of: 2) ? (sorted[middle - 1] + sorted[middle]) / 2 : sorted[middle]
        return norms.map { median > 0 ? $0 / median : ($0 > 0 ? .greatestFiniteMagnitude : 1) }
    }

    /// The scores of every row against an aggregate.
    ///
    /// - Throws: ``AggregationError``.
    public static func scores(
        _ columns: UpdateColumns,
        norms: [Double],
        aggregate: [Double]
    ) throws(AggregationError) -> [AnomalyScore] {
        let length = aggregate.reduce(0) { $0 + $1 * $1 }.squareRoot()
        let products = try columns.products(with: aggregate)
        let ratios = ratios(norms: norms)
        return norms.indices.map { row in
            let scale = norms[row] * length
            return AnomalyScore(
                norm: norms[row],
                normRatio: ratios[row],
                cosine: scale > 0 ? max(-1, min(1, products[row] / scale)) : nil
            )
        }
    }
}
