package import Coordination
package import GRDB
import GRDBSQLite

#if canImport(Glibc)
import Glibc
#endif

extension StoreFailure {
    /// Describes an error of SQLite: the cause by the result code, the failed call by the extended code, the reason by `errno`.
    ///
    /// - Parameters:
    ///   - error: SQLite's error.
    ///   - code: `errno` of the failed call, or 0 if it is not known.
    init(_ error: DatabaseError, code: Int32) {
        let extended = error.extendedResultCode
        let cause: Cause =
            switch error.resultCode {
            case .SQLITE_BUSY, .SQLITE_LOCKED: .locked
            case .SQLITE_FULL: .full
            case .SQLITE_CORRUPT, .SQLITE_NOTADB, .SQLITE_FORMAT: .damaged
            // A file that ends too soon, a page with a wrong checksum, a file system that reports damage.
            case .SQLITE_IOERR
            where [.SQLITE_IOERR_SHORT_READ, .SQLITE_IOERR_DATA, .SQLITE_IOERR_CORRUPTFS].contains(extended):
                .damaged
            // A quota or a file size limit stops the file from growing.
            case .SQLITE_IOERR where [ENOSPC, EDQUOT, EFBIG].contains(code): .full
            case .SQLITE_IOERR, .SQLITE_READONLY, .SQLITE_CANTOPEN, .SQLITE_PERM, .SQLITE_NOLFS: .refused
            default: .other
            }
        let known: Int32 =
            switch (cause, code) {
            case (.full, 0): ENOSPC
            case (.refused, 0) where error.resultCode == .SQLITE_READONLY || error.resultCode == .SQLITE_PERM: EACCES
            case (.refused, 0) where error.resultCode == .SQLITE_NOLFS: EFBIG
            default: code
            }
        self.init(cause, detail: error.message ?? "\(error.resultCode)", code: known, action: Self.action(error))
    }

    /// The call that failed, by the extended result code.
    private static func action(_ error: DatabaseError) -> StorageFailure.Action {
        switch error.resultCode {
        case .SQLITE_CANTOPEN: return .open
        case .SQLITE_CORRUPT, .SQLITE_NOTADB, .SQLITE_FORMAT: return .read
        case .SQLITE_IOERR: break
        default: return .write
        }
        return switch error.extendedResultCode {
        case .SQLITE_IOERR_READ, .SQLITE_IOERR_SHORT_READ, .SQLITE_IOERR_FSTAT, .SQLITE_IOERR_ACCESS,
            .SQLITE_IOERR_SHMMAP,
            .SQLITE_IOERR_MMAP, .SQLITE_IOERR_DATA, .SQLITE_IOERR_CORRUPTFS:
            .read
        case .SQLITE_IOERR_FSYNC, .SQLITE_IOERR_DIR_FSYNC: .sync
        case .SQLITE_IOERR_SHMOPEN, .SQLITE_IOERR_DIR_CLOSE: .open
        case .SQLITE_IOERR_DELETE: .remove
        default: .write
        }
    }

    /// Runs `body`, and throws errors of SQLite as ``StoreFailure``.
    ///
    /// With a connection at hand use ``named(_:_:)``, which knows the reason of more errors.
    package static func naming<Value>(_ body: () throws -> Value) throws -> Value {
        errno = 0
        do {
            return try body()
        } catch let error as DatabaseError {
            let code = errno
            throw StoreFailure(error, code: telling.contains(code) ? code : 0)
        } catch is RowDecodingError {
            // GRDB's message would contain the value, which may be personal data.
            throw StoreFailure(.damaged, detail: "a row is not as it was written", action: .read)
        }
    }

    /// Runs `body` on an open connection, and throws errors of SQLite as ``StoreFailure`` with their reason.
    ///
    /// The connection keeps the reason of a failed statement, but not of a failed commit: that is in the thread's `errno`.
    package static func named<Value>(_ database: Database, _ body: (Database) throws -> Value) throws -> Value {
        errno = 0
        do {
            return try body(database)
        } catch let error as DatabaseError {
            let code = errno
            guard [.SQLITE_IOERR, .SQLITE_CANTOPEN].contains(error.resultCode) else {
                throw StoreFailure(error, code: 0)
            }
            let isTelling = telling.contains(code)
            throw StoreFailure(error, code: isTelling ? code : sqlite3_system_errno(database.sqliteConnection))
        }
    }

    /// Values of `errno` that only a real failure leaves.
    ///
    /// ENOENT is not one: SQLite and GRDB look for files that may be missing.
    private static let telling: Set<Int32> = [
        EFBIG, ENOSPC, EDQUOT, EIO, EROFS, EACCES, EPERM, EMFILE, ENFILE, ENOMEM, EISDIR, ESTALE,
    ]
}
