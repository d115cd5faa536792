#if canImport(Glibc)
import Glibc
#endif

/// Why a store did not take a transaction, or cannot be used.
package struct StoreFailure: Error, Equatable, Sendable {
    package enum Cause: String, Sendable {
        /// Another process holds the database.
        case locked
        /// There is no space, or the file may not grow.
        case full
        /// The file is not what was written, or no database.
        case damaged
        /// The disk, its file system or its permissions do not let it be read or written.
        case refused
        /// Nothing was tried: it is not known yet whether an earlier transaction that failed is stored.
        case unsettled
        case other
    }

    package var cause: Cause
    /// The store's own words.
    package var detail: String
    /// `errno` of the call that failed; 0 where it is not known.
    package var code: Int32
    /// The call that failed, as far as it is known.
    package var action: StorageFailure.Action

    package init(_ cause: Cause, detail: String, code: Int32 = 0, action: StorageFailure.Action = .write) {
        self.cause = cause
        self.detail = detail
        self.code = code
        self.action = action
    }

    /// The same for those who ask about any file.
    package var storage: StorageFailure {
        let code =
            switch cause {
            case .locked: EBUSY
            case .full: code == 0 ? ENOSPC : code
            case .damaged: EBADMSG
            case .refused, .unsettled, .other: code
            }
        return StorageFailure(action, path: "martlet.sqlite", role: .database, code: code)
    }

    /// What is the matter and what to do, for a caller or an operator.
    package var explanation: String {
        switch cause {
        case .locked, .full, .refused: storage.explanation
        case .damaged: "the database is damaged (\(detail)); \(storage.advice ?? "")"
        case .unsettled: "a transaction failed, and the database cannot be asked yet whether it is stored; try again"
        case .other: "the database could not be \(action == .read ? "read" : "written"); try again later"
        }
    }

    /// The error that a caller gets: temporary, with code `storage_failed` or `database_damaged`.
    package var error: CoordinationError {
        var error = CoordinationError(.unavailable, storage.problemCode, explanation)
        error.storage = storage
        return error
    }
}

/// For the server's own log and for commands on its machine.
extension StoreFailure: CustomStringConvertible {
    package var description: String { "\(explanation) [\(cause), errno \(code): \(detail)]" }
}
