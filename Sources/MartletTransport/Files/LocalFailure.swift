import CLibrary
import Foundation
import Tensors

/// Names what is wrong on this device; never taken for the network, which another try may mend.
package enum LocalFailure {
    /// An error of a system call.
    package static func error(_ what: String, _ path: String, _ code: Int32) -> ClientError {
        switch code {
        case ENOSPC, EDQUOT, EFBIG:
            return ClientError(
                code: "disk_full",
                message:
                    "there is no space to \(what) \(path) (\(String(cString: strerror(code)))); free some on this device"
            )
        case ELOOP:
            return ClientError(
                code: "storage",
                message:
                    "cannot \(what) \(path): it is a link or no plain file, and nothing outside the state directory is "
                    + "opened; put the file itself there, or remove it"
            )
        default:
            return ClientError(
                code: "storage",
                message: "cannot \(what) \(path): \(String(cString: strerror(code)))"
            )
        }
    }

    /// An error of a library's that comes from this device's files; `nil` for any other.
    package static func error(_ error: any Error, _ path: String) -> ClientError? {
        if let error = error as? ClientError { return ClientError.localCodes.contains(error.code) ? error : nil }
        if case SafetensorsError.inputOutput(let path, let code) = error {
            return Self.error("read or write", path, code)
        }
        let cocoa = error as NSError
        if let inner = cocoa.userInfo[NSUnderlyingErrorKey] as? NSError, inner.domain == NSPOSIXErrorDomain {
            return Self.error("read or write", path, Int32(truncatingIfNeeded: inner.code))
        }
        if cocoa.domain == NSPOSIXErrorDomain {
            return Self.error("read or write", path, Int32(truncatingIfNeeded: cocoa.code))
        }
        guard cocoa.domain == NSCocoaErrorDomain else { return nil }
        let code: Int32 =
            switch cocoa.code {
            case NSFileWriteOutOfSpaceError: ENOSPC
            case NSFileReadNoPermissionError, NSFileWriteNoPermissionError: EACCES
            case NSFileNoSuchFileError, NSFileReadNoSuchFileError: ENOENT
            case NSFileWriteVolumeReadOnlyError: EROFS
            default: EIO
            }
        return Self.error("read or write", path, code)
    }
}
