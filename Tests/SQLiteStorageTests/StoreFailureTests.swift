import Foundation
import GRDB
import TestSupport
import Testing

@testable import Coordination
@testable import SQLiteStorage

#if canImport(Glibc)
import Glibc
#endif

/// Each error of SQLite is called by its name, wherever it comes from.
@Suite(.timeLimit(.minutes(10)))
struct StoreFailureTests {
    private struct Case: Sendable {
        var code: ResultCode
        var system: Int32 = 0
        var cause: StoreFailure.Cause
        var action: StorageFailure.Action = .write
        var words: String
        var problem = "storage_failed"
    }

    private static let cases: [Case] = [
        Case(code: .SQLITE_BUSY, cause: .locked, words: "another process holds it"),
        Case(code: .SQLITE_LOCKED_SHAREDCACHE, cause: .locked, words: "another process holds it"),
        Case(code: .SQLITE_FULL, cause: .full, words: "the disk is full"),
        Case(code: .SQLITE_FULL, system: ENOSPC, cause: .full, words: "free some space"),
        Case(code: .SQLITE_IOERR_WRITE, system: EFBIG, cause: .full, words: "may not grow any more"),
        Case(code: .SQLITE_IOERR_WRITE, system: EDQUOT, cause: .full, words: "quota"),
        Case(code: .SQLITE_IOERR_WRITE, system: EIO, cause: .refused, words: "EIO"),
        // What is not known is not called EIO.
        Case(code: .SQLITE_IOERR_WRITE, cause: .refused, words: "the system does not say why"),
        Case(code: .SQLITE_IOERR_SHMSIZE, system: EFBIG, cause: .full, words: "may not grow any more"),
        Case(code: .SQLITE_IOERR_READ, system: EIO, cause: .refused, action: .read, words: "cannot be read"),
        Case(
            code: .SQLITE_IOERR_FSYNC,
            system: EIO,
            cause: .refused,
            action: .sync,
            words: "cannot be brought to the disk"
        ),
        Case(code: .SQLITE_CANTOPEN, system: EACCES, cause: .refused, action: .open, words: "no permission"),
        Case(code: .SQLITE_CANTOPEN, system: EMFILE, cause: .refused, action: .open, words: "too many files are open"),
        Case(code: .SQLITE_READONLY_DBMOVED, cause: .refused, words: "no permission"),
        Case(
            code: .SQLITE_CORRUPT,
            cause: .damaged,
            action: .read,
            words: "martlet restore",
            problem: "database_damaged"
        ),
        Case(
            code: .SQLITE_CORRUPT_INDEX,
            cause: .damaged,
            action: .read,
            words: "martlet restore",
            problem: "database_damaged"
        ),
        Case(code: .SQLITE_NOTADB, cause: .damaged, action: .read, words: "is damaged", problem: "database_damaged"),
        Case(
            code: .SQLITE_IOERR_SHORT_READ,
            cause: .damaged,
            action: .read,
            words: "is damaged",
            problem: "database_damaged"
        ),
        Case(
            code: ResultCode(rawValue: 10 | 32 << 8),
            cause: .damaged,
            action: .read,
            words: "martlet doctor",
            problem: "database_damaged"
        ),
    ]

    @Test(arguments: Self.cases)
    private func resultCodesHaveTheirNames(_ test: Case) {
        let error = DatabaseError(resultCode: test.code, message: "in SQLite's words")
        let failure = StoreFailure(error, code: test.system)
        #expect(failure.cause == test.cause && failure.action == test.action, "\(failure)")
        #expect(failure.explanation.contains(test.words), "\(failure.explanation)")
        #expect(failure.error.kind == .unavailable && failure.error.code == test.problem)
        // The same words for those who ask about any file.
        #expect(StorageFailure(failure)?.problemCode == test.problem)
        #expect(StorageFailure(failure.error) == failure.storage)
        let acknowledged = failure.explanation.contains("what was acknowledged is stored")
        #expect(acknowledged == (test.cause != .damaged), "\(failure.explanation)")
    }

    private enum Damage: String, CaseIterable, Sendable {
        case tornPages, firstPage, cut, noDatabase

        func apply(to bytes: inout Data) {
            switch self {
            case .tornPages: for index in stride(from: 8192, to: bytes.count, by: 97) { bytes[index] ^= 0x5a }
            case .firstPage: for index in 100..<1000 { bytes[index] = 0xff }
            case .cut: bytes = bytes.prefix(bytes.count / 2)
            case .noDatabase: bytes = Data("no database".utf8)
            }
        }
    }

