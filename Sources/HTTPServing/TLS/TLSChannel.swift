import COpenSSL
import Foundation

#if canImport(Glibc)
import Glibc
#endif

/// One TLS connection on a non-blocking socket; the handshake happens inside the first reads and writes.
package final class TLSChannel: ByteChannel {
    package let descriptor: Int32
    /// Called once with the handshake's outcome: `done`, or a word for the error.
    private let onHandshake: (@Sendable (String) -> Void)?
    private let context: TLSContext
    private let ssl: OpaquePointer
    private var isHandshakeTold = false
    private var isBroken = false

    /// Takes over a connected, non-blocking socket.
    ///
    /// - Returns: `nil` if OpenSSL has no memory; the socket then stays the caller's.
    package init?(descriptor: Int32, context: TLSContext, onHandshake: (@Sendable (String) -> Void)? = nil) {
        guard let ssl = SSL_new(context.pointer) else { return nil }
        self.descriptor = descriptor
        self.context = context
        self.ssl = ssl
        self.onHandshake = onHandshake
        SSL_set_fd(ssl, descriptor)
        SSL_set_accept_state(ssl)
    }

    package var shortReadMeansDrained: Bool { false }

    /// The hash of the peer's verified public key as `sha256//BASE64`; `nil` without a client certificate.
    package var peerKey: String? {
        guard SSL_get_verify_result(ssl) == Int(X509_V_OK), let certificate = SSL_get1_peer_certificate(ssl) else {
            return nil
        }
        defer { X509_free(certificate) }
        var hash = [UInt8](repeating: 0, count: 32)
        guard martlet_tls_public_key_hash(certificate, &hash) == 1 else { return nil }
        return "sha256//" + Data(hash).base64EncodedString()
    }

    package func read(into space: UnsafeMutableRawBufferPointer) -> ChannelResult {
        perform { SSL_read(ssl, space.baseAddress, Int32(clamping: space.count)) }
    }

    package func write(_ bytes: UnsafeRawBufferPointer, moreFollows: Bool) -> ChannelResult {
        perform { SSL_write(ssl, bytes.baseAddress, Int32(clamping: bytes.count)) }
    }

    package func finishWriting() {
        if !isBroken && SSL_is_init_finished(ssl) == 1 {
            ERR_clear_error()
            _ = SSL_shutdown(ssl)
        }
        shutdown(descriptor, Int32(SHUT_WR))
    }

    package func close() {
        SSL_free(ssl)
        Glibc.close(descriptor)
    }

    // MARK: -

    private func perform(_ operation: () -> Int32) -> ChannelResult {
        guard !isBroken else { return .failed(EPROTO) }
        ERR_clear_error()
        let count = operation()
        if !isHandshakeTold && SSL_is_init_finished(ssl) == 1 { tell("done") }
        if count > 0 { return .moved(Int(count)) }
        let code = errno
        switch SSL_get_error(ssl, count) {
        case SSL_ERROR_WANT_READ: return .blocked(.readable)
        case SSL_ERROR_WANT_WRITE: return .blocked(.writable)
        case SSL_ERROR_ZERO_RETURN: return .ended
        case SSL_ERROR_SYSCALL:
            isBroken = true
            tell("closed")
            return code == 0 ? .ended : .failed(code)
        default:
            isBroken = true
            let reason = martlet_tls_last_reason()
            if reason == SSL_R_HTTP_REQUEST { answerInPlainText() }
            tell(Self.outcome(of: reason))
            return reason == SSL_R_UNEXPECTED_EOF_WHILE_READING ? .ended : .failed(EPROTO)
        }
    }

    private func tell(_ outcome: String) {
        guard !isHandshakeTold else { return }
        isHandshakeTold = true
        onHandshake?(outcome)
    }

    /// Answers a client that speaks HTTP to this HTTPS port, in plain text that curl shows.
    private func answerInPlainText() {
        let text = "this port speaks HTTPS; use https://\n"
        let answer =
            "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: \(text.utf8.count)\r\n"
            + "Connection: close\r\n\r\n" + text
        _ = answer.utf8.withContiguousStorageIfAvailable {
            send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT))
        }
    }

    /// The outcome as one of a few words, for the metric.
    private static func outcome(of reason: Int32) -> String {
        switch reason {
        case SSL_R_HTTP_REQUEST: "plain_http"
        case SSL_R_NO_SHARED_CIPHER: "no_shared_cipher"
        case SSL_R_UNSUPPORTED_PROTOCOL, SSL_R_UNKNOWN_PROTOCOL, SSL_R_WRONG_VERSION_NUMBER: "unsupported_version"
        case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE: "no_client_certificate"
        case SSL_R_CERTIFICATE_VERIFY_FAILED: "bad_client_certificate"
        default: "failed"
        }
    }
}
