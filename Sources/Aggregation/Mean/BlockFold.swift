import Synchronization
public import Tensors
package import UpdateCompression

/// Sums updates block by block, blocks in parallel, without ever holding a whole update.
package enum BlockFold {
    /// Files that are open at the same time.
    private static let openFileLimit = 128

    /// An open update.
    package typealias Opened = (file: UpdateFile, update: SpooledUpdate)

    /// Sums a block of some updates into the block's sums.
    package typealias Add =
        @Sendable (
            _ sums: UnsafeMutablePointer<Int64>, _ updates: [Opened], _ range: Range<Int>, _ scratch: UpdateFile.Scratch
        ) throws(AggregationError) -> Void

    /// Is called with each block's final sums.
    package typealias Finish = @Sendable (_ sums: UnsafeMutablePointer<Int64>, _ count: Int) -> Void

    /// Folds every update into integer sums: for each block all updates in turn, while its sums are in the cache.
    ///
    /// - Parameters:
    ///   - updates: Files for the layout, in any encoding.
    ///   - layout: The model's layout.
    ///   - blockElementCount: Parameters a task sums at a time.
    ///   - sums: `layout.parameterCount` sums; what is in them before does not matter, and after an error neither.
    ///   - finish: Is called with each block's final sums.
    ///   - add: Adds the block of some updates.
    /// - Throws: The error of the first block that has one.
    package static func fold(
        _ updates: [SpooledUpdate],
        layout: ParameterLayout,
        blockElementCount: Int,
        into sums: UnsafeMutablePointer<Int64>,
        finish: @escaping Finish = { _, _ in },
        add: @escaping Add
    ) throws(AggregationError) {
        let target = UncheckedSums(sums)
        var start = 0
        repeat {
            let group = updates[start..<min(updates.count, start + openFileLimit)]
            var files: [Opened] = []
            for update in group { files.append((try open(update, layout: layout), update)) }
            let (opened, isFirst, isLast) = (files, start == 0, start + openFileLimit >= updates.count)
            try blocks(count: layout.parameterCount, size: blockElementCount) { range throws(AggregationError) in
                let block = target.pointer + range.lowerBound
                if isFirst { block.update(repeating: 0, count: range.count) }
                let scratch = UpdateFile.Scratch()
                try add(block, opened, range, scratch)
                if isLast { finish(block, range.count) }
            }
            start += openFileLimit
        } while start < updates.count
    }

    /// Runs a body for each block of `0..<count`, in parallel.
    package static func blocks(
        count: Int,
        size: Int,
        _ body: @Sendable (Range<Int>) throws(AggregationError) -> Void
    ) throws(AggregationError) {
        let failure = Mutex<(block: Int, error: AggregationError)?>(nil)
        Parallel.forEach(count: (count + size - 1) / size) { block in
            do throws(AggregationError) {
                try body((block * size)..<min(count, (block + 1) * size))
            } catch {
                failure.withLock { first in
                    if first.map({ $0.block > block }) ?? true { first = (block, error) }
                }
            }
        }
        if let first = failure.withLock({ $0 }) { throw first.error }
    }

    /// Opens an update, with the file's name in the error.
    package static func open(_ update: SpooledUpdate, layout: ParameterLayout) throws(AggregationError) -> UpdateFile {
        do {
            return try UpdateFile(path: update.path, layout: layout)
        } catch is UpdateFormatError {
            throw .layoutMismatch(path: update.path)
        } catch {
            throw .unreadable(path: update.path, reason: "\(error)")
        }
    }

    /// Reads a range, decoded, with the file's name in the error.
    package static func read(
        _ file: UpdateFile,
        _ range: Range<Int>,
        into values: inout [Float],
        path: String
    ) throws(AggregationError) {
        try reading(path) { try file.read(range, into: &values) }
    }

    static func reading<Result>(_ path: String, _ body: () throws -> Result) throws(AggregationError) -> Result {
        do { return try body() } catch { throw .unreadable(path: path, reason: "\(error)") }
    }

    /// Names the first value that is not finite or beyond the bound; `nil` where there is none.
    static func valueError(
        _ file: UpdateFile,
        _ range: Range<Int>,
        bound: Double,
        path: String
    ) throws(AggregationError) -> AggregationError? {
        var values = [Float](repeating: 0, count: range.count)
        try read(file, range, into: &values, path: path)
        guard let index = values.firstIndex(where: { !(Double(abs($0)) <= bound) }) else { return nil }
        return .valueOutOfRange(index: range.lowerBound + index, bound: bound)
    }
}

/// Sums that threads fill block by block.
struct UncheckedSums: @unchecked Sendable {
    // SAFETY: every thread writes other blocks, and all end before the owner goes on.
    let pointer: UnsafeMutablePointer<Int64>
    init(_ pointer: UnsafeMutablePointer<Int64>) { self.pointer = pointer }
}
