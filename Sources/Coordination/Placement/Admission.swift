import Foundation
import StrictJSON
import WireFormat

/// Why a run has no work for a client now.
enum Refusal: String, CaseIterable {
    case choosing = "in_selection"
    /// Also the answer to a client that a draw left out: it must look like any other.
    case noSlot = "no_open_slot"
    case backoff = "between_attempts"
    case separation = "too_soon"
    case requirements = "not_eligible"
    case version = "client_too_old"
    case cap = "participation_limit"
}

/// Who may have a place in a run's open round, at one moment.
struct Admission {
    /// The run, as a copy that nothing may hold while the run changes.
    let run: RunState
    /// Whether the ledger's alarm stops the run.
    var isHalted = false
    /// Whether the run hands out no work, because nobody could fulfil it.
    var isHeld = false
    let time: Date

    /// Why the client may have no place, or `nil` if it may.
    ///
    /// - Parameters:
    ///   - client: The client.
    ///   - clients: Where its profile is kept.
    ///   - exampleCount: What it says of its data.
    /// - Returns: The reason.
    func refusal(of client: ClientRecord, _ clients: ClientTable, exampleCount: Int? = nil) -> Refusal? {
        guard let round = run.round, !isHalted else { return .noSlot }
        let terms = run.terms(of: round)
        if let refusal = run.participationRefusal(of: client.id, round) { return refusal }
        if let refusal = run.requirementRefusal(of: client, clients, exampleCount: exampleCount) { return refusal }
        guard round.phase.isCollecting else { return round.phase == .abandoned ? .backoff : .noSlot }
        guard !isHeld, !run.members.contains(client.id) else { return .noSlot }
        if terms.policy.isDrawn { return run.isDrawn(client, round, policy: terms.policy) ? nil : .noSlot }
        if terms.policy == .uniform && round.phase == .selecting { return .choosing }
        guard run.freeSlots > 0 else { return .noSlot }
        return isTierFull(client, round, terms) ? .noSlot : nil
    }

    /// Whether the client's tier has its share of the places already, while places are still kept for the others.
    private func isTierFull(_ client: ClientRecord, _ round: RoundRecord, _ terms: RoundTerms) -> Bool {
        let tiers = run.specification.cohort.tiers
        guard tiers > 1, round.phase == .selecting, let tier = run.tier(of: client),
            time < round.openedAt.addingTimeInterval(terms.selectionTimeoutS / 2)
        else { return false }
        let share = (terms.wanted + tiers - 1) / tiers
        return round.counts(ofTier: tier).assigned >= share
    }
}

/// What a run's rules say of a client.
extension RunState {
    /// Why the limits on participation keep a client out of the open round, or `nil`; nothing of the client is parsed for that.
    func participationRefusal(of client: String, _ round: RoundRecord) -> Refusal? {
        // A further turn in the same attempt is no further participation.
        guard !(round.phase.isCollecting && members.hasHadTurn(client)) else { return nil }
        guard !round.isEvaluation else {
            // A turn to train may come yet, or has.
            return hasMeasuredEnough(client) ? .noSlot : nil
        }
        let cohort = specification.cohort
        if cohort.maxParticipations > 0 && participations[client, default: 0] >= cohort.maxParticipations {
            // It may still be asked to measure.
            let mayEvaluate = specification.evaluation.every > 0 && !hasMeasuredEnough(client)
            return mayEvaluate ? .noSlot : .cap
        }
        let separation = cohort.minSeparationRounds
        if separation > 0, let last = lastRounds[client], versions.count - last < separation { return .separation }
        return nil
    }

    /// Whether it is worth while to count the clients that may still join: they might be too few.
    func asksForNewcomers(present: Int) -> Bool {
        guard let round, round.phase.isCollecting || round.phase == .abandoned, !terms(of: round).policy.isDrawn else {
            return false
        }
        // A client that never had a part is free; they are counted one by one only if those might be too few.
        guard !round.isEvaluation else {
            return specification.evaluation.maxParticipations != nil
                && present - evaluations.count < specification.evaluation.cohortGoal
        }
        let cohort = specification.cohort
        return (cohort.maxParticipations > 0 || cohort.minSeparationRounds > 1)
            && present - participations.count < cohort.goal
    }

