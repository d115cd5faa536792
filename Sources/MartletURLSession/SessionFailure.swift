import Foundation
import MartletTransport

#if canImport(FoundationNetworking)
import FoundationNetworking
#endif

/// Says why a session gave no answer, by the codes of the client's errors.
enum SessionFailure {
    /// An error of a session's; on Linux most causes have one code, and are told in Foundation's words.
    static func error(_ error: any Error, url: String) -> any Error {
        let host = URL(string: url)?.host ?? url
        guard let error = error as? URLError else {
            return ClientError(code: "network", message: "no answer from \(url): \(error.localizedDescription)")
        }
        switch error.code {
        case .cancelled: return CancellationError()
        case .serverCertificateHasBadDate, .serverCertificateNotYetValid:
            return ClientError(
                code: "tls_certificate_expired",
                message: "the certificate of \(host) has expired or is not valid yet; check this device's clock"
            )
        case .serverCertificateUntrusted, .serverCertificateHasUnknownRoot:
            return ClientError(
                code: "tls_unknown_authority",
                message: "the certificate of \(host) was issued by an authority that this system does not trust"
            )
        case .secureConnectionFailed, .clientCertificateRejected, .clientCertificateRequired:
            return ClientError(
                code: "tls_failed",
                message: "no secure connection to \(host): \(error.localizedDescription)"
            )
        case .fileDoesNotExist, .noPermissionsToReadFile, .cannotOpenFile:
            return ClientError(code: "storage", message: "a file that was to be sent to \(host) cannot be read")
        default:
            return ClientError(code: "network", message: "no answer from \(url): \(error.localizedDescription)")
        }
    }
}
