import WireFormat

/// How far a run has looked for a client that may still join its open attempt.
struct NewcomerSearch: Sendable {
    /// Round and attempt.
    let attempt: [Int]
    /// Clients before this place in the order of registration could not join when they were looked at.
    var place = 0
    /// Clients that have changed since: each is looked at again.
    var changed: Set<String> = []
    /// Whether somebody of so many members may take part in the next attempt, when that was last looked at.
    var mayReturn: (memberCount: Int, answer: Bool)?
}

/// Whether anybody is left for an open attempt.
extension Coordinator {
    /// Clients looked at in one go.
    static let searchedAtOnce = 1000

    /// Closes or abandons an attempt at which nobody is at work and which no enrolled client may join, present or not.
    ///
    /// Only where the population has as many clients as the goal: a smaller one waits for others to enroll. Not where a draw chose the
    /// cohort, which ends by itself or must not end early; nor in mode `buffered`, where updates stay good; nor where the
    /// requirements ask for what a client says only when it comes; nor where the next attempt could be joined by nobody either,
    /// and would only be one attempt more while somebody may enroll.
    func endIfNobodyMayJoin(run id: String) throws {
        guard let run = runs[id], let round = run.round, round.phase.isCollecting else { return }
        let terms = run.terms(of: round)
        let isChoosing = terms.policy == .uniform && round.phase == .selecting
        guard !terms.policy.isDrawn, !terms.isSecret, !terms.isBuffered, !isChoosing, run.atWork.isEmpty,
            run.freeSlots > 0, clients.presentCount(population: run.record.populationId) >= terms.goal,
            run.requirements?.usesExampleCount != true
        else { return }
        if mayAnybodyJoin(run, round) { return }
        guard round.accepted >= terms.minimum || mayAnybodyReturn(run) else { return }
        try drive(run: id, [.nobodyLeft])
    }

    /// Whether a client that had its turns in the open attempt may take part in the next one.
    ///
    /// Looked at again when the attempt has more members: they have one participation more, and nobody else has.
    private func mayAnybodyReturn(_ run: RunState) -> Bool {
        let count = run.members.everybody.count
        if let known = newcomerSearches[run.record.id]?.mayReturn, known.memberCount == count { return known.answer }
        let answer = hasOneWhoMayReturn(run)
        newcomerSearches[run.record.id]?.mayReturn = (count, answer)
        return answer
    }

    private func hasOneWhoMayReturn(_ run: RunState) -> Bool {
        let cohort = run.specification.cohort
        guard cohort.minSeparationRounds == 0 else { return false }
        guard cohort.maxParticipations > 0 else { return !run.members.everybody.isEmpty }
        return run.members.everybody.contains { run.participations[$0, default: 0] < cohort.maxParticipations }
    }

    /// Looks on where the last look ended: all looks at one attempt together see each client once, and those again that change.
    ///
    /// - Returns: `false` when every client was looked at and none may join.
    private func mayAnybodyJoin(_ run: RunState, _ round: RoundRecord) -> Bool {
        let (id, attempt) = (run.record.id, [round.number, round.attempt])
        var search =
            newcomerSearches[id].flatMap { $0.attempt == attempt ? $0 : nil } ?? NewcomerSearch(attempt: attempt)
        defer { newcomerSearches[id] = search }
        for client in search.changed.prefix(Self.searchedAtOnce) {
            if let record = clients[client], mayJoin(record, run: run, round: round) { return true }
            search.changed.remove(client)
        }
        for record in clients.part(from: search.place, limit: Self.searchedAtOnce) {
            if mayJoin(record, run: run, round: round) { return true }
            search.place += 1
        }
        return search.place < clients.count || !search.changed.isEmpty
    }
}
