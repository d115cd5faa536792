import Foundation

/// Whom the client trusts as its server, and how it proves itself.
///
/// The server's certificate is always verified; there is no switch for that.
public struct TransportSecurity: Sendable, Equatable {
    /// PEM: the authorities that are trusted instead of the system's.
    public var authorityPath: String?
    /// The hashes of public keys that the server may have, `sha256//BASE64`, several divided by `;`.
    public var pinnedKeys: String?
    /// PEM: the client's own certificate, where the server asks for one.
    public var certificatePath: String?
    /// PEM: its key.
    public var keyPath: String?

    /// Creates the settings.
    public init(
        authorityPath: String? = nil,
        pinnedKeys: String? = nil,
        certificatePath: String? = nil,
        keyPath: String? = nil
    ) {
        self.authorityPath = authorityPath
        self.pinnedKeys = pinnedKeys
        self.certificatePath = certificatePath
        self.keyPath = keyPath
    }

    /// What `MARTLET_CA_FILE`, `MARTLET_PINNED_KEY`, `MARTLET_CLIENT_CERTIFICATE` and `MARTLET_CLIENT_KEY` say.
    public static var environment: TransportSecurity {
        let variables = ProcessInfo.processInfo.environment
        func value(_ name: String) -> String? { variables[name].flatMap { $0.isEmpty ? nil : $0 } }
        return TransportSecurity(
            authorityPath: value("MARTLET_CA_FILE"),
            pinnedKeys: value("MARTLET_PINNED_KEY"),
            certificatePath: value("MARTLET_CLIENT_CERTIFICATE"),
            keyPath: value("MARTLET_CLIENT_KEY")
        )
    }
}
