import Foundation

/// Rényi differential privacy curves: `r(α)` of one release.
public enum RenyiDivergence {
    /// Poisson-sampled Gaussian, add/remove: `ln A_α / (α − 1)`.
    ///
    /// `A_α = E[(1 − q + q e^{(2x−1)/(2z²)})^α]` over x ~ N(0, z²). Source: Mironov, Talwar and Zhang 2019,
    /// arXiv:1908.10530. Whole orders use its finite sum. Other orders do not use its two-sided series, whose signs cancel, but the
    /// trapezoidal rule on `A_α − 1`: the integrand is positive and analytic, so the rule converges exponentially. Both compute
    /// `A_α − 1` and not `A_α`, because it may be as small as 1e-12.
    ///
    /// - Parameters:
    ///   - q: From more than 0 to 1.
    ///   - z: More than 0.
    ///   - order: α, more than 1.
    /// - Returns: `r(α)`.
    public static func poissonGaussian(samplingRate q: Double, noiseMultiplier z: Double, order: Double) -> Double {
        if q == 0 { return 0 }
        if q == 1 { return order / (2 * z * z) }
        if order == order.rounded() { return logOnePlusExp(wholeOrderLogExcess(q, z, Int(order))) / (order - 1) }
        guard (order + 24 * z) / step(z) <= Self.pointLimit else {
            // With so little noise the rule would need too many points, and ε is in the hundreds. A bound by convexity does:
            // (α − 1) r(α) is convex and 0 at α = 1 (van Erven and Harremoës 2014, arXiv:1206.2459, Corollary 2).
            let (below, share) = (order.rounded(.down), order - order.rounded(.down))
            func cumulant(_ order: Double) -> Double {
                order == 1 ? 0 : logOnePlusExp(wholeOrderLogExcess(q, z, Int(order)))
            }
            return ((1 - share) * cumulant(below) + share * cumulant(below + 1)) / (order - 1)
        }
        return logOnePlusExp(fractionalOrderLogExcess(q, z, order)) / (order - 1)
    }

    /// The most points of the trapezoidal rule; noise of 0.04 and more needs fewer.
    private static let pointLimit = 16_384.0

    /// The step of the rule.
    ///
    /// The integrand's nearest singularity has distance π z² from the real line.
    private static func step(_ z: Double) -> Double { min(z / 4, z * z / 2) }

    /// Laplace noise of scale b: Mironov 2017, arXiv:1702.07476, Proposition 6.
    public static func laplace(scale b: Double, order: Double) -> Double {
        let first = log(order / (2 * order - 1)) + (order - 1) / b
        let second = log((order - 1) / (2 * order - 1)) - order / b
        return SpecialFunctions.logAdd(first, second) / (order - 1)
    }

    /// Every ε-DP mechanism: randomised response dominates it.
    public static func pure(epsilon: Double, order: Double) -> Double {
        let logUp = -log1p(exp(-epsilon))
        let logDown = -epsilon - log1p(exp(-epsilon))
        return SpecialFunctions.logAdd(
            order * logUp + (1 - order) * logDown,
            order * logDown + (1 - order) * logUp
        ) / (order - 1)
    }

    /// Gaussian over a fixed-size sample without replacement, replace-one.
    ///
    /// Source: Wang, Balle and Kasiviswanathan 2019, arXiv:1808.00087, Theorem 27; between whole orders the convexity of
    /// `(α − 1) r(α)` (their Corollary 10).
    public static func fixedSizeGaussian(samplingRate q: Double, noiseMultiplier z: Double, order: Double) -> Double {
        if q == 0 { return 0 }
        if q == 1 { return order / (2 * z * z) }
        let (below, above) = (order.rounded(.down), order.rounded(.up))
        let low = withoutReplacementCumulant(q, z, Int(below))
        guard above > below else { return low / (order - 1) }
        let high = withoutReplacementCumulant(q, z, Int(above))
        let share = order - below
        return ((1 - share) * low + share * high) / (order - 1)
    }

    /// Any mechanism with RDP curve `curve` under Poisson sampling: Zhu and Wang 2019, Theorem 6, for whole orders.
    ///
    /// - Returns: At most `curve(order)`.
    public static func poissonSampled(
        samplingRate q: Double,
        order: Int,
        curve: (Double) -> Double
    ) -> Double {
        let alpha = Double(order)
        guard q < 1, order >= 2 else { return curve(alpha) }
        let stay = log1p(-q)
        var terms = [(alpha - 1) * stay + log(alpha * q - q + 1)]
        terms.append(SpecialFunctions.logBinomial(alpha, 2) + 2 * log(q) + (alpha - 2) * stay + curve(2))
        for j in stride(from: 3, through: order, by: 1) {
            let count = Double(j)
            terms.append(
                log(3) + (alpha - count) * stay + count * log(q) + SpecialFunctions.logBinomial(alpha, count)
                    + (count - 1) * curve(count)
            )
        }
        return min(curve(alpha), max(0, SpecialFunctions.logSum(terms) / (alpha - 1)))
    }

