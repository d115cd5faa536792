package import Coordination
import Foundation
import GRDB

/// The durable store: one SQLite database in WAL mode with `synchronous = FULL`.
package final class SQLiteRunStore: RunStore {
    private let pool: DatabasePool

    /// Opens or creates the database and brings its schema up to date.
    ///
    /// Its pages are checked first (`PRAGMA quick_check`): a server that cannot trust its data does not start.
    ///
    /// - Parameters:
    ///   - path: The database file; `-wal` and `-shm` files appear beside it.
    ///   - patienceSeconds: How long a transaction waits for another process that holds the database. The coordinator
    ///     answers nobody meanwhile, so it is short.
    /// - Throws: `StoreFailure` when it cannot be opened, checked or migrated; `CoordinationError` with code
    ///   `database_damaged` or `schema_too_new`.
    package init(path: String, patienceSeconds: Double = 2) throws {
        do {
            pool = try Self.open(path: path, patienceSeconds: patienceSeconds)
        } catch let error as DatabaseError {
            throw StoreFailure(error)
        }
    }

    static func open(path: String, patienceSeconds: Double) throws -> DatabasePool {
        var configuration = Configuration()
        configuration.busyMode = .timeout(patienceSeconds)
        configuration.foreignKeysEnabled = true
        OwnerOnlyFile.make(path)
        let pool = try DatabasePool(path: path, configuration: configuration)
        // A pool sets NORMAL when it turns to the log, after anything that its configuration says: a committed transaction
        // would then survive the end of the process, and not that of the machine.
        try pool.writeWithoutTransaction { try $0.execute(sql: "PRAGMA synchronous = FULL") }
        let problems = try pool.read { try String.fetchAll($0, sql: "PRAGMA quick_check(5)") }
        guard problems == ["ok"] else {
            throw CoordinationError(
                .unavailable,
                "database_damaged",
                "SQLite finds \(path) damaged: \(problems.joined(separator: "; "))"
            )
        }
        let migrator = SchemaMigrations.migrator
        // An older program would read a newer schema wrongly, or write rows that the newer program cannot read.
        guard try pool.read({ try !migrator.hasBeenSuperseded($0) }) else {
            throw CoordinationError(
                .unavailable,
                "schema_too_new",
                "\(path) was written by a newer version of Martlet; run that version, or restore a backup made before the upgrade"
            )
        }
        try migrator.migrate(pool)
        return pool
    }

    package func commit(_ changes: [StoreChange]) throws {
        do {
            try write(changes)
        } catch let error as DatabaseError {
            throw StoreFailure(error)
        }
    }

    private func write(_ changes: [StoreChange]) throws {
        try pool.write { database in
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
                }
            }
        }
    }

    package func load() throws -> StoredState { try pool.read { try Self.load($0) } }

    static func load(_ database: Database) throws -> StoredState {
        var state = StoredState()
        state.populations = try PopulationRecord.fetchAll(database)
        state.tokens = try TokenRecord.fetchAll(database)
        state.clients = try ClientRecord.fetchAll(database)
        state.runs = try RunRecord.fetchAll(database)
        state.rounds = try RoundRecord.order(sql: "rowid").fetchAll(database)
        state.assignments = try AssignmentRecord.fetchAll(database)
        state.modelVersions = try ModelVersionRecord.order(sql: "run_id, version").fetchAll(database)
        state.phaseChanges = try HistoryRow.filter(sql: "round > 0 AND state IN ('reporting', 'aggregating')")
            .order(sql: "rowid").fetchAll(database)
        state.modelMetrics = try ModelMetricsRecord.order(sql: "run_id, version, source").fetchAll(database)
        state.ledger = try LedgerRow.order(sql: "sequence").fetchAll(database)
        if let first = try Int.fetchOne(database, sql: "SELECT min(id) FROM event"),
            let last = try Int.fetchOne(database, sql: "SELECT max(id) FROM event")
        {
            state.eventRange = (first, last)
        }
        return state
    }

    package func assignment(_ id: String) throws -> AssignmentRecord? {
        try pool.read { try AssignmentRecord.fetchOne($0, key: id) }
    }

    package func history(run: String, round: Int, assignments: Bool) throws -> [HistoryRow] {
        try pool.read { database in
            try HistoryRow.filter(
                sql: "run_id = ? AND round = ? AND (?3 OR assignment_id IS NULL)",
                arguments: [run, round, assignments]
            ).order(sql: "rowid")
                .fetchAll(database)
        }
    }

    package func recentHistory(limit: Int) throws -> [HistoryRow] {
        try pool.read {
            try HistoryRow.filter(sql: "assignment_id IS NULL").order(sql: "rowid DESC").limit(limit).fetchAll($0)
        }
    }

    package func events(after id: Int, limit: Int, run: String?) throws -> [EventRow] {
        try pool.read { database in
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
        if let outcome = query.outcome { request = request.filter(sql: "outcome = ?", arguments: [outcome]) }
        if let since = query.since {
            request = request.filter(sql: "at >= ?", arguments: [since.timeIntervalSince1970])
        }
        return try pool.read { try request.fetchAll($0) }
    }
}

extension SQLiteRunStore {
    package func updateScores(run: String, round: Int) throws -> [UpdateScoreRecord] {
        try pool.read { database in
            try UpdateScoreRecord.filter(sql: "run_id = ? AND round = ?", arguments: [run, round])
                .order(sql: "attempt DESC, norm DESC, assignment_id").fetchAll(database)
        }
    }

    package func updateScores(client: String, limit: Int) throws -> [UpdateScoreRecord] {
        try pool.read { database in
            try UpdateScoreRecord.filter(sql: "client_id = ?", arguments: [client]).order(sql: "rowid DESC")
                .limit(limit).fetchAll(database)
        }
    }
}

extension StoreFailure {
    fileprivate init(_ error: DatabaseError) {
        let cause: Cause =
            switch error.resultCode {
            case .SQLITE_BUSY, .SQLITE_LOCKED: .locked
            case .SQLITE_FULL: .full
            case .SQLITE_CORRUPT, .SQLITE_NOTADB: .damaged
            // A file that may not grow, by quota or limit, fails to be written.
            case .SQLITE_IOERR where error.extendedResultCode == .SQLITE_IOERR_WRITE: .full
            default: .other
            }
        self.init(cause, detail: error.message ?? "\(error.resultCode)")
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
extension HistoryRow: SnakeCaseRecord { package static let databaseTableName = "history" }
extension AuditRow: SnakeCaseRecord { package static let databaseTableName = "audit" }
extension EventRow: SnakeCaseRecord { package static let databaseTableName = "event" }
