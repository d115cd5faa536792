import Crypto
import Foundation
import MartletClient
import TestSupport
import Testing

/// The key that a device pins is the one that `martlet helper keys` prints, and nothing else is read as a key.
struct HelperKeyTests {
    private static func pem(_ body: [UInt8], label: String = "PUBLIC KEY") -> String {
        "-----BEGIN \(label)-----\n\(Data(body).base64EncodedString())\n-----END \(label)-----\n"
    }

    private static let prefix: [UInt8] = [0x30, 0x2A, 0x30, 0x05, 0x06, 0x03, 0x2B, 0x65, 0x70, 0x03, 0x21, 0x00]

    @Test func whatTheHelperPrintsIsRead() throws {
        let raw = Curve25519.Signing.PrivateKey().publicKey.rawRepresentation
        let text = Self.pem(Self.prefix + raw)
        #expect(try HelperKey(pem: text).rawRepresentation == raw)
        #expect(try HelperKey(pem: text.replacing("\n", with: "\r\n")).rawRepresentation == raw)
        let directory = try TemporaryDirectory()
        let path = directory.path + "/helper.pub"
        try Data(text.utf8).write(to: URL(fileURLWithPath: path))
        #expect(try HelperKey(file: path) == HelperKey(rawRepresentation: raw))
    }

    @Test func nothingElseIsAKey() throws {
        let raw = [UInt8](repeating: 7, count: 32)
        var texts = [
            "", "helper", Data(raw).base64EncodedString(), Self.pem(raw), Self.pem(Self.prefix + raw.dropLast()),
        ]
        texts += [Self.pem(Self.prefix + raw + [0]), Self.pem(Self.prefix + raw, label: "PRIVATE KEY")]
        var other = Self.prefix
        other[8] = 0x6E
        // X25519's object identifier.
        texts.append(Self.pem(other + raw))
        for text in texts {
            do {
                _ = try HelperKey(pem: text)
                Issue.record("\(text) is read as a key")
            } catch { #expect(error.code == "helper_key_invalid") }
        }
        let directory = try TemporaryDirectory()
        #expect(throws: ClientError.self) { try HelperKey(file: directory.path + "/none") }
        #expect(throws: ClientError.self) { try HelperKey(file: directory.path) }
        #expect(throws: ClientError.self) { try HelperKey(rawRepresentation: Data(count: 31)) }
    }
}
