import Dispatch

/// Runs independent pieces of arithmetic on all cores.
public enum Parallel {
    /// Runs `body(0)` to `body(count - 1)`, in any order and at the same time, and returns when all are done.
    ///
    /// Blocks the caller until all are done. Do not call it for long work from an actor or from a thread of the cooperative pool.
    public static func forEach(count: Int, _ body: @Sendable (Int) -> Void) {
        guard count > 1 else {
            if count == 1 { body(0) }
            return
        }
        DispatchQueue.concurrentPerform(iterations: count, execute: body)
    }
}
