import Coordination
import Foundation
import GRDB
import SQLiteStorage
import Synchronization
import WireFormat

#if canImport(Glibc)
import Glibc
#endif

/// One change of a transaction.
enum HelperChange: Sendable {
    case domain(DomainRecord)
    case token(HelperToken)
    case deleteToken(id: String)
    case session(SessionRecord)
    /// Counts one more sum for each pseudonym.
    case participations(ParticipationScope, pseudonyms: [[UInt8]])
    case ledger(LedgerRow)
    /// A session came to a state.
    case transition(SessionChain.Link)
    /// The latest time that was seen; lower only where the clock was set back.
    case latestTime(Date)
    /// The public part of the key that signs grants.
    case publicKey(String)
    /// What an acknowledged roll-back lost of domains that are not there, by domain and run.
    case lostCharge(LostCharge)
    case lostBudget(domain: String, epsilon: Double)
    /// A domain is there again, and has been charged with what was lost.
    case deleteLost(domain: String)
    case audit(AuditRow)
}

/// How a test lets a transaction fail, as a disk does whose sync fails.
package enum StoreFault: CaseIterable, Sendable {
    case notStored
    /// All of it is in the write-ahead log, and nobody knows.
    case stored
}

/// Everything that a helper holds in memory.
struct HelperState: Sendable {
    var domains: [DomainRecord] = []
    var tokens: [HelperToken] = []
    var ledger: [LedgerRow] = []
    /// Sessions of each domain by state.
    var sessionCounts: [String: [HelperSessionState: Int]] = [:]
    /// Where the changes of sessions stand.
    var chain = SessionChain()
    var latestTime = Date(timeIntervalSince1970: 0)
    /// `nil` before the first start has ended.
    var publicKey: String?
    var lostCharges: [LostCharge] = []
    var lostBudgets: [String: Double] = [:]
}

/// The helper's database: SQLite in WAL mode with `synchronous = FULL`.
///
/// Each transaction stores its own number. After a failed one the database is opened again, and the number tells whether the transaction
/// is stored: a failed sync may leave all of it in the write-ahead log.
final class HelperStore: Sendable {
    private struct State: Sendable {
        var pool: DatabasePool?
        var mark: Int
        var isInDoubt = false
    }

    private let path: String
    private let state: Mutex<State>
    private let fault: @Sendable () -> StoreFault?

    /// Opens or creates the database and brings its schema up to date.
    ///
    /// - Throws: `StoreFailure` if it is damaged or cannot be opened; `CoordinationError` `schema_too_new`.
    init(path: String, fault: @escaping @Sendable () -> StoreFault? = { nil }) throws {
        let (pool, mark) = try StoreFailure.naming {
            let pool = try Self.open(path)
            return (pool, try pool.read { try GuardedDatabase.mark($0) })
        }
        self.path = path
        self.fault = fault
        state = Mutex(State(pool: pool, mark: mark))
    }

    private static func open(_ path: String, isKnown: Bool = false) throws -> DatabasePool {
        let migrator = HelperSchema.migrator
        return try GuardedDatabase.open(path: path, patienceSeconds: 2, isKnown: isKnown, migrator: migrator) {
            try migrator.migrate($0)
        }
    }

    // MARK: - Transactions

    /// Stores changes, all or none.
    ///
    /// - Throws: `StoreFailure`; then ``settle()`` tells whether they are stored.
    func commit(_ changes: [HelperChange]) throws {
        try state.withLock { state in
            guard let pool = state.pool, !state.isInDoubt else {
                throw StoreFailure(.unsettled, detail: "a failed transaction is not settled yet")
            }
            let number = state.mark + 1
            let fault = fault()
            do {
                if fault == .notStored { throw Self.failedSync }
                try StoreFailure.naming {
                    try pool.writeWithoutTransaction { database in
                        try StoreFailure.named(database) { database in
                            try database.inTransaction(.immediate) {
                                for change in changes { try Self.write(change, database) }
                                try database.execute(
                                    sql: "UPDATE store_mark SET value = ? WHERE value = ?",
                                    arguments: [number, number - 1]
                                )
                                guard database.changesCount == 1 else {
                                    throw StoreFailure(.other, detail: "another process writes to the database")
                                }
                                return .commit
                            }
                        }
                    }
                }
                if fault == .stored { throw Self.failedSync }
                state.mark = number
            } catch {
                // With the lock of another process the transaction did not begin, so nothing can be stored.
                state.isInDoubt = (error as? StoreFailure)?.cause != .locked
                throw error
            }
        }
    }

