import Coordination
import GRDB
import GRDBSQLite

#if canImport(Glibc)
import Glibc
#endif

extension StoreFailure {
    /// Describes an error of SQLite: its kind by the result code, the call by the extended one, the reason by `errno`.
    ///
    /// - Parameters:
    ///   - error: What SQLite says.
    ///   - code: `errno` of the call that failed, as the connection knows it; 0 where it does not.
    init(_ error: DatabaseError, code: Int32) {
        let extended = error.extendedResultCode
        let cause: Cause =
            switch error.resultCode {
            case .SQLITE_BUSY, .SQLITE_LOCKED: .locked
            case .SQLITE_FULL: .full
            case .SQLITE_CORRUPT, .SQLITE_NOTADB, .SQLITE_FORMAT: .damaged
            // A file that ends too soon, a page whose checksum is wrong, a file system that calls itself damaged.
            case .SQLITE_IOERR
            where [.SQLITE_IOERR_SHORT_READ, .SQLITE_IOERR_DATA, .SQLITE_IOERR_CORRUPTFS].contains(extended):
                .damaged
            // A file that may not grow, by quota or limit, fails to be written.
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

    /// The call that failed, as the extended code tells it.
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

    /// Runs what asks SQLite, so that each of its errors arrives as a ``StoreFailure``.
    ///
    /// Inside of a connection use ``named(_:_:)``, which knows more.
    static func naming<Value>(_ body: () throws -> Value) throws -> Value {
        errno = 0
        do {
            return try body()
        } catch let error as DatabaseError {
            let code = errno
            throw StoreFailure(error, code: telling.contains(code) ? code : 0)
        } catch is RowDecodingError {
            // Its words would name the value.
            throw StoreFailure(.damaged, detail: "a row is not as it was written", action: .read)
        }
    }

    /// Runs what asks an open connection, so that each of SQLite's errors arrives with its reason.
    ///
    /// The connection keeps the reason of a statement that failed, and not that of a commit: there it is the thread's `errno`.
    static func named<Value>(_ database: Database, _ body: (Database) throws -> Value) throws -> Value {
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

    /// What only a call that failed leaves in `errno`: SQLite and GRDB look for files that may be missing.
    private static let telling: Set<Int32> = [
        EFBIG, ENOSPC, EDQUOT, EIO, EROFS, EACCES, EPERM, EMFILE, ENFILE, ENOMEM, EISDIR, ESTALE,
    ]
}
