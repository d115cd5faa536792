package import Tensors
package import UpdateCompression

/// Goes through updates block by block, blocks in parallel, without holding a whole update in memory.
package enum BlockFold {
    /// The most files that stay open.
    ///
    /// With more updates every read opens its file.
    package static let openFileLimit = 256

    /// An open update.
    package typealias Opened = (file: UpdateFile, update: SpooledUpdate)

    /// The memory that one thread uses for block after block.
    package final class Thread {
        /// Memory for pieces of files.
        package let scratch = UpdateScratch()
        /// One sum for each parameter of a block.
        package let sums: UnsafeMutablePointer<Int64>
        private var decoded: UnsafeMutableBufferPointer<Float>?
        private var wide: UnsafeMutablePointer<Int128>?
        private let size: Int

        init(blockElementCount: Int) {
            size = blockElementCount
            sums = .allocate(capacity: blockElementCount)
        }

        deinit {
            sums.deallocate()
            decoded?.deallocate()
            wide?.deallocate()
        }

        /// One sum of 128 bits for each parameter of a block.
        var wideSums: UnsafeMutablePointer<Int128> {
            if let wide { return wide }
            let space = UnsafeMutablePointer<Int128>.allocate(capacity: size)
            wide = space
            return space
        }

        /// Room for the values of a block.
        var values: UnsafeMutableBufferPointer<Float> {
            if let decoded { return decoded }
            let space = UnsafeMutableBufferPointer<Float>.allocate(capacity: size)
            decoded = space
            return space
        }
    }

    /// Runs `body` for each block of `0..<count`, on as many threads as cores, each with a ``Thread``'s memory.
    ///
    /// - Parameters:
    ///   - count: How many parameters there are.
    ///   - size: Parameters of a block.
    ///   - body: Receives a range of the flat vector and the thread's memory.
    /// - Throws: The error of the first block, in the order of the vector, that has one.
    package static func blocks(
        count: Int,
        size: Int,
        _ body: @Sendable (Range<Int>, Thread) throws(AggregationError) -> Void
    ) throws(AggregationError) {
        try Parallel.blocks(
            of: count,
            size: size,
            memory: { Thread(blockElementCount: min(count, size)) },
            body
        )
    }

    /// Opens updates; an error names the file.
    package static func open(_ updates: [SpooledUpdate], layout: ParameterLayout) throws(AggregationError) -> [Opened] {
        var files: [Opened] = []
        files.reserveCapacity(updates.count)
        for update in updates {
            files.append((try open(update, layout: layout, keepsOpen: updates.count <= openFileLimit), update))
        }
        return files
    }

    /// Opens an update; an error names the file.
    package static func open(
        _ update: SpooledUpdate,
        layout: ParameterLayout,
        keepsOpen: Bool = true
    ) throws(AggregationError) -> UpdateFile {
        do {
            return try UpdateFile(path: update.path, layout: layout, keepsOpen: keepsOpen)
        } catch is UpdateFormatError {
            throw .layoutMismatch(path: update.path)
        } catch {
            throw .init(reading: update.path, error)
        }
    }

    /// Reads and decodes a range; an error names the file.
    package static func read(
        _ file: UpdateFile,
        _ range: Range<Int>,
        into values: inout [Float],
        path: String
    ) throws(AggregationError) {
        try reading(path) { try file.read(range, into: &values) }
    }

    static func reading<Result>(_ path: String, _ body: () throws -> Result) throws(AggregationError) -> Result {
        do { return try body() } catch { throw .init(reading: path, error) }
    }
}

extension AggregationError {
    /// Distinguishes a failing disk, which has an `errno`, from a file with wrong contents.
    init(reading path: String, _ error: any Error) {
        if case SafetensorsError.inputOutput(_, let code) = error {
            self = .unreadable(path: path, reason: "\(error)", errno: code)
        } else {
            self = .unreadable(path: path, reason: "\(error)")
        }
    }
}
