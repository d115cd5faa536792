package import Coordination
import Foundation
import GRDB
import Synchronization
import WireFormat

/// The durable store: one SQLite database in WAL mode with `synchronous = FULL`.
///
/// Each transaction stores its own number. After a failed one the database is opened again, and the number tells whether the transaction
/// is stored: a failed sync may leave the whole transaction in the write-ahead log.
package final class SQLiteRunStore: RunStore {
    private struct State: Sendable {
        /// `nil` while the database cannot be opened again.
        var pool: DatabasePool?
        /// The number of the last transaction that is known to be stored.
        var mark: Int
        /// Whether the transaction after it may be stored.
        var isInDoubt = false
    }

    private let path: String
    private let patienceSeconds: Double
    private let state: Mutex<State>

    /// Opens or creates the database and brings its schema up to date.
    ///
    /// All pages are checked first (`PRAGMA quick_check`), because a server must not start on damaged data.
    ///
    /// - Parameters:
    ///   - path: The database file; `-wal` and `-shm` files appear beside it.
    ///   - patienceSeconds: How long a transaction waits for a lock of another process. The coordinator answers nobody in that time,
    ///     so it is short.
    /// - Throws: `StoreFailure` if the database is damaged, or cannot be opened or migrated; `CoordinationError` with code
    ///   `schema_too_new`.
    package init(path: String, patienceSeconds: Double = 2) throws {
        let (pool, mark) = try StoreFailure.naming {
            let pool = try Self.open(path: path, patienceSeconds: patienceSeconds)
            return (pool, try pool.read { try GuardedDatabase.mark($0) })
        }
        self.path = path
        self.patienceSeconds = patienceSeconds
        state = Mutex(State(pool: pool, mark: mark))
    }

    /// Opens the file.
    ///
    /// With `isKnown`, for a file that this process had open before, pages and schema are not checked again.
    static func open(path: String, patienceSeconds: Double, isKnown: Bool = false) throws -> DatabasePool {
        let migrator = SchemaMigrations.migrator
        return try GuardedDatabase.open(
            path: path,
            patienceSeconds: patienceSeconds,
            isKnown: isKnown,
            migrator: migrator,
            advice: ", or restore a backup made before the upgrade"
        ) { try migrate($0, migrator, path: path) }
    }

    private static func migrate(_ pool: DatabasePool, _ migrator: DatabaseMigrator, path: String) throws {
        let mustForget = try pool.read { database in
            try database.tableExists("assignment")
                && !migrator.appliedMigrations(database).contains(SchemaMigrations.privacyMigration)
        }
        if mustForget {
            let spool = URL(fileURLWithPath: path).deletingLastPathComponent().appendingPathComponent("spool").path
            let before = migrator.migrations.prefix { $0 != SchemaMigrations.privacyMigration }
            if let last = before.last { try migrator.migrate(pool, upTo: last) }
            try pool.read { try SchemaMigrations.writeReceipts($0, spool: spool) }
        }
        try migrator.migrate(pool)
        if mustForget {
            // Earlier versions deleted without overwriting, so the file is rewritten without its free pages and the log is emptied.
            try pool.vacuum()
            try pool.writeWithoutTransaction { _ = try $0.checkpoint(.truncate) }
        }
    }

    package func commit(_ changes: [StoreChange]) throws {
        try state.withLock { state in
            guard let pool = state.pool, !state.isInDoubt else {
                throw StoreFailure(.unsettled, detail: "a failed transaction is not settled yet")
            }
            do {
                try Self.write(changes, number: state.mark + 1, pool)
                state.mark += 1
            } catch let error as StoreFailure {
                // With the lock of another process the transaction did not begin, so nothing can be stored.
                state.isInDoubt = error.cause != .locked
                throw error
            }
        }
    }

    package func wasLastCommitStored() throws -> Bool {
        try state.withLock { state in
            guard state.isInDoubt else { return false }
            // Closing the last connection copies the log into the database, without the failed transaction. If that fails, the next
            // connection recovers the log as after a crash.
            if let pool = state.pool { try? pool.close() }
            state.pool = nil
            let (pool, found) = try GuardedDatabase.reopen(path: path, mark: state.mark) {
                try Self.open(path: path, patienceSeconds: patienceSeconds, isKnown: true)
            }
            let isStored = found > state.mark
            state = State(pool: pool, mark: found)
            return isStored
        }
    }

    func read<Value>(_ body: (Database) throws -> Value) throws -> Value {
        guard let pool = state.withLock({ $0.pool }) else {
            throw StoreFailure(.other, detail: "the database is not open", action: .read)
        }
        return try StoreFailure.naming { try pool.read { try StoreFailure.named($0, body) } }
    }

    private static func write(_ changes: [StoreChange], number: Int, _ pool: DatabasePool) throws(StoreFailure) {
        let failure = pool.writeWithoutTransaction { database -> StoreFailure? in
            do {
                try StoreFailure.named(database) { database in
                    try database.inTransaction(.immediate) {
                        try write(changes, database)
                        try database.execute(sql: "UPDATE store_mark SET value = ?", arguments: [number])
                        return .commit
                    }
                }
                return nil
            } catch {
                return (error as? StoreFailure) ?? StoreFailure(.other, detail: "\(error)")
            }
        }
        if let failure { throw failure }
    }

    private static func write(_ changes: [StoreChange], _ database: Database) throws {
        for change in changes {
            switch change {
            case .population(let record): try record.upsert(database)
            case .token(let record): try record.upsert(database)
            case .deleteToken(let hash): _ = try TokenRecord.deleteOne(database, key: hash)
            case .client(let record): try record.upsert(database)
            case .run(let record): try record.upsert(database)
            case .round(let record): try record.upsert(database)
            case .assignment(let record): try record.upsert(database)
            case .modelVersion(let record): try record.upsert(database)
            case .modelMetrics(let record): try record.upsert(database)
            case .ledger(let row): try row.insert(database)
            case .history(let row): try row.insert(database)
            case .audit(let row): try row.insert(database)
            case .event(let row): try row.insert(database)
            case .deleteEvents(let id):
                try database.execute(sql: "DELETE FROM event WHERE id <= ?", arguments: [id])
            case .updateScore(let record): try record.upsert(database)
            case .protectedSession(let record): try record.upsert(database)
            case .pseudonym(let record): try record.insert(database)
            }
        }
    }

    package func load() throws -> StoredState { try read { try Self.load($0) } }

    static func load(_ database: Database) throws -> StoredState {
        var state = StoredState()
        try loadSmallTables(database, into: &state)
        state.tokens = try tokens(database)
        state.clients = try clients(database)
        state.assignments = try assignments(database)
        state.pseudonyms = try PseudonymRecord.order(sql: "domain, client_id").fetchAll(database)
        return state
    }

    package func pseudonyms(client: String, pseudonym: String, domain: String) throws -> [PseudonymRecord] {
        try read { database in
            try PseudonymRecord.filter(
                sql: "domain = ? AND (client_id = ? OR pseudonym = ?)",
                arguments: [domain, client, pseudonym]
            ).fetchAll(database)
        }
    }

    package func assignment(_ id: String) throws -> AssignmentRecord? {
        try read { try AssignmentRecord.fetchOne($0, key: id) }
    }

    package func history(
        run: String,
        round: Int,
        assignments: Bool,
        from place: Int,
        limit: Int
    ) throws -> [HistoryRow] {
        try read { database in
            try HistoryRow.filter(
                sql: "run_id = ? AND round = ?" + (assignments ? "" : " AND assignment_id IS NULL"),
                arguments: [run, round]
            ).order(sql: "rowid").limit(limit, offset: place).fetchAll(database)
        }
    }

    package func participations(clients: [String]) throws -> [ParticipationRecord] {
        try read { database in
            var records: [ParticipationRecord] = []
            // SQLite limits the parameters of a statement.
            for start in stride(from: 0, to: clients.count, by: 500) {
                let part = clients[start..<min(clients.count, start + 500)]
                let marks = Array(repeating: "?", count: part.count).joined(separator: ",")
                let rows = try Row.fetchCursor(
                    database,
                    sql: "SELECT * FROM participation WHERE client_id IN (\(marks))",
                    arguments: StatementArguments(part)
                )
                while let row = try rows.next() { records.append(ParticipationRecord(row)) }
            }
            return records
        }
    }

    package func recentHistory(limit: Int) throws -> [HistoryRow] {
        try read {
            try HistoryRow.filter(sql: "assignment_id IS NULL").order(sql: "rowid DESC").limit(limit).fetchAll($0)
        }
    }

    package func events(after id: Int, limit: Int, run: String?) throws -> [EventRow] {
        try read { database in
            try EventRow.filter(sql: "id > ? AND (?2 IS NULL OR run_id = ?2)", arguments: [id, run]).order(sql: "id")
                .limit(limit).fetchAll(database)
        }
    }
}

