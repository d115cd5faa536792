import Synchronization

/// A store for tests and throw-away servers: nothing survives the process.
package final class InMemoryRunStore: RunStore {
    private struct Tables {
        var populations: [String: PopulationRecord] = [:]
        var tokens: [String: TokenRecord] = [:]
        var clients: [String: ClientRecord] = [:]
        var clientOrder: [String] = []
        var runs: [String: RunRecord] = [:]
        /// In the order in which they opened.
        var rounds: [RoundRecord] = []
        var assignments: [String: AssignmentRecord] = [:]
        var modelVersions: [String: ModelVersionRecord] = [:]
        var modelMetrics: [String: ModelMetricsRecord] = [:]
        var ledger: [LedgerRow] = []
        var history: [HistoryRow] = []
        var audit: [AuditRow] = []
        var events: [EventRow] = []
        var scores: [UpdateScoreRecord] = []
        var sessions: [String: ProtectedSessionRecord] = [:]
        var pseudonyms: [String: PseudonymRecord] = [:]
    }

    private let tables = Mutex(Tables())

    package init() {}

    package func commit(_ changes: [StoreChange]) throws {
        tables.withLock { tables in
            for change in changes {
                switch change {
                case .population(let record): tables.populations[record.id] = record
                case .token(let record): tables.tokens[record.hash] = record
                case .deleteToken(let hash): tables.tokens[hash] = nil
                case .client(let record):
                    if tables.clients.updateValue(record, forKey: record.id) == nil {
                        tables.clientOrder.append(record.id)
                    }
                case .run(let record): tables.runs[record.id] = record
                case .round(let record):
                    let place = tables.rounds.lastIndex {
                        ($0.runId, $0.number, $0.attempt) == (record.runId, record.number, record.attempt)
                    }
                    if let place { tables.rounds[place] = record } else { tables.rounds.append(record) }
                case .assignment(let record): tables.assignments[record.id] = record
                case .modelVersion(let record): tables.modelVersions["\(record.runId)/\(record.version)"] = record
                case .modelMetrics(let record):
                    tables.modelMetrics["\(record.runId)/\(record.version)/\(record.source)"] = record
                case .ledger(let row): tables.ledger.append(row)
                case .history(let row): tables.history.append(row)
                case .audit(var row):
                    row.sequence = tables.audit.count + 1
                    tables.audit.append(row)
                case .event(let row): tables.events.append(row)
                case .deleteEvents(let id): tables.events.removeAll { $0.id <= id }
                case .updateScore(let record):
                    tables.scores.removeAll { $0.assignmentId == record.assignmentId }
                    tables.scores.append(record)
                case .protectedSession(let record):
                    tables.sessions["\(record.runId)/\(record.round)/\(record.attempt)"] = record
                case .pseudonym(let record): tables.pseudonyms["\(record.clientId)/\(record.domain)"] = record
                }
            }
        }
    }

    package func load() throws -> StoredState {
        tables.withLock { tables in
            var state = StoredState()
            state.populations = tables.populations.values.sorted { $0.id < $1.id }
            state.tokens = tables.tokens.values.sorted { $0.hash < $1.hash }
            state.clients = tables.clientOrder.compactMap { tables.clients[$0] }
            state.runs = tables.runs.values.sorted { $0.id < $1.id }
            state.rounds = tables.rounds
            state.assignments = tables.assignments.values.sorted { $0.id < $1.id }
            state.modelVersions = tables.modelVersions.values.sorted { ($0.runId, $0.version) < ($1.runId, $1.version) }
            state.phaseChanges = tables.history.filter { ["reporting", "aggregating"].contains($0.state) }
            state.modelMetrics = tables.modelMetrics.values.sorted {
                ($0.runId, $0.version, $0.source) < ($1.runId, $1.version, $1.source)
            }
            state.protectedSessions = tables.sessions.values.filter { $0.state != .ended }
                .sorted { ($0.runId, $0.round, $0.attempt) < ($1.runId, $1.round, $1.attempt) }
            state.pseudonyms = tables.pseudonyms.values.sorted { ($0.domain, $0.clientId) < ($1.domain, $1.clientId) }
            state.ledger = tables.ledger
            if let first = tables.events.first, let last = tables.events.last {
                state.eventRange = (first.id, last.id)
            }
            return state
        }
    }

    package func participations(clients: [String]) throws -> [ParticipationRecord] {
        let wanted = Set(clients)
        return tables.withLock { tables in
            ParticipationRecord.counted(tables.assignments.values.filter { wanted.contains($0.clientId) })
        }
    }

    package func assignment(_ id: String) throws -> AssignmentRecord? {
        tables.withLock { $0.assignments[id] }
    }

    package func history(
        run: String,
        round: Int,
        assignments: Bool,
        from place: Int,
        limit: Int
    ) throws -> [HistoryRow] {
        tables.withLock {
            Array(
                $0.history.filter { row in
                    row.runId == run && row.round == round && (assignments || row.assignmentId == nil)
                }.dropFirst(place).prefix(limit)
            )
        }
    }

    package func recentHistory(limit: Int) throws -> [HistoryRow] {
        tables.withLock { $0.history.filter { $0.assignmentId == nil }.suffix(limit).reversed() }
    }

    package func audit(_ query: AuditQuery) throws -> [AuditRow] {
        tables.withLock { tables in
            let rows = tables.audit.reversed().filter { row in
                query.matches(row) && query.before.map { (row.sequence ?? 0) < $0 } ?? true
            }
            return Array(rows.prefix(query.limit))
        }
    }

    package func events(after id: Int, limit: Int, run: String?) throws -> [EventRow] {
        tables.withLock { tables in
            Array(tables.events.lazy.filter { $0.id > id && (run == nil || $0.runId == run) }.prefix(limit))
        }
    }

    package func updateScores(run: String, round: Int) throws -> [UpdateScoreRecord] {
        tables.withLock { tables in
            tables.scores.filter { $0.runId == run && $0.round == round }
                .sorted { ($1.attempt, $1.norm, $0.assignmentId) < ($0.attempt, $0.norm, $1.assignmentId) }
        }
    }

    package func updateScores(client: String, limit: Int) throws -> [UpdateScoreRecord] {
        tables.withLock { Array($0.scores.reversed().filter { $0.clientId == client }.prefix(limit)) }
    }
}
