import Foundation
import Logging
import StrictJSON
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
        guard let round = run.round, !budgets.trust.isHalted(run.specification) else { return .noSlot }
        let terms = run.terms(of: round)
        if let refusal = participationRefusal(of: client, run: run, round: round) { return refusal }
        if let refusal = requirementRefusal(of: client, run: run, exampleCount: exampleCount) { return refusal }
        guard round.phase.isCollecting else { return round.phase == .abandoned ? .backoff : .noSlot }
        guard holds[run.record.id] == nil, holdReason(run) == nil else { return .noSlot }
        guard !run.members.contains(client.id) else { return .noSlot }
        if terms.policy.isDrawn {
            guard isDrawn(client, run: run, round: round, policy: terms.policy) else { return .noSlot }
            return nil
        }
        if terms.policy == .uniform && round.phase == .selecting { return .choosing }
        guard run.freeSlots > 0 else { return .noSlot }
        return tierIsFull(client, run: run, round: round, terms: terms) ? .noSlot : nil
    }

    /// Why the limits on participation keep a client out of the open round, or `nil`; nothing of the client is parsed for that.
    func participationRefusal(of client: ClientRecord, run: RunState, round: RoundRecord) -> Refusal? {
        // A further turn in the same attempt is no further participation.
        guard !(round.phase.isCollecting && run.members.hasHadTurn(client.id)) else { return nil }
        guard !round.isEvaluation else {
            // A turn to train may come yet, or has.
            return run.hasMeasuredEnough(client.id) ? .noSlot : nil
        }
        let cohort = run.specification.cohort
        if cohort.maxParticipations > 0 && run.participations[client.id, default: 0] >= cohort.maxParticipations {
            // It may still be asked to measure.
            let mayEvaluate = run.specification.evaluation.every > 0 && !run.hasMeasuredEnough(client.id)
            return mayEvaluate ? .noSlot : .cap
        }
        let separation = cohort.minSeparationRounds
        if separation > 0, let last = run.lastRounds[client.id], run.versions.count - last < separation {
            return .separation
        }
        return nil
    }

    /// Whether a client may be given work in the open attempt, now or later, if it comes.
    func mayJoin(_ client: ClientRecord, run: RunState, round: RoundRecord) -> Bool {
        client.populationId == run.record.populationId && client.state != .revoked && client.quarantinedAt == nil
            && !run.members.contains(client.id) && participationRefusal(of: client, run: run, round: round) == nil
            // What a client has not said yet it may say when it comes.
            && (client.capabilities == "{}" || requirementRefusal(of: client, run: run, exampleCount: nil) == nil)
    }

    private func requirementRefusal(of client: ClientRecord, run: RunState, exampleCount: Int?) -> Refusal? {
        guard run.requirements != nil || run.minimumVersion != nil else { return nil }
        var profile = clients.profile(of: client)
        // With privacy a count of the client's examples decides nothing: it would be a release of its own.
        if let exampleCount, !run.specification.isPrivate { profile.exampleCount = exampleCount }
        return Self.requirementRefusal(of: profile, run.requirements, run.minimumVersion)
    }

    private static func requirementRefusal(
        of profile: EligibilityExpression.Subject,
        _ requirements: EligibilityExpression?,
        _ minimumVersion: DottedVersion?
    ) -> Refusal? {
        if let minimumVersion {
            let version = profile.capabilities.runtimeVersion.flatMap { DottedVersion($0) }
            guard let version, version >= minimumVersion else { return .version }
        }
        guard requirements?.accepts(profile) ?? true else { return .requirements }
        return nil
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

    // MARK: - Counting clients

    /// So many clients are looked at in one go; where there are more, they are counted in parts, between which others have
    /// their turn.
    static let countedAtOnce = 1000

    /// How many clients a question admits, as far as that is known: of many it is counted aside, and again after a minute.
    ///
    /// - Parameters:
    ///   - run: Whom it is about.
    ///   - round: The open attempt; its count is good for no other one.
    ///   - admits: The question, which must be cheap.
    /// - Returns: The count; `nil` while the first one is under way.
    func tally(
        of run: RunState,
        _ round: RoundRecord,
        _ admits: @escaping @Sendable (isolated Coordinator, RunState, ClientRecord) -> Bool
    ) -> Int? {
        let (id, attempt) = (run.record.id, [round.number, round.attempt])
        guard clients.count > Self.countedAtOnce else {
            return clients.part(from: 0, limit: Self.countedAtOnce).count { admits(self, run, $0) }
        }
        let known = tallies[id].flatMap { $0.attempt == attempt ? $0 : nil }
        if let known, known.isCounting || (0..<60).contains(now.timeIntervalSince(known.at)) { return known.count }
        tallies[id] = Tally(attempt: attempt, count: known?.count, at: now, isCounting: true)
        Task(priority: .utility) {
            var (count, place) = (0, 0)
            while let part = self.count(run: id, from: place, admits) {
                count += part
                place += Self.countedAtOnce / 2
                await Task.yield()
            }
            if tallies[id]?.attempt == attempt {
                tallies[id] = Tally(attempt: attempt, count: count, at: now, isCounting: false)
            }
        }
        return known?.count
    }

    private func count(
        run id: String,
        from place: Int,
        _ admits: @Sendable (isolated Coordinator, RunState, ClientRecord) -> Bool
    ) -> Int? {
        guard let run = runs[id], place < clients.count, !isStopping else { return nil }
        return clients.part(from: place, limit: Self.countedAtOnce / 2).count { admits(self, run, $0) }
    }

    /// Counts the clients that meet a run's requirements; their profiles are parsed elsewhere where they are many.
    private func countEligible(run id: String) {
        guard let run = runs[id], run.requirements != nil || run.minimumVersion != nil else { return }
        if let known = run.eligible, (0...60).contains(now.timeIntervalSince(known.at)) { return }
        let population = run.record.populationId
        guard clients.count > Self.countedAtOnce else {
            let count = clients.part(from: 0, limit: Self.countedAtOnce).count {
                $0.populationId == population && $0.state != .revoked
                    && requirementRefusal(of: $0, run: run, exampleCount: nil) == nil
            }
            runs[id]?.eligible = (count, now)
            return
        }
        let (requirements, minimumVersion) = (run.requirements, run.minimumVersion)
        // No second count begins while this one is under way; what was known stays good.
        runs[id]?.eligible = (run.eligible?.count ?? .max, now)
        inParts { record in
            record.populationId == population && record.state != .revoked
                && Self.requirementRefusal(of: ClientProfileCache.parse(record), requirements, minimumVersion) == nil
        } while: { coordinator in
            coordinator.runs[id]?.isOver == false
        } then: { coordinator, count in
            coordinator.runs[id]?.eligible = (count, coordinator.now)
        }
    }

    /// Counts clients on another thread, some at a time, and then tells how many there were.
    ///
    /// It ends, and tells nothing, when nobody wants the count any more: attempts that open and end in a row cost little more than
    /// their openings.
    private nonisolated func inParts(
        _ admits: @escaping @Sendable (ClientRecord) -> Bool,
        while isWanted: @escaping @Sendable (isolated Coordinator) -> Bool,
        then tell: @escaping @Sendable (isolated Coordinator, Int) -> Void
    ) {
        Task.detached(priority: .utility) {
            var (count, place) = (0, 0)
            while let part = await self.part(from: place, while: isWanted) {
                guard !part.isEmpty else { return await self.tell(count, tell) }
                count += part.count(where: admits)
                place += part.count
            }
        }
    }

    private func part(
        from place: Int,
        while isWanted: @Sendable (isolated Coordinator) -> Bool
    ) -> [ClientRecord]? {
        isStopping || !isWanted(self) ? nil : clients.part(from: place, limit: Self.countedAtOnce / 2)
    }

    private func tell(_ count: Int, _ body: @Sendable (isolated Coordinator, Int) -> Void) {
        if !isStopping { body(self, count) }
    }

    // MARK: - Drawn cohorts

    /// How many clients the draw of an attempt takes, where that is known without a look at many: else it is `nil` until
    /// ``countDrawIfNeeded(run:)`` has counted them.
    ///
    /// The count only says when everyone has reported. Whether a client is in is decided by its coin, whenever it comes.
    func drawnCountAtOnce(_ run: RunState, _ round: RoundRecord, policy: CohortPolicy) -> Int? {
        guard policy != .all else { return presentCount(population: run.record.populationId) }
        guard clients.count <= Self.countedAtOnce else { return nil }
        return clients.part(from: 0, limit: Self.countedAtOnce).count {
            $0.state != .revoked && isDrawn($0, run: run, round: round, policy: policy)
        }
    }

    /// Counts the drawn clients of an open attempt elsewhere, where they have not been counted.
    func countDrawIfNeeded(run id: String) {
        guard let run = runs[id], let round = run.round, round.phase.isCollecting, round.drawn == nil,
            run.terms(of: round).policy.isDrawn, let key = round.drawKey
        else { return }
        let (population, rate) = (run.record.populationId, run.specification.cohort.samplingRate ?? 0)
        let limit = run.record.startedAt ?? run.record.createdAt
        let (number, attempt) = (round.number, round.attempt)
        inParts { record in
            record.populationId == population && record.registeredAt <= limit && record.state != .revoked
                && PoissonDraw.includes(record.id, key: key, rate: rate)
        } while: { coordinator in
            guard let open = coordinator.runs[id]?.round, open.phase.isCollecting, open.drawn == nil else {
                return false
            }
            return open.number == number && open.attempt == attempt
        } then: { coordinator, count in
            guard let open = coordinator.runs[id]?.round, open.number == number, open.attempt == attempt,
                open.phase.isCollecting, open.drawn == nil
            else { return }
            do { try coordinator.drive(run: id, [.drawn(count)]) } catch {
                // The attempt then lasts until its deadline.
                coordinator.logger.error("A draw's count was not stored", metadata: ["error": "\(error)"])
            }
        }
    }

    // MARK: - Uniform and tiers

    /// Makes ready what a new round's selection needs.
    func prepareSelection(run id: String, terms: RoundTerms) {
        guard let run = runs[id] else { return }
        runs[id]?.reservoir = terms.policy == .uniform ? Reservoir(capacity: terms.wanted) : nil
        if run.specification.cohort.tiers > 1 {
            runs[id]?.tierBounds = clients.speeds(population: run.record.populationId)
                .bounds(tiers: run.specification.cohort.tiers)
        }
        countEligible(run: id)
    }

    /// Chooses the cohort of a `uniform` round from those who came, and gives them their work.
    func drawCohort(run id: String) throws {
        guard let run = runs[id], let round = run.round, round.phase == .selecting, round.drawn == nil else { return }
        let chosen = (run.reservoir?.chosen ?? []).filter {
            // What was asked when it came may be otherwise now.
            clients[$0].map { mayJoin($0, run: run, round: round) } ?? false && liveAssignmentByClient[$0] == nil
        }
        var changes: [StoreChange] = []
        for client in chosen {
            changes += try newAssignment(for: client, in: run, round: round).changes
            if let raised = clients[client]?.withNextGeneration { changes.append(.client(raised)) }
        }
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

    /// So many long polls are looked at in one go.
    private static let lookedAtOnce = 256

    /// Wakes as many long polls as there is work for, those who have waited longest first.
    ///
    /// Looks at no more of them than it needs to fill the open places, and at some at a time.
    func wakeForWork() {
        guard !waiters.isEmpty else { return }
        var places: [String: [(run: String, count: Int)]] = [:]
        for id in openRuns {
            guard let run = runs[id], run.record.state == .running, let round = run.round,
                round.phase.isCollecting
            else { continue }
            if run.terms(of: round).policy.isDrawn {
                tellDrawn(run: id, round)
                continue
            }
            // While a uniform cohort is chosen everyone takes part in the choice, and goes on waiting.
            let isChoosing = round.phase == .selecting && run.reservoir != nil
            let count = isChoosing ? Int.max : run.freeSlots
            if count > 0 { places[run.record.populationId, default: []].append((id, count)) }
        }
        var isFinished = true
        for (population, open) in places {
            isFinished = wake(population: population, for: open) && isFinished
        }
        guard !isFinished, !isWaking else { return }
        isWaking = true
        Task {
            isWaking = false
            wakeForWork()
        }
    }

    /// Looks at some who wait in a population; `false` where others are left to look at.
    private func wake(population: String, for places: [(run: String, count: Int)]) -> Bool {
        var open = places
        var woken: [Int] = []
        let isFinished = waiters.inOrder(population: population, limit: Self.lookedAtOnce) { id, name in
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
        return isFinished
    }

    /// Wakes those who wait and were drawn, once an attempt: whoever comes later is told when it comes.
    ///
    /// The coins are tossed elsewhere.
    private func tellDrawn(run id: String, _ round: RoundRecord) {
        let attempt = [round.number, round.attempt]
        guard drawsTold[id] != attempt, let run = runs[id], let key = round.drawKey else { return }
        drawsTold[id] = attempt
        let policy = run.terms(of: round).policy
        let rate = policy == .poisson ? run.specification.cohort.samplingRate ?? 0 : 1
        let waiting = waiters.clients(population: run.record.populationId)
        guard waiting.count > Self.lookedAtOnce else {
            return wake(waiting.filter { PoissonDraw.includes($0, key: key, rate: rate) }[...], run: id)
        }
        Task.detached {
            let drawn = waiting.filter { PoissonDraw.includes($0, key: key, rate: rate) }
            for start in stride(from: 0, to: drawn.count, by: Self.lookedAtOnce) {
                await self.wake(drawn[start..<min(drawn.count, start + Self.lookedAtOnce)], run: id)
            }
        }
    }

    private func wake(_ drawn: ArraySlice<String>, run id: String) {
        for name in drawn {
            guard let client = clients[name], let run = runs[id], refusal(of: client, run: run) == nil else { continue }
            wake(client: name)
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
        waiters.remove(id)?.resume(returning: true)
    }

    /// Long polls that wait.
    package var waiterCount: Int { waiters.count }

    /// Wakes every long poll: the server stops.
    package func wakeAll() {
        for continuation in waiters.removeAll() { continuation.resume(returning: true) }
    }

    // MARK: - Pace

    /// When a client that a run has no work for should come again.
    func retryWindow(_ refusal: Refusal, run: RunState?, population: String) -> CheckInResponse.RetryWindow {
        let seen = clients.presence.count(population: population, at: now)
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

/// An answer about many clients.
struct Tally: Sendable {
    /// The attempt that it is about.
    var attempt: [Int]
    /// `nil` before the first count.
    var count: Int?
    var at: Date
    var isCounting: Bool
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
        tierCounts = (try? JSONValue(encoding: table))?.text
    }
}
