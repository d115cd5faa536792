package import Foundation
import Synchronization

/// A clock that moves when it is told to.
package final class TestClock: Sendable {
    private let time = Mutex(Date(timeIntervalSince1970: 1_800_000_000))

    package init() {}

    package var now: Date { time.withLock { $0 } }

    package func advance(by seconds: Double) { time.withLock { $0 += seconds } }
}

/// A directory of a test.
///
/// It outlives its last use: a test that goes on with what works in it may have no use for the directory itself any more, and Swift
/// releases a value after its last use. The latest that were released are kept, and all are gone when the process exits.
package final class TemporaryDirectory: Sendable {
    package let path: String

    /// Paths that were released, the oldest first.
    private static let released = Mutex<[String]>([])
    /// More than any test has at a time.
    private static let keptCount = 64
    private static let removesAtExit: Void = {
        atexit {
            for path in TemporaryDirectory.released.withLock({ $0 }) {
                try? FileManager.default.removeItem(atPath: path)
            }
        }
    }()

    package init() throws {
        _ = Self.removesAtExit
        path = NSTemporaryDirectory() + "martlet-test-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }

    deinit {
        let oldest = Self.released.withLock { released in
            released.append(path)
            return released.count > Self.keptCount ? released.removeFirst() : nil
        }
        if let oldest { try? FileManager.default.removeItem(atPath: oldest) }
    }
}
