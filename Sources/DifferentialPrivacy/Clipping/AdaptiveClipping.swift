import Foundation

/// A clipping norm that follows a quantile of the update norms, within the same budget.
///
/// Each client also sends one bit: whether its update was within the norm. The noised share of those bits moves the norm. Update and bit
/// together cost exactly one Gaussian of noise multiplier z: the update is noised with `z_Δ = (z⁻² − (2σ_b)⁻²)^(−1/2)`, and the
/// sum of the bits with σ_b, because |bᵢ − ½| = ½. The norm may change every round, and only z is charged. Source: Andrew et al.
/// 2021, arXiv:1905.03871, Theorem 1.
public struct AdaptiveClipping: Equatable, Sendable {
    /// C₀, the first norm in parameter units, a public constant.
    public let initialNorm: Double
    /// γ, the share of updates that should be within the norm, between 0 and 1.
    public let targetQuantile: Double
    /// η, the learning rate of the norm's logarithm.
    public let learningRate: Double
    /// z of update and bit together.
    public let noiseMultiplier: Double
    /// σ_b: standard deviation of the noise on the sum of `bᵢ − ½`.
    public let countNoise: Double
    /// The range of norms, within a factor of 10⁶ of the first one; a public constant.
    public let allowedNorms: ClosedRange<Double>

    /// - Throws: ``PrivacyError/invalidParameter(name:value:allowed:)``; among others unless z < 2σ_b.
    public init(
        initialNorm: Double,
        targetQuantile: Double = 0.5,
        learningRate: Double = 0.2,
        noiseMultiplier: Double,
        countNoise: Double
    ) throws(PrivacyError) {
        try Require.positive("initial_norm", initialNorm)
        guard targetQuantile > 0, targetQuantile < 1 else {
            throw .invalidParameter(name: "target_quantile", value: targetQuantile, allowed: "between 0 and 1")
        }
        try Require.positive("learning_rate", learningRate)
        try Require.positive("noise_multiplier", noiseMultiplier)
        guard noiseMultiplier < 2 * countNoise else {
            throw .invalidParameter(
                name: "noise_multiplier",
                value: noiseMultiplier,
                allowed: "less than twice \(countNoise), the noise on the count; raise the cohort's goal"
            )
        }
        self.initialNorm = initialNorm
        self.targetQuantile = targetQuantile
        self.learningRate = learningRate
        self.noiseMultiplier = noiseMultiplier
        self.countNoise = countNoise
        allowedNorms = (initialNorm * 1e-6)...(initialNorm * 1e6)
    }

    /// The default of σ_b: m/20, at most 5,000, and at least 1.2 z, so that the update's noise grows by at most a tenth.
    public static func defaultCountNoise(cohortSize m: Int, noiseMultiplier z: Double) -> Double {
        max(min(5000, Double(m) / 20), 1.2 * z)
    }

    /// z_Δ: the noise multiplier of the update itself.
    public var updateNoiseMultiplier: Double {
        let inverse = 1 / (noiseMultiplier * noiseMultiplier) - 1 / (4 * countNoise * countNoise)
        return (1 / inverse).squareRoot()
    }

    /// `C · exp(−η(b̃ − γ))`, within the allowed norms.
    public func nextNorm(after norm: Double, unclippedFraction: Double) -> Double {
        let next = norm * exp(-learningRate * (unclippedFraction - targetQuantile))
        return min(allowedNorms.upperBound, max(allowedNorms.lowerBound, next))
    }
}