extension SQLiteRunStore {
    package func audit(_ query: AuditQuery) throws -> [AuditRow] {
        var request = AuditRow.order(sql: "sequence DESC").limit(query.limit)
        if let before = query.before { request = request.filter(sql: "sequence < ?", arguments: [before]) }
        if let actor = query.actor { request = request.filter(sql: "actor = ?", arguments: [actor]) }
        if let action = query.action { request = request.filter(sql: "action = ?", arguments: [action]) }
        if let outcome = query.outcome { request = request.filter(sql: "outcome = ?", arguments: [outcome.rawValue]) }
        if let since = query.since {
            request = request.filter(sql: "at >= ?", arguments: [since.timeIntervalSince1970])
        }
        return try read { try request.fetchAll($0) }
    }
}

extension SQLiteRunStore {
    package func updateScores(run: String, round: Int) throws -> [UpdateScoreRecord] {
        try read { database in
            try UpdateScoreRecord.filter(sql: "run_id = ? AND round = ?", arguments: [run, round])
                .order(sql: "attempt DESC, norm DESC, assignment_id").fetchAll(database)
        }
    }

    package func updateScores(client: String, limit: Int) throws -> [UpdateScoreRecord] {
        try read { database in
            try UpdateScoreRecord.filter(sql: "client_id = ?", arguments: [client]).order(sql: "rowid DESC")
                .limit(limit).fetchAll(database)
        }
    }
}

