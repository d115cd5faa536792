import Coordination
import Foundation
import HTTPServing
import Synchronization

#if canImport(Glibc)
import Glibc
#endif

/// Uploads that go on where they stopped: for each assignment one file, and the one request that may write to it.
///
/// The file's size is the offset; nothing else is remembered, so a restart changes nothing. A new request takes the file
/// over from an older one, whose connection may be dead without anybody knowing.
final class PartialUploads: Sendable {
    private struct Table {
        var sessions: [String: PartialUpload] = [:]
        var waiting: [String: [CheckedContinuation<Void, Never>]] = [:]
    }

    private let table = Mutex(Table())

    /// Makes the caller the only one who may write to the assignment's file; waits while a finished upload is judged.
    ///
    /// - Parameters:
    ///   - assignment: Whose upload.
    ///   - path: Its file, which need not exist.
    /// - Returns: The caller's hold on the file, until ``leave(_:)`` or until another request takes it over.
    func take(_ assignment: String, path: String) async -> PartialUpload {
        while true {
            let session = table.withLock { table -> PartialUpload? in
                if let current = table.sessions[assignment] {
                    guard !current.isFinishing else { return nil }
                    current.end()
                }
                let session = PartialUpload(assignment: assignment, path: path)
                table.sessions[assignment] = session
                return session
            }
            if let session { return session }
            await withCheckedContinuation { continuation in
                let isOver = table.withLock { table in
                    guard table.sessions[assignment]?.isFinishing ?? false else { return true }
                    table.waiting[assignment, default: []].append(continuation)
                    return false
                }
                if isOver { continuation.resume() }
            }
        }
    }

    /// Lets go of the file.
    func leave(_ session: PartialUpload) {
        let waiting = table.withLock { table -> [CheckedContinuation<Void, Never>] in
            session.end()
            guard table.sessions[session.assignment] === session else { return [] }
            table.sessions[session.assignment] = nil
            return table.waiting.removeValue(forKey: session.assignment) ?? []
        }
        for continuation in waiting { continuation.resume() }
    }
}

/// One request's hold on the file of an upload.
final class PartialUpload: BodySink {
    private struct State: Sendable {
        var file: SpoolFile?
        var lease: UploadBudget.Lease?
        var byteLimit = 0
        var isOver = false
        var isFinishing = false
    }

    let assignment: String
    let path: String
    private let state = Mutex(State())

    fileprivate init(assignment: String, path: String) {
        self.assignment = assignment
        self.path = path
    }

    /// How many bytes have arrived so far.
    ///
    /// - Throws: ``CoordinationError`` with code `storage_failed`: what was acknowledged may be there all the same.
    func offset() throws -> Int {
        var status = stat()
        if stat(path, &status) == 0 { return Int(status.st_size) }
        guard errno == ENOENT else { throw DurableFiles.failure(.open, path, .update) }
        return 0
    }

    /// Whether the upload is complete and being judged.
    var isFinishing: Bool { state.withLock { $0.isFinishing } }

    /// Opens the file to go on at an offset, which must be ``offset()``.
    ///
    /// - Parameters:
    ///   - offset: Where the request's bytes go.
    ///   - byteCount: How many will come, where that is known.
    ///   - byteLimit: The largest size the file may get.
    ///   - lease: Room for the bytes, given back when the upload ends or is taken over.
    /// - Throws: ``CoordinationError`` with code `storage_failed` or `upload_taken_over`.
    func open(at offset: Int, byteCount: Int?, byteLimit: Int, lease: UploadBudget.Lease) throws {
        // A file whose first byte comes now is hashed on the way; any other is read once more at its end.
        if offset == 0 { unlink(path) }
        let file: SpoolFile
        do {
            file = try SpoolFile(
                path: path,
                expectedByteCount: byteCount.map { offset + $0 },
                appendsAt: offset == 0 ? nil : offset
            )
        } catch {
            // The coordinator removes the file of an update that is not wanted any more.
            try lease.check(0)
            throw error
        }
        try state.withLock { state in
            guard !state.isOver else { throw Self.takenOver }
            state.file = file
            state.lease = lease
            state.byteLimit = byteLimit
        }
    }

    func write(_ bytes: UnsafeRawBufferPointer) throws {
        // Whoever takes the upload over waits for this lock: afterwards no byte of this request is written.
        try state.withLock { state in
            guard !state.isOver, let file = state.file else { throw Self.takenOver }
            try state.lease?.check(bytes.count)
            guard file.byteCount + bytes.count <= state.byteLimit else { throw BodySpool.tooLarge(state.byteLimit) }
            try file.write(bytes)
        }
    }

    /// Waits until what has arrived is on the disk.
    ///
    /// - Returns: How much that is.
    func sync() async throws -> Int {
        let file = try current()
        try await SyncQueue.shared.sync(file)
        return file.byteCount
    }

    /// Takes the file away for good, so that no other request can change it while it is judged.
    ///
    /// - Parameter path: Its new name.
    /// - Returns: The file, complete.
    /// - Throws: ``CoordinationError`` with code `upload_taken_over`, or `round_closed` where the file is gone.
    func claim(as path: String) throws -> SpoolFile {
        try state.withLock { state in
            guard !state.isOver, let file = state.file else { throw Self.takenOver }
            Failpoint.reach()
            guard rename(self.path, path) == 0 else {
                guard errno == ENOENT else { throw StorageFailure(.rename, path: self.path).error }
                throw CoordinationError(.gone, "round_closed", "the upload was removed: its assignment has ended")
            }
            state.isFinishing = true
            Failpoint.reach()
            return file
        }
    }

    /// Puts a claimed file back: the same bytes may be judged again later.
    func putBack(_ claimed: String) { rename(claimed, path) }

    /// Forgets the bytes from `offset` on.
    func truncate(to offset: Int) throws {
        try state.withLock { state in
            guard !state.isOver, let file = state.file else { throw Self.takenOver }
            state.file = nil
            if offset == 0 { unlink(path) } else { try file.truncate(to: offset) }
        }
    }

    /// Nothing is written any more.
    fileprivate func end() {
        state.withLock { state in
            state.isOver = true
            // Space that was reserved for what did not come is given back.
            if !state.isFinishing, let file = state.file {
                if file.byteCount == 0 { unlink(path) } else { file.trim() }
            }
            state.file = nil
            state.lease?.release()
            state.lease = nil
        }
    }

    private func current() throws -> SpoolFile {
        try state.withLock { state in
            guard !state.isOver, let file = state.file else { throw Self.takenOver }
            return file
        }
    }

    private static var takenOver: CoordinationError { UploadBudget.takenOver }
}
