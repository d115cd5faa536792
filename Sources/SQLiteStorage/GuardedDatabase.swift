package import Coordination
import Foundation
package import GRDB

#if canImport(Glibc)
import Glibc
#endif

/// How databases of this program are opened: for their owner only, checked, durable, and never by a program that is older than they are.
package enum GuardedDatabase {
    /// Opens or creates a database in WAL mode with `synchronous = FULL`.
    ///
    /// - Parameters:
    ///   - path: The file; `-wal` and `-shm` files appear beside it.
    ///   - patienceSeconds: How long a transaction waits for a lock of another process.
    ///   - isKnown: Whether this process had the file open before: then pages and schema are not checked again.
    ///   - migrator: Which schema it has.
    ///   - advice: What to do about a newer schema, after "run that version".
    ///   - migrate: Brings it up to date.
    /// - Returns: Its connections.
    /// - Throws: `StoreFailure` if it is damaged; `CoordinationError` with code `schema_too_new`; what GRDB throws.
    package static func open(
        path: String,
        patienceSeconds: Double,
        isKnown: Bool,
        migrator: DatabaseMigrator,
        advice: String = "",
        migrate: (DatabasePool) throws -> Void
    ) throws -> DatabasePool {
        var configuration = Configuration()
        configuration.busyMode = .timeout(patienceSeconds)
        configuration.foreignKeysEnabled = true
        // Overwrites deleted content with zeros, so that free pages keep no trace of it.
        configuration.prepareDatabase { try $0.execute(sql: "PRAGMA secure_delete = ON") }
        if !isKnown { OwnerOnlyFile.make(path) }
        let pool = try DatabasePool(path: path, configuration: configuration)
        // A pool sets NORMAL when it turns WAL mode on, after the configuration has run. A committed transaction would then survive the
        // end of the process, but not a loss of power.
        try pool.writeWithoutTransaction { try $0.execute(sql: "PRAGMA synchronous = FULL") }
        guard !isKnown else { return pool }
        let problems = try pool.read { try String.fetchAll($0, sql: "PRAGMA quick_check(5)") }
        guard problems == ["ok"] else {
            throw StoreFailure(.damaged, detail: problems.joined(separator: "; "), action: .read)
        }
        // An older program would read a newer schema wrongly, or write rows that the newer program cannot read.
        guard try pool.read({ try !migrator.hasBeenSuperseded($0) }) else {
            throw CoordinationError(
                .unavailable,
                "schema_too_new",
                "\(path) was written by a newer version of Martlet; run that version\(advice)"
            )
        }
        try migrate(pool)
        return pool
    }

    /// The number of the last transaction that is stored.
    package static func mark(_ database: Database) throws -> Int {
        try Int.fetchOne(database, sql: "SELECT value FROM store_mark") ?? 0
    }

    /// Opens a database again after a failed transaction, and finds out whether that is stored.
    ///
    /// - Parameters:
    ///   - path: The file, whose connections are closed.
    ///   - mark: The number of the last transaction that is known to be stored.
    ///   - open: Opens the file, which is known.
    /// - Returns: The connections, and the number of the last transaction.
    /// - Throws: `StoreFailure` while that is not possible.
    package static func reopen(
        path: String,
        mark: Int,
        _ open: () throws -> DatabasePool
    ) throws -> (pool: DatabasePool, mark: Int) {
        guard access(path, F_OK) == 0 else {
            throw StoreFailure(.refused, detail: "the database is not there", code: errno, action: .open)
        }
        return try StoreFailure.naming {
            let pool = try open()
            let found = try pool.read { try self.mark($0) }
            guard found == mark || found == mark + 1 else {
                throw StoreFailure(.damaged, detail: "its last transaction is number \(found), not \(mark)")
            }
            // The transaction may be in cached pages of the log only, so it is copied to the database and synced.
            if found > mark { _ = try pool.writeWithoutTransaction { try $0.checkpoint(.truncate) } }
            return (pool, found)
        }
    }
}
