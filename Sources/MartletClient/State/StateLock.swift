import CLibrary
import Foundation
import MartletTransport
import Synchronization

/// Keeps every other process, and every other client of this process, off a state directory; ends with the process.
final class StateLock: Sendable {
    private let descriptor: Int32

    private let attempts = Mutex(Attempts())
    /// The file, once its lock is this one's.
    private let taken = Mutex<FileIdentity?>(nil)

    private struct Attempts {
        var isRunning = false
        /// The client that wrote to the directory last.
        var client: UUID?
    }

    private init(descriptor: Int32) { self.descriptor = descriptor }

    /// Takes the lock; a holder that is just ending has half a second for it.
    ///
    /// - Throws: `ClientError` with code `state_locked`, which names the process that has it; `storage` and `disk_full`.
    static func take(directory: String) throws -> StateLock {
        let path = directory + "/lock"
        let descriptor = PlainFile.open(path, O_RDWR | O_CREAT)
        guard descriptor >= 0 else { throw LocalFailure.error("write", path, errno) }
        // From here on the descriptor has one owner, which closes it.
        let lock = StateLock(descriptor: descriptor)
        var tries = 0
        while flock(descriptor, LOCK_EX | LOCK_NB) != 0 {
            let code = errno
            tries += 1
            if code == EINTR { continue }
            guard code == EWOULDBLOCK, tries < 25 else {
                guard code == EWOULDBLOCK else { throw LocalFailure.error("lock", path, code) }
                throw ClientError(
                    code: ClientError.stateLocked,
                    message:
                        "the state directory \(directory) is in use by \(holder(descriptor)); one process at a time may have "
                        + "it: stop that one, or give this client a directory of its own"
                )
            }
            usleep(20_000)
        }
        if let identity = FileIdentity(descriptor) {
            _ = held.withLock { $0.insert(identity) }
            lock.taken.withLock { $0 = identity }
        }
        // Who has it, for those who come later; a lock that cannot say so is one all the same.
        let text = Array("\(getpid())\n".utf8)
        if ftruncate(descriptor, 0) == 0 { _ = pwrite(descriptor, text, text.count, 0) }
        return lock
    }

    /// Begins the one attempt to take part that the directory has at a time, whichever of its clients makes it.
    ///
    /// - Parameter client: Who asks.
    /// - Returns: Whether another client has used the directory since this one did: what was read before may be old.
    /// - Throws: `ClientError` with code `already_running`.
    func begin(_ client: UUID) throws -> Bool {
        try attempts.withLock { attempts in
            guard !attempts.isRunning else { throw ClientError.alreadyRunning }
            defer { (attempts.isRunning, attempts.client) = (true, client) }
            return attempts.client.map { $0 != client } ?? false
        }
    }

    /// Ends the attempt.
    func end() { attempts.withLock { $0.isRunning = false } }

    deinit {
        if let identity = taken.withLock({ $0 }) { _ = Self.held.withLock { $0.remove(identity) } }
        close(descriptor)
    }

    /// Lock files that this process holds: ids of processes are no identity across containers.
    private static let held = Mutex<Set<FileIdentity>>([])

    private struct FileIdentity: Hashable {
        let device: UInt64
        let number: UInt64

        init?(_ descriptor: Int32) {
            var status = stat()
            guard fstat(descriptor, &status) == 0 else { return nil }
            (device, number) = (UInt64(status.st_dev), UInt64(status.st_ino))
        }
    }

    /// Whether this process holds a directory's lock.
    static func isHeldHere(directory: String) -> Bool {
        let descriptor = PlainFile.open(directory + "/lock", O_RDONLY)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        return FileIdentity(descriptor).map { identity in held.withLock { $0.contains(identity) } } ?? false
    }

    private static func process(in descriptor: Int32) -> Int? {
        var bytes = [UInt8](repeating: 0, count: 32)
        let count = pread(descriptor, &bytes, bytes.count, 0)
        guard count > 0 else { return nil }
        return Int(String(decoding: bytes[..<count], as: UTF8.self).prefix { $0.isNumber })
    }

    private static func holder(_ descriptor: Int32) -> String {
        guard let process = process(in: descriptor) else { return "another process" }
        if process == Int(getpid()) { return "another client of this process (\(process))" }
        let name = FileManager.default.contents(atPath: "/proc/\(process)/comm")
            .map { String(decoding: $0.prefix(40), as: UTF8.self).filter { !$0.isNewline } }
        return "process \(process)" + (name.map { " (\($0))" } ?? "")
    }
}
