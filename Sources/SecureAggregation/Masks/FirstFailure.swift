import Synchronization

/// Keeps the first error that any thread of a loop reports.
final class FirstFailure: Sendable {
    private let first = Mutex<(any Error)?>(nil)

    func note(_ error: any Error) { first.withLock { if $0 == nil { $0 = error } } }

    var error: (any Error)? { first.withLock { $0 } }
}