    private static let failedSync = StoreFailure(.refused, detail: "a test's sync fails", code: EIO, action: .sync)

    /// Whether a transaction has failed, so that memory may not be what is stored.
    var isInDoubt: Bool { state.withLock { $0.isInDoubt } }

    /// Opens the database again after a failed transaction, so that what it holds is what is stored.
    ///
    /// - Throws: `StoreFailure` while that is not possible.
    func settle() throws {
        try state.withLock { state in
            guard state.isInDoubt else { return }
            if let pool = state.pool { try? pool.close() }
            state.pool = nil
            let (pool, found) = try GuardedDatabase.reopen(path: path, mark: state.mark) {
                try Self.open(path, isKnown: true)
            }
            state = State(pool: pool, mark: found)
        }
    }

    private static func write(_ change: HelperChange, _ database: Database) throws {
        switch change {
        case .domain(let domain):
            try database.execute(
                sql: """
                    INSERT INTO domain (name, policy, budget_epsilon, budget_delta, created_at) VALUES (?, ?, ?, ?, ?)
                    ON CONFLICT (name) DO UPDATE SET policy = excluded.policy, budget_epsilon = excluded.budget_epsilon
                    """,
                arguments: [
                    domain.name, String(decoding: try WireCoding.encode(domain.policy), as: UTF8.self),
                    domain.budget?.epsilon, domain.budget?.delta, domain.createdAt.timeIntervalSince1970,
                ]
            )
        case .token(let token):
            var role: String?
            var caller: ServerCaller?
            switch token.bearer {
            case .staff(let staff): role = staff.rawValue
            case .server(let server): caller = server
            }
            try database.execute(
                sql: """
                    INSERT INTO token (hash, id, role, domain, server, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?)
                    ON CONFLICT (hash) DO UPDATE SET role = excluded.role
                    """,
                arguments: [
                    token.hash, token.id, role, caller?.domain, caller?.server,
                    token.createdAt.timeIntervalSince1970, token.expiresAt?.timeIntervalSince1970,
                ]
            )
        case .deleteToken(let id): try database.execute(sql: "DELETE FROM token WHERE id = ?", arguments: [id])
        case .session(let session): try write(session, database)
        case .participations(let scope, let pseudonyms):
            let statement = try database.makeStatement(
                sql: """
                    INSERT INTO participation (domain, server, run, purpose, pseudonym, count) VALUES (?, ?, ?, ?, ?, 1)
                    ON CONFLICT (domain, server, run, purpose, pseudonym) DO UPDATE SET count = count + 1
                    """
            )
            for pseudonym in pseudonyms {
                try statement.execute(
                    arguments: [
                        scope.caller.domain, scope.caller.server, scope.run, scope.purpose.rawValue, Data(pseudonym),
                    ]
                )
            }
        case .ledger(let row):
            try database.execute(
                sql: "INSERT INTO privacy_charge VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                arguments: [
                    row.sequence, row.populationId, row.runId, row.round, row.attempt, row.state.rawValue, row.event,
                    row.epsilonAfter, row.createdAt.timeIntervalSince1970, row.previousHash, row.rowHash,
                    row.populationNumber, row.populationPreviousHash,
                ]
            )
        case .transition(let link):
            try database.execute(
                sql: "INSERT INTO session_change (number, session, state, head) VALUES (?, ?, ?, ?)",
                arguments: [link.number, link.session, link.state.rawValue, link.head]
            )
        case .latestTime(let time):
            try database.execute(
                sql: "UPDATE helper SET latest_time = ?",
                arguments: [time.timeIntervalSince1970]
            )
        case .publicKey(let key):
            try database.execute(sql: "UPDATE helper SET public_key = ?", arguments: [key])
        case .lostCharge(let lost):
            try database.execute(
                sql: """
                    INSERT INTO lost_charge (domain, run, event, count) VALUES (?, ?, ?, ?)
                    ON CONFLICT (domain, run, event) DO UPDATE SET count = max(count, excluded.count)
                    """,
                arguments: [lost.domain, lost.run, lost.charge.canonical, lost.count]
            )
        case .lostBudget(let domain, let epsilon):
            try database.execute(
                sql: """
                    INSERT INTO lost_budget (domain, epsilon) VALUES (?, ?)
                    ON CONFLICT (domain) DO UPDATE SET epsilon = min(epsilon, excluded.epsilon)
                    """,
                arguments: [domain, epsilon]
            )
        case .deleteLost(let domain):
            try database.execute(sql: "DELETE FROM lost_charge WHERE domain = ?", arguments: [domain])
            try database.execute(sql: "DELETE FROM lost_budget WHERE domain = ?", arguments: [domain])
        case .audit(let row):
            try database.execute(
                sql: """
                    INSERT INTO audit (at, actor, actor_name, role, address, action, target, outcome, code, request_id)
                    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
                    """,
                arguments: [
                    row.at.timeIntervalSince1970, row.actor, row.actorName, row.role.rawValue, row.address, row.action,
                    row.target, row.outcome.rawValue, row.code, row.requestId,
                ]
            )
        }
    }

    private static func write(_ session: SessionRecord, _ database: Database) throws {
        try database.execute(
            sql: """
                INSERT INTO session VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
                ON CONFLICT (id) DO UPDATE SET state = excluded.state, list_hash = excluded.list_hash,
                    sum_hash = excluded.sum_hash, sum_file = excluded.sum_file, sum_bytes = excluded.sum_bytes
                """,
            arguments: [
                session.id, session.caller.domain, session.caller.server, session.purpose.rawValue, session.run,
                session.round, session.attempt, session.keyFile, session.state.rawValue, Data(session.document),
                Data(session.grant),
                session.requestHash, session.createdAt.timeIntervalSince1970, session.expiresAt.timeIntervalSince1970,
                session.charge, session.listHash, session.sumHash, session.sumFile, session.sumByteCount,
            ]
        )
    }

    // MARK: - Reads

    private func read<Value>(_ body: (Database) throws -> Value) throws -> Value {
        guard let pool = state.withLock({ $0.pool }) else {
            throw StoreFailure(.other, detail: "the database is not open", action: .read)
        }
        return try StoreFailure.naming { try pool.read { try StoreFailure.named($0, body) } }
    }

    private static let unreadable = StoreFailure(.damaged, detail: "a row is not as it was written", action: .read)

    func load() throws -> HelperState {
        try read { database in
            var state = HelperState()
            for row in try Row.fetchAll(database, sql: "SELECT * FROM domain ORDER BY rowid") {
                let budget = (row["budget_epsilon"] as Double?).map {
                    HelperBudget(epsilon: $0, delta: (row["budget_delta"] as Double?) ?? 0)
                }
                guard
                    let policy = try? WireCoding.decodeStored(
                        HelperPolicy.self,
                        from: Data((row["policy"] as String).utf8)
                    )
                else { throw Self.unreadable }
                state.domains.append(
                    DomainRecord(
                        name: row["name"],
                        policy: policy,
                        budget: budget,
                        createdAt: Self.date(row["created_at"])
                    )
                )
            }
            for row in try Row.fetchAll(database, sql: "SELECT * FROM token ORDER BY rowid") {
                let bearer: HelperToken.Bearer
                if let text = row["role"] as String? {
                    guard let role = StaffRole(rawValue: text) else { throw Self.unreadable }
                    bearer = .staff(role)
                } else {
                    bearer = .server(ServerCaller(domain: row["domain"], server: row["server"]))
                }
                state.tokens.append(
                    HelperToken(
                        hash: row["hash"],
                        id: row["id"],
                        bearer: bearer,
                        createdAt: Self.date(row["created_at"]),
                        expiresAt: (row["expires_at"] as Double?).map(Self.date)
                    )
                )
            }
            state.ledger = try Row.fetchAll(database, sql: "SELECT * FROM privacy_charge ORDER BY sequence").map {
                try Self.ledgerRow($0)
            }
            let counts = "SELECT domain, state, count(*) AS number FROM session GROUP BY domain, state"
            for row in try Row.fetchAll(database, sql: counts) {
                guard let word = HelperSessionState(rawValue: row["state"]) else { throw Self.unreadable }
                let (domain, number): (String, Int) = (row["domain"], row["number"])
                state.sessionCounts[domain, default: [:]][word] = number
            }
            if let row = try Row.fetchOne(
                database,
                sql: "SELECT number, head FROM session_change ORDER BY number DESC LIMIT 1"
            ) {
                state.chain = SessionChain(number: row["number"], head: row["head"])
            }
            if let row = try Row.fetchOne(database, sql: "SELECT * FROM helper") {
                state.latestTime = Self.date(row["latest_time"])
                state.publicKey = row["public_key"]
            }
            for row in try Row.fetchAll(database, sql: "SELECT * FROM lost_charge ORDER BY domain, run, event") {
                guard
                    let charge = try? JSONDecoder().decode(
                        PrivacyCharge.self,
                        from: Data((row["event"] as String).utf8)
                    )
                else { throw Self.unreadable }
                state.lostCharges.append(
                    LostCharge(domain: row["domain"], run: row["run"], charge: charge, count: row["count"])
                )
            }
            for row in try Row.fetchAll(database, sql: "SELECT * FROM lost_budget") {
                let (domain, epsilon): (String, Double) = (row["domain"], row["epsilon"])
                state.lostBudgets[domain] = epsilon
            }
            return state
        }
    }

    private static func ledgerRow(_ row: Row) throws -> LedgerRow {
        guard let state = ChargeState(rawValue: row["state"]) else { throw unreadable }
        return LedgerRow(
            storedAt: row["sequence"],
            population: row["population_id"],
            run: row["run_id"],
            round: row["round"],
            attempt: row["attempt"],
            state: state,
            event: row["event"],
            epsilonAfter: row["epsilon_after"],
            createdAt: date(row["created_at"]),
            previousHash: row["previous_hash"],
            rowHash: row["row_hash"],
            populationNumber: row["population_number"],
            populationPreviousHash: row["population_previous_hash"]
        )
    }

    func session(_ id: String) throws -> SessionRecord? {
        try sessions("WHERE id = ?", [id]).first
    }

    /// Where the changes of sessions stood after so many; `nil` where there were fewer.
    func chainHead(at number: Int) throws -> String? {
        guard number > 0 else { return SessionChain().head }
        return try read {
            try String.fetchOne($0, sql: "SELECT head FROM session_change WHERE number = ?", arguments: [number])
        }
    }

    /// The newest attempt of a server's round: a name of a run is its server's own.
    func latestAttempt(
        of caller: ServerCaller,
        run: String,
        purpose: HelperPurpose,
        round: Int
    ) throws -> SessionRecord? {
        try sessions(
            "WHERE domain = ? AND server = ? AND run = ? AND purpose = ? AND round = ? ORDER BY attempt DESC LIMIT 1",
            [caller.domain, caller.server, run, purpose.rawValue, round]
        ).first
    }

    /// Sessions in a state; with a time those that end by then.
    func sessions(in state: HelperSessionState, endingBy time: Date? = nil) throws -> [SessionRecord] {
        let end = time?.timeIntervalSince1970 ?? .greatestFiniteMagnitude
        return try sessions(
            "WHERE state IN ('granted', 'summed') AND state = ? AND expires_at <= ?",
            [state.rawValue, end]
        )
    }

    private func sessions(_ condition: String, _ arguments: StatementArguments) throws -> [SessionRecord] {
        try read { database in
            try Row.fetchAll(database, sql: "SELECT * FROM session " + condition, arguments: arguments).map { row in
                guard let state = HelperSessionState(rawValue: row["state"]),
                    let purpose = HelperPurpose(rawValue: row["purpose"])
                else { throw Self.unreadable }
                return SessionRecord(
                    id: row["id"],
                    caller: ServerCaller(domain: row["domain"], server: row["server"]),
                    purpose: purpose,
                    run: row["run"],
                    round: row["round"],
                    attempt: row["attempt"],
                    keyFile: row["key_file"],
                    state: state,
                    document: Array(row["document"] as Data),
                    grant: Array(row["grant_signature"] as Data),
                    requestHash: row["request_hash"],
                    createdAt: Self.date(row["created_at"]),
                    expiresAt: Self.date(row["expires_at"]),
                    charge: row["charge"],
                    listHash: row["list_hash"],
                    sumHash: row["sum_hash"],
                    sumFile: row["sum_file"],
                    sumByteCount: row["sum_bytes"]
                )
            }
        }
    }

    /// The places of those pseudonyms that were in `cap` sums or more.
    func placesAtCap(_ cap: Int, _ scope: ParticipationScope, _ pseudonyms: [[UInt8]]) throws -> [Int] {
        try read { database in
            let statement = try database.makeStatement(
                sql: """
                    SELECT count FROM participation
                    WHERE domain = ? AND server = ? AND run = ? AND purpose = ? AND pseudonym = ?
                    """
            )
            var places: [Int] = []
            for (index, pseudonym) in pseudonyms.enumerated() {
                let arguments: StatementArguments = [
                    scope.caller.domain, scope.caller.server, scope.run, scope.purpose.rawValue, Data(pseudonym),
                ]
                if let count = try Int.fetchOne(statement, arguments: arguments), count >= cap { places.append(index) }
            }
            return places
        }
    }

    /// Bytes of the sums that are kept, by domain.
    func sumByteCounts() throws -> [String: Int] {
        try read { database in
            let rows = try Row.fetchAll(
                database,
                sql: """
                    SELECT domain, sum(sum_bytes) AS bytes FROM session
                    WHERE state IN ('granted', 'summed') AND state = 'summed' GROUP BY domain
                    """
            )
            var counts: [String: Int] = [:]
            for row in rows {
                let (domain, bytes): (String, Int?) = (row["domain"], row["bytes"])
                counts[domain] = bytes ?? 0
            }
            return counts
        }
    }

    func audit(before sequence: Int, limit: Int) throws -> [AuditRow] {
        try read { database in
            try Row.fetchAll(
                database,
                sql: "SELECT * FROM audit WHERE sequence < ? ORDER BY sequence DESC LIMIT ?",
                arguments: [sequence, limit]
            ).map { row in
                guard let role = StaffRole(rawValue: row["role"]), let outcome = AuditOutcome(rawValue: row["outcome"])
                else { throw Self.unreadable }
                var audit = AuditRow(
                    at: Self.date(row["at"]),
                    actor: row["actor"],
                    actorName: row["actor_name"],
                    role: role,
                    address: row["address"],
                    action: row["action"],
                    target: row["target"],
                    outcome: outcome,
                    code: row["code"],
                    requestId: row["request_id"]
                )
                audit.sequence = row["sequence"]
                return audit
            }
        }
    }

    private static func date(_ seconds: Double) -> Date { Date(timeIntervalSince1970: seconds) }
}
