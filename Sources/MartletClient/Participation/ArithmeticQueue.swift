import Dispatch
import Foundation
import Synchronization
import TrainerInterface

/// Runs training away from the cooperative threads, a bounded number at a time.
///
/// A trainer that is asynchronous keeps its place while it waits.
public final class ArithmeticQueue: Sendable {
    /// As many at a time as there are cores.
    public static let shared = ArithmeticQueue(width: ProcessInfo.processInfo.activeProcessorCount)

    /// Seconds that cancelled work has for its end; what goes on longer is left alone, and nothing of it is used.
    static let patienceSeconds = 0.8

    private struct Places {
        var free: Int
        var waiting: [@Sendable () -> Void] = []
        /// Places of work that was cancelled and goes on all the same.
        var abandoned = 0
    }
    private let places: Mutex<Places>
    private let executor = TrainingExecutor()

    /// Bounds the number of trainings at the same time.
    public init(width: Int) { places = Mutex(Places(free: max(1, width))) }

    /// Runs work when it has its turn.
    ///
    /// - Parameters:
    ///   - cancellation: Is set when the task is cancelled.
    ///   - charge: Is closed when the task is cancelled.
    ///   - whenHeld: Is told how many places cancelled work still holds, where that makes this work wait.
    ///   - body: The work, in a task that is cancelled with the caller's.
    /// - Returns: What it brings.
    /// - Throws: The work's error; `CancellationError` at once for work that has not begun, and for work that has within a
    ///   second, whether or not it has looked.
    func run<Result: Sendable>(
        cancelling cancellation: TrainingCancellation? = nil,
        closing charge: LedgerCharge? = nil,
        whenHeld: @Sendable (Int) -> Void = { _ in },
        _ body: @escaping @Sendable () async throws -> Result
    ) async throws -> Result {
        let turn = Turn<Result>()
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                guard turn.wait(continuation) else { return }
                enter(whenHeld) { [self] in
                    guard turn.begin() else { return leave() }
                    turn.keep(
                        Task(executorPreference: executor) {
                            let result: Swift.Result<Result, any Error>
                            do { result = .success(try await body()) } catch { result = .failure(error) }
                            self.leave(wasAbandoned: turn.end(result))
                        }
                    )
                }
            }
        } onCancel: {
            cancellation?.cancel()
            charge?.close()
            turn.cancel { self.places.withLock { $0.abandoned += 1 } }
        }
    }

    /// Begins at once where a place is free, else when one is left.
    private func enter(_ whenHeld: (Int) -> Void, _ begin: @escaping @Sendable () -> Void) {
        let (isFree, abandoned) = places.withLock { places in
            guard places.free > 0 else {
                places.waiting.append(begin)
                return (false, places.abandoned)
            }
            places.free -= 1
            return (true, 0)
        }
        if isFree { begin() } else if abandoned > 0 { whenHeld(abandoned) }
    }

    private func leave(wasAbandoned: Bool = false) {
        let next = places.withLock { places -> (@Sendable () -> Void)? in
            if wasAbandoned { places.abandoned -= 1 }
            guard !places.waiting.isEmpty else {
                places.free += 1
                return nil
            }
            return places.waiting.removeFirst()
        }
        next?()
    }
}

/// Threads that may be kept busy for minutes, which those of Swift's own pool may not.
private final class TrainingExecutor: TaskExecutor {
    private let queue = DispatchQueue(label: "martlet.training", attributes: .concurrent)

    func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        queue.async { job.runSynchronously(on: self.asUnownedTaskExecutor()) }
    }
}

/// One piece of work in the queue: its continuation is resumed once, by its end or by its cancellation.
private final class Turn<Success: Sendable>: Sendable {
    private struct State {
        var continuation: CheckedContinuation<Success, any Error>?
        var task: Task<Void, Never>?
        var hasBegun = false
        var isCancelled = false
        /// It was waited for in vain.
        var isAbandoned = false
    }
    private let state = Mutex(State())

    /// Keeps the continuation.
    ///
    /// - Returns: Whether there is anything to do; when it was cancelled already, it is resumed.
    func wait(_ continuation: CheckedContinuation<Success, any Error>) -> Bool {
        let isCancelled = state.withLock { state in
            if !state.isCancelled { state.continuation = continuation }
            return state.isCancelled
        }
        if isCancelled { continuation.resume(throwing: CancellationError()) }
        return !isCancelled
    }

    func begin() -> Bool {
        state.withLock { state in
            guard !state.isCancelled else { return false }
            state.hasBegun = true
            return true
        }
    }

    /// Keeps the work's task, so that cancelling reaches it.
    func keep(_ task: Task<Void, Never>) {
        let isCancelled = state.withLock { state in
            state.task = task
            return state.isCancelled
        }
        if isCancelled { task.cancel() }
    }

    /// Ends it for the one who waits.
    ///
    /// - Returns: Whether nobody has waited any more.
    @discardableResult func end(_ result: Result<Success, any Error>) -> Bool {
        let (continuation, isAbandoned) = state.withLock { state in
            defer { (state.continuation, state.task) = (nil, nil) }
            return (state.continuation, state.isAbandoned)
        }
        continuation?.resume(with: result)
        return isAbandoned
    }

    /// Ends the wait of one that goes on too long.
    private func abandon(_ told: () -> Void) {
        let continuation = state.withLock { state in
            defer { (state.continuation, state.task) = (nil, nil) }
            state.isAbandoned = state.continuation != nil
            return state.continuation
        }
        guard let continuation else { return }
        told()
        continuation.resume(throwing: CancellationError())
    }

    func cancel(_ whenAbandoned: @escaping @Sendable () -> Void) {
        let (hasBegun, task) = state.withLock { state in
            state.isCancelled = true
            return (state.hasBegun, state.task)
        }
        task?.cancel()
        guard hasBegun else {
            end(.failure(CancellationError()))
            return
        }
        DispatchQueue.global().asyncAfter(deadline: .now() + ArithmeticQueue.patienceSeconds) {
            self.abandon(whenAbandoned)
        }
    }
}
