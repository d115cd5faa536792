#if Curl
import CCurl
import Foundation

/// Says why libcurl gave no answer, in words that name the cause and the remedy.
enum CurlFailure {
    /// An error for a result of libcurl's; `detail` is the text of its error buffer.
    static func error(_ result: CURLcode, detail: String, url: String) -> ClientError {
        let host = URL(string: url)?.host ?? url
        switch result {
        case CURLE_PEER_FAILED_VERIFICATION: return certificate(detail, host: host)
        case CURLE_SSL_PINNEDPUBKEYNOTMATCH:
            return refused(
                "tls_pin_mismatch",
                "\(host) has another public key than the pinned one: either it was changed, or someone is in between"
            )
        case CURLE_SSL_CACERT_BADFILE:
            return refused("tls_unreadable_file", "the file of trusted authorities cannot be read: \(detail)")
        case CURLE_SSL_CERTPROBLEM:
            return refused("tls_unreadable_file", "the client's certificate cannot be used: \(detail)")
        case CURLE_SSL_CONNECT_ERROR where isPlain(detail):
            return refused(
                "tls_plain_http",
                "\(host) answers without TLS: this port seems to speak plain HTTP; use http://"
            )
        case CURLE_SSL_CONNECT_ERROR where isOldVersion(detail):
            return refused(
                "tls_old_version",
                "\(host) speaks no TLS of version 1.2 or newer, and nothing older is safe; its operator must update it"
            )
        case CURLE_SSL_CONNECT_ERROR, CURLE_SSL_CIPHER, CURLE_SSL_ENGINE_NOTFOUND:
            return refused(ClientError.tlsFailed, "no secure connection to \(host): \(detail)")
        default:
            let reason = detail.isEmpty ? String(cString: curl_easy_strerror(result)) : detail
            let proxy = ForeignAnswer.proxyNote(url).map { "; " + $0 } ?? ""
            return ClientError(code: "network", message: "no answer from \(url): \(reason)\(proxy)")
        }
    }

    /// Whether the other side does not speak TLS at all, from OpenSSL's words: older versions take its first bytes for a version.
    private static func isPlain(_ detail: String) -> Bool {
        let text = detail.lowercased()
        return text.contains("wrong version number") || text.contains("packet length too long")
    }

    /// Whether the two sides have no version of TLS in common, from OpenSSL's words.
    private static func isOldVersion(_ detail: String) -> Bool {
        let text = detail.lowercased()
        return text.contains("alert protocol version") || text.contains("unsupported protocol")
            || text.contains("wrong ssl version")
    }

    /// What is wrong with the server's certificate, from OpenSSL's words.
    private static func certificate(_ detail: String, host: String) -> ClientError {
        let text = detail.lowercased()
        if text.contains("expired") {
            return refused(
                "tls_certificate_expired",
                "the certificate of \(host) has expired; its operator must renew it"
            )
        }
        if text.contains("not yet valid") {
            return refused(
                "tls_certificate_expired",
                "the certificate of \(host) is not valid yet; check this device's clock"
            )
        }
        if text.contains("subject name") || text.contains("does not match") || text.contains("host name")
            || text.contains("ip address")
        {
            return refused("tls_wrong_host", "the certificate is not one for \(host): it names other hosts")
        }
        if text.contains("self-signed") || text.contains("self signed") {
            return refused(
                "tls_self_signed",
                "the certificate of \(host) is self-signed or has an unknown root; name its authority with MARTLET_CA_FILE"
            )
        }
        if text.contains("issuer") {
            return refused(
                "tls_unknown_authority",
                "the certificate of \(host) was issued by an unknown authority; name it with MARTLET_CA_FILE"
            )
        }
        return refused("tls_untrusted", "the certificate of \(host) is not trusted: \(detail)")
    }

    private static func refused(_ code: String, _ message: String) -> ClientError {
        ClientError(code: code, message: message)
    }
}
#endif
