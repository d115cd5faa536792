import Foundation
import WireFormat

/// What comes next in a running run whose last attempt is over.
enum NextRound {
    case opens(RoundRecord)
    case finished(cause: String)
    case failed(code: String, cause: String)
}

extension RunState {
    /// Decides which attempt opens next, or how the run ends.
    ///
    /// - Parameters:
    ///   - now: The time.
    ///   - missingNoise: Says why the correlated noise of a round cannot be made, or `nil`.
    ///   - drawKey: Makes the key of a draw.
    /// - Returns: The attempt, or the end.
    func nextRound(at now: Date, missingNoise: (_ round: Int) -> String?, drawKey: () -> String) -> NextRound {
        let evaluated = evaluationDue
        if evaluated == nil, let reason = reasonToStop { return .finished(cause: "stopped early: \(reason)") }
        let number = evaluated.map { -$0 } ?? versions.count
        guard number <= specification.rounds else { return .finished(cause: "all rounds are committed") }
        if let cause = missingNoise(number) { return .failed(code: "noise_state_lost", cause: cause) }
        let last = lastAttempt(ofRound: number)
        let attempt = (last?.attempt ?? 0) + 1
        let limit = specification.cohort.maxAttempts
        if number > 0, limit > 0, attempt > limit {
            return .failed(
                code: "attempts_exhausted",
                cause: "round \(number) failed in \(limit) attempts: \(last?.reason ?? "")"
            )
        }
        let terms = RoundTerms(specification, isEvaluation: number < 0)
        let phase = terms.policy.isDrawn || terms.isBuffered ? RoundPhase.reporting : .selecting
        var round = RoundRecord(
            runId: record.id,
            number: number,
            attempt: attempt,
            opening: phase,
            at: now,
            deadline: now.addingTimeInterval(phase == .selecting ? terms.selectionTimeoutS : terms.reportTimeoutS)
        )
        if terms.policy.isDrawn { round.drawKey = drawKey() }
        return .opens(round)
    }
}

extension RoundRecord {
    /// An evaluation that the population's budget does not admit, as an attempt that ended before it began: the reason is there where an
    /// operator looks for the measurement, and the run goes on to its next round.
    func refused(by refusal: CoordinationError, at time: Date) -> RoundRecord {
        var round = self
        round.phase = .abandoned
        round.closedAt = time
        round.reason = RoundRecord.refusedByBudget + refusal.message
        return round
    }

    /// A row that says what became of the attempt.
    func history(at time: Date, state: some ClosedWord, cause: String) -> StoreChange {
        .history(runId, round: number, attempt: attempt, at: time, state: state, cause: cause)
    }
}
