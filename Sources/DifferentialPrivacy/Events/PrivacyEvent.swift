/// One release of a mechanism, as accountants see it; sensitivities are 1.
public enum PrivacyEvent: Hashable, Sendable {
    /// Gaussian noise of standard deviation z on a query of L2 sensitivity 1.
    case gaussian(noiseMultiplier: Double)
    /// Discrete Gaussian noise on an integer query: zero-concentrated as the continuous one (Canonne, Kamath and Steinke
    /// 2020, arXiv:2004.00010, Theorem 14), without its exact curve.
    case discreteGaussian(noiseMultiplier: Double)
    /// Gaussian noise over a Poisson sample of rate q, neighbouring relation add/remove.
    case poissonGaussian(samplingRate: Double, noiseMultiplier: Double)
    /// Gaussian noise over a uniform sample of fixed size m = qN without replacement, neighbouring relation replace-one.
    case fixedSizeGaussian(samplingRate: Double, noiseMultiplier: Double)
    /// Laplace noise of scale b on a query of L1 sensitivity 1.
    case laplace(scale: Double)
    /// A correlated-noise mechanism over all rounds of a plan.
    case bandedMatrix(BandedMatrixMechanism, noiseMultiplier: Double)
    /// A binary tree of prefix sums over `stepCount` steps, one participation.
    case tree(stepCount: Int, noiseMultiplier: Double)
    /// Discrete Gaussian shares summed under secure aggregation.
    case distributedDiscreteGaussian(DistributedDiscreteGaussian)
    /// Skellam shares summed under secure aggregation.
    case skellam(SkellamMechanism)
    /// A mechanism that is known to be (ε, δ)-DP, and nothing more.
    case approximate(epsilon: Double, delta: Double)

    /// The event's name in documents.
    public var kind: String {
        switch self {
        case .gaussian: "gaussian"
        case .discreteGaussian: "discrete_gaussian"
        case .poissonGaussian: "poisson_gaussian"
        case .fixedSizeGaussian: "fixed_size_gaussian"
        case .laplace: "laplace"
        case .bandedMatrix: "banded_matrix"
        case .tree: "tree"
        case .distributedDiscreteGaussian: "distributed_discrete_gaussian"
        case .skellam: "skellam"
        case .approximate: "approximate"
        }
    }

    /// 1/z² of the one Gaussian mechanism that this event equals, or `nil` if it equals none.
    ///
    /// Matrix mechanisms are one Gaussian by Denisov et al. 2022, arXiv:2202.08312, Theorem 2.1 (also under adaptivity).
    package var gaussianInverseSquare: Double? {
        switch self {
        case .gaussian(let z): 1 / (z * z)
        case .poissonGaussian(let q, let z) where q == 1: 1 / (z * z)
        case .bandedMatrix(let mechanism, let z): mechanism.sensitivitySquared / (z * z)
        case .tree(let steps, let z): Double(TreeAggregation.depth(stepCount: steps)) / (z * z)
        default: nil
        }
    }

    /// Whether the event equals one Gaussian mechanism.
    public var isGaussian: Bool { gaussianInverseSquare != nil }

    /// ρ with `r(α) ≤ ρα` at every order α; `nil` if no such bound is known.
    ///
    /// A sampled Gaussian is at most its unsampled one. Pure ε is ε²/2 (Bun and Steinke 2016, arXiv:1605.02065, Proposition 1.4).
    var concentration: Double? {
        switch self {
        case .poissonGaussian(_, let z), .discreteGaussian(let z): 1 / (2 * z * z)
        case .laplace, .approximate: pureEpsilon.map { $0 * $0 / 2 }
        default: gaussianInverseSquare.map { $0 / 2 }
        }
    }

    /// ε of a release that is ε-DP apart from its own δ; `nil` for other events.
    var pureEpsilon: Double? {
        switch self {
        case .laplace(let scale): 1 / scale
        case .approximate(let epsilon, _): epsilon
        default: nil
        }
    }

    /// Refuses parameters outside the domain: q in [10⁻¹⁵, 1], z and b in [10⁻⁴, 10¹²].
    ///
    /// Outside the domain a release is not private or not useful, and the curves leave the range of doubles.
    ///
    /// - Throws: ``PrivacyError/invalidParameter(name:value:allowed:)``.
    package func validate() throws(PrivacyError) {
        switch self {
        case .gaussian(let z), .discreteGaussian(let z): try Require.noise("noise_multiplier", z)
        case .poissonGaussian(let q, let z), .fixedSizeGaussian(let q, let z):
            try Require.samplingRate(q)
            try Require.noise("noise_multiplier", z)
        case .laplace(let b): try Require.noise("scale", b)
        case .bandedMatrix(_, let z): try Require.noise("noise_multiplier", z)
        case .tree(let steps, let z):
            try Require.positive("step_count", Double(steps))
            try Require.noise("noise_multiplier", z)
        case .distributedDiscreteGaussian, .skellam: break
        case .approximate(let epsilon, let delta):
            guard epsilon >= 0, epsilon.isFinite else {
                throw .invalidParameter(name: "epsilon", value: epsilon, allowed: "0 or more and finite")
            }
            guard delta >= 0, delta < 1 else {
                throw .invalidParameter(name: "delta", value: delta, allowed: "0 or more and less than 1")
            }
        }
    }
}
