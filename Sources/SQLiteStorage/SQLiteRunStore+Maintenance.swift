package import Coordination
import Foundation
import GRDB

/// A database opened read-only, for checks and backups, also while a server writes to it.
package struct SQLiteInspection {
    private let queue: DatabaseQueue

    /// Opens a database without changing it.
    ///
    /// - Throws: `StoreFailure`, for example for a file that is no database.
    package init(path: String) throws {
        var configuration = Configuration()
        configuration.readonly = true
        configuration.busyMode = .timeout(10)
        queue = try StoreFailure.naming { try DatabaseQueue(path: path, configuration: configuration) }
    }

    /// The findings of SQLite's own checks, and whether the schema is this program's.
    ///
    /// - Throws: `StoreFailure`.
    package func findings() throws -> [Finding] {
        try read { database in
            var findings: [Finding] = []
            let integrity = try String.fetchAll(database, sql: "PRAGMA integrity_check(20)")
            if integrity == ["ok"] {
                findings.append(Finding(.ok, "database", "SQLite finds no damage"))
            } else {
                findings += integrity.map {
                    Finding(
                        .error,
                        "database_damaged",
                        "SQLite: \($0)",
                        remedy: "restore the last backup: martlet restore"
                    )
                }
            }
            // Table and row only: the row's columns can hold data of people.
            let orphans = try Row.fetchAll(database, sql: "PRAGMA foreign_key_check")
            findings += orphans.prefix(20).map { orphan in
                // A table without row numbers has none here either.
                let row = (orphan["rowid"] as Int64?).map { "row \($0)" } ?? "a row"
                let (table, parent): (String, String) = (orphan["table"], orphan["parent"])
                return Finding(
                    .error,
                    "row_orphaned",
                    "\(row) of table \(table) refers to a row of \(parent) that does not exist",
                    remedy: "restore a backup"
                )
            }
            let migrator = SchemaMigrations.migrator
            if try migrator.hasBeenSuperseded(database) {
                findings.append(
                    Finding(
                        .error,
                        Finding.schemaTooNew,
                        "a newer version of Martlet wrote this database",
                        remedy: "run that version, or restore a backup made before the upgrade"
                    )
                )
            } else if try !migrator.hasCompletedMigrations(database) {
                findings.append(
                    Finding(
                        .notice,
                        "schema_old",
                        "an older version of Martlet wrote this database",
                        remedy:
                            "nothing: the next start of the server brings it up to date; make a backup before, to be able to go back"
                    )
                )
            }
            return findings
        }
    }

    /// The whole state; `nil` if a newer version wrote the database.
    ///
    /// A database of an older version is copied to a temporary one and migrated there.
    ///
    /// - Throws: `StoreFailure`.
    package func state() throws -> StoredState? {
        let migrator = SchemaMigrations.migrator
        if try read({ try migrator.hasBeenSuperseded($0) }) { return nil }
        if try read({ try migrator.hasCompletedMigrations($0) }) { return try read(SQLiteRunStore.load) }
        return try StoreFailure.naming {
            let copy = try DatabaseQueue(path: "")
            try queue.backup(to: copy)
            try migrator.migrate(copy)
            let state = try copy.read(SQLiteRunStore.load)
            try copy.close()
            return state
        }
    }

    /// Copies the database page by page, consistent at one moment, to a file of mode 0600.
    ///
    /// - Throws: `StoreFailure`.
    package func backUp(to path: String) throws {
        OwnerOnlyFile.make(path)
        try StoreFailure.naming {
            let target = try DatabaseQueue(path: path)
            try queue.backup(to: target)
            try target.close()
        }
    }

    /// Closes the file.
    package func close() throws { try queue.close() }

    private func read<Value>(_ body: (Database) throws -> Value) throws -> Value {
        try StoreFailure.naming { try queue.read { try StoreFailure.named($0, body) } }
    }
}