    @Test(arguments: Damage.allCases)
    private func aDamagedDatabaseIsCalledSoByEveryoneWhoOpensIt(_ damage: Damage) throws {
        let directory = try TemporaryDirectory()
        let path = directory.path + "/martlet.sqlite"
        do {
            let store = try SQLiteRunStore(path: path)
            try store.commit((0..<50).map { .event(Self.event($0)) })
        }
        var bytes = try Data(contentsOf: URL(fileURLWithPath: path))
        try #require(bytes.count > 20_000, "the last connection that closes puts the log into the file")
        damage.apply(to: &bytes)
        try bytes.write(to: URL(fileURLWithPath: path))
        let error = #expect(throws: StoreFailure.self) { try SQLiteRunStore(path: path).load() }
        #expect(error?.cause == .damaged, "\(String(describing: error))")
        #expect(error?.explanation.contains("martlet restore") == true, "\(String(describing: error))")
        // Nothing was changed by looking.
        #expect(try Data(contentsOf: URL(fileURLWithPath: path)) == bytes)
        do {
            let found = try SQLiteInspection(path: path).findings()
            #expect(found.contains { $0.code == "database_damaged" && $0.remedy?.contains("martlet restore") == true })
        } catch let error as StoreFailure {
            #expect(error.cause == .damaged, "\(error)")
        }
    }

    /// The finding is for operators and their tickets: it names the place, and nothing that the row holds.
    @Test func aRowWithoutItsParentIsNamedByTableAndNumberOnly() throws {
        let directory = try TemporaryDirectory()
        let path = directory.path + "/martlet.sqlite"
        _ = try SQLiteRunStore(path: path)
        var configuration = Configuration()
        configuration.foreignKeysEnabled = false
        try DatabaseQueue(path: path, configuration: configuration).write { database in
            try database.execute(sql: "CREATE TABLE parent (name TEXT PRIMARY KEY)")
            try database.execute(sql: "CREATE TABLE child (name TEXT REFERENCES parent (name))")
            try database.execute(
                sql: "CREATE TABLE other (name TEXT PRIMARY KEY REFERENCES parent (name)) WITHOUT ROWID"
            )
            for table in ["child", "other"] {
                try database.execute(sql: "INSERT INTO \(table) VALUES ('a secret')")
            }
        }
        let found = try SQLiteInspection(path: path).findings().filter { $0.code == "row_orphaned" }.map(\.message)
        #expect(
            found.sorted() == [
                "a row of table other refers to a row of parent that does not exist",
                "row 1 of table child refers to a row of parent that does not exist",
            ]
        )
    }

    /// The pages are torn while the server runs: the reader says so, and not that it may be tried again.
    @Test func damageThatComesWhileItIsOpenIsCalledSoByEveryReader() throws {
        let directory = try TemporaryDirectory()
        let path = directory.path + "/martlet.sqlite"
        do {
            let store = try SQLiteRunStore(path: path)
            // More than a connection keeps in memory of what it has read.
            try store.commit((0..<6000).map { .event(Self.event($0, byteCount: 1000)) })
        }
        let store = try SQLiteRunStore(path: path)
        #expect(try store.events(after: 0, limit: 1, run: nil).count == 1)
        var bytes = try Data(contentsOf: URL(fileURLWithPath: path))
        for page in stride(from: 4096, to: bytes.count, by: 4096) {
            for index in page..<page + 64 { bytes[index] = 0xff }
        }
        let file = try FileHandle(forUpdating: URL(fileURLWithPath: path))
        try file.write(contentsOf: bytes)
        try file.close()
        let readers: [() throws -> Void] = [
            { _ = try store.events(after: 0, limit: 6000, run: nil) }, { _ = try store.recentHistory(limit: 10) },
            { _ = try store.load() },
        ]
        let failures = readers.compactMap { read -> StoreFailure? in
            do {
                try read()
                return nil
            } catch {
                return error as? StoreFailure ?? StoreFailure(.other, detail: "\(error)")
            }
        }
        #expect(!failures.isEmpty && failures.allSatisfy { $0.cause == .damaged }, "\(failures)")
    }

    private static func event(_ number: Int, byteCount: Int = 200) -> EventRow {
        EventRow(
            id: number + 1,
            at: Date(timeIntervalSince1970: Double(number)),
            type: "run",
            runId: "run_\(number)",
            populationId: nil,
            data: String(repeating: "x", count: byteCount)
        )
    }
}
