package import Crypto
import Foundation

/// Noised counts of the things that clients name, of which those that reach a threshold are published.
///
/// The domain may be unbounded, because only counts other than zero are noised. Each client names at most one thing, with weight 1, in
/// each of at most k releases, which may be chosen after earlier ones were seen. The relation is `zero_out`: one client's votes are
/// replaced by none, and all other votes are known to the reader of the releases, or even chosen by the reader. Then the whole is
/// **(ε, δ_G(ε) + k δ_τ)-differentially private**, with δ_G the curve of one Gaussian mechanism of `1/z² = k/σ²` and
/// `δ_τ = Pr[1 + noise ≥ τ]`. The proof needs no secrecy of clients or of a draw.
///
/// Proof. Fix the votes of the others. Call a release *single* if the client is the only one who names its thing, and let M' be the
/// interaction that differs from M only in that the client's thing is always left out of single releases. Without the client
/// (world 0) both are the same. With it (world 1):
///
/// 1. M' in world 1 against M' in world 0: in a single release the outcomes are the same; in every other one both worlds have the same
///    things with counts that are not zero, and what is published is a function of their noised counts, which differ by one in
///    one of them: a Gaussian release of sensitivity 1. Adaptively composed, at most k of these have the curve δ_G, since Σ 1/σ² is a
///    filter (Smith and Thakurta 2022, arXiv:2210.17520).
/// 2. M against M' in world 1: the noise on the client's thing is independent of all other noise, so that in a single release M publishes
///    what M' does with probability 1 − δ_τ. Hence `(1 − δ_τ)^k p_M' ≤ p_M` for every transcript, and the two can be coupled so
///    that they differ with probability k δ_τ at most.
/// 3. World 1 against 0: `P_M(S) ≤ P_M'(S) + k δ_τ ≤ e^ε Q(S) + δ_G + k δ_τ`. World 0 against 1: with `c = 1 − (1 − δ_τ)^k ≤ k δ_τ`,
///    `Q(S) − e^ε P_M(S) ≤ Q(S) − e^ε (1 − c) P_M'(S)`. On the transcripts of S with `q ≥ e^ε p_M'` that is
///    `(Q − e^ε P_M') + c e^ε P_M' ≤ (Q − e^ε P_M') + c Q`; on the others it is `q − (1 − c) e^ε p_M' ≤ c q`. Together at most δ_G + c.
///
/// The curve of a *single* release of this mechanism is the larger of two (Wilkins, Kifer, Zhang and Karrer 2024, arXiv:2402.01007): a
/// thing is named by the client alone, or by others too. Composing that maximum would be wrong if releases are chosen
/// adaptively, since some of them can be of the one kind and some of the other; here both costs add up on their own.
///
/// What breaks it: two votes of a client in one release, a threshold that depends on the counts, publishing how many things were named
/// or which were below the threshold, or noise that is drawn twice for the same votes.
public struct GaussianSparseHistogram: Hashable, Sendable {
    /// σ over the weight of one vote.
    public let noiseMultiplier: Double
    /// τ, in votes.
    public let threshold: Double
    /// K: one vote in units of the noise's grid.
    private let weight: Int64
    /// The least noised count that is published, in the same units.
    private let least: Int64

    /// Prepares a release.
    ///
    /// - Parameters:
    ///   - noiseMultiplier: σ, 0.1 to 10,000 votes.
    ///   - threshold: τ, 1 to 10⁹ votes.
    /// - Throws: ``PrivacyError/invalidParameter(name:value:allowed:)``.
    public init(noiseMultiplier: Double, threshold: Double) throws(PrivacyError) {
        let grid = try NoiseGrid(clippingNorm: 1, noiseMultiplier: noiseMultiplier, parameterCount: 1)
        guard threshold >= 1, threshold <= 1e9 else {
            throw .invalidParameter(name: "threshold", value: threshold, allowed: "1 to 1e9")
        }
        self.noiseMultiplier = noiseMultiplier
        self.threshold = threshold
        weight = Int64(grid.norm)
        least = Int64((threshold * Double(weight)).rounded(.up))
    }

    /// δ_τ: the probability that a thing is published that only one client has named.
    public var failureDelta: Double { IntegerGaussianTail.upper(least - weight) }

    /// The least threshold with δ_τ of at most `failureDelta`, in votes, rounded up to 0.001.
    ///
    /// - Throws: ``PrivacyError/invalidParameter(name:value:allowed:)``.
    public static func threshold(
        noiseMultiplier: Double,
        failureDelta: Double
    ) throws(PrivacyError) -> Double {
        guard failureDelta > 0, failureDelta < 1 else {
            throw .invalidParameter(name: "failure_delta", value: failureDelta, allowed: "more than 0 and less than 1")
        }
        // The noise ends before 14 standard deviations.
        var (lower, upper) = (1.0, 2 + 14 * noiseMultiplier)
        while upper - lower > 1e-4 * lower {
            let middle = (lower + upper) / 2
            let candidate = try Self(noiseMultiplier: noiseMultiplier, threshold: middle)
            if candidate.failureDelta > failureDelta { lower = middle } else { upper = middle }
        }
        // Few digits, because people read the number.
        let rounded = (upper * 1000).rounded(.up) / 1000
        return rounded
    }

    /// Noises counts with a fresh key, and keeps those that reach the threshold.
    ///
    /// - Parameter counts: Votes of each thing; the order does not matter.
    /// - Returns: For each count its noised value in grid units, which may be compared and published; `nil` for a count that is not
    ///   published, which includes every count of zero.
    /// - Throws: ``PrivacyError/randomSourceFailed``; then nothing may be published.
    public func release(_ counts: [Int]) throws(PrivacyError) -> [Int64?] {
        try release(counts, releaseKey: SymmetricKey(size: .bits256))
    }

    /// The same with a given key, so that a release that is made again has the same noise.
    ///
    /// The key must serve no other release.
    package func release(_ counts: [Int], releaseKey key: SymmetricKey) throws(PrivacyError) -> [Int64?] {
        var sums = counts.map { Int64($0) * weight }
        try IntegerGaussianSampler(releaseKey: key).addNoise(to: &sums)
        return zip(counts, sums).map { count, sum in count > 0 && sum >= least ? sum : nil }
    }

    /// A noised value in votes.
    public func votes(_ noised: Int64) -> Double { Double(noised) / Double(weight) }
}
