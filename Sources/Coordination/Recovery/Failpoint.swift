import Foundation
import Synchronization

#if canImport(Glibc)
import Glibc
#endif

/// Points at which a death would part what belongs together: around each transaction and each change of a file's name.
///
/// With `MARTLET_DIE_AT_POINT=n` in its environment the process kills itself by SIGKILL at the n-th one that it reaches, so
/// that a test can end a server at each of them in turn. Whoever sets the environment of a process could kill it anyway.
package enum Failpoint {
    private static let target = ProcessInfo.processInfo.environment["MARTLET_DIE_AT_POINT"].flatMap { Int($0) }
    private static let reached = Atomic<Int>(0)

    package static func reach() {
        guard let target else { return }
        if reached.add(1, ordering: .sequentiallyConsistent).newValue == target { kill(getpid(), SIGKILL) }
    }
}
