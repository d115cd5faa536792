import CKernels
import Crypto
import Foundation
import Synchronization

#if canImport(Glibc)
import Glibc
#endif

/// A file that is hashed while it is written and synced at its end: uploads.
///
/// Space is reserved before, so that a full disk is found out first; what has been written is sent to the disk while more
/// is coming, so that little is left to wait for at the end.
package final class SpoolFile: Sendable {
    private struct State {
        /// `nil` where the file's beginning was written by others: then it is read at the end.
        var hash: SHA256?
        var byteCount = 0
        var knownDigest: [UInt8]?
        var flushedCount = 0
    }

    private let descriptor: Int32
    private let path: String
    private let state: Mutex<State>
    private static let flushByteCount = 16 << 20

    /// Creates a file, or opens one to go on writing at its end.
    ///
    /// - Parameters:
    ///   - path: The file; must not exist unless it is appended to.
    ///   - expectedByteCount: Its size at the end, where that is known.
    ///   - appendsAt: The size that it has.
    /// - Throws: ``CoordinationError`` with code `storage_failed`.
    package init(path: String, expectedByteCount: Int?, appendsAt: Int? = nil) throws {
        self.path = path
        descriptor = open(path, (appendsAt == nil ? O_CREAT | O_EXCL : 0) | O_RDWR | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw DurableFiles.failure(appendsAt == nil ? .create : .open, path) }
        let byteCount = appendsAt ?? 0
        state = Mutex(State(hash: appendsAt == nil ? SHA256() : nil, byteCount: byteCount, flushedCount: byteCount))
        guard appendsAt == nil || lseek(descriptor, 0, SEEK_END) == off_t(byteCount) else {
            throw DurableFiles.failure(.read, path)
        }
        if let expectedByteCount, expectedByteCount > byteCount,
            // The size stays what was written: a cut upload is as long as its bytes.
            martlet_reserve(descriptor, Int64(byteCount), Int64(expectedByteCount - byteCount)) != 0,
            // File systems that reserve nothing say so, and find out while writing.
            [ENOSPC, EDQUOT, EFBIG, EIO, EROFS].contains(errno)
        {
            let problem = DurableFiles.failure(.reserve, path)
            if appendsAt == nil { unlink(path) }
            throw problem
        }
    }

    deinit { close(descriptor) }

    /// Bytes of the file so far.
    package var byteCount: Int { state.withLock { $0.byteCount } }

    /// Appends bytes.
    package func write(_ bytes: UnsafeRawBufferPointer) throws {
        try state.withLock { state in
            guard DurableFiles.writeAll(bytes, to: descriptor) else { throw DurableFiles.failure(.write, path) }
            state.hash?.update(bufferPointer: bytes)
            state.byteCount += bytes.count
            if state.byteCount - state.flushedCount >= Self.flushByteCount { flush(&state) }
        }
    }

    /// Starts to write what is not on the disk yet, and does not wait.
    package func startFlush() { state.withLock { flush(&$0) } }

    private func flush(_ state: inout State) {
        guard state.byteCount > state.flushedCount else { return }
        martlet_start_flush(descriptor, Int64(state.flushedCount), Int64(state.byteCount - state.flushedCount))
        state.flushedCount = state.byteCount
    }

    /// Waits until the bytes are on the disk.
    ///
    /// - Throws: ``CoordinationError`` with code `storage_failed`; the file is of no use then, whatever a second call would say.
    package func sync() throws {
        guard fdatasync(descriptor) == 0 else { throw DurableFiles.failure(.sync, path) }
    }

    /// Gives back the space that was reserved and not used.
    package func trim() { ftruncate(descriptor, off_t(byteCount)) }

    /// Forgets what was written after an offset; nothing may be written afterwards.
    package func truncate(to offset: Int) throws {
        guard ftruncate(descriptor, off_t(offset)) == 0 else { throw DurableFiles.failure(.write, path) }
        state.withLock { $0.byteCount = offset }
    }

    /// The SHA-256 of the file; nothing may be written afterwards.
    ///
    /// - Throws: ``CoordinationError`` with code `storage_failed` where the file's beginning cannot be read.
    package func digest() throws -> [UInt8] {
        try state.withLock { state in
            if let known = state.knownDigest { return known }
            let digest = Array(try (state.hash ?? readHash(byteCount: state.byteCount)).finalize())
            state.knownDigest = digest
            return digest
        }
    }

    private func readHash(byteCount: Int) throws -> SHA256 {
        var hash = SHA256()
        let space = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 4096)
        defer { space.deallocate() }
        var done = 0
        while done < byteCount {
            let count = pread(descriptor, space.baseAddress, min(space.count, byteCount - done), off_t(done))
            if count < 0 && errno == EINTR { continue }
            guard count > 0 else { throw DurableFiles.failure(.read, path) }
            hash.update(bufferPointer: UnsafeRawBufferPointer(rebasing: space[0..<count]))
            done += count
        }
        return hash
    }
}
