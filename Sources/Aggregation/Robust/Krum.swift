/// Krum and multi-Krum: the updates that are closest to their neighbours.
///
/// The score of an update is the sum of its squared distances to its n − f − 2 nearest neighbours. Krum selects the update with the lowest
/// score, multi-Krum averages the m updates with the lowest scores. Source: Blanchard et al. 2017, arXiv:1703.02757, section 4.
public enum Krum {
    /// Selects updates.
    ///
    /// - Parameters:
    ///   - columns: The updates, n of them.
    ///   - maliciousCount: f; `n ≥ 2 f + 3`.
    ///   - selectedCount: m; 1 is Krum.
    /// - Returns: The selected rows, ascending. Equal scores are decided by the updates' contents, not by the order of arrival.
    /// - Throws: ``AggregationError/tooFewUpdates(minimum:actual:)``.
    /// - Complexity: O(n² p) time; one block of columns per client and n² numbers a block.
    public static func select(
        _ columns: UpdateColumns,
        maliciousCount: Int,
        selectedCount: Int
    ) throws(AggregationError) -> [Int] {
        let count = columns.count
        guard maliciousCount >= 0, count >= 2 * maliciousCount + 3, (1...count).contains(selectedCount) else {
            throw .tooFewUpdates(minimum: max(2 * maliciousCount + 3, selectedCount), actual: count)
        }
        let distances = try columns.squaredDistances()
        let neighbours = count - maliciousCount - 2
        let scores = (0..<count).map { row in
            let others = (0..<count).filter { $0 != row }.map { distances[row * count + $0] }.sorted()
            return others.prefix(neighbours).reduce(0, +)
        }
        // Rows are in the order of their contents, so the row breaks ties.
        let ranked = (0..<count).sorted { (scores[$0], $0) < (scores[$1], $1) }
        return ranked.prefix(selectedCount).sorted()
    }

    /// The mean of the selected updates.
    ///
    /// - Returns: Shape `[parameterCount]`. Unweighted: client weights are ignored by design.
    /// - Throws: ``AggregationError``.
    public static func aggregate(
        _ columns: UpdateColumns,
        maliciousCount: Int,
        selectedCount: Int
    ) throws(AggregationError) -> [Double] {
        let rows = try select(columns, maliciousCount: maliciousCount, selectedCount: selectedCount)
        return try columns.keeping(rows: rows).mean(weights: Array(repeating: 1, count: rows.count))
    }
}
