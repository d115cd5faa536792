package import Crypto
public import Foundation
public import MartletTransport
import Tensors

/// The Ed25519 key of a helper, which a device pins: it takes part in nothing that this helper has not granted.
///
/// `martlet helper keys` prints it as PEM. It comes to the device with the app, from its operator, or from the helper, and never from
/// the server: a server that could change it would be the helper.
public struct HelperKey: Equatable, Hashable, Sendable {
    /// The 32 bytes of RFC 8032.
    public let rawRepresentation: Data

    /// What stands before the 32 bytes in a SubjectPublicKeyInfo of Ed25519 (RFC 8410, section 4).
    private static let prefix: [UInt8] = [0x30, 0x2A, 0x30, 0x05, 0x06, 0x03, 0x2B, 0x65, 0x70, 0x03, 0x21, 0x00]
    private static let byteLimit = 4 << 10

    /// Takes the bytes of a key.
    ///
    /// - Throws: `ClientError` with code `helper_key_invalid` unless there are 32.
    public init(rawRepresentation: Data) throws(ClientError) {
        guard rawRepresentation.count == 32 else {
            throw Self.invalid("an Ed25519 key has 32 bytes, and \(rawRepresentation.count) were given")
        }
        self.rawRepresentation = Data(rawRepresentation)
    }

    /// Reads a key as `martlet helper keys` prints it.
    ///
    /// - Throws: `ClientError` with code `helper_key_invalid`.
    public init(pem: String) throws(ClientError) {
        let lines = pem.split(whereSeparator: \.isNewline).map { $0.trimmingCharacters(in: .whitespaces) }
            .filter { !$0.isEmpty }
        guard lines.first == "-----BEGIN PUBLIC KEY-----", lines.last == "-----END PUBLIC KEY-----",
            let bytes = Data(base64Encoded: lines.dropFirst().dropLast().joined()),
            bytes.starts(with: Self.prefix)
        else {
            throw Self.invalid("the text is no Ed25519 public key in PEM, as martlet helper keys prints it")
        }
        try self.init(rawRepresentation: bytes.dropFirst(Self.prefix.count))
    }

    /// Reads the file that `martlet helper keys` was written to.
    ///
    /// - Throws: `ClientError` with code `helper_key_invalid`, also for a file that cannot be read.
    public init(file path: String) throws(ClientError) {
        guard let handle = FileHandle(forReadingAtPath: path) else {
            throw Self.invalid("the helper's key \(path) cannot be opened")
        }
        defer { try? handle.close() }
        guard let bytes = try? handle.read(upToCount: Self.byteLimit),
            let text = String(validating: bytes, as: UTF8.self)
        else { throw Self.invalid("the helper's key \(path) cannot be read") }
        do { try self.init(pem: text) } catch { throw Self.invalid("\(path): \(error.message)") }
    }

    private static func invalid(_ message: String) -> ClientError {
        ClientError(code: "helper_key_invalid", message: message)
    }

    /// The bytes as text, for files of the state directory.
    var hexadecimal: String { Array(rawRepresentation).hexadecimal }

    package var verifyingKey: Curve25519.Signing.PublicKey {
        get throws { try Curve25519.Signing.PublicKey(rawRepresentation: rawRepresentation) }
    }
}
