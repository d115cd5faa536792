import Synchronization

/// Says to a training that nobody waits for its result any more.
///
/// A trainer looks at it between steps and ends with ``LocalTrainingError/cancelled``. It is set once and for all, from any
/// thread.
public final class TrainingCancellation: Sendable {
    private let flag = Atomic<Bool>(false)

    /// One that has not been set.
    public init() {}

    /// Sets it.
    public func cancel() { flag.store(true, ordering: .relaxed) }

    /// Whether it is set.
    public var isCancelled: Bool { flag.load(ordering: .relaxed) }

    /// Ends the work that asks.
    ///
    /// - Throws: ``LocalTrainingError/cancelled`` once it is set.
    public func check() throws(LocalTrainingError) {
        if isCancelled { throw .cancelled }
    }
}
