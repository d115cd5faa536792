import DifferentialPrivacy
import Dispatch

/// Has what plans cost computed one at a time, beside the coordinator: noise for a target, and projections, take up to a second of
/// arithmetic each, and an operator may ask for one dry run after the other.
actor PlanDesk {
    /// So many may wait; the next one is told to come again.
    static let waitingLimit = 32

    private var last: Task<Void, Never>?
    /// Questions that are being answered, and those that wait for it.
    private(set) var waitingCount = 0

    /// Computes when those before have been computed; no thread of the shared pool is kept meanwhile.
    ///
    /// - Parameter body: The arithmetic, with the limits of the caller's task.
    /// - Returns: What it gives.
    /// - Throws: ``CoordinationError`` `claims_busy`, which is temporary, and what `body` throws.
    func compute<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws -> Value {
        guard waitingCount < Self.waitingLimit else {
            throw CoordinationError(
                .unavailable,
                "claims_busy",
                "what \(waitingCount) other plans cost is being computed; send it again later"
            )
        }
        waitingCount += 1
        defer { waitingCount -= 1 }
        let limits = LossLimits()
        let before = last
        let task = Task {
            await before?.value
            return try await DispatchQueue.global(qos: .utility).result { try limits.apply(body) }
        }
        last = Task { _ = await task.result }
        return try await task.value
    }
}
