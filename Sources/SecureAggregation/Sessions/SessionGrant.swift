package import Crypto
package import Foundation

/// The helper's signature of a session document.
///
/// Devices get the helper's Ed25519 key from their operator or from the helper, never from the server.
package enum SessionGrant {
    private static func message(_ document: SessionDocument) -> [UInt8] {
        LayoutWriter.text("martlet-helper/1 grant") + document.session
    }

    package static func sign(
        _ document: SessionDocument,
        with key: Curve25519.Signing.PrivateKey
    ) throws -> Data {
        try key.signature(for: message(document))
    }

    /// - Throws: ``SecureAggregationError`` `grant_invalid`.
    package static func verify(
        _ grant: some DataProtocol,
        of document: SessionDocument,
        by key: Curve25519.Signing.PublicKey
    ) throws(SecureAggregationError) {
        guard key.isValidSignature(grant, for: message(document)) else {
            throw SecureAggregationError(
                .invalidGrant,
                "the grant is not the pinned helper's signature of this session: no data is read"
            )
        }
    }
}