/// Columns are the record's properties in `snake_case`; times are seconds since 1970, so that they read back exactly.
private protocol SnakeCaseRecord: FetchableRecord, PersistableRecord {}

extension SnakeCaseRecord {
    package static var databaseColumnEncodingStrategy: DatabaseColumnEncodingStrategy { .convertToSnakeCase }
    package static var databaseColumnDecodingStrategy: DatabaseColumnDecodingStrategy { .convertFromSnakeCase }
    package static func databaseDateEncodingStrategy(for column: String) -> DatabaseDateEncodingStrategy {
        .timeIntervalSince1970
    }
    package static func databaseDateDecodingStrategy(for column: String) -> DatabaseDateDecodingStrategy {
        .timeIntervalSince1970
    }
}

extension PopulationRecord: SnakeCaseRecord { package static let databaseTableName = "population" }
extension TokenRecord: SnakeCaseRecord { package static let databaseTableName = "token" }
extension ClientRecord: SnakeCaseRecord { package static let databaseTableName = "client" }
extension RunRecord: SnakeCaseRecord { package static let databaseTableName = "run" }
extension RoundRecord: SnakeCaseRecord { package static let databaseTableName = "round" }
extension AssignmentRecord: SnakeCaseRecord { package static let databaseTableName = "assignment" }
extension ModelVersionRecord: SnakeCaseRecord { package static let databaseTableName = "model_version" }
extension ModelMetricsRecord: SnakeCaseRecord { package static let databaseTableName = "model_metrics" }
extension LedgerRow: SnakeCaseRecord { package static let databaseTableName = "privacy_charge" }
extension UpdateScoreRecord: SnakeCaseRecord { package static let databaseTableName = "update_score" }
extension ProtectedSessionRecord: SnakeCaseRecord { package static let databaseTableName = "protected_session" }
extension PseudonymRecord: SnakeCaseRecord { package static let databaseTableName = "pseudonym" }
extension HistoryRow: SnakeCaseRecord { package static let databaseTableName = "history" }
extension AuditRow: SnakeCaseRecord { package static let databaseTableName = "audit" }
extension EventRow: SnakeCaseRecord { package static let databaseTableName = "event" }
