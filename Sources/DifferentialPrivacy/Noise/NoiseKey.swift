package import Crypto
import Foundation

/// The secret from which all noise of one attempt is derived.
///
/// It is drawn once and kept in memory until the attempt's result is durable. A result that must be written again then has the same
/// noise: one attempt is one release, however often the disk fails. The key is never stored and ends with the process. Unfinished
/// files that were written with it are removed before another key is drawn.
package struct NoiseKey: Sendable {
    /// The uses for which separate keys are derived.
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

    /// The key of one use: HMAC-SHA-256 of its name, a pseudorandom function, so that two uses share no noise.
    package func derived(for use: Use) -> SymmetricKey {
        SymmetricKey(data: HMAC<SHA256>.authenticationCode(for: Data(use.rawValue.utf8), using: key))
    }
}
