import Coordination

/// A store that hands on to another one what it does not change itself.
protocol ForwardingRunStore: RunStore {
    var inner: any RunStore { get }
}

extension ForwardingRunStore {
    func commit(_ changes: [StoreChange]) throws { try inner.commit(changes) }
    func wasLastCommitStored() throws -> Bool { try inner.wasLastCommitStored() }
    func load() throws -> StoredState { try inner.load() }
    func participations(clients: [String]) throws -> [ParticipationRecord] {
        try inner.participations(clients: clients)
    }
    func assignment(_ id: String) throws -> AssignmentRecord? { try inner.assignment(id) }
    func history(run: String, round: Int, assignments: Bool, from place: Int, limit: Int) throws -> [HistoryRow] {
        try inner.history(run: run, round: round, assignments: assignments, from: place, limit: limit)
    }
    func recentHistory(limit: Int) throws -> [HistoryRow] { try inner.recentHistory(limit: limit) }
    func audit(_ query: AuditQuery) throws -> [AuditRow] { try inner.audit(query) }
    func events(after id: Int, limit: Int, run: String?) throws -> [EventRow] {
        try inner.events(after: id, limit: limit, run: run)
    }
    func updateScores(run: String, round: Int) throws -> [UpdateScoreRecord] {
        try inner.updateScores(run: run, round: round)
    }
    func updateScores(client: String, limit: Int) throws -> [UpdateScoreRecord] {
        try inner.updateScores(client: client, limit: limit)
    }
}
