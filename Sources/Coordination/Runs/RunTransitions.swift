package import WireFormat

/// What may happen to a run.
package enum RunEvent: Equatable, Sendable {
    case started, paused, resumed, cancelled
    /// The last round is committed, or the run's rule to stop holds.
    case finished(cause: String)
    /// The run cannot go on.
    case failed(code: String, cause: String)
}

/// What must be done after a run's change.
package enum RunEffect: Equatable, Sendable {
    case history(state: RunPhase, cause: String)
    /// The next round is due.
    case openRound
    /// What is open has no purpose any more.
    case abandonRound(reason: String)
}

extension RunRecord {
    /// Takes an event: `created → running ⇄ paused → completed | cancelled | failed`.
    ///
    /// - Parameter event: What happened.
    /// - Returns: What must be done, in order; the history row belongs to the transaction of the change.
    /// - Throws: ``RoundError/wrongRunState(current:allowed:)``; the record is unchanged then.
    package mutating func apply(_ event: RunEvent) throws(RoundError) -> [RunEffect] {
        switch event {
        case .started:
            try become(.running, from: [.created])
            return [.history(state: state, cause: "started by an operator"), .openRound]
        case .paused:
            try become(.paused, from: [.running])
            return [.history(state: state, cause: "paused by an operator")]
        case .resumed:
            try become(.running, from: [.paused])
            return [.history(state: state, cause: "resumed by an operator"), .openRound]
        case .cancelled:
            try become(.cancelled, from: [.created, .running, .paused])
            return [
                .history(state: state, cause: "cancelled by an operator"),
                .abandonRound(reason: "the run was cancelled"),
            ]
        case .finished(let cause):
            try become(.completed, from: [.running, .paused])
            return [.history(state: state, cause: cause)]
        case .failed(let code, let cause):
            try become(.failed, from: [.running, .paused])
            reason = code
            return [.history(state: state, cause: cause), .abandonRound(reason: cause)]
        }
    }

    private mutating func become(_ next: RunPhase, from allowed: [RunPhase]) throws(RoundError) {
        guard allowed.contains(state) else { throw .wrongRunState(current: state, allowed: allowed) }
        state = next
    }
}
