/// Coordinate-wise trimmed mean of the cohort's updates.
///
/// Tolerates up to `trimCount` malicious clients per coordinate. Source: Yin et al. 2018, arXiv:1803.01498, Definition 2.
public enum TrimmedMean {
    /// Computes the trimmed means.
    ///
    /// - Parameters:
    ///   - columns: The updates.
    ///   - trimCount: Values dropped at each end; `2 * trimCount < columns.count`.
    /// - Returns: Shape `[parameterCount]`. Unweighted: client weights are ignored by design.
    /// - Throws: ``AggregationError/tooFewUpdates(minimum:actual:)``.
    /// - Complexity: O(p n log² n) time, one block of columns per client and thread.
    public static func aggregate(_ columns: UpdateColumns, trimCount: Int) throws(AggregationError) -> [Double] {
        guard trimCount >= 0, 2 * trimCount < columns.count else {
            throw .tooFewUpdates(minimum: 2 * trimCount + 1, actual: columns.count)
        }
        let network = SortingNetwork(rows: columns.count)
        let kept = trimCount..<(columns.count - trimCount)
        let blocks = try columns.mapBlocks { (block: inout UpdateColumns.Block) throws(AggregationError) -> [Double] in
            network.sort(&block.values, width: block.width)
            var sums = [Double](repeating: 0, count: block.width)
            // Each coordinate is summed in the order of its sorted values, so the sum does not depend on the order of the updates.
            for row in kept {
                let offset = row * block.width
                for column in 0..<block.width { sums[column] += Double(block.values[offset + column]) }
            }
            return sums.map { $0 / Double(kept.count) }
        }
        return blocks.flatMap { $0 }
    }
}
