import Dispatch

/// Runs independent pieces of arithmetic on all cores.
public enum Parallel {
    /// Runs `body(0)` to `body(count - 1)`, in any order and at the same time, and returns when all are done.
    ///
    /// Never called from an actor or a cooperative thread for long work: it blocks the caller.
    public static func forEach(count: Int, _ body: @Sendable (Int) -> Void) {
        guard count > 1 else {
            if count == 1 { body(0) }
            return
        }
        DispatchQueue.concurrentPerform(iterations: count, execute: body)
    }
}
