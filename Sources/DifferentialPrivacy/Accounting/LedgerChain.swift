import Crypto
import Foundation
import Tensors

/// The hash chain of one population's ledger.
///
/// Server, device and auditor compute the same one.
///
/// Row n has a link, 32 bytes that depend on the whole content of the row. The head after it is
/// `h_n = SHA-256("martlet-ledger-head" ‖ h_(n-1) ‖ n ‖ link_n)`, over lines of text with hashes in hexadecimal. From `(n, h_n)` and
/// the links of later rows every later head can be computed. A ledger that arrives at such a head has not lost, changed, reordered
/// or hidden a row, unless SHA-256 is broken. Links tell nothing about the content of rows. A head cannot show that another device
/// was given the same one.
package enum LedgerChain {
    /// The head of a ledger without rows.
    package static let empty = String(repeating: "0", count: 64)

    /// The head after one more row.
    package static func head(after previous: String, number: Int, link: String) -> String {
        sha256(["martlet-ledger-head", previous, String(number), link])
    }

    /// The link of a row of format 2.
    ///
    /// The link of a row of format 1 is its hash in the chain of all populations.
    package static func link(
        population: String,
        number: Int,
        run: String,
        round: Int,
        attempt: Int,
        state: String,
        event: String,
        milliseconds: Int
    ) -> String {
        sha256([
            "martlet-ledger-row/2", population, String(number), run, String(round), String(attempt), state, event,
            String(milliseconds),
        ])
    }

    /// The hash of a row of format 2 in the chain of all populations.
    package static func rowHash(previous: String, sequence: Int, head: String) -> String {
        sha256(["martlet-ledger/2", previous, String(sequence), head])
    }

    private static func sha256(_ lines: [String]) -> String {
        SHA256.hash(data: Data(lines.joined(separator: "\n").utf8)).hexadecimal
    }

    /// The 32 bytes of 64 hexadecimal digits in lower case; `nil` for any other text.
    package static func bytes(_ hash: String) -> [UInt8]? {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(32)
        var count = 0
        var high: UInt8 = 0
        for digit in hash.utf8 {
            let value: UInt8
            switch digit {
            case 48...57: value = digit - 48
            case 97...102: value = digit - 87
            default: return nil
            }
            count += 1
            guard count <= 64 else { return nil }
            if count.isMultiple(of: 2) { bytes.append(high << 4 | value) } else { high = value }
        }
        return count == 64 ? bytes : nil
    }
}
