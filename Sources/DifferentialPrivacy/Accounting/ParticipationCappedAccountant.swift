import Foundation

/// Accounting for Gaussian noise in every round when each client takes part in at most k rounds of a run.
///
/// For any one client only its own rounds differ, so a run costs it at most a `min(rounds, k)`-fold Gaussian; several
/// runs over the same population add in `1/z²`. No sampling is assumed. What breaks it: a client enrolled twice, a cap
/// counted at the report instead of at the assignment, or a participation pattern that depends on the data.
public enum ParticipationCappedAccountant {
    /// What one run has been charged with.
    public struct Charge: Equatable, Sendable {
        /// z.
        public var noiseMultiplier: Double
        /// k.
        public var participationCap: Int
        /// Rounds that published or may still publish.
        public var roundCount: Int
        /// Noised coordinates a round.
        public var parameterCount: Int

        /// Creates a charge.
        public init(noiseMultiplier: Double, participationCap: Int, roundCount: Int, parameterCount: Int) {
            self.noiseMultiplier = noiseMultiplier
            self.participationCap = participationCap
            self.roundCount = roundCount
            self.parameterCount = parameterCount
        }
    }

    /// The total ε at δ, with the sampler's own error taken off δ first.
    ///
    /// `δ_sampler = (1 + e^ε) √(D / (1152 Σ*⁴))` over D noised coordinates bounds how far the integer noise is from the
    /// rounded continuous Gaussian; it depends on ε, hence the few fixed-point steps.
    ///
    /// - Returns: Infinity when the sampler's error alone uses up δ.
    public static func epsilon(of charges: [Charge], delta: Double) -> Double {
        var inverseSquare = 0.0
        var coordinates = 0.0
        for charge in charges {
            let count = Double(min(charge.roundCount, charge.participationCap))
            inverseSquare += count / (charge.noiseMultiplier * charge.noiseMultiplier)
            coordinates += Double(charge.roundCount) * Double(charge.parameterCount)
        }
        guard inverseSquare > 0 else { return 0 }
        let z = (1 / inverseSquare).squareRoot()
        let variance = Double(IntegerGaussianSampler.variance)
        let unit = (coordinates / 1152).squareRoot() / variance
        var epsilon = GaussianAccountant.epsilon(delta: delta, noiseMultiplier: z)
        for _ in 0..<8 {
            let remaining = delta - (1 + exp(epsilon)) * unit
            guard remaining > 0 else { return .infinity }
            let next = GaussianAccountant.epsilon(delta: remaining, noiseMultiplier: z)
            if abs(next - epsilon) < 1e-12 * next { return max(next, epsilon) }
            epsilon = next
        }
        return epsilon
    }
}
