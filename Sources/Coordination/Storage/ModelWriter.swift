import CKernels
import Crypto
import Foundation
import Synchronization
import Tensors

#if canImport(Glibc)
import Glibc
#endif

/// A model on its way to the disk while it is being made: its blocks come in any order and from any thread.
///
/// They are hashed in the order of the file: whoever brings the block that the hash waits for hashes it and those after it that
/// are there, and the others go on. What has been hashed is sent to the disk, so that little is left to wait for at the end.
/// The file is whole or absent after any crash.
final class ModelWriter: @unchecked Sendable {
    // SAFETY: `hash` and `flushedCount` are used by the thread that has set `isHashing`; the rest is constant or guarded.
    private struct Progress {
        /// Parameters from the first one on that are hashed.
        var hashedCount = 0
        /// Blocks that wait for the hash, end by beginning.
        var waiting: [Int: Int] = [:]
        var isHashing = false
        var isFinite = true
        var failure: CoordinationError?
    }

    private let path: String
    private let partialPath: String
    private let descriptor: Int32
    private let header: Data
    private let parameterCount: Int
    private var hash = SHA256()
    private var flushedCount = 0
    private let progress = Mutex(Progress())
    private static let flushByteCount = 16 << 20

    /// Reserves the space and writes the header, under a name that a start removes.
    ///
    /// - Throws: ``CoordinationError`` with code `storage_failed`, before any work is done for nothing.
    init(_ layout: ParameterLayout, metadata: [String: String], path: String) throws {
        self.path = path
        partialPath = path + ".part-" + Secrets.identifier("w")
        header = SafetensorsWriter.header(for: layout, metadata: metadata)
        parameterCount = layout.parameterCount
        descriptor = open(partialPath, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw DurableFiles.failure(.create, partialPath) }
        // File systems that reserve nothing say so, and find out while writing.
        guard
            martlet_reserve(descriptor, 0, Int64(byteCount)) == 0
                || ![ENOSPC, EDQUOT, EFBIG, EIO, EROFS].contains(errno)
        else { throw DurableFiles.failure(.reserve, partialPath) }
        header.withUnsafeBytes {
            write($0, at: 0)
            hash.update(bufferPointer: $0)
        }
    }

    deinit {
        close(descriptor)
        unlink(partialPath)
    }

    /// Bytes of the finished file.
    var byteCount: Int { header.count + 4 * parameterCount }

    /// Whether all values so far are finite.
    var isFinite: Bool { progress.withLock { $0.isFinite } }

    /// Takes a block, which must not change any more.
    ///
    /// - Parameters:
    ///   - range: Positions in the flat vector that have not come yet.
    ///   - parameters: The vector's first parameter; valid until every block has come.
    func put(_ range: Range<Int>, of parameters: UnsafePointer<Float>) {
        let block = UnsafeBufferPointer(start: parameters + range.lowerBound, count: range.count)
        let isFinite = VectorKernels.allFinite(block)
        write(UnsafeRawBufferPointer(block), at: header.count + 4 * range.lowerBound)
        var next = progress.withLock { progress -> Range<Int>? in
            progress.isFinite = progress.isFinite && isFinite
            progress.waiting[range.lowerBound] = range.upperBound
            guard !progress.isHashing else { return nil }
            return Self.takeNext(&progress)
        }
        while let part = next {
            hash.update(
                bufferPointer: UnsafeRawBufferPointer(
                    UnsafeBufferPointer(start: parameters + part.lowerBound, count: part.count)
                )
            )
            startFlush(to: header.count + 4 * part.upperBound)
            next = progress.withLock { progress in
                progress.hashedCount = part.upperBound
                return Self.takeNext(&progress)
            }
        }
    }

    /// Takes all blocks of a vector, on all cores.
    func put(_ values: [Float]) {
        values.withUnsafeBufferPointer { buffer in
            guard let base = buffer.baseAddress else { return }
            let parameters = UncheckedParameters(base: base)
            Parallel.blocks(of: min(parameterCount, buffer.count), size: 1 << 16) { block in
                self.put(block, of: parameters.base)
            }
        }
    }

    /// Waits for the disk and gives the file its name, after every block has come.
    ///
    /// - Returns: The SHA-256 of the file, in hexadecimal.
    /// - Throws: ``CoordinationError`` with code `storage_failed`; the file is gone then, under both names.
    func finish() throws -> String {
        let failure = progress.withLock { progress in
            precondition(progress.hashedCount == parameterCount, "blocks are missing")
            return progress.failure
        }
        if let failure { throw failure }
        guard fdatasync(descriptor) == 0 else { throw DurableFiles.failure(.sync, partialPath) }
        do {
            try DurableFiles.rename(partialPath, to: path)
        } catch {
            unlink(path)
            throw error
        }
        return hash.finalize().hexadecimal
    }

    private static func takeNext(_ progress: inout Progress) -> Range<Int>? {
        let start = progress.hashedCount
        var end = start
        while let following = progress.waiting.removeValue(forKey: end) { end = following }
        progress.isHashing = end > start
        return end > start ? start..<end : nil
    }

    private func startFlush(to end: Int) {
        guard end - flushedCount >= Self.flushByteCount else { return }
        martlet_start_flush(descriptor, Int64(flushedCount), Int64(end - flushedCount))
        flushedCount = end
    }

    private func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) {
        guard !DurableFiles.writeAll(bytes, to: descriptor, at: offset) else { return }
        let failure = DurableFiles.failure(.write, partialPath)
        progress.withLock { $0.failure = $0.failure ?? failure }
    }
}

private struct UncheckedParameters: @unchecked Sendable {
    // SAFETY: only read, by threads that end before the vector does.
    let base: UnsafePointer<Float>
}
