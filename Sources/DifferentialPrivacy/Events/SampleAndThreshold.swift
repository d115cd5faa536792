import Foundation

/// TrieHH's mechanism: votes of a secret sample of clients, of which those that reach a threshold are published.
///
/// It adds no noise. Chance decides whether one client is in the sample, and a thing that few clients hold does not reach the
/// threshold. The unit is one round in which a client has one vote; the relation is `add_remove`.
public enum SampleAndThreshold {
    /// The cost of one round: `ε = -ln(1 - q θ)` and `δ = (θ - 2)/((θ - 3) θ!)`.
    ///
    /// Source: Zhu, Kairouz, McMahan, Sun, Li 2020, arXiv:1902.08534, Theorem 1 and Corollary 1. There δ is that of all rounds for
    /// clients with one word. A client with many words may risk it in every round, so it is charged for each round.
    ///
    /// - Parameters:
    ///   - samplingRate: q, the probability that a client is in the sample, with `q θ < 1`. Draws are independent and secret, and a client that
    ///     does not come is not replaced.
    ///   - threshold: θ, the least number of votes that is published, 4 or more.
    /// - Returns: ε and δ of one round.
    /// - Throws: ``PrivacyError/invalidParameter(name:value:allowed:)``.
    public static func cost(
        samplingRate: Double,
        threshold: Int
    ) throws(PrivacyError) -> (epsilon: Double, delta: Double) {
        try Require.samplingRate(samplingRate)
        guard threshold >= 4 else {
            throw .invalidParameter(name: "threshold", value: Double(threshold), allowed: "4 or more")
        }
        let share = samplingRate * Double(threshold)
        guard share < 1 else {
            throw .invalidParameter(
                name: "sampling_rate",
                value: samplingRate,
                allowed: "less than 1 over the threshold of \(threshold)"
            )
        }
        let theta = Double(threshold)
        let delta = (theta - 2) / (theta - 3) * exp(-lgamma(theta + 1))
        return (-log1p(-share), delta)
    }
}
