import Synchronization
public import Tensors
import UpdateCompression

/// The updates of a round as a matrix with one row for each client, read one block of columns at a time.
///
/// Memory is one block for each client and thread, whatever the size of the model. Rows are sorted by the updates' contents, and
/// reductions add blocks in order, so that no result depends on the order of arrival or the number of threads.
public struct UpdateColumns: Sendable {
    /// What the files hold.
    ///
    /// Every rule works on local minus global.
    public enum Kind: Sendable {
        /// Local minus global.
        case delta
        /// Local parameters; the global ones, `base` of shape `[parameterCount]`, are subtracted.
        case weights(base: [Float])
        /// A gradient, which is negated.
        case gradient
    }

    /// The updates in the order of the rows.
    public let updates: [SpooledUpdate]
    /// The model's layout.
    public let layout: ParameterLayout
    /// The number of columns of a block.
    public static let blockWidth = 4096
    /// The most files that stay open.
    ///
    /// With more updates each block opens its files again.
    static let openFileLimit = 512

    private let files: [UpdateFile]
    private let kind: Kind
    let valueBound: Double
    /// The factor of each row, applied when it is read; `nil` for none.
    private var factors: [Double]?

    /// Opens the updates.
    ///
    /// - Parameters:
    ///   - updates: Files with the layout, in any order.
    ///   - layout: The model's layout.
    ///   - kind: What the files hold.
    ///   - valueBound: Largest absolute value of one coordinate in the files.
    /// - Throws: ``AggregationError/noUpdates``, ``AggregationError/layoutMismatch(path:)``,
    ///   ``AggregationError/unreadable(path:reason:errno:)``.
    public init(
        of updates: [SpooledUpdate],
        layout: ParameterLayout,
        kind: Kind = .delta,
        valueBound: Double
    ) throws(AggregationError) {
        guard !updates.isEmpty else { throw .noUpdates }
        self.updates = updates.sorted { ($0.contentID, $0.weight, $0.path) < ($1.contentID, $1.weight, $1.path) }
        self.layout = layout
        self.kind = kind
        self.valueBound = valueBound
        var files: [UpdateFile] = []
        for update in self.updates {
            let file = try BlockFold.open(update, layout: layout)
            if self.updates.count <= Self.openFileLimit { files.append(file) }
        }
        self.files = files
    }

    private init(_ other: UpdateColumns, keeping rows: [Int]) {
        factors = other.factors.map { factors in rows.map { factors[$0] } }
        updates = rows.map { other.updates[$0] }
        files = other.files.isEmpty ? [] : rows.map { other.files[$0] }
        layout = other.layout
        kind = other.kind
        valueBound = other.valueBound
    }

    /// A bound on the values of a block: ``valueBound``, plus the largest global parameter if those are subtracted.
    var largestMagnitude: Double {
        if case .weights(let base) = kind { return valueBound + Double(base.reduce(0) { max($0, abs($1)) }) }
        return valueBound
    }

    /// The number of rows.
    public var count: Int { updates.count }

    /// A matrix of some of the rows.
    ///
    /// - Parameter rows: Ascending, at least one.
    /// - Returns: A matrix of those rows.
    /// - Throws: ``AggregationError/noUpdates``.
    public func keeping(rows: [Int]) throws(AggregationError) -> UpdateColumns {
        guard !rows.isEmpty else { throw .noUpdates }
        return UpdateColumns(self, keeping: rows)
    }

    /// A matrix of the rows, each multiplied by its factor.
    ///
    /// - Parameter factors: From 0 to 1, one for each row.
    /// - Returns: A matrix of the scaled rows.
    public func scaled(by factors: [Double]) -> UpdateColumns {
        precondition(factors.count == count && factors.allSatisfy { (0...1).contains($0) }, "a factor for each row")
        var result = self
        result.factors = factors
        return result
    }

    /// One block of columns: `values[row * width + column]`.
    package struct Block {
        package var range: Range<Int>
        package var values: [Float]
        package var width: Int { range.count }
    }

    /// Runs `body` on every block, with blocks in parallel.
    ///
    /// - Returns: The results in the order of the blocks.
    /// - Throws: The error of the first block that has one.
    package func mapBlocks<Result: Sendable>(
        _ body: @Sendable (inout Block) throws(AggregationError) -> Result
    ) throws(AggregationError) -> [Result] {
        let total = layout.parameterCount
        let blockCount = (total + Self.blockWidth - 1) / Self.blockWidth
        let results = Mutex<[Result?]>(Array(repeating: nil, count: blockCount))
        try Parallel.blocks(of: total, size: Self.blockWidth) { (range) throws(AggregationError) in
            var block = try read(range)
            let result = try body(&block)
            results.withLock { $0[range.lowerBound / Self.blockWidth] = result }
        }
        return results.withLock { $0 }.map { result in
            guard let result else { preconditionFailure("every block has a result") }
            return result
        }
    }

    private func read(_ range: Range<Int>) throws(AggregationError) -> Block {
        var block = Block(range: range, values: [Float](repeating: 0, count: count * range.count))
        var row = [Float](repeating: 0, count: range.count)
        for index in 0..<count {
            let file = files.isEmpty ? try BlockFold.open(updates[index], layout: layout) : files[index]
            try BlockFold.read(file, range, into: &row, path: updates[index].path)
            let offset = index * range.count
            for column in 0..<row.count where !(Double(abs(row[column])) <= valueBound) {
                throw .valueOutOfRange(index: range.lowerBound + column, bound: valueBound)
            }
            switch kind {
            case .delta: for column in 0..<row.count { block.values[offset + column] = row[column] }
            case .gradient: for column in 0..<row.count { block.values[offset + column] = -row[column] }
            case .weights(let base):
                for column in 0..<row.count {
                    block.values[offset + column] = row[column] - base[range.lowerBound + column]
                }
            }
            if let factor = factors?[index], factor != 1 {
                for column in offset..<(offset + row.count) {
                    block.values[column] = Float(Double(block.values[column]) * factor)
                }
            }
        }
        return block
    }
}
