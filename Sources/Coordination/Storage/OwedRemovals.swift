import Synchronization

#if canImport(Glibc)
import Glibc
#endif

/// Files that have to go and that the disk has not let go yet.
///
/// Updates without noise are among them: one that stayed until the next start would outlive its round. A name that is wanted again is
/// never removed: see ``want(_:)``.
final class OwedRemovals: Sendable {
    private let paths = Mutex<Set<String>>([])

    /// Removes a file, or notes that it has to go.
    func remove(_ path: String) {
        // Not under the lock: a large file takes tens of milliseconds, and ``want(_:)`` is asked on the coordinator's queue.
        if unlink(path) != 0, errno != ENOENT { paths.withLock { _ = $0.insert(path) } }
    }

    /// Notes that files get these names now: no earlier removal takes them.
    func want(_ names: [String]) {
        paths.withLock { paths in
            if !paths.isEmpty { paths.subtract(names) }
        }
    }

    /// Tries all of it again.
    ///
    /// - Returns: The failures, one for each sort of file.
    func retry() -> [StorageFailure] {
        var failures: [StorageFailure.Role: StorageFailure] = [:]
        for path in paths.withLock({ $0 }).sorted() {
            paths.withLock { paths in
                guard paths.contains(path) else { return }
                if unlink(path) == 0 || errno == ENOENT {
                    paths.remove(path)
                } else {
                    let failure = StorageFailure(.remove, path: path)
                    failures[failure.role] = failure
                }
            }
        }
        return failures.values.sorted { $0.path < $1.path }
    }
}
