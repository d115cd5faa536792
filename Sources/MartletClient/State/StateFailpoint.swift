import CLibrary
import Foundation
import Synchronization

/// Points at which a death would part what belongs together on a device: around each change of its files and each upload.
///
/// With `MARTLET_DIE_AT_POINT=n` in its environment the process kills itself by SIGKILL at the n-th one that it reaches, so
/// that a test can end a client at each of them in turn, as it does with a server.
enum StateFailpoint {
    private static let target = ProcessInfo.processInfo.environment["MARTLET_DIE_AT_POINT"].flatMap { Int($0) }
    private static let reached = Atomic<Int>(0)

    @Sendable static func reach() {
        guard let target else { return }
        if reached.add(1, ordering: .sequentiallyConsistent).newValue == target { kill(getpid(), SIGKILL) }
    }
}
