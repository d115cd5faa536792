import Coordination
import Foundation
import GRDB
import SQLiteStorage
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(10)))
struct LockTests {
    private static let change = StoreChange.deleteEvents(through: 0)

    /// A second connection begins a transaction; the store waits its time, says why, and goes on when the other has ended.
    @Test func aLockedDatabaseIsNamedAndTheTransactionCanBeRepeated() throws {
        let directory = try TemporaryDirectory()
        let path = directory.path + "/martlet.sqlite"
        let store = try SQLiteRunStore(path: path, patienceSeconds: 0.05)
        let other = try DatabaseQueue(path: path)
        try other.writeWithoutTransaction { database in
            try database.execute(sql: "BEGIN IMMEDIATE")
            let error = #expect(throws: StoreFailure.self) { try store.commit([Self.change]) }
            #expect(error?.cause == .locked && error?.explanation.contains("another process") == true)
            #expect(try store.load().runs.isEmpty, "reading goes on")
            try database.execute(sql: "ROLLBACK")
        }
        try store.commit([Self.change])
    }

    @Test func aDamagedFileAndNoDatabaseAreNamedAtTheStart() throws {
        let directory = try TemporaryDirectory()
        let path = directory.path + "/martlet.sqlite"
        do {
            let store = try SQLiteRunStore(path: path)
            try store.commit([Self.change])
        }
        var bytes = try Data(contentsOf: URL(fileURLWithPath: path))
        try #require(bytes.count > 20_000, "the last connection that closes puts the log into the file")
        // In the middle of each page but the first: rows and their lengths.
        for page in stride(from: 4096, to: bytes.count, by: 4096) {
            for index in page..<page + 200 { bytes[index] = 0xff }
        }
        try bytes.write(to: URL(fileURLWithPath: path))
        do {
            _ = try SQLiteRunStore(path: path)
            Issue.record("a damaged database was opened")
        } catch let error as CoordinationError {
            #expect(error.code == "database_damaged" && error.message.contains(path))
        } catch let error as StoreFailure {
            #expect(error.cause == .damaged)
        }
        try Data(repeating: 65, count: 8192).write(to: URL(fileURLWithPath: path))
        #expect(throws: StoreFailure.self) { try SQLiteRunStore(path: path) }
    }
}
