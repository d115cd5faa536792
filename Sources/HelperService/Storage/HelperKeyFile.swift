import Coordination
import Crypto
package import Foundation

/// The helper's Ed25519 key, by which devices know it: one line of base64, 0600.
///
/// It is the one secret that a backup needs: with another key no device would accept a grant.
package enum HelperKeyFile {
    /// Reads the key; makes one where there is none.
    ///
    /// - Parameters:
    ///   - path: The file.
    ///   - mayMake: Whether a missing key is made: not in a directory that was in use, whose devices have pinned another one.
    /// - Returns: The key.
    /// - Throws: `CoordinationError` `helper_key_missing`, `helper_key_damaged`, `storage_failed`.
    static func open(_ path: String, mayMake: Bool) throws -> Curve25519.Signing.PrivateKey {
        guard try SecretFile.exists(path) else {
            guard mayMake else {
                throw CoordinationError(
                    .unavailable,
                    "helper_key_missing",
                    "the helper's key \(path) is gone, and devices have pinned it: put it back from a backup"
                )
            }
            let key = Curve25519.Signing.PrivateKey()
            try DurableFiles.write(Data((key.rawRepresentation.base64EncodedString() + "\n").utf8), to: path)
            return key
        }
        let text = String(decoding: try DurableFiles.read(path), as: UTF8.self)
        guard let bytes = Data(base64Encoded: text.trimmingCharacters(in: .whitespacesAndNewlines)),
            let key = try? Curve25519.Signing.PrivateKey(rawRepresentation: bytes)
        else {
            throw CoordinationError(
                .unavailable,
                "helper_key_damaged",
                "the helper's key \(path) is no key: put it back from a backup"
            )
        }
        return key
    }

    /// A public key as PEM, which devices are given (RFC 8410).
    package static func pem(_ raw: Data) -> String {
        let prefix: [UInt8] = [0x30, 0x2A, 0x30, 0x05, 0x06, 0x03, 0x2B, 0x65, 0x70, 0x03, 0x21, 0x00]
        return "-----BEGIN PUBLIC KEY-----\n\((Data(prefix) + raw).base64EncodedString())\n-----END PUBLIC KEY-----\n"
    }
}
