package import Foundation

#if canImport(Glibc)
import Glibc
#endif

/// Questions to the disk, each with three answers: it is there, it is absent, or the disk does not say, which is an error.
///
/// Only ENOENT says that something is absent. A caller that took EIO or EMFILE for it would forget a restore, make a key again, or
/// leave exact sums behind. So nothing else in the server asks `access`, `stat` or `FileManager` about its files.
extension DurableFiles {
    /// Whether there is something of that name.
    ///
    /// - Throws: ``CoordinationError`` with code `storage_failed` where the disk does not say.
    package static func exists(_ path: String, role: StorageFailure.Role? = nil) throws(CoordinationError) -> Bool {
        try status(path, role) != nil
    }

    /// The size of a file; `nil` where there is none.
    ///
    /// - Throws: ``CoordinationError`` with code `storage_failed` where the disk does not say.
    package static func byteCount(_ path: String, role: StorageFailure.Role? = nil) throws(CoordinationError) -> Int? {
        try status(path, role).map { Int($0.st_size) }
    }

    /// A whole file; `nil` where there is none.
    ///
    /// - Throws: ``CoordinationError`` with code `storage_failed` where the disk does not give it.
    package static func readIfPresent(
        _ path: String,
        role: StorageFailure.Role? = nil
    ) throws(CoordinationError) -> Data? {
        do throws(CoordinationError) {
            return try read(path, role: role)
        } catch {
            guard error.storage?.code == ENOENT else { throw error }
            return nil
        }
    }

    /// The names in a directory, in no order; `nil` where there is no such directory.
    ///
    /// - Throws: ``CoordinationError`` with code `storage_failed` where the disk does not give all of them.
    package static func names(in directory: String) throws(CoordinationError) -> [String]? {
        do throws(CoordinationError) {
            return try SpooledFile.names(in: directory.isEmpty ? "." : directory)
        } catch {
            guard error.storage?.code == ENOENT else { throw error }
            return nil
        }
    }

    private static func status(
        _ path: String,
        _ role: StorageFailure.Role?
    ) throws(CoordinationError) -> stat? {
        var found = stat()
        if stat(path, &found) == 0 { return found }
        guard errno == ENOENT else { throw failure(.open, path, role) }
        return nil
    }
}
