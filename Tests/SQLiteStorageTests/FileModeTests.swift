import Foundation
import GRDB
import TestSupport
import Testing

@testable import SQLiteStorage

struct FileModeTests {
    /// Whoever may enter the directory may not read the database, its log or a backup, also where an earlier version made them.
    @Test func databasesAndBackupsAreForTheirOwnerOnly() throws {
        let directory = try TemporaryDirectory()
        try FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: directory.path)
        let path = directory.path + "/martlet.sqlite"
        func modes() throws -> [String: Int] {
            let names = try FileManager.default.contentsOfDirectory(atPath: directory.path)
            return try Dictionary(
                uniqueKeysWithValues: names.map { name in
                    let attributes = try FileManager.default.attributesOfItem(atPath: directory.path + "/" + name)
                    return (name, attributes[.posixPermissions] as? Int ?? 0)
                }
            )
        }
        for isOld in [false, true] {
            if isOld { try FileManager.default.setAttributes([.posixPermissions: 0o644], ofItemAtPath: path) }
            let pool = try SQLiteRunStore.open(path: path, patienceSeconds: 1)
            try pool.write { try $0.execute(sql: "PRAGMA user_version = \(isOld ? 1 : 2)") }
            let copy = directory.path + "/backup-\(isOld)"
            let inspection = try SQLiteInspection(path: path)
            try inspection.backUp(to: copy)
            try inspection.close()
            let found = try modes()
            #expect(found["martlet.sqlite"] == 0o600 && found["martlet.sqlite-wal"] == 0o600, "\(found)")
            #expect(found.values.allSatisfy { $0 == 0o600 } && found.count >= (isOld ? 5 : 4), "\(found)")
            try pool.close()
        }
    }
}
