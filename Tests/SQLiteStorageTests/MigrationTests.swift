import Coordination
import Foundation
import GRDB
import Logging
import SQLiteStorage
import TestSupport
import Testing
import WireFormat

/// The database that the first version wrote: a private run in its second round, three clients, four charges.
@Suite(.timeLimit(.minutes(10)))
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
        #expect(state.tokens.map(\.role.rawValue).sorted() == ["admin", "client", "client", "client", "enrollment"])
        #expect(Set(state.tokens.map(\.id)).count == 5 && state.tokens.allSatisfy { $0.id.hasPrefix("tok_") })
        // The coordinator takes it up: it verifies the ledger's chain, and the old token and the spent budget are there.
        var configuration = CoordinatorConfiguration(dataDirectory: directory.path)
        // There was no second record then.
        configuration.mayMakeLedgerHead = true
        let coordinator = try await Coordinator(
            configuration: configuration,
            store: store,
            logger: Logger(label: "test")
        )
        #expect(await coordinator.principal(token: Self.adminToken)?.staffRole == .admin)
        let budget = try #require(try await coordinator.population("wards").budget)
        // The update that the second round had accepted is not in this directory: the round is abandoned, and its charge stays.
        let rounds = try await coordinator.rounds(run: state.runs[0].id).filter { $0.number == 2 }
        #expect(rounds.first?.state == .abandoned)
        #expect(abs(budget.spentEpsilon - 1.8663693183128771) < 1e-6)
        // Old rows have no number of their own: the first new row holds them.
        #expect(state.ledger.count > 1 && state.ledger.allSatisfy { $0.format == 1 && $0.populationNumber == nil })
        // A second opening finds nothing to do, and the rows as they were.
        #expect(try SQLiteRunStore(path: path).load().tokens == state.tokens)
    }

    /// Hash, size and count of an un-noised update are functions of a client's data: earlier versions kept them for ever.
    @Test func nothingOfAnUpdateThatWasNotNoisedIsLeftInTheFile() throws {
        let directory = try TemporaryDirectory()
        let path = try firstLight(in: directory)
        let old = try DatabaseQueue(path: path)
        let hashes = try old.read {
            try String.fetchAll($0, sql: "SELECT update_sha256 FROM assignment WHERE update_sha256 IS NOT NULL")
        }
        try old.close()
        #expect(hashes.count >= 2)
        func found(_ hash: String) throws -> Bool {
            try ["", "-wal"].contains { suffix in
                let data = FileManager.default.contents(atPath: path + suffix) ?? Data()
                return data.range(of: Data(hash.utf8)) != nil
            }
        }
        #expect(try hashes.allSatisfy(found))
        let store = try SQLiteRunStore(path: path)
        let state = try store.load()
        #expect(state.assignments.allSatisfy { $0.updateSha256 == nil && $0.updateBytes == nil })
        #expect(state.assignments.allSatisfy { $0.exampleCount == nil })
        #expect(state.rounds.allSatisfy { $0.bytesUp == 0 && $0.exampleCount == 0 })
        #expect(try !hashes.contains(where: found))
        #expect(try SQLiteRunStore(path: path).load().assignments == state.assignments)
    }

    @Test func whatAnOpenRoundStillNeedsIsMovedBesideItsUpdate() throws {
        let directory = try TemporaryDirectory()
        let path = try firstLight(in: directory)
        let spool = directory.path + "/spool"
        try FileManager.default.createDirectory(atPath: spool, withIntermediateDirectories: true)
        let old = try DatabaseQueue(path: path)
        let (id, hash) = try old.write { database in
            let row = try #require(try Row.fetchOne(database, sql: "SELECT * FROM assignment WHERE round = 1"))
            try database.execute(sql: "UPDATE round SET phase = 'reporting' WHERE number = 1")
            return (row["id"] as String, row["update_sha256"] as String)
        }
        try old.close()
        try Data("x".utf8).write(to: URL(fileURLWithPath: spool + "/\(id).update"))
        _ = try SQLiteRunStore(path: path)
        let receipt = try #require(try SpooledReceipt.read(path: spool + "/\(id).receipt"))
        #expect(receipt.sha256 == hash)
        let names = try FileManager.default.contentsOfDirectory(atPath: spool)
        #expect(names.count == 2, "of the others no update is there")
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
                    role: .admin,
                    address: "192.0.2.1",
                    action: "POST /v1/runs",
                    target: "/v1/runs",
                    outcome: .done,
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
