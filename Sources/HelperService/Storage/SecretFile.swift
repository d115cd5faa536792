import Coordination
package import Foundation

#if canImport(Glibc)
import Glibc
#endif

/// A secret in a file of its own, 0600, that is overwritten before it is removed: a session's key, or a sum that was not committed.
///
/// File systems that copy on write, snapshots and the swap may hold what was overwritten; the manual names them.
package enum SecretFile {
    /// The calls of the system by which a file is erased; a test fails each of them.
    ///
    /// A call that fails leaves `errno`.
    package struct Calls: Sendable {
        /// A link is not followed, and a pipe is not waited for.
        package var open: @Sendable (String) -> Int32 = {
            Glibc.open($0, O_WRONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)
        }
        package var byteCount: @Sendable (Int32) -> Int? = { descriptor in
            var status = stat()
            return fstat(descriptor, &status) == 0 ? Int(status.st_size) : nil
        }
        package var write: @Sendable (UnsafeRawBufferPointer, Int32, Int) -> Bool = {
            DurableFiles.writeAll($0, to: $1, at: $2)
        }
        package var sync: @Sendable (Int32) -> Bool = { fsync($0) == 0 }
        package var remove: @Sendable (String) throws -> Void = {
            try DurableFiles.remove([$0], in: ($0 as NSString).deletingLastPathComponent)
        }

        package init() {}
    }

    /// Writes a new file and waits for the disk.
    ///
    /// - Returns: Which file it is, as ``identity(_:)`` tells it.
    /// - Throws: `CoordinationError` `storage_failed`; nothing is left of the file then, as far as the disk lets it be removed.
    static func create(_ secret: Data, at path: String) throws -> String {
        let descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw DurableFiles.failure(.create, path, .file) }
        do {
            defer { close(descriptor) }
            guard secret.withUnsafeBytes({ DurableFiles.writeAll($0, to: descriptor) }) else {
                throw DurableFiles.failure(.write, path, .file)
            }
            guard fsync(descriptor) == 0 else { throw DurableFiles.failure(.sync, path, .file) }
            try DurableFiles.syncDirectory((path as NSString).deletingLastPathComponent, role: .file)
            guard let identity = try identity(path) else { throw DurableFiles.failure(.open, path, .file) }
            return identity
        } catch {
            try? erase(path)
            throw error
        }
    }

    /// Which file a path names: its number, and when that was made or changed, which no program can set.
    ///
    /// A copy that is put back under the same name is another file.
    ///
    /// - Parameters:
    ///   - path: The name.
    ///   - followingLinks: Whether the file is meant to which a link leads.
    /// - Returns: `nil` where there is none.
    /// - Throws: `CoordinationError` `storage_failed` where the disk does not say.
    static func identity(_ path: String, followingLinks: Bool = false) throws -> String? {
        guard let status = try status(path, followingLinks) else { return nil }
        return "\(status.st_ino):\(status.st_ctim.tv_sec).\(status.st_ctim.tv_nsec)"
    }

    static func isDirectory(_ path: String) throws -> Bool {
        try status(path, true).map { $0.st_mode & S_IFMT == S_IFDIR } ?? false
    }

    static func exists(_ path: String) throws -> Bool { try status(path) != nil }

    private static func status(_ path: String, _ followsLinks: Bool = false) throws -> stat? {
        var status = stat()
        if (followsLinks ? stat(path, &status) : lstat(path, &status)) == 0 { return status }
        guard errno == ENOENT else { throw DurableFiles.failure(.open, path, .file) }
        return nil
    }

    /// Overwrites the file by zeros, waits for the disk, and removes it for good; a file that is not there is erased.
    ///
    /// Whatever else stands in the way of the zeros is an error: a file that was only removed would look erased to the next try.
    ///
    /// - Throws: `CoordinationError` `storage_failed`.
    package static func erase(_ path: String, calls: Calls = Calls()) throws {
        let descriptor = calls.open(path)
        if descriptor >= 0 {
            defer { close(descriptor) }
            try overwrite(path, descriptor, calls)
        } else if errno != ENOENT, errno != ELOOP {
            throw DurableFiles.failure(.open, path, .file)
        } else if try !isDirectory((path as NSString).deletingLastPathComponent) {
            // Its directory is not mounted, and the file may be there when it is.
            throw StorageFailure(.open, path: path, role: .file, code: ENOENT).error
        }
        Failpoint.reach()
        // Of a file that is not there an earlier removal may have to be brought to the disk yet.
        try calls.remove(path)
    }

    private static func overwrite(_ path: String, _ descriptor: Int32, _ calls: Calls) throws {
        guard let count = calls.byteCount(descriptor) else { throw DurableFiles.failure(.read, path, .file) }
        let zeros = [UInt8](repeating: 0, count: min(count, 1 << 20))
        for start in stride(from: 0, to: count, by: 1 << 20) {
            let size = min(1 << 20, count - start)
            let isWritten = zeros.withUnsafeBytes {
                calls.write(UnsafeRawBufferPointer(rebasing: $0[..<size]), descriptor, start)
            }
            guard isWritten else { throw DurableFiles.failure(.write, path, .file) }
        }
        guard calls.sync(descriptor) else { throw DurableFiles.failure(.sync, path, .file) }
    }
}
