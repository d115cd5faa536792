import Aggregation
import Foundation
import Tensors

#if canImport(Glibc)
import Glibc
#endif

/// What the operating system refused to do with a file, and why.
///
/// A failure of this sort says nothing about the contents: what waits for the file waits on and tries again.
package struct StorageFailure: Equatable, Sendable {
    package enum Action: String, Sendable {
        case create, open, read, write, reserve, sync, rename, link, remove
    }

    /// What the file is for; strangers learn this and no path.
    package enum Role: String, Sendable {
        case model = "a model's file"
        case update = "an update's file"
        case result = "the file of a round's result"
        case noiseState = "the state of correlated noise"
        case noiseKey = "the key of correlated noise"
        case ledgerRecord = "the ledger's second record"
        case restoredNote = "the note of the restore"
        case database = "the database"
        case directory = "the data directory"
        case file = "a file"

        /// The role that a file's place in the data directory gives it.
        package init(path: String) {
            let name = path.split(separator: "/").last ?? ""
            self =
                if name.contains(".result") {
                    .result
                } else if name.contains(".state") && path.contains("/noise/") {
                    .noiseState
                } else if name.hasPrefix("noise.key") {
                    .noiseKey
                } else if name == "restored.json" {
                    .restoredNote
                } else if name.hasPrefix("martlet.sqlite") {
                    .database
                } else if path.contains("/blobs/") || path.contains("/variants/") {
                    .model
                } else if path.contains("/spool/") {
                    .update
                } else {
                    .file
                }
        }
    }

    package var action: Action
    package var role: Role
    /// `errno`; 0 where it is not known.
    package var code: Int32
    /// For the server's own log.
    package var path: String

    /// Describes a call that has just failed.
    package init(_ action: Action, path: String, role: Role? = nil, code: Int32 = errno) {
        self.action = action
        self.role = role ?? Role(path: path)
        self.code = code
        self.path = path
    }

    /// The failure inside an error of any module; `nil` where the error is about contents or something else.
    package init?(_ error: any Error) {
        switch error {
        case let error as CoordinationError:
            guard let storage = error.storage else { return nil }
            self = storage
        case SafetensorsError.inputOutput(let path, let code): self.init(.read, path: path, code: code)
        case AggregationError.unreadable(let path, _, let code?): self.init(.read, path: path, code: code)
        case let error as StoreFailure: self = error.storage
        case let error as POSIXError: self.init(.read, path: "", role: .file, code: error.code.rawValue)
        case let error as NSError:
            var cause: NSError? = error
            while let current = cause, current.domain != NSPOSIXErrorDomain {
                cause = current.userInfo[NSUnderlyingErrorKey] as? NSError
            }
            guard let cause else { return nil }
            let path = error.userInfo[NSFilePathErrorKey] as? String ?? ""
            self.init(.read, path: path, code: Int32(cause.code))
        default: return nil
        }
    }

    /// Whether the database's pages are not what was written: nothing passes by itself.
    package var isDamagedDatabase: Bool { role == .database && code == EBADMSG }

    /// The code of the error and of the problem that tell of it.
    package var problemCode: String { isDamagedDatabase ? "database_damaged" : "storage_failed" }

    /// Whether the file is not there.
    package var isMissing: Bool { code == ENOENT || code == ENOTDIR }

    /// What failed and why, without a path.
    package var sentence: String {
        let done =
            switch action {
            case .create: "created"
            case .open: "opened"
            case .read: "read"
            case .write: "written"
            case .reserve: "given its space"
            case .sync: "brought to the disk"
            case .rename: "renamed"
            case .link: "linked"
            case .remove: "removed"
            }
        return "\(role.rawValue) cannot be \(done): \(Self.reason(code))"
    }

    /// ``sentence``, with what to do.
    package var explanation: String {
        sentence + (advice.map { "; " + $0 } ?? "") + (isDamagedDatabase ? "" : ": what was acknowledged is stored")
    }

    /// An `errno` by its name, in words.
    package static func reason(_ code: Int32) -> String {
        switch code {
        case ENOSPC: "the disk is full"
        case EDQUOT: "the disk quota is used up"
        case EFBIG: "the file may not grow any more (a limit of the system)"
        case EIO: "the disk reports an error (EIO)"
        case EROFS: "the file system is read-only"
        case EACCES, EPERM: "the server's user has no permission"
        case EMFILE, ENFILE: "too many files are open"
        case ENOENT, ENOTDIR: "it is not there"
        case EBUSY: "another process holds it"
        case EBADMSG: "it is damaged"
        case EUCLEAN: "the file system is damaged"
        case 0: "the system does not say why"
        default: String(cString: strerror(code))
        }
    }

    /// What somebody can do about it; `nil` where that is not known.
    package var advice: String? {
        isDamagedDatabase
            ? "stop the server and restore the last backup with martlet restore; martlet doctor says more"
            : Self.advice(code)
    }

    /// What somebody can do about an `errno`.
    package static func advice(_ code: Int32) -> String? {
        switch code {
        case ENOSPC, EDQUOT: "free some space"
        case EFBIG: "raise the limit (ulimit -f, LimitFSIZE=, or the file system's)"
        case EBUSY: "end it (a shell of sqlite3, a copy tool) and try again"
        case EIO: "look at the kernel's log and replace the disk"
        case EBADMSG, EUCLEAN: "look at the kernel's log and check the file system"
        case EMFILE, ENFILE: "raise the limit of open files (LimitNOFILE=)"
        case EROFS: "look at the kernel's log and mount it writable"
        case EACCES, EPERM: "give the data directory and all in it to the server's user"
        default: nil
        }
    }

    /// The error that a caller gets: temporary, with code `storage_failed` or `database_damaged`.
    package var error: CoordinationError {
        var error = CoordinationError(.unavailable, problemCode, explanation)
        error.storage = self
        return error
    }
}
