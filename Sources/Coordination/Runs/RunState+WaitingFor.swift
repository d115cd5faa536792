import Foundation
import WireFormat

extension RunState {
    /// One sentence on what the run waits for, and what to do where it waits in vain.
    ///
    /// `clientCount` is how many clients of the population are not revoked, and `newcomerCount` how many of them the limits on
    /// participation let join the open attempt yet; `nil` where that is not known, or plainly enough.
    func waitingFor(
        now: Date,
        clientCount: Int? = nil,
        newcomerCount: Int? = nil,
        stall: Stall? = nil,
        hold: String? = nil
    ) -> String {
        switch record.state {
        case .created: return "the run to be started"
        case .paused:
            let isSecret = specification.privacy.hasSecretDraw
            let atWork = live.isEmpty || isSecret ? "" : "; \(live.count) clients may still deliver"
            return "the run to be resumed\(atWork)"
        case .completed, .cancelled, .failed:
            return "nothing: the run is \(record.state)" + (record.reason.map { " (\($0))" } ?? "")
        case .running: break
        }
        if let hold, round?.phase != .aggregating {
            let kept = round?.phase.isCollecting == true ? "; deadlines move by as long as it takes" : ""
            return hold + kept
        }
        guard let round else { return "the first round to open" }
        let seconds = max(0, Int(round.deadline.timeIntervalSince(now)))
        let terms = terms(of: round)
        let name = round.isEvaluation ? "measurements of version \(-round.number)" : "updates"
        if terms.isSecret, round.phase.isCollecting {
            return "the round's deadline, \(seconds) s left; who was drawn, and how many, is secret"
        }
        switch round.phase {
        case .selecting:
            let there = terms.policy == .uniform ? "\(reservoir?.seenCount ?? 0) checked in" : "\(atWork.count) at work"
            return "clients to check in: \(there), \(round.accepted) of \(terms.goal) \(name) accepted, "
                + "\(seconds) s left to find the minimum of \(terms.minimum)"
                + shortage(round, terms, clientCount, newcomerCount)
        case .reporting:
            let free = freeSlots
            let nobody = atWork.isEmpty && free > 0 && free < .max ? ", nobody at work: \(free) places are open" : ""
            return "\(name): \(round.accepted) of \(terms.goal) accepted, \(atWork.count) at work, \(seconds) s left"
                + nobody + shortage(round, terms, clientCount, newcomerCount)
        case .aggregating:
            let all = terms.isSecret ? "all" : "all \(round.accepted)"
            guard let stall else { return "the aggregation of \(terms.isSecret ? "" : "\(round.accepted) ")\(name)" }
            let wait = max(0, Int(stall.until.timeIntervalSince(now).rounded(.up)))
            return (stall.failure == nil ? "" : "the disk: ") + "\(stall.reason); tried again in \(wait) s, "
                + "\(all) \(name) are kept"
        case .committed: return "the next round to open"
        case .abandoned:
            let wait = max(0, Int(nextOpening(now: now).timeIntervalSince(now).rounded(.up)))
            return
                "attempt \(round.attempt + 1) to open in \(wait) s; the last one was abandoned: \(round.reason ?? "")"
                + shortage(round, terms, clientCount, newcomerCount)
        }
    }

    /// What to say when there are too few clients for the goal, whoever checks in.
    private func shortage(
        _ round: RoundRecord,
        _ terms: RoundTerms,
        _ clientCount: Int?,
        _ newcomerCount: Int?
    ) -> String {
        guard !terms.policy.isDrawn else { return "" }
        let needed = terms.isBuffered ? terms.minimum : terms.goal
        if let clientCount, clientCount < needed {
            return ". The population has only \(clientCount) clients: enroll more, or create a run with a lower goal"
        }
        if let eligible, eligible.count < needed {
            return ". Only \(eligible.count) clients meet the run's requirements: enroll more, or ask for less"
        }
        let present = round.phase.isCollecting ? atWork.count + round.accepted : 0
        if let newcomerCount, present + newcomerCount < needed {
            let cohort = specification.cohort
            if round.isEvaluation {
                return ". \(Self.newcomers(newcomerCount)) measure: the others have reached "
                    + "evaluation.max_participations, or had their part in it; a version that cannot be measured is left out "
                    + "after 3 attempts"
            }
            let limits = [
                cohort.maxParticipations > 0 ? "max_participations of \(cohort.maxParticipations)" : nil,
                cohort.minSeparationRounds > 1 ? "min_separation_rounds of \(cohort.minSeparationRounds)" : nil,
            ].compactMap { $0 }.joined(separator: " or ")
            return ". \(Self.newcomers(newcomerCount)) take part in this round: the others have reached "
                + "\(limits.isEmpty ? "it already" : limits), or had their part in it: enroll more clients, or create a run "
                + "with other limits"
        }
        return ""
    }

    private static func newcomers(_ count: Int) -> String {
        switch count {
        case ...0: "No other client may"
        case 1: "Only one more client may"
        default: "Only \(count) more clients may"
        }
    }
}
