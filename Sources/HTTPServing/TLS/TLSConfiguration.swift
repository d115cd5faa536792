/// The files and rules of the server's TLS.
package struct TLSConfiguration: Sendable, Equatable {
    /// Whether clients must show certificates.
    package enum ClientCertificates: String, Sendable, CaseIterable {
        case none, optional, required
    }

    /// PEM: the server's certificate, followed by the intermediate certificates.
    package var certificatePath: String
    /// PEM: the private key.
    package var keyPath: String
    /// PEM: the authorities whose client certificates are accepted.
    package var clientAuthorityPath: String?
    package var clientCertificates: ClientCertificates
    /// Whether TLS 1.2 is refused.
    package var requiresVersion13: Bool

    package init(
        certificatePath: String,
        keyPath: String,
        clientAuthorityPath: String? = nil,
        clientCertificates: ClientCertificates = .none,
        requiresVersion13: Bool = false
    ) {
        self.certificatePath = certificatePath
        self.keyPath = keyPath
        self.clientAuthorityPath = clientAuthorityPath
        self.clientCertificates = clientCertificates
        self.requiresVersion13 = requiresVersion13
    }
}

/// Why TLS cannot be served.
package struct TLSError: Error, Sendable, CustomStringConvertible {
    package var description: String
}
