package import Foundation
package import WireFormat

/// What may happen to a round.
package enum RoundEvent: Equatable, Sendable {
    /// One client was given work.
    case assigned
    /// The cohort was chosen from those who came; so many were given work.
    case drawn(Int)
    case accepted(bytes: Int, examples: Int)
    case rejected, failed, expired
    /// Time has passed; `live` assignments may still deliver.
    case tick(live: Int)
    /// The arithmetic is done and its result is on disk.
    case aggregated(sha256: String)
    case abandoned(reason: String)
    /// Nobody is at work, and no enrolled client may join: more time would bring nothing.
    case nobodyLeft
    /// The clock reads less than when the round opened: its waits begin anew.
    case clockWentBack
    /// Nobody could deliver for so long: the round ends later by as much.
    case timeGivenBack(seconds: Double, cause: String)
    /// The server was restarted while it noted who came: they are forgotten.
    case arrivalsForgotten
}

/// What must be done after a round's change.
package enum RoundEffect: Equatable, Sendable {
    case history(state: RoundPhase, cause: String)
    /// The selection window is over: choose among those who came.
    case draw
    /// Collecting is over: end what is live, and start the arithmetic.
    case aggregate
    /// The attempt is over without a result: end what is live, give back what was reserved, drop its updates.
    case discard
    /// A place is free again.
    case freed
}

extension RoundRecord {
    /// Takes an event: `selecting → reporting → aggregating → committed`, or `abandoned` from any of the first three.
    ///
    /// - Parameters:
    ///   - event: What happened.
    ///   - time: When, by the server's clock.
    ///   - terms: What the round is judged by.
    /// - Returns: What must be done, in order; history rows belong to the transaction of the change.
    /// - Throws: ``RoundError``; the record is unchanged then.
    package mutating func apply(
        _ event: RoundEvent,
        at time: Date,
        terms: RoundTerms
    ) throws(RoundError) -> [RoundEffect] {
        switch event {
        case .assigned:
            try requireCollecting()
            assigned += 1
            return []
        case .drawn(let count):
            try requireCollecting()
            drawn = count
            return []
        case .accepted(let bytes, let examples):
            try requireCollecting()
            accepted += 1
            bytesUp += bytes
            let (sum, overflow) = exampleCount.addingReportingOverflow(examples)
            exampleCount = overflow ? .max : sum
            return []
        case .rejected, .failed, .expired:
            try requireCollecting()
            switch event {
            case .rejected: rejected += 1
            case .failed: failed += 1
            default: expired += 1
            }
            return terms.policy.isDrawn ? [] : [.freed]
        case .tick(let live): return tick(at: time, live: live, terms: terms)
        case .aggregated(let sha256):
            guard phase == .aggregating else { throw .notAggregating(phase) }
            modelSha256 = sha256
            return end(
                as: .committed,
                at: time,
                cause: isEvaluation
                    ? "\(accepted) clients measured version \(-number)" : "model version \(number) was published"
            )
        case .abandoned(let reason):
            guard !phase.isFinal else { throw .roundOver(phase) }
            return abandon(reason, at: time)
        case .nobodyLeft:
            try requireCollecting()
            guard accepted >= terms.minimum else {
                return abandon(
                    "too few updates: \(accepted) came, and no enrolled client is left that may join this attempt",
                    at: time
                )
            }
            return aggregate(cause: "no enrolled client is left that may join this attempt")
        case .clockWentBack:
            try requireCollecting()
            openedAt = time
            return wait(phase, at: time, terms: terms, cause: "the clock went back: the wait began anew")
        case .timeGivenBack(let seconds, let cause):
            try requireCollecting()
            deadline += seconds
            return [
                .history(
                    state: phase,
                    cause: "\(cause) for \(Int(seconds.rounded(.up))) s: the deadline is that much later"
                )
            ]
        case .arrivalsForgotten:
            guard phase == .selecting, terms.policy == .uniform, drawn == nil else { return [] }
            // Those who had come were told to come again when the cohort is chosen: they are there for another choice.
            return wait(.selecting, at: time, terms: terms, cause: "the server was restarted: the selection began anew")
        }
    }

    /// What time alone brings about.
    private mutating func tick(at time: Date, live: Int, terms: RoundTerms) -> [RoundEffect] {
        let isLate = deadline <= time
        switch phase {
        case .selecting where terms.policy == .uniform:
            guard let drawn else { return isLate ? [.draw] : [] }
            guard drawn >= terms.minimum else {
                return abandon("too few clients: \(drawn) were there to choose from when the selection ended", at: time)
            }
            return wait(.reporting, at: time, terms: terms, cause: "\(drawn) clients were chosen")
        case .selecting:
            if accepted >= terms.goal { return aggregate(cause: "the report goal was reached") }
            let working = live + accepted
            if working >= terms.goal {
                return wait(.reporting, at: time, terms: terms, cause: "enough clients were assigned")
            }
            guard isLate else { return [] }
            guard working >= terms.minimum else {
                return abandon("too few clients: \(working) were at work when the selection ended", at: time)
            }
            return wait(.reporting, at: time, terms: terms, cause: "the selection deadline passed")
        case .reporting where terms.policy.isDrawn:
            // While the drawn are still being counted more may come.
            if let drawn, drawn <= accepted + rejected + failed + expired && live == 0 && !terms.isSecret {
                guard accepted >= terms.minimum else {
                    return abandon("too few updates: \(accepted) came from the \(drawn) who were drawn", at: time)
                }
                return aggregate(cause: "everyone who was drawn has reported")
            }
            return isLate ? close(at: time, terms: terms) : []
        case .reporting:
            if accepted >= terms.goal { return aggregate(cause: "the report goal was reached") }
            guard isLate else { return [] }
            if terms.isBuffered && accepted < terms.minimum {
                // Updates stay good in this mode: there is nothing to gain by throwing them away.
                return wait(.reporting, at: time, terms: terms, cause: "the buffer is not full yet: \(accepted) so far")
            }
            return close(at: time, terms: terms)
        case .aggregating, .committed, .abandoned: return []
        }
    }

    private mutating func close(at time: Date, terms: RoundTerms) -> [RoundEffect] {
        guard accepted >= terms.minimum else {
            return abandon("too few updates: \(accepted) came before the report deadline", at: time)
        }
        return aggregate(cause: "the report deadline passed with enough updates")
    }

    private mutating func wait(
        _ next: RoundPhase,
        at time: Date,
        terms: RoundTerms,
        cause: String
    ) -> [RoundEffect] {
        phase = next
        deadline = time.addingTimeInterval(next == .selecting ? terms.selectionTimeoutS : terms.reportTimeoutS)
        return [.history(state: next, cause: cause)]
    }

    private mutating func aggregate(cause: String) -> [RoundEffect] {
        phase = .aggregating
        return [.history(state: phase, cause: cause), .aggregate]
    }

    private mutating func abandon(_ cause: String, at time: Date) -> [RoundEffect] {
        reason = cause
        return end(as: .abandoned, at: time, cause: cause) + [.discard]
    }

    private mutating func end(as final: RoundPhase, at time: Date, cause: String) -> [RoundEffect] {
        phase = final
        closedAt = time
        return [.history(state: final, cause: cause)]
    }

    private func requireCollecting() throws(RoundError) {
        guard phase.isCollecting else { throw .roundOver(phase) }
    }
}
