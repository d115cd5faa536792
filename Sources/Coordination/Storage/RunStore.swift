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
    package var modelVersions: [ModelVersionRecord] = []
    package var modelMetrics: [ModelMetricsRecord] = []
    /// When attempts began to report and to aggregate, oldest first.
    package var phaseChanges: [HistoryRow] = []
    package var ledger: [LedgerRow] = []
    /// The ids of the oldest and the newest event that are kept; 1 and 0 where there is none.
    package var eventRange: (first: Int, last: Int) = (1, 0)

    package init() {}
}

/// Where the coordinator's state is durable.
///
/// `commit` returns after the changes would survive a power cut, all or none of them. Everything that several servers
/// would share goes through this protocol.
package protocol RunStore: Sendable {
    /// Applies the changes in one transaction: records are inserted or replaced by their keys, ledger, history and
    /// audit rows only appended.
    func commit(_ changes: [StoreChange]) throws

    /// Reads the whole state.
    func load() throws -> StoredState

    /// One assignment, also of a round that is long over.
    func assignment(_ id: String) throws -> AssignmentRecord?

    /// The state changes of one round (all attempts), or of the run itself for round 0, oldest first.
    ///
    /// With `assignments` those of its assignments too.
    func history(run: String, round: Int, assignments: Bool) throws -> [HistoryRow]

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