    // MARK: -

    private static func logOnePlusExp(_ x: Double) -> Double { x > 40 ? x + exp(-x) : log1p(exp(x)) }

    private static func wholeOrderLogExcess(_ q: Double, _ z: Double, _ order: Int) -> Double {
        let alpha = Double(order)
        let (logQ, logStay) = (log(q), log1p(-q))
        return SpecialFunctions.logSum(
            stride(from: 2, through: order, by: 1).map { index in
                let k = Double(index)
                return SpecialFunctions.logBinomial(alpha, k) + (alpha - k) * logStay + k * logQ
                    + SpecialFunctions.logExpMinusOne((k * k - k) / (2 * z * z))
            }
        )
    }

    private static func fractionalOrderLogExcess(_ q: Double, _ z: Double, _ alpha: Double) -> Double {
        logGaussianExpectation(z, from: -12 * z, through: alpha + 12 * z, step: step(z)) { x in
            let exponent = (2 * x - 1) / (2 * z * z)
            if exponent > 600 { return alpha * (log(q) + exponent) }
            return logConvexExcess(q * expm1(exponent), alpha)
        }
    }

    /// `log((1 + y)^α − 1 − αy)`, which is not negative by convexity.
    private static func logConvexExcess(_ y: Double, _ alpha: Double) -> Double {
        if abs(y) < 1e-4 {
            let square = alpha * (alpha - 1) / 2 * y * y
            return log(square * (1 + (alpha - 2) / 3 * y * (1 + (alpha - 3) / 4 * y)))
        }
        let power = alpha * log1p(y)
        guard power > 1 else { return log(expm1(power) - alpha * y) }
        return power + log1p(-(1 + alpha * y) * exp(-power))
    }

    /// `log E[e^{f(x)}]` over x ~ N(0, z²) by the trapezoidal rule.
    private static func logGaussianExpectation(
        _ z: Double,
        from lower: Double,
        through upper: Double,
        step: Double,
        _ logIntegrand: (Double) -> Double
    ) -> Double {
        let first = Int((lower / step).rounded(.down))
        let last = Int((upper / step).rounded(.up))
        let terms = (first...last).map { index in
            let x = Double(index) * step
            return logIntegrand(x) - x * x / (2 * z * z)
        }
        return SpecialFunctions.logSum(terms) + log(step / (z * (2 * Double.pi).squareRoot()))
    }

    /// `(α − 1) r(α)` of Theorem 27 for a whole order.
    private static func withoutReplacementCumulant(_ q: Double, _ z: Double, _ order: Int) -> Double {
        guard order >= 2 else { return 0 }
        let alpha = Double(order)
        func cumulant(_ x: Double) -> Double { x * (x + 1) / (2 * z * z) }
        func curve(_ x: Double) -> Double { x / (2 * z * z) }
        let isExact = order <= 256
        // log E[(e^u − 1)^k] for even k: the forward differences of the moments, without their cancellation.
        var differences: [Int: Double] = [:]
        if isExact {
            for k in stride(from: 2, through: order + 1, by: 2) {
                let power = Double(k)
                differences[k] = logGaussianExpectation(
                    z,
                    from: -12 * z,
                    through: power + 12 * z,
                    step: min(z / 4, z * z / 2)
                ) { x in
                    let exponent = (2 * x - 1) / (2 * z * z)
                    return power * (exponent > 40 ? exponent : log(abs(expm1(exponent))))
                }
            }
        }
        let logSquareMinusOne = curve(2) + log1p(-exp(-curve(2)))
        var total = 0.0
        for index in stride(from: 2, through: order, by: 1) {
            let i = Double(index)
            var term: Double
            if index == 2 {
                term = min(log(4) + logSquareMinusOne, curve(2) + log(2))
            } else {
                term = log(2) + cumulant(i - 1)
                if let low = differences[2 * (index / 2)], let high = differences[2 * ((index + 1) / 2)] {
                    term = min(term, log(4) + 0.5 * (low + high))
                }
            }
            total = SpecialFunctions.logAdd(total, term + i * log(q) + SpecialFunctions.logBinomial(alpha, i))
        }
        return total
    }
}
