import ArgumentParser
import Foundation

#if canImport(Glibc)
import Glibc
#endif

/// Keeps a second server off the same data directory.
struct DirectoryLock {
    private let descriptor: Int32

    init(directory: String) throws {
        descriptor = open(directory + "/lock", O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0, flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
            throw ValidationError("another server uses \(directory), or it cannot be written")
        }
    }

    func release() { close(descriptor) }

    /// Whether a server holds the directory now.
    static func isHeld(_ directory: String) -> Bool {
        let descriptor = open(directory + "/lock", O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        return flock(descriptor, LOCK_SH | LOCK_NB) != 0
    }
}
