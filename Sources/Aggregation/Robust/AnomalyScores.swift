/// How much an update differs from its cohort: its norm over the cohort's median, and its angle to the aggregate.
public struct AnomalyScore: Equatable, Sendable {
    /// L2 norm, parameter units.
    public var norm: Double
    /// The norm divided by the cohort's median norm.
    public var normRatio: Double
    /// Cosine of the angle to the aggregate, from −1 to 1; `nil` if update or aggregate is zero.
    public var cosine: Double?
}

/// Scores a cohort's updates.
public enum AnomalyScores {
    /// The norms divided by their median.
    ///
    /// - Parameter norms: Shape `[count]`, at least one.
    /// - Returns: Shape `[count]`. With a median of 0, norms of 0 have ratio 1 and others the largest finite number.
    public static func ratios(norms: [Double]) -> [Double] {
        let sorted = norms.sorted()
        let middle = sorted.count / 2
        let median = sorted.count.isMultiple(of: 2) ? (sorted[middle - 1] + sorted[middle]) / 2 : sorted[middle]
        return norms.map { median > 0 ? $0 / median : ($0 > 0 ? .greatestFiniteMagnitude : 1) }
    }

    /// The scores of every row against an aggregate.
    ///
    /// - Parameters:
    ///   - columns: The updates.
    ///   - norms: Their norms, shape `[count]`, parameter units.
    ///   - aggregate: Shape `[parameterCount]`, parameter units.
    /// - Returns: Shape `[count]`, in the order of the rows.
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
