package import Foundation
import Synchronization

/// A clock that moves when it is told to.
package final class TestClock: Sendable {
    private let time = Mutex(Date(timeIntervalSince1970: 1_800_000_000))

    package init() {}

    package var now: Date { time.withLock { $0 } }

    package func advance(by seconds: Double) { time.withLock { $0 += seconds } }
}

/// A directory that is gone when the test is over.
package final class TemporaryDirectory: Sendable {
    package let path: String

    package init() throws {
        path = NSTemporaryDirectory() + "martlet-test-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }
}
