import Foundation

/// How long a test waits for something before it fails with the name of what did not come: no test hangs for ever.
///
/// The bound is far beyond what any machine needs, also one that is five times slower or stands still for a while, so it decides
/// nothing but how a failure looks. A test's time limit ends a wait as well, since waiting notices cancellation.
package struct Patience {
    /// A wait in vain.
    package struct Exhausted: Error, CustomStringConvertible {
        package var description: String
    }

    private let what: String
    private let place: String
    private let seconds: Double
    private let end: ContinuousClock.Instant
    private var turns = 0

    /// `what` names what is waited for, as in "the run to complete"; after `seconds` it gives up.
    package init(_ what: String, seconds: Double = 600, file: String = #fileID, line: Int = #line) {
        self.what = what
        place = "\(file):\(line)"
        self.seconds = seconds
        end = ContinuousClock.now + .seconds(seconds)
    }

    /// Lets others work for a moment.
    ///
    /// - Throws: ``Exhausted`` when it is over; `CancellationError` when the test is.
    package mutating func pause(isolation: isolated (any Actor)? = #isolation) async throws {
        try Task.checkCancellation()
        try check()
        turns += 1
        // Most waits are for microseconds; what takes longer should get the processor.
        if turns < 64 { await Task.yield() } else { try await Task.sleep(for: .milliseconds(1)) }
    }

    /// The same on a thread that may block.
    package mutating func pauseThread() throws {
        try check()
        Thread.sleep(forTimeInterval: 0.001)
    }

    private func check() throws {
        guard ContinuousClock.now < end else {
            throw Exhausted(description: "\(place): waited \(seconds) s in vain for \(what)")
        }
    }
}

/// Waits until a condition holds, at most so many seconds.
///
/// Throws ``Patience/Exhausted``, which names what was waited for, when it does not come; and whatever the condition throws.
package func wait(
    for what: String,
    seconds: Double = 600,
    file: String = #fileID,
    line: Int = #line,
    isolation: isolated (any Actor)? = #isolation,
    until condition: () async throws -> Bool
) async throws {
    var patience = Patience(what, seconds: seconds, file: file, line: line)
    while try await !condition() { try await patience.pause() }
}
