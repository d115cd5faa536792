import ArgumentParser
import MartletClient

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
}
