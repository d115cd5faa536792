import COpenSSL
import Foundation

#if canImport(Glibc)
import Glibc
#endif

/// A certificate with its key and rules, ready for connections; OpenSSL does the cryptography.
///
/// TLS 1.3, and TLS 1.2 with forward secrecy and authenticated encryption only. There is no renegotiation and no compression. There
/// are no session tickets: with a stolen ticket key recorded connections could be decrypted.
package final class TLSContext: @unchecked Sendable {
    // SAFETY: an SSL_CTX is never changed after `init`; OpenSSL counts references to it atomically.
    let pointer: OpaquePointer
    /// When the certificate expires, in Unix time.
    package let expiry: Int

    /// Reads the files.
    ///
    /// - Throws: ``TLSError`` with the file and what is wrong with it.
    package init(_ configuration: TLSConfiguration) throws(TLSError) {
        // OpenSSL writes to the socket itself, without MSG_NOSIGNAL.
        signal(SIGPIPE, SIG_IGN)
        guard let context = SSL_CTX_new(TLS_server_method()) else {
            throw TLSError(description: "OpenSSL has no memory")
        }
        pointer = context
        do throws(TLSError) {
            try Self.prepare(context, configuration)
        } catch {
            SSL_CTX_free(context)
            throw error
        }
        expiry = Int(martlet_tls_expiry(context))
    }

    deinit { SSL_CTX_free(pointer) }

    private static func prepare(_ context: OpaquePointer, _ configuration: TLSConfiguration) throws(TLSError) {
        martlet_tls_harden(context)
        martlet_tls_offer_http(context)
        _ = martlet_tls_set_min_version(context, configuration.requiresVersion13 ? TLS1_3_VERSION : TLS1_2_VERSION)
        guard SSL_CTX_set_cipher_list(context, "ECDHE+AESGCM:ECDHE+CHACHA20") == 1,
            SSL_CTX_set_ciphersuites(
                context,
                "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
            ) == 1, martlet_tls_set_groups(context, "X25519:P-256:P-384") == 1
        else { throw TLSError(description: "this OpenSSL lacks the ciphers that the server needs") }
        try readable(configuration.certificatePath, "certificate")
        try readable(configuration.keyPath, "key")
        guard SSL_CTX_use_certificate_chain_file(context, configuration.certificatePath) == 1 else {
            throw TLSError(description: "\(configuration.certificatePath) holds no PEM certificate: \(reason())")
        }
        guard SSL_CTX_use_PrivateKey_file(context, configuration.keyPath, SSL_FILETYPE_PEM) == 1 else {
            throw TLSError(
                description:
                    "\(configuration.keyPath) holds no PEM key that belongs to \(configuration.certificatePath): \(reason())"
            )
        }
        guard configuration.clientCertificates != .none else { return }
        guard let authority = configuration.clientAuthorityPath else {
            throw TLSError(description: "client certificates need the file of their authority")
        }
        try readable(authority, "client authority")
        guard SSL_CTX_load_verify_locations(context, authority, nil) == 1,
            let names = SSL_load_client_CA_file(authority)
        else { throw TLSError(description: "\(authority) holds no PEM certificate: \(reason())") }
        SSL_CTX_set_client_CA_list(context, names)
        let demanded = configuration.clientCertificates == .required ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0
        SSL_CTX_set_verify(context, SSL_VERIFY_PEER | demanded, nil)
    }

    private static func readable(_ path: String, _ what: String) throws(TLSError) {
        guard access(path, R_OK) == 0 else {
            throw TLSError(description: "the \(what) file \(path) cannot be read: \(String(cString: strerror(errno)))")
        }
    }

    private static func reason() -> String {
        let code = ERR_peek_error()
        ERR_clear_error()
        return ERR_reason_error_string(code).map { String(cString: $0) } ?? "no reason was given"
    }
}
