import CKernels
package import Foundation
import Synchronization

#if canImport(Glibc)
import Glibc
#endif

/// Files that are whole or absent after any crash, and names that stay made or removed.
package enum DurableFiles {
    /// Names that were made, and directories in which names were removed, whose sync has failed: a sync that only comes after that may
    /// report success and write nothing.
    private static let unsynced = Mutex<Set<String>>([])

    /// Writes a file so that it is whole or absent after any crash.
    ///
    /// Where the disk does not confirm it, it is written once more under another name: Linux says that a second sync of the
    /// same file succeeds although its data are lost.
    ///
    /// - Throws: ``CoordinationError`` with code `storage_failed`; nothing is left of the new file then.
    package static func write(
        _ data: Data,
        to path: String,
        mode: mode_t = 0o600,
        role: StorageFailure.Role? = nil
    ) throws {
        do {
            try writeOnce(data, to: path, mode: mode, role: role)
        } catch let error as CoordinationError where error.storage?.action == .sync {
            try writeOnce(data, to: path, mode: mode, role: role)
        }
    }

    private static func writeOnce(
        _ data: Data,
        to path: String,
        mode: mode_t,
        role: StorageFailure.Role?
    ) throws {
        let partial = path + ".part-" + Secrets.identifier("w")
        let descriptor = open(partial, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode)
        guard descriptor >= 0 else { throw failure(.create, partial, role) }
        do {
            defer { close(descriptor) }
            guard data.withUnsafeBytes({ writeAll($0, to: descriptor) }) else { throw failure(.write, partial, role) }
            guard fsync(descriptor) == 0 else { throw failure(.sync, partial, role) }
            try rename(partial, to: path, role: role)
        } catch {
            unlink(partial)
            throw error
        }
    }

    /// Writes all bytes, in as many calls as it takes.
    ///
    /// - Parameters:
    ///   - bytes: What is written.
    ///   - descriptor: An open file.
    ///   - offset: Where in the file; `nil` where the last write ended.
    /// - Returns: Whether all were written; else `errno` says why not.
    package static func writeAll(_ bytes: UnsafeRawBufferPointer, to descriptor: Int32, at offset: Int? = nil) -> Bool {
        var done = 0
        while done < bytes.count {
            let rest = bytes.baseAddress.map { $0 + done }
            let count =
                offset.map { pwrite(descriptor, rest, bytes.count - done, off_t($0 + done)) }
                ?? Glibc.write(descriptor, rest, bytes.count - done)
            if count < 0 && errno == EINTR { continue }
            guard count > 0 else { return false }
            done += count
        }
        return true
    }

    /// Renames and syncs the directory.
    ///
    /// - Throws: ``CoordinationError`` with code `storage_failed`. Then the file has its old name, or the new one, which might
    ///   not survive a power cut.
    package static func rename(
        _ source: String,
        to target: String,
        role: StorageFailure.Role? = nil
    ) throws {
        Failpoint.reach()
        guard Glibc.rename(source, target) == 0 else { throw failure(.rename, source, role) }
        Failpoint.reach()
        try syncDirectory(of: target, role: role)
    }

    /// Removes files for good: none of them comes back after a power cut.
    ///
    /// - Throws: ``CoordinationError`` with code `storage_failed`.
    package static func remove(_ paths: [String], in directory: String) throws {
        let role = StorageFailure.Role(path: paths.first ?? directory + "/")
        var isChanged = false
        for path in paths {
            if unlink(path) == 0 {
                isChanged = true
            } else if errno != ENOENT {
                let failure = failure(.remove, path)
                // What was removed before is not for good yet.
                if isChanged { distrust(directory) }
                throw failure
            }
        }
        let isDoubted = isDistrusted(directory)
        guard isChanged || isDoubted else { return }
        do {
            if isDoubted { try change(directory, role: role) }
            try syncDirectory(directory, role: role)
        } catch {
            distrust(directory)
            throw error
        }
        if isDoubted { trust(directory) }
    }

    /// Notes that names which were removed from a directory may still be on the disk.
    ///
    /// The next removal there, of whatever, brings them to it. A start notes it of the directories where that matters, since an
    /// earlier process may have died over it.
    static func distrust(_ directory: String) { unsynced.withLock { _ = $0.insert(directory) } }

    /// Whether a name, or what was removed from a directory, may not be on the disk.
    static func isDistrusted(_ path: String) -> Bool { unsynced.withLock { $0.contains(path) } }

    /// Notes that it is.
    static func trust(_ path: String) { unsynced.withLock { _ = $0.remove(path) } }

    /// Changes a directory, so that its next sync has something to write.
    private static func change(_ directory: String, role: StorageFailure.Role) throws {
        let path = directory + "/.sync"
        let file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0o600)
        guard file >= 0 else { throw failure(.create, path, role) }
        close(file)
        guard unlink(path) == 0 else { throw failure(.remove, path, role) }
    }

    /// Gives a finished directory its name, once everything in it is on the disk.
    package static func publishDirectory(_ partial: String, as target: String) throws {
        let descriptor = open(partial, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { throw failure(.open, partial) }
        defer { close(descriptor) }
        // One call for all files, however many.
        guard martlet_sync_file_system(descriptor) == 0 else { throw failure(.sync, partial) }
        try rename(partial, to: URL(fileURLWithPath: target).path)
    }

    /// Moves what a finished directory holds into one that is there already, such as a volume, once it is on the disk.
    ///
    /// - Parameters:
    ///   - partial: The finished directory, on the same file system; it is gone afterwards.
    ///   - target: The directory that takes its files.
    ///   - last: The file whose presence says that all is there.
    /// - Throws: ``CoordinationError`` with code `storage_failed` when something cannot be moved or synced.
    package static func publishContents(of partial: String, in target: String, last: String) throws {
        let descriptor = open(partial, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { throw failure(.open, partial) }
        defer { close(descriptor) }
        guard martlet_sync_file_system(descriptor) == 0 else { throw failure(.sync, partial) }
        let names = try FileManager.default.contentsOfDirectory(atPath: partial).sorted()
        for name in names.filter({ $0 != last }) + names.filter({ $0 == last }) {
            try rename(partial + "/" + name, to: URL(fileURLWithPath: target + "/" + name).path)
        }
        try FileManager.default.removeItem(atPath: partial)
    }

    static func syncDirectory(of target: String, role: StorageFailure.Role? = nil) throws {
        try syncDirectory((target as NSString).deletingLastPathComponent, role: role ?? .init(path: target))
    }

    /// Brings a directory's names to the disk.
    ///
    /// Some file systems know no such call (EINVAL, ENOTSUP); `martlet doctor` warns of them.
    package static func syncDirectory(_ path: String, role: StorageFailure.Role) throws {
        let directory = open(path.isEmpty ? "." : path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard directory >= 0 else { throw failure(.open, path, role) }
        defer { close(directory) }
        guard fsync(directory) == 0 || errno == EINVAL || errno == ENOTSUP else { throw failure(.sync, path, role) }
    }

    /// The error of a call that has just failed; reads `errno`.
    package static func failure(
        _ action: StorageFailure.Action,
        _ path: String,
        _ role: StorageFailure.Role? = nil
    ) -> CoordinationError { StorageFailure(action, path: path, role: role).error }
}
