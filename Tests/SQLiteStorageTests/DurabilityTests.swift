import GRDB
import TestSupport
import Testing

@testable import SQLiteStorage

struct DurabilityTests {
    /// FULL is 2: what is committed outlives the machine's end, not only the process's.
    @Test func everyTransactionIsSyncedAlsoAfterReopening() throws {
        let directory = try TemporaryDirectory()
        for _ in 0..<2 {
            let pool = try SQLiteRunStore.open(path: directory.path + "/martlet.sqlite", patienceSeconds: 1)
            let level = try pool.writeWithoutTransaction { try Int.fetchOne($0, sql: "PRAGMA synchronous") }
            let mode = try pool.writeWithoutTransaction { try String.fetchOne($0, sql: "PRAGMA journal_mode") }
            #expect(level == 2 && mode == "wal")
            try pool.close()
        }
    }
}
