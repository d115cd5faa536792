import MartletTransport
import WireFormat

/// How work ended that was done under a lease.
enum LeasedWork<Result: Sendable>: Sendable {
    case done(Result)
    /// The server wants it no more, for the reason of its code.
    case unwanted(code: String)
}

extension ServerSession {
    /// Works while heartbeats keep the lease; what is done within a third of it needs none.
    ///
    /// - Parameters:
    ///   - id: The assignment.
    ///   - leaseSeconds: How long the server waits for a sign of life.
    ///   - phase: What the server is told of the work.
    ///   - prefersResult: Whether a result counts although the work is over by now.
    ///   - work: What is done meanwhile; cancelled when the server says that the work is no longer wanted.
    /// - Returns: The result, or that the work is no longer wanted, however it ended.
    /// - Throws: The work's error.
    func keepingLease<Result: Sendable>(
        of id: AssignmentID,
        leaseSeconds: Double?,
        phase: WorkPhase?,
        prefersResult: Bool = false,
        _ work: @escaping @Sendable () async throws -> Result
    ) async throws -> LeasedWork<Result> {
        let task = Task { try await work() }
        let pulse = Task { () -> String in
            let seconds = max(0.5, (leaseSeconds ?? 60) / 3)
            while true {
                try await Task.sleep(for: .seconds(seconds))
                do {
                    let target = Endpoints.heartbeat(AssignmentReference(id))
                    _ = try await self.call(target, HeartbeatRequest(phase: phase)) {
                        try ServerAnswer.read($0, of: "answer to a sign of life", HeartbeatAnswer.read)
                    }
                } catch let error as ClientError where error.verdict == .workIsOver {
                    task.cancel()
                    return error.code
                } catch is ClientError {
                    // The server is away or the answer was lost: the next sign may arrive.
                }
            }
        }
        let outcome = await withTaskCancellationHandler {
            await task.result
        } onCancel: {
            task.cancel()
            pulse.cancel()
        }
        pulse.cancel()
        let code = try? await pulse.value
        if let code, !prefersResult { return .unwanted(code: code) }
        if let code, case .failure = outcome { return .unwanted(code: code) }
        return .done(try outcome.get())
    }
}
