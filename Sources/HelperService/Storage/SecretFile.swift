import Coordination
import Foundation

#if canImport(Glibc)
import Glibc
#endif

/// A small secret in a file of its own, 0600, that is overwritten before it is removed.
///
/// File systems that copy on write, snapshots and the swap may hold what was overwritten; the manual names them.
enum SecretFile {
    /// Writes a new file and waits for the disk.
    ///
    /// - Throws: `CoordinationError` `storage_failed`; nothing is left of the file then, as far as the disk lets it be removed.
    static func create(_ secret: Data, at path: String) throws {
        let descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw DurableFiles.failure(.create, path, .file) }
        do {
            defer { close(descriptor) }
            guard secret.withUnsafeBytes({ DurableFiles.writeAll($0, to: descriptor) }) else {
                throw DurableFiles.failure(.write, path, .file)
            }
            guard fsync(descriptor) == 0 else { throw DurableFiles.failure(.sync, path, .file) }
            try DurableFiles.syncDirectory((path as NSString).deletingLastPathComponent, role: .file)
        } catch {
            try? erase(path)
            throw error
        }
    }

    static func exists(_ path: String) -> Bool {
        var status = stat()
        return lstat(path, &status) == 0 || errno != ENOENT
    }

    /// Overwrites the file by zeros, waits for the disk, and removes it for good; a file that is not there is erased.
    ///
    /// - Throws: `CoordinationError` `storage_failed`.
    static func erase(_ path: String) throws {
        let descriptor = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW)
        if descriptor >= 0 {
            defer { close(descriptor) }
            var status = stat()
            let count = fstat(descriptor, &status) == 0 ? min(Int(status.st_size), 1 << 16) : 0
            let zeros = [UInt8](repeating: 0, count: count)
            guard zeros.withUnsafeBytes({ DurableFiles.writeAll($0, to: descriptor, at: 0) }) else {
                throw DurableFiles.failure(.write, path, .file)
            }
            guard fsync(descriptor) == 0 else { throw DurableFiles.failure(.sync, path, .file) }
        } else if errno == ENOENT {
            return
        }
        Failpoint.reach()
        try DurableFiles.remove([path], in: (path as NSString).deletingLastPathComponent)
    }
}
