import Foundation

/// The discrete Gaussian N_ℤ(0, σ²): `P(k) ∝ exp(−k²/(2σ²))`.
///
/// Source: Canonne, Kamath and Steinke 2020, arXiv:2004.00010.
public struct DiscreteGaussian: Sendable {
    /// σ of the density that is evaluated at the integers; the variance of the result is a little less than σ².
    public let scale: Double
    private let reach: Int
    private let logNormalizer: Double

    /// - Throws: ``PrivacyError/invalidParameter(name:value:allowed:)`` unless 0 < σ ≤ 10⁶.
    public init(scale: Double) throws(PrivacyError) {
        guard scale > 0, scale <= 1e6 else {
            throw .invalidParameter(name: "scale", value: scale, allowed: "more than 0 and at most 1e6")
        }
        self.scale = scale
        reach = Int((scale * 39).rounded(.up)) + 2
        logNormalizer = log(
            1 + 2 * (1...reach).reversed().reduce(0.0) { $0 + exp(-Double($1) * Double($1) / (2 * scale * scale)) }
        )
    }

    /// P(k).
    public func probability(_ k: Int) -> Double {
        exp(-Double(k) * Double(k) / (2 * scale * scale) - logNormalizer)
    }

    /// The variance.
    public var variance: Double {
        2 * (1...reach).reversed().reduce(0.0) { $0 + Double($1) * Double($1) * probability($1) }
    }

    /// Exact δ at ε for a query of integer sensitivity Δ.
    public func delta(epsilon: Double, sensitivity: Int) -> Double {
        // The loss of noise k against noise k + Δ is (Δ² + 2kΔ)/(2σ²), which rises with k.
        let step = Double(sensitivity)
        var total = 0.0
        for k in (-reach...reach).reversed() {
            let loss = (step * step + 2 * Double(k) * step) / (2 * scale * scale)
            guard loss > epsilon else { break }
            total += probability(k) * -expm1(epsilon - loss)
        }
        return min(1, total)
    }

    /// The smallest ε with δ(ε) at most `delta`, from above.
    public func epsilon(delta target: Double, sensitivity: Int) throws(PrivacyError) -> Double {
        try Require.delta(target)
        guard delta(epsilon: 0, sensitivity: sensitivity) > target else { return 0 }
        var (lower, upper) = (0.0, 1.0)
        while delta(epsilon: upper, sensitivity: sensitivity) > target { upper *= 2 }
        for _ in 0..<100 where upper - lower > 1e-12 * upper {
            let middle = (lower + upper) / 2
            if delta(epsilon: middle, sensitivity: sensitivity) > target { lower = middle } else { upper = middle }
        }
        return upper
    }
}
