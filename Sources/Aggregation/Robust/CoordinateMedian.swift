/// The median of each coordinate; for an even number of updates the mean of the middle two.
///
/// Source: Yin et al. 2018, arXiv:1803.01498, Definition 1.
public enum CoordinateMedian {
    /// Computes the medians.
    ///
    /// - Returns: Shape `[parameterCount]`. Unweighted: client weights are ignored by design.
    /// - Throws: ``AggregationError``.
    /// - Complexity: O(p n log² n) time, one block of columns per client and thread.
    public static func aggregate(_ columns: UpdateColumns) throws(AggregationError) -> [Double] {
        try TrimmedMean.aggregate(columns, trimCount: (columns.count - 1) / 2)
    }
}
