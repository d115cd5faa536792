import Crypto
import Foundation
import Tensors

/// A uniform sample without replacement of everyone who comes, whatever their number.
///
/// Source: Vitter 1985, Algorithm R. The order of arrival gives nobody an advantage.
///
/// A reference, so that a copy of a `RunState` shares it: one that somebody held when the next client came made that client's
/// check-in copy the names of all who had come before.
package final class Reservoir: @unchecked Sendable {
    // SAFETY: touched by the coordinator only, as the run that owns it.

    package let capacity: Int
    package private(set) var chosen: [String] = []
    private var seen: Set<String> = []

    package init(capacity: Int) {
        self.capacity = capacity
    }

    /// Clients that came.
    package var seenCount: Int { seen.count }

    /// Takes a client that checks in; the same client counts once.
    package func offer(_ client: String, using generator: inout some RandomNumberGenerator) {
        guard seen.insert(client).inserted else { return }
        if chosen.count < capacity {
            chosen.append(client)
            return
        }
        let place = Int.random(in: 0..<seen.count, using: &generator)
        if place < capacity { chosen[place] = client }
    }
}

/// The server's own coins, one a client and round, from a key that only the database knows.
///
/// The draw is made before anyone checks in, does not depend on who does, and needs no memory: a client is in when
/// HMAC-SHA-256(key, client id), read as a number from 0 to 1, is under the sampling rate. See `privacy.md` section 5 for
/// what may be claimed of it.
enum PoissonDraw {
    /// Makes a key from the kernel's source.
    static func makeKey() -> String {
        SymmetricKey(size: .bits256).withUnsafeBytes { $0.hexadecimal }
    }

    /// Whether the client is in the cohort.
    static func includes(_ client: String, key: String, rate: Double) -> Bool {
        guard rate < 1 else { return true }
        let code = HMAC<SHA256>.authenticationCode(for: Array(client.utf8), using: SymmetricKey(data: Array(key.utf8)))
        let number = code.prefix(8).reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        return Double(number >> 11) * 0x1p-53 < rate
    }
}

/// Groups of clients by measured speed, so that slow devices are heard.
///
/// Each round's places are shared alike among the tiers during the first half of the selection window; what a tier does not
/// take goes to whoever comes. Source of the idea: Chai et al. 2020, arXiv:2001.09249 (TiFL).
enum SpeedTiers {
    /// The tier of a client, 0 for the slowest; `nil` where nothing is known.
    static func tier(seconds: Double?, bounds: [Double]) -> Int? {
        guard let seconds, !bounds.isEmpty else { return nil }
        return bounds.firstIndex { seconds > $0 } ?? bounds.count
    }
}
