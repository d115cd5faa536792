import Crypto
package import Foundation
import Tensors

/// Ids, tokens and hashes.
package enum Secrets {
    /// A fresh id such as `run_4f0c9a…`: 80 random bits.
    package static func identifier(_ prefix: String) -> String {
        prefix + "_" + randomBytes(10).hexadecimal
    }

    /// A fresh bearer token of 256 bits.
    package static func token() -> String {
        let encoded = Data(randomBytes(32)).base64EncodedString()
        return "mlt_" + encoded.replacing("+", with: "-").replacing("/", with: "_").replacing("=", with: "")
    }

    /// SHA-256 as lower-case hexadecimal digits.
    package static func sha256(_ bytes: some DataProtocol) -> String {
        SHA256.hash(data: bytes).hexadecimal
    }

    /// SHA-256 of a token's text, by which tokens are kept and looked up.
    package static func hash(ofToken token: String) -> String { sha256(Array(token.utf8)) }

    private static func randomBytes(_ count: Int) -> [UInt8] {
        // The system generator draws from the kernel's cryptographic source on Linux.
        var generator = SystemRandomNumberGenerator()
        return (0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) }
    }
}
