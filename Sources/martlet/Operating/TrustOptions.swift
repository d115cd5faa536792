import ArgumentParser
import Foundation
import MartletClient
import MartletTransport

/// Whom to trust as the server: flags first, then the environment.
struct TrustOptions: ParsableArguments {
    @Option(help: "PEM file of the trusted authorities (or MARTLET_CA_FILE).", completion: .file()) var caFile: String?
    @Option(help: "The server's public key, sha256//BASE64 (or MARTLET_PINNED_KEY).") var pinnedKey: String?

    /// The effective trust; a client's own certificate is named by the environment only.
    var security: TransportSecurity {
        var security = TransportSecurity.environment
        if let caFile { security.authorityPath = caFile }
        if let pinnedKey { security.pinnedKeys = pinnedKey }
        return security
    }

    /// The variables that say to other commands what the flags say to this one; files by their whole path.
    var variables: [(name: String, value: String)] {
        var variables: [(name: String, value: String)] = []
        if let caFile { variables.append(("MARTLET_CA_FILE", URL(fileURLWithPath: caFile).path)) }
        if let pinnedKey { variables.append(("MARTLET_PINNED_KEY", pinnedKey)) }
        return variables
    }

    /// What to do where a server's certificate is not trusted; `nil` where the error says it.
    static func advice(_ error: ClientError) -> String? {
        guard ["tls_self_signed", "tls_unknown_authority", "tls_untrusted"].contains(error.code) else { return nil }
        return
            "Give --ca-file FILE, or set MARTLET_CA_FILE: the PEM file of the authority that signed the certificate. "
            + "A self-signed certificate is its own authority."
    }
}
