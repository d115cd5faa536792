import Foundation
import WireFormat

/// Who may take part in which round, and who is woken when there is work.
extension Coordinator {
    /// Why a run has no work for a client now.
    enum Refusal: String {
        case cap = "participation_limit"
        case separation = "too_soon"
        case requirements = "not_eligible"
        case version = "client_too_old"
        /// Also the answer to a client that a draw left out: it must look like any other.
        case noSlot = "no_open_slot"
        case choosing = "in_selection"
        case backoff = "between_attempts"
    }

    /// Whether the client may have a place in the run's open round, or why not.
    func refusal(of client: ClientRecord, run: RunState, exampleCount: Int? = nil) -> Refusal? {
        guard let round = run.round else { return .noSlot }
        let cohort = run.specification.cohort
        let terms = run.terms(of: round)
        if round.isEvaluation {
            // A turn to train may come yet, or has.
            if run.hasMeasuredEnough(client.id) { return .noSlot }
        } else {
            if cohort.maxParticipations > 0
                && run.participations[client.id, default: 0] >= cohort.maxParticipations
            {
                // It may still be asked to measure.
                let mayEvaluate = run.specification.evaluation.every > 0 && !run.hasMeasuredEnough(client.id)
                return mayEvaluate ? .noSlot : .cap
            }
            let separation = cohort.minSeparationRounds
            if separation > 0, let last = run.lastRounds[client.id], run.versions.count - last < separation {
                return .separation
            }
        }
        if let refusal = requirementRefusal(of: client, run: run, exampleCount: exampleCount) { return refusal }
        guard round.phase.isCollecting else { return round.phase == .abandoned ? .backoff : .noSlot }
        guard !run.members.contains(client.id) else { return .noSlot }
        if terms.policy.isDrawn {
            guard isDrawn(client, run: run, round: round, policy: terms.policy) else { return .noSlot }
            return nil
        }
        if terms.policy == .uniform && round.phase == .selecting { return .choosing }
        guard run.freeSlots > 0 else { return .noSlot }
        return tierIsFull(client, run: run, round: round, terms: terms) ? .noSlot : nil
    }

    private func requirementRefusal(of client: ClientRecord, run: RunState, exampleCount: Int?) -> Refusal? {
        guard run.requirements != nil || run.minimumVersion != nil else { return nil }
        var profile = profile(of: client)
        if let exampleCount { profile.exampleCount = exampleCount }
        if let minimum = run.minimumVersion {
            let version = profile.capabilities.runtimeVersion.flatMap { DottedVersion($0) }
            guard let version, version >= minimum else { return .version }
        }
        guard run.requirements?.accepts(profile) ?? true else { return .requirements }
        return nil
    }

    /// What is known of a client, parsed once.
    func profile(of client: ClientRecord) -> EligibilityExpression.Subject {
        if let known = profiles[client.id] { return known }
        let labels = try? JSONDecoder().decode([String: String].self, from: Data(client.labels.utf8))
        let capabilities = try? WireCoding.decode(ClientCapabilities.self, from: Data(client.capabilities.utf8))
        let profile = EligibilityExpression.Subject(
            capabilities: capabilities ?? .init(),
            labels: labels ?? [:],
            name: client.name
        )
        profiles[client.id] = profile
        return profile
    }

    private func isDrawn(_ client: ClientRecord, run: RunState, round: RoundRecord, policy: CohortPolicy) -> Bool {
        guard let key = round.drawKey, isEnumerated(client, run: run, round: round, policy: policy) else {
            return false
        }
        let rate = policy == .poisson ? run.specification.cohort.samplingRate ?? 0 : 1
        return PoissonDraw.includes(client.id, key: key, rate: rate)
    }

    /// Whether the client belongs to the list that a draw is made from: fixed at the start of the run for `poisson`.
    private func isEnumerated(_ client: ClientRecord, run: RunState, round: RoundRecord, policy: CohortPolicy) -> Bool {
        let limit = policy == .poisson ? run.record.startedAt ?? run.record.createdAt : round.openedAt
        return client.populationId == run.record.populationId && client.registeredAt <= limit
    }

    /// How many clients a draw takes.
    func drawnCount(_ run: RunState, key: String, policy: CohortPolicy) -> Int {
        var round = RoundRecord(
            runId: run.record.id,
            number: 1,
            attempt: 1,
            opening: .reporting,
            at: now,
            deadline: now
        )
        round.drawKey = key
        return clients.values.count {
            $0.state != "revoked" && isDrawn($0, run: run, round: round, policy: policy)
        }
    }

    // MARK: - Uniform and tiers

    /// Makes ready what a new round's selection needs.
    func prepareSelection(run id: String, terms: RoundTerms) {
        guard let run = runs[id] else { return }
        runs[id]?.reservoir = terms.policy == .uniform ? Reservoir(capacity: terms.wanted) : nil
        let members = clients.values.lazy.filter {
            $0.populationId == run.record.populationId && $0.state != "revoked"
        }
        if run.specification.cohort.tiers > 1 {
            runs[id]?.tierBounds = SpeedTiers.bounds(
                seconds: members.compactMap(\.secondsPerAssignment),
                tiers: run.specification.cohort.tiers
            )
        }
        if run.requirements != nil || run.minimumVersion != nil,
            run.eligible.map({ now.timeIntervalSince($0.at) > 60 || now < $0.at }) ?? true
        {
            let count = members.count { requirementRefusal(of: $0, run: run, exampleCount: nil) == nil }
            runs[id]?.eligible = (count, now)
        }
    }

