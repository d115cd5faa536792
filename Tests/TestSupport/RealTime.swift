import Foundation

/// Time that truly passes, for the few tests that no clock of ours can pace: a peer on a real socket, a process, a file system.
///
/// What waits for a condition waits with ``Patience``. `scripts/check-words` holds how often this is used, and that nothing else sleeps.
package enum RealTime {
    /// Blocks the calling thread.
    ///
    /// - Parameters:
    ///   - seconds: How long, at least.
    ///   - reason: Why time must pass here; for readers of the test.
    package static func pass(_ seconds: Double, because reason: StaticString) {
        Thread.sleep(forTimeInterval: seconds)
    }

    /// The same for a task.
    ///
    /// - Throws: `CancellationError`.
    package static func passInTask(_ seconds: Double, because reason: StaticString) async throws {
        try await Task.sleep(for: .seconds(seconds))
    }

    /// Waits for longer than any test lasts: for its task to be cancelled.
    ///
    /// - Throws: `CancellationError`.
    package static func untilCancelled() async throws { try await Task.sleep(for: .seconds(86_400)) }
}
