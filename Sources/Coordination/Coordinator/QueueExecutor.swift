import Dispatch
import Synchronization

#if canImport(Glibc)
import Glibc
#endif

/// Runs an actor on its own serial queue, so that a transaction's wait for the disk holds up no cooperative thread.
///
/// Other threads may borrow the actor while the queue rests: a question that is answered from memory in microseconds does
/// not pay for two ways to another thread.
final class QueueExecutor: SerialExecutor {
    private let queue: DispatchQueue
    /// The thread that has the actor, or 0.
    private let owner = Atomic<UInt>(0)

    init(label: String) {
        queue = DispatchQueue(label: label)
    }

    func enqueue(_ job: consuming ExecutorJob) {
        let unowned = UnownedJob(job)
        let executor = asUnownedSerialExecutor()
        queue.async { [self] in
            // Whoever borrowed the actor gives it back in microseconds.
            while !take() { sched_yield() }
            unowned.runSynchronously(on: executor)
            owner.store(0, ordering: .releasing)
        }
    }

    /// Runs a short piece of work on the calling thread, when nobody has the actor now or in a moment.
    ///
    /// The body must not wait: neither for the disk nor for another thread.
    ///
    /// - Returns: What the body gives; `nil` where the actor was busy.
    func runIfIdle<Result>(_ body: () throws -> Result) rethrows -> Result? {
        var tries = 0
        while !take() {
            tries += 1
            guard tries < 256 else { return nil }
        }
        defer { owner.store(0, ordering: .releasing) }
        return try body()
    }

    /// What `assumeIsolated` asks: whether this thread has the actor.
    func checkIsolated() {
        precondition(owner.load(ordering: .relaxed) == Self.thread, "the coordinator was touched from outside")
    }

    private func take() -> Bool {
        owner.load(ordering: .relaxed) == 0
            && owner.compareExchange(expected: 0, desired: Self.thread, ordering: .acquiring).exchanged
    }

    private static var thread: UInt { UInt(pthread_self()) }
}
