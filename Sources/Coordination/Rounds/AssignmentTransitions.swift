package import Foundation
package import WireFormat

/// What may happen to an assignment.
package enum AssignmentEvent: Equatable, Sendable {
    /// The client is at work; `lease` seconds are its own until the next sign of life.
    case heartbeat(phase: AssignmentState, progress: Double?, lease: Double)
    /// An update was received and checked, and is on disk; with privacy nothing about its bytes is kept in the row.
    case accepted(sha256: String?, bytes: Int?, examples: Int?)
    case rejected(code: String)
    /// The client could not do the work; the detail is its own words for the operator.
    case failed(code: String, detail: String? = nil)
    /// Time has passed: the lease or the deadline may be over.
    case tick
    /// The server's clock was put back: no more time is left than work has that begins now.
    case clockWentBack(deadline: Date)
    /// The work is no longer wanted.
    case superseded(code: String)
}

/// What must be done after an assignment's change.
package enum AssignmentEffect: Equatable, Sendable {
    /// The state is another one: a history row.
    case history(state: AssignmentState, cause: String)
    /// The round counts it.
    case round(RoundEvent)
}

extension AssignmentRecord {
    /// Takes an event.
    ///
    /// `assigned → downloading → training → uploading → accepted | rejected | failed | expired | superseded`; a client that
    /// starts over stays in the furthest phase that it has told, so that it never has more than three of them stored.
    ///
    /// - Parameters:
    ///   - event: What happened.
    ///   - time: When, by the server's clock.
    /// - Returns: What must be done; empty when nothing but the lease or the progress changed.
    /// - Throws: ``RoundError``; the record is unchanged then.
    package mutating func apply(_ event: AssignmentEvent, at time: Date) throws(RoundError) -> [AssignmentEffect] {
        switch event {
        case .tick:
            guard state.isLive, let end = expiry, end < time else { return [] }
            let cause = deadline < time ? "the deadline passed" : "no sign of life within the lease"
            return finish(.expired, code: nil, at: time, cause: cause, counts: .expired)
        case .superseded(let code):
            guard state.isLive else { throw .assignmentEnded(state, code: self.code) }
            return finish(.superseded, code: code, at: time, cause: code, counts: nil)
        case .clockWentBack(let limit):
            guard state.isLive, limit < deadline else { return [] }
            leaseUntil = leaseUntil.map { min($0, limit) }
            deadline = limit
            return [.history(state: state, cause: "the clock went back: its time began anew")]
        default: break
        }
        guard state.isLive else { throw .assignmentEnded(state, code: code) }
        guard deadline >= time else { throw .deadlinePassed }
        switch event {
        case .heartbeat(let phase, let progress, let lease):
            leaseUntil = min(deadline, time.addingTimeInterval(lease))
            self.progress = progress
            guard let place = phase.phasePlace, let reached = state.phasePlace, place > reached else { return [] }
            state = phase
            return [.history(state: phase, cause: "the client said so")]
        case .accepted(let sha256, let bytes, let examples):
            updateSha256 = sha256
            updateBytes = bytes
            exampleCount = examples
            return finish(
                .accepted,
                code: nil,
                at: time,
                cause: "its update is on disk",
                counts: .accepted(bytes: bytes ?? 0, examples: examples ?? 0)
            )
        case .rejected(let code): return finish(.rejected, code: code, at: time, cause: code, counts: .rejected)
        case .failed(let code, let detail):
            let cause = detail.map { "\(code): \($0)" } ?? code
            return finish(.failed, code: code, at: time, cause: cause, counts: .failed)
        case .tick, .clockWentBack, .superseded: return []
        }
    }

    /// When it ends without a sign of life.
    package var expiry: Date? { leaseUntil.map { min($0, deadline) } ?? deadline }

    private mutating func finish(
        _ final: AssignmentState,
        code: String?,
        at time: Date,
        cause: String,
        counts event: RoundEvent?
    ) -> [AssignmentEffect] {
        state = final
        self.code = code
        endedAt = time
        progress = nil
        return [.history(state: final, cause: cause)] + (event.map { [.round($0)] } ?? [])
    }
}
