import Foundation

/// The exact privacy curve of the Gaussian mechanism, and of any composition of Gaussian mechanisms.
///
/// `δ(ε) = Φ(1/(2z) − εz) − e^ε Φ(−1/(2z) − εz)` with z the noise standard deviation over the L2 sensitivity. Source:
/// Balle and Wang 2018, arXiv:1805.06530, Theorem 8. Compositions are one Gaussian with `1/z² = Σ 1/zᵢ²`, also when later
/// mechanisms are chosen after seeing earlier outputs, as long as every z is fixed beforehand.
public enum GaussianAccountant {
    /// δ at ε.
    public static func delta(epsilon: Double, noiseMultiplier z: Double) -> Double {
        min(1, exp(logDelta(epsilon: epsilon, noiseMultiplier: z)))
    }

    /// The natural logarithm of δ at ε, also if δ underflows; minus infinity for δ of 0.
    public static func logDelta(epsilon: Double, noiseMultiplier z: Double) -> Double {
        let first = SpecialFunctions.logNormalCDF(1 / (2 * z) - epsilon * z)
        let second = epsilon + SpecialFunctions.logNormalCDF(-1 / (2 * z) - epsilon * z)
        guard first > second else { return -.infinity }
        return first + log1p(-exp(second - first))
    }

    /// The smallest ε (0 or more) with δ(ε) at most `delta`, from above to a relative error under 1e-12; infinity beyond 10⁹.
    public static func epsilon(delta target: Double, noiseMultiplier z: Double) -> Double {
        guard delta(epsilon: 0, noiseMultiplier: z) > target else { return 0 }
        var upper = 1.0
        while delta(epsilon: upper, noiseMultiplier: z) > target {
            guard upper < 1e9 else { return .infinity }
            upper *= 2
        }
        var lower = 0.0
        for _ in 0..<200 {
            let middle = (lower + upper) / 2
            if delta(epsilon: middle, noiseMultiplier: z) > target { lower = middle } else { upper = middle }
            if upper - lower < 1e-13 * upper { break }
        }
        return upper
    }

    /// The smallest noise multiplier that gives (ε, δ) for one release, from above.
    ///
    /// - Throws: ``PrivacyError/invalidParameter(name:value:allowed:)``.
    public static func noiseMultiplier(epsilon: Double, delta target: Double) throws(PrivacyError) -> Double {
        guard epsilon > 0 else { throw .invalidParameter(name: "epsilon", value: epsilon, allowed: "more than 0") }
        guard target > 0, target < 1 else {
            throw .invalidParameter(name: "delta", value: target, allowed: "between 0 and 1")
        }
        var upper = 1.0
        while delta(epsilon: epsilon, noiseMultiplier: upper) > target { upper *= 2 }
        var lower = upper / 2
        while delta(epsilon: epsilon, noiseMultiplier: lower) <= target { lower /= 2 }
        for _ in 0..<200 {
            let middle = (lower + upper) / 2
            if delta(epsilon: epsilon, noiseMultiplier: middle) > target { lower = middle } else { upper = middle }
            if upper - lower < 1e-13 * upper { break }
        }
        return upper
    }

    /// The classical bound `√(2 ln(1.25/δ))/ε`, proven for ε under 1 only.
    ///
    /// - Throws: ``PrivacyError/invalidParameter(name:value:allowed:)`` for ε of 1 or more.
    public static func classicalNoiseMultiplier(epsilon: Double, delta: Double) throws(PrivacyError) -> Double {
        guard epsilon > 0, epsilon < 1 else {
            throw .invalidParameter(name: "epsilon", value: epsilon, allowed: "between 0 and 1")
        }
        return (2 * log(1.25 / delta)).squareRoot() / epsilon
    }
}