    /// Whether the limits on participation let a client join the open attempt.
    func isNewcomer(_ client: ClientRecord) -> Bool {
        guard client.populationId == record.populationId, client.state != .revoked, let round else { return false }
        guard !round.isEvaluation else { return !hasMeasuredEnough(client.id) && !members.contains(client.id) }
        switch participationRefusal(of: client.id, round) {
        case .cap, .separation: return false
        default: return !(round.phase.isCollecting && members.contains(client.id))
        }
    }

    /// Whether a client may be given work in the open attempt, now or later, if it comes.
    func mayJoin(_ client: ClientRecord, _ round: RoundRecord, _ clients: ClientTable) -> Bool {
        client.populationId == record.populationId && client.state != .revoked && client.quarantinedAt == nil
            && !members.contains(client.id) && participationRefusal(of: client.id, round) == nil
            // What a client has not said yet it may say when it comes.
            && (client.capabilities == "{}" || requirementRefusal(of: client, clients) == nil)
    }

    /// Why the run's requirements keep a client out, or `nil`.
    func requirementRefusal(of client: ClientRecord, _ clients: ClientTable, exampleCount: Int? = nil) -> Refusal? {
        guard let rule = requirementRule else { return nil }
        var profile = clients.profile(of: client)
        // With privacy a count of the client's examples decides nothing: it would be a release of its own.
        if let exampleCount, !specification.isPrivate { profile.exampleCount = exampleCount }
        return rule.refusal(of: profile)
    }

    /// What the run asks of clients; `nil` if it asks for nothing.
    var requirementRule: RequirementRule? {
        guard requirements != nil || minimumVersion != nil else { return nil }
        return RequirementRule(requirements: requirements, minimumVersion: minimumVersion)
    }

    /// Whether the draw of the open attempt takes a client.
    func isDrawn(_ client: ClientRecord, _ round: RoundRecord, policy: CohortPolicy) -> Bool {
        guard let key = round.drawKey, isEnumerated(client, round, policy: policy) else { return false }
        return PoissonDraw.includes(client.id, key: key, rate: drawRate(policy))
    }

    /// The chance with which a draw takes each client.
    func drawRate(_ policy: CohortPolicy) -> Double {
        policy == .poisson ? specification.cohort.samplingRate ?? 0 : 1
    }

    /// Whether the client belongs to the list that a draw is made from: fixed at the start of the run for `poisson`.
    private func isEnumerated(_ client: ClientRecord, _ round: RoundRecord, policy: CohortPolicy) -> Bool {
        let limit = policy == .poisson ? enumerationTime : round.openedAt
        return client.populationId == record.populationId && client.registeredAt <= limit
    }

    /// When the list of clients was fixed that `poisson` draws from.
    var enumerationTime: Date { record.startedAt ?? record.createdAt }

    /// The tier of a client's speed; `nil` if nothing is known.
    func tier(of client: ClientRecord) -> Int? {
        SpeedTiers.tier(seconds: client.secondsPerAssignment, bounds: tierBounds)
    }
}

/// What a run asks of every client.
struct RequirementRule: Sendable {
    var requirements: EligibilityExpression?
    var minimumVersion: DottedVersion?

    /// Why a client does not meet it, or `nil`.
    func refusal(of profile: EligibilityExpression.Subject) -> Refusal? {
        if let minimumVersion {
            let version = profile.capabilities.runtimeVersion.flatMap { DottedVersion($0) }
            guard let version, version >= minimumVersion else { return .version }
        }
        guard requirements?.accepts(profile) ?? true else { return .requirements }
        return nil
    }
}

extension RoundRecord {
    /// Counts of one tier of speed.
    func counts(ofTier tier: Int) -> (assigned: Int, accepted: Int) {
        let table = tierTable
        return tier < table.count ? (table[tier][0], table[tier][1]) : (0, 0)
    }

    /// `[assigned, accepted]` by tier.
    var tierTable: [[Int]] {
        guard let tierCounts, let table = try? JSONDecoder().decode([[Int]].self, from: Data(tierCounts.utf8)) else {
            return []
        }
        return table.filter { $0.count == 2 }
    }

    /// Counts one more of a tier.
    mutating func count(tier: Int?, accepted: Bool) {
        guard let tier else { return }
        var table = tierTable
        while table.count <= tier { table.append([0, 0]) }
        table[tier][accepted ? 1 : 0] += 1
        tierCounts = (try? JSONValue(encoding: table))?.text
    }
}