    /// Chooses the cohort of a `uniform` round from those who came, and gives them their work.
    func drawCohort(run id: String) throws {
        guard let run = runs[id], let round = run.round, round.phase == .selecting, round.drawn == nil else { return }
        let chosen = (run.reservoir?.chosen ?? []).filter {
            clients[$0].map { $0.state != "revoked" } ?? false && liveAssignmentByClient[$0] == nil
        }
        var changes: [StoreChange] = []
        for client in chosen { changes += try newAssignment(for: client, in: run, round: round).changes }
        try drive(run: id, chosen.map { _ in .assigned } + [.drawn(chosen.count)], with: changes)
        try drive(run: id, [.tick(live: runs[id]?.atWork.count ?? 0)])
        for client in chosen { wake(client: client) }
    }

    func tier(of client: ClientRecord, run: RunState) -> Int? {
        SpeedTiers.tier(seconds: client.secondsPerAssignment, bounds: run.tierBounds)
    }

    /// Whether the client's tier has its share of the places already, while places are still kept for the others.
    private func tierIsFull(_ client: ClientRecord, run: RunState, round: RoundRecord, terms: RoundTerms) -> Bool {
        let tiers = run.specification.cohort.tiers
        guard tiers > 1, round.phase == .selecting, let tier = tier(of: client, run: run),
            now < round.openedAt.addingTimeInterval(terms.selectionTimeoutS / 2)
        else { return false }
        let share = (terms.wanted + tiers - 1) / tiers
        return round.counts(ofTier: tier).assigned >= share
    }

    // MARK: - Waking

    /// Wakes as many long polls as there is work for, those who have waited longest first.
    ///
    /// Looks at no more of them than it needs to fill the open places.
    func wakeForWork() {
        guard !waiters.isEmpty else { return }
        var places: [String: [(run: String, count: Int)]] = [:]
        for id in runOrder {
            guard let run = runs[id], !run.isOver else { continue }
            // While a uniform cohort is chosen everyone takes part in the choice, and goes on waiting.
            let isChoosing = run.round?.phase == .selecting && run.reservoir != nil
            let count = isChoosing ? Int.max : run.freeSlots
            if count > 0 { places[run.record.populationId, default: []].append((id, count)) }
        }
        for (population, open) in places {
            var open = open
            var woken: [Int] = []
            waiters.inOrder(population: population) { id, name in
                guard let client = clients[name] else { return true }
                for index in open.indices where open[index].count > 0 {
                    guard let run = runs[open[index].run] else { continue }
                    let refusal = refusal(of: client, run: run)
                    if refusal == .choosing {
                        offer(name, run: open[index].run)
                    } else if refusal == nil {
                        open[index].count -= 1
                        woken.append(id)
                        break
                    }
                }
                return open.contains { $0.count > 0 }
            }
            for id in woken { wake(id) }
        }
    }

    func offer(_ client: String, run id: String) {
        var generator = SystemRandomNumberGenerator()
        runs[id]?.reservoir?.offer(client, using: &generator)
    }

    func wake(client: String) {
        for id in waiters.ids(ofClient: client) { wake(id) }
    }

    func wake(_ id: Int) {
        waiters.remove(id)?.resume()
    }

    /// Long polls that wait.
    package var waiterCount: Int { waiters.count }

    /// Wakes every long poll: the server stops.
    package func wakeAll() {
        for continuation in waiters.removeAll() { continuation.resume() }
    }

    // MARK: - Pace

    /// When a client that a run has no work for should come again.
    func retryWindow(_ refusal: Refusal, run: RunState?, population: String) -> CheckInResponse.RetryWindow {
        let seen = presence.count(population: population, at: now)
        guard let run, let round = run.round else {
            return PaceSteering.window(secondsUntilWork: 5, population: seen, wanted: 0, jitter: 25)
        }
        let wanted = run.terms(of: round).wanted
        let seconds: Double
        switch refusal {
        case .choosing: seconds = round.deadline.timeIntervalSince(now)
        case .backoff: seconds = run.nextOpening(now: now).timeIntervalSince(now)
        case .requirements, .version: seconds = 60
        case .cap, .separation, .noSlot: seconds = 1
        }
        return PaceSteering.window(
            secondsUntilWork: seconds,
            population: seen,
            wanted: wanted,
            jitter: refusal == .choosing ? 1 : 4
        )
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

    /// Notes one more of a tier.
    mutating func count(tier: Int?, accepted: Bool) {
        guard let tier else { return }
        var table = tierTable
        while table.count <= tier { table.append([0, 0]) }
        table[tier][accepted ? 1 : 0] += 1
        tierCounts = (try? JSONEncoder().encode(table)).map { String(decoding: $0, as: UTF8.self) }
    }
}
