import Crypto
import Foundation
import Tensors

/// The hash chain of one population's ledger: what a server, a device and an auditor compute alike.
///
/// Row n has a link, 32 bytes that depend on everything the row says, and the head after it is
/// `h_n = SHA-256("martlet-ledger-head" ‖ h_(n-1) ‖ n ‖ link_n)`, lines of text, hashes in hexadecimal. Whoever knows `(n, h_n)` and
/// the links of later rows can compute every later head: a ledger that leads there has not lost, changed or reordered a row,
/// nor shows fewer of them, unless SHA-256 is broken. Links tell nothing of what rows say. What a head cannot show is that
/// another device was given the same one.
package enum LedgerChain {
    /// The head of a ledger without rows.
    package static let empty = String(repeating: "0", count: 64)

    /// The head after one more row.
    package static func head(after previous: String, number: Int, link: String) -> String {
        sha256(["martlet-ledger-head", previous, String(number), link])
    }

    /// The link of a row of format 2; a row of format 1 has its hash in the chain of all populations for one.
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

    /// Hexadecimal digits as bytes; `nil` unless they are 64 of 0–9 and a–f.
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
