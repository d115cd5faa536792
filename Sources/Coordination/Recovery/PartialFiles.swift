import Foundation

#if canImport(Glibc)
import Glibc
#endif

/// What a stop leaves of files that were being written outside the spool.
enum PartialFiles {
    /// Removes them; what the disk refuses stays until the next start, and is noted.
    static func remove(_ configuration: CoordinatorConfiguration, _ storage: StorageHealth) {
        let data = configuration.dataDirectory
        let places =
            [configuration.ledgerHeadPath, configuration.noiseKeyPath].map {
                (($0 as NSString).deletingLastPathComponent, ($0 as NSString).lastPathComponent)
            } + [(data, "address"), (data, "admin-token")]
        for (directory, name) in places {
            remove(in: directory, storage) { $0.hasPrefix(name + ".") }
        }
        for name in names(in: data + "/blobs", storage) where name.count == 2 {
            remove(in: data + "/blobs/" + name, storage) { _ in true }
        }
        remove(in: data + "/noise", storage) { _ in true }
    }

    private static func remove(in directory: String, _ storage: StorageHealth, where isMeant: (String) -> Bool) {
        for name in names(in: directory, storage) where name.contains(".part-w_") && isMeant(name) {
            let path = directory + "/" + name
            if unlink(path) != 0, errno != ENOENT { storage.note(StorageFailure(.remove, path: path)) }
        }
    }

    private static func names(in directory: String, _ storage: StorageHealth) -> [String] {
        do throws(CoordinationError) {
            return try DurableFiles.names(in: directory) ?? []
        } catch {
            if let failure = error.storage { storage.note(failure) }
            return []
        }
    }
}
