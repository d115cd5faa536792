package import Coordination
import Foundation
import GRDB

/// The reads of a start: tables that grow with clients by the positions of columns, and only those assignments that still matter.
///
/// Decoding a row through `Codable` makes a dictionary of it, which takes 20 to 40 µs: a minute for a million clients.
extension SQLiteRunStore {
    package func loadForStart() throws -> StoredState { try read { try Self.loadForStart($0) } }

    private static func loadForStart(_ database: Database) throws -> StoredState {
        var state = StoredState()
        try loadSmallTables(database, into: &state)
        state.tokens = try tokens(database)
        state.clients = try clients(database)
        state.assignments = try assignments(
            database,
            """
            WHERE rowid IN (
                SELECT rowid FROM assignment WHERE state IN ('assigned', 'downloading', 'training', 'uploading')
                UNION SELECT a.rowid FROM round r JOIN assignment a
                    ON a.run_id = r.run_id AND a.round = r.number AND a.attempt = r.attempt
                    WHERE r.phase NOT IN ('committed', 'abandoned')
                UNION SELECT a.rowid FROM round r JOIN assignment a INDEXED BY assignment_counted
                    ON a.run_id = r.run_id AND a.counted_round = r.number AND a.counted_attempt = r.attempt
                        AND a.counted_round IS NOT NULL
                    WHERE r.phase NOT IN ('committed', 'abandoned'))
            """
        )
        state.participations = try rows(database, "SELECT * FROM participation", ParticipationRecord.init)
        state.refusals = try rows(
            database,
            """
            SELECT run_id, round, coalesce(code, 'unknown'), count(*) FROM assignment
            WHERE state IN ('rejected', 'failed') GROUP BY run_id, round, code
            """
        ) { RefusalCount(runId: $0[0], round: $0[1], code: $0[2], count: $0[3]) }
        return state
    }

    /// The tables that stay small, and the times at which rounds began to report and to aggregate.
    static func loadSmallTables(_ database: Database, into state: inout StoredState) throws {
        state.populations = try PopulationRecord.fetchAll(database)
        state.runs = try RunRecord.fetchAll(database)
        state.rounds = try RoundRecord.order(sql: "rowid").fetchAll(database)
        state.modelVersions = try ModelVersionRecord.order(sql: "run_id, version").fetchAll(database)
        state.phaseChanges = try rows(
            database,
            """
            SELECT run_id, round, attempt, at, state FROM history
            WHERE round > 0 AND state IN ('reporting', 'aggregating') ORDER BY run_id, round, attempt, state, at
            """
        ) {
            HistoryRow(phase: $0[4], ofRun: $0[0], round: $0[1], attempt: $0[2], at: Date(timeIntervalSince1970: $0[3]))
        }
        state.modelMetrics = try ModelMetricsRecord.order(sql: "run_id, version, source").fetchAll(database)
        state.protectedSessions = try ProtectedSessionRecord.filter(sql: "state <> 'ended'")
            .order(sql: "run_id, round, attempt").fetchAll(database)
        state.ledger = try LedgerRow.order(sql: "sequence").fetchAll(database)
        if let first = try Int.fetchOne(database, sql: "SELECT min(id) FROM event"),
            let last = try Int.fetchOne(database, sql: "SELECT max(id) FROM event")
        {
            state.eventRange = (first, last)
        }
    }

    static func tokens(_ database: Database) throws -> [TokenRecord] {
        try rows(
            database,
            """
            SELECT hash, id, role, name, created_by, population_id, client_id, uses_left, expires_at, created_at
            FROM token ORDER BY rowid
            """
        ) { row in
            try TokenRecord(
                storedHash: row[0],
                id: row[1],
                role: row[2],
                name: row[3],
                createdBy: row[4],
                populationId: row[5],
                clientId: row[6],
                usesLeft: row[7],
                expiresAt: date(row[8]),
                createdAt: Date(timeIntervalSince1970: row[9])
            )
        }
    }

    static func clients(_ database: Database) throws -> [ClientRecord] {
        try rows(
            database,
            """
            SELECT id, population_id, name, labels, state, registration_key, registered_at, capabilities,
                steps_per_second, seconds_per_assignment, certificate_key, quarantine_reason, quarantined_at,
                state_generation, state_generation_said
            FROM client ORDER BY rowid
            """
        ) { row in
            try ClientRecord(
                storedID: row[0],
                populationId: row[1],
                name: row[2],
                labels: row[3],
                state: row[4],
                registrationKey: row[5],
                registeredAt: Date(timeIntervalSince1970: row[6]),
                capabilities: row[7],
                stepsPerSecond: row[8],
                secondsPerAssignment: row[9],
                certificateKey: row[10],
                quarantineReason: row[11],
                quarantinedAt: date(row[12]),
                stateGeneration: row[13],
                stateGenerationSaid: row[14]
            )
        }
    }

    static func assignments(_ database: Database, _ condition: String = "") throws -> [AssignmentRecord] {
        try rows(database, "SELECT * FROM assignment \(condition) ORDER BY rowid") { try AssignmentRecord(row: $0) }
    }

    private static func rows<Record>(
        _ database: Database,
        _ sql: String,
        _ decode: (Row) throws -> Record
    ) throws -> [Record] {
        var records: [Record] = []
        let cursor = try Row.fetchCursor(database, sql: sql)
        while let row = try cursor.next() { records.append(try decode(row)) }
        return records
    }

    private static func date(_ seconds: Double?) -> Date? { seconds.map(Date.init(timeIntervalSince1970:)) }
}

extension ParticipationRecord {
    /// Reads a row of `participation` by the positions of its columns.
    init(_ row: Row) {
        self.init(runId: row[1], clientId: row[0], trainings: row[2], lastRound: row[3], evaluations: row[4])
    }
}
