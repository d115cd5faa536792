import WireFormat

/// One change of the durable state; a list of them is one transaction.
package enum StoreChange: Sendable {
    case population(PopulationRecord)
    case token(TokenRecord)
    case deleteToken(hash: String)
    case client(ClientRecord)
    case run(RunRecord)
    case round(RoundRecord)
    case assignment(AssignmentRecord)
    case modelVersion(ModelVersionRecord)
    case modelMetrics(ModelMetricsRecord)
    case ledger(LedgerRow)
    case history(HistoryRow)
    case audit(AuditRow)
    case event(EventRow)
    case deleteEvents(through: Int)
    case updateScore(UpdateScoreRecord)
    case protectedSession(ProtectedSessionRecord)
    case pseudonym(PseudonymRecord)
}

/// How often one client was given work in one run.
package struct ParticipationRecord: Equatable, Sendable {
    package var runId: String
    package var clientId: String
    /// Assignments to train, and the round of the last of them.
    package var trainings: Int
    package var lastRound: Int
    /// Assignments to evaluate.
    package var evaluations: Int

    package init(runId: String, clientId: String, trainings: Int, lastRound: Int, evaluations: Int) {
        self.runId = runId
        self.clientId = clientId
        self.trainings = trainings
        self.lastRound = lastRound
        self.evaluations = evaluations
    }
}

/// How many assignments of a round ended badly with one code.
package struct RefusalCount: Equatable, Sendable {
    package var runId: String
    package var round: Int
    package var code: String
    package var count: Int

    package init(runId: String, round: Int, code: String, count: Int) {
        self.runId = runId
        self.round = round
        self.code = code
        self.count = count
    }
}

extension StoreReading {
    /// By way of the whole state, for stores that hold it in memory anyway.
    package func pseudonyms(client: String, pseudonym: String, domain: String) throws -> [PseudonymRecord] {
        try load().pseudonyms.filter { $0.domain == domain && ($0.clientId == client || $0.pseudonym == pseudonym) }
    }
}

extension RunStore {
    /// By way of the whole state, for stores that hold it in memory anyway.
    package func loadForStart() throws -> StoredState {
        var state = try load()
        state.participations = ParticipationRecord.counted(state.assignments)
        state.refusals = state.assignments.filter { $0.state == .rejected || $0.state == .failed }.map {
            RefusalCount(runId: $0.runId, round: $0.round, code: $0.code ?? "unknown", count: 1)
        }
        return state
    }
}

extension ParticipationRecord {
    /// What a list of assignments comes to.
    static func counted(_ assignments: some Sequence<AssignmentRecord>) -> [ParticipationRecord] {
        // Further turns in an attempt are the same participation.
        Dictionary(grouping: assignments.filter { $0.turn == 1 }) { [$0.runId, $0.clientId] }.map { key, records in
            let rounds = records.map(\.round).filter { $0 > 0 }
            return ParticipationRecord(
                runId: key[0],
                clientId: key[1],
                trainings: rounds.count,
                lastRound: rounds.max() ?? 0,
                evaluations: records.count - rounds.count
            )
        }
    }
}

/// Everything that the coordinator holds in memory, read once at start.
package struct StoredState: Sendable {
    package var populations: [PopulationRecord] = []
    package var tokens: [TokenRecord] = []
    package var clients: [ClientRecord] = []
    package var runs: [RunRecord] = []
    /// In the order in which they opened.
    package var rounds: [RoundRecord] = []
    package var assignments: [AssignmentRecord] = []
    /// What all assignments come to; where a start reads, of ``assignments`` only those that still matter may be there.
    package var participations: [ParticipationRecord] = []
    package var refusals: [RefusalCount] = []
    package var modelVersions: [ModelVersionRecord] = []
    package var modelMetrics: [ModelMetricsRecord] = []
    /// When attempts began to report and to aggregate, oldest first.
    package var phaseChanges: [HistoryRow] = []
    /// Sessions of protected rounds that are open, or whose end the helper is still to be told.
    package var protectedSessions: [ProtectedSessionRecord] = []
    package var pseudonyms: [PseudonymRecord] = []
    package var ledger: [LedgerRow] = []
    /// The ids of the oldest and the newest event that are kept; 1 and 0 where there is none.
    package var eventRange: (first: Int, last: Int) = (1, 0)

    package init() {}
}

/// What of the coordinator's state is stored, to read.
package protocol StoreReading: Sendable {
    /// Reads the whole state.
    func load() throws -> StoredState

    /// Reads what a coordinator starts from: assignments of open rounds, and what all of them come to.
    ///
    /// - Complexity: Not in the number of assignments of rounds that are over.
    func loadForStart() throws -> StoredState

    /// How often each of the clients was given work, by run; nothing for those that never were.
    func participations(clients: [String]) throws -> [ParticipationRecord]

    /// The rows of a domain that have this client, or this pseudonym: two at most.
    func pseudonyms(client: String, pseudonym: String, domain: String) throws -> [PseudonymRecord]

    /// One assignment, also of a round that is long over.
    func assignment(_ id: String) throws -> AssignmentRecord?

    /// The state changes of one round (all attempts), or of the run itself for round 0, oldest first.
    ///
    /// With `assignments` those of its assignments too; `limit` of them at most, after the first `place` ones.
    func history(
        run: String,
        round: Int,
        assignments: Bool,
        from place: Int,
        limit: Int
    ) throws -> [HistoryRow]

    /// The last state changes of all runs, newest first.
    func recentHistory(limit: Int) throws -> [HistoryRow]

    /// Rows of the audit log, newest first.
    func audit(_ query: AuditQuery) throws -> [AuditRow]

    /// Events with an id over `id`, of one run where it is given, oldest first.
    func events(after id: Int, limit: Int, run: String?) throws -> [EventRow]

    /// How far the updates of one round (all attempts) stood out, the longest first.
    func updateScores(run: String, round: Int) throws -> [UpdateScoreRecord]

    /// How far one client's updates stood out, the latest first, at most so many.
    func updateScores(client: String, limit: Int) throws -> [UpdateScoreRecord]
}

/// Where the coordinator's state is durable.
///
/// `commit` returns after the changes would survive a power cut, all or none of them. Everything that several servers
/// would share goes through this protocol.
package protocol RunStore: StoreReading {
    /// Applies the changes in one transaction: records are inserted or replaced by their keys, ledger, history and
    /// audit rows only appended.
    ///
    /// - Throws: ``StoreFailure``; with cause `unsettled` nothing was tried, since `wasLastCommitStored()` has not answered yet about
    ///   an earlier transaction.
    func commit(_ changes: [StoreChange]) throws

    /// After ``commit(_:)`` has failed: whether its changes are stored all the same.
    ///
    /// A disk may keep a transaction and fail to say so. The store is opened again and asked; nothing may be committed before it
    /// has answered.
    ///
    /// - Throws: ``StoreFailure`` where it cannot be read now.
    func wasLastCommitStored() throws -> Bool
}

extension RunStore {
    /// A store whose failed transactions leave nothing.
    package func wasLastCommitStored() throws -> Bool { false }
}
