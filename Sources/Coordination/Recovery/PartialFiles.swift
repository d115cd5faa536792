import Foundation

#if canImport(Glibc)
import Glibc
#endif

/// What a stop leaves of files that were being written outside the spool.
enum PartialFiles {
    /// Removes them.
    static func remove(_ configuration: CoordinatorConfiguration) {
        let data = configuration.dataDirectory
        let places =
            [configuration.ledgerHeadPath, configuration.noiseKeyPath].map {
                (($0 as NSString).deletingLastPathComponent, ($0 as NSString).lastPathComponent)
            } + [(data, "address"), (data, "admin-token")]
        for (directory, name) in places {
            remove(in: directory) { $0.hasPrefix(name + ".") }
        }
        for name in (try? SpooledFile.names(in: data + "/blobs")) ?? [] where name.count == 2 {
            remove(in: data + "/blobs/" + name) { _ in true }
        }
        remove(in: data + "/noise") { _ in true }
    }

    private static func remove(in directory: String, where isMeant: (String) -> Bool) {
        for name in (try? SpooledFile.names(in: directory)) ?? [] where name.contains(".part-w_") && isMeant(name) {
            unlink(directory + "/" + name)
        }
    }
}
