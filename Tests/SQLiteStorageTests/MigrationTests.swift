import Coordination
import Foundation
import GRDB
import Logging
import SQLiteStorage
import TestSupport
import Testing

/// The database that the first version wrote: a private run in its second round, three clients, four charges.
@Suite(.timeLimit(.minutes(1)))
struct MigrationTests {
    private static let adminToken = "mlt_WBfpmwMLyQpJAFyDkj2TtDQ5Ye4wYAWNnF7Ov_UuWKY"

    /// Writes the old database and gives its path.
    private func firstLight(in directory: TemporaryDirectory) throws -> String {
        let sql = try #require(Bundle.module.url(forResource: "Fixtures/first-light", withExtension: "sql"))
        let path = directory.path + "/martlet.sqlite"
        var configuration = Configuration()
        configuration.foreignKeysEnabled = false
        let queue = try DatabaseQueue(path: path, configuration: configuration)
        let text = try String(contentsOf: sql, encoding: .utf8).replacing("BEGIN TRANSACTION;", with: "")
            .replacing("COMMIT;", with: "")
        try queue.write { try $0.execute(sql: text) }
        try queue.close()
        return path
    }

    @Test func theFirstReleasesDatabaseMigratesWithItsData() async throws {
        let directory = try TemporaryDirectory()
        let path = try firstLight(in: directory)
        let store = try SQLiteRunStore(path: path)
        let state = try store.load()
        #expect(state.populations.count == 1 && state.runs.count == 1 && state.clients.count == 3)
        #expect(state.rounds.map(\.number) == [1, 2])
        #expect(state.rounds.map(\.phase) == [.committed, .selecting])
        #expect(state.assignments.map(\.state) == [.accepted, .accepted, .accepted])
        #expect(state.modelVersions.map(\.version) == [0, 1])
        #expect(state.tokens.map(\.role).sorted() == ["admin", "client", "client", "client", "enrollment"])
        #expect(Set(state.tokens.map(\.id)).count == 5 && state.tokens.allSatisfy { $0.id.hasPrefix("tok_") })
        // The coordinator takes it up: it verifies the ledger's chain, and the old token and the spent budget are there.
        let coordinator = try await Coordinator(
            configuration: CoordinatorConfiguration(dataDirectory: directory.path),
            store: store,
            logger: Logger(label: "test")
        )
        #expect(await coordinator.principal(token: Self.adminToken)?.staffRole == .admin)
        let budget = try #require(try await coordinator.population("wards").budget)
        #expect(abs(budget.spentEpsilon - 1.2710877670994023) < 1e-6)
        // A second opening finds nothing to do, and the rows as they were.
        #expect(try SQLiteRunStore(path: path).load().tokens == state.tokens)
    }

    @Test func aNewerVersionsDatabaseIsLeftAlone() throws {
        let directory = try TemporaryDirectory()
        let path = directory.path + "/martlet.sqlite"
        _ = try SQLiteRunStore(path: path)
        let queue = try DatabaseQueue(path: path)
        try queue.write { try $0.execute(sql: "INSERT INTO grdb_migrations VALUES ('9999: of the future')") }
        try queue.close()
        let error = #expect(throws: CoordinationError.self) { try SQLiteRunStore(path: path) }
        #expect(error?.code == "schema_too_new" && error?.message.contains("newer version") == true)
    }

    @Test func auditAndLedgerRowsCannotBeChanged() throws {
        let directory = try TemporaryDirectory()
        let path = try firstLight(in: directory)
        let store = try SQLiteRunStore(path: path)
        try store.commit([
            .audit(
                AuditRow(
                    at: Date(timeIntervalSince1970: 1),
                    actor: "tok_1",
                    role: "admin",
                    address: "192.0.2.1",
                    action: "POST /v1/runs",
                    target: "/v1/runs",
                    outcome: "done",
                    requestId: "r"
                )
            )
        ])
        #expect(try store.audit(AuditQuery(limit: 10)).map(\.sequence) == [1])
        let queue = try DatabaseQueue(path: path)
        for statement in [
            "UPDATE audit SET actor = 'x'", "DELETE FROM audit", "UPDATE privacy_charge SET round = 9",
            "DELETE FROM privacy_charge",
        ] {
            let error = #expect(throws: DatabaseError.self) { try queue.write { try $0.execute(sql: statement) } }
            #expect(error?.message?.contains("append-only") == true)
        }
    }
}
