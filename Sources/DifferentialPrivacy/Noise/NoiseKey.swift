package import Crypto
import Foundation

/// The secret that all noise of one attempt is made of.
///
/// It is drawn once and kept in memory until the attempt's result is durable, so that whatever has to be written again has the
/// same noise: one attempt is one release, however often the disk fails. It is never stored; with the process it is gone, and what
/// it had written with it before another one is drawn.
package struct NoiseKey: Sendable {
    /// What a key of its own is derived for.
    package enum Use: String, Sendable {
        /// The noise of a sum.
        case sum
        /// The noise of the count of updates within the clipping norm.
        case clippingCount
        /// The row of a correlated mechanism.
        case row
        /// The noise of an evaluation's sums.
        case evaluation
        /// The noise of counts of words.
        case counts
    }

    private let key: SymmetricKey

    /// Draws a key from the system's random source.
    package init() { key = SymmetricKey(size: .bits256) }

    /// A known key: for tests only.
    package init(testKey: SymmetricKey) { key = testKey }

    /// The key of one use: HMAC-SHA-256 of the use's name, a pseudorandom function, so that uses share no noise.
    package func derived(for use: Use) -> SymmetricKey {
        SymmetricKey(data: HMAC<SHA256>.authenticationCode(for: Data(use.rawValue.utf8), using: key))
    }
}
