import Foundation

/// The fractional-order series of Mironov, Talwar and Zhang 2019 with every term counted as positive: an upper bound.
///
/// dp-accounting 0.6.0 computes this. ``RenyiDivergence`` is exact and up to 57 % lower at order 1.1. Noise is calibrated by this
/// bound, so that an outsider who checks a plan with that library finds it within its target.
enum UnsignedSeries {
    /// `r(α)` for a fractional order, 0 < q < 1; infinite if the series has not converged after 1,000 terms.
    static func poissonGaussian(samplingRate q: Double, noiseMultiplier z: Double, order alpha: Double) -> Double {
        let crossing = z * z * log(1 / q - 1) + 0.5
        let (logQ, logStay) = (log(q), log1p(-q))
        var total = -Double.infinity
        var last = (Double.infinity, Double.infinity)
        for index in 0..<1000 {
            let i = Double(index)
            let j = alpha - i
            let coefficient = logBinomial(alpha, i)
            let low =
                coefficient + i * logQ + j * logStay + (i * i - i) / (2 * z * z)
                + SpecialFunctions.logNormalCDF((crossing - i) / z)
            let high =
                coefficient + j * logQ + i * logStay + (j * j - j) / (2 * z * z)
                + SpecialFunctions.logNormalCDF((j - crossing) / z)
            total = SpecialFunctions.logAdd(total, SpecialFunctions.logAdd(low, high))
            if index > 0, low < last.0, high < last.1, max(low, high) < total - 30 {
                return total / (alpha - 1)
            }
            last = (low, high)
        }
        return .infinity
    }

    /// `log |C(α, i)|` for a fractional α.
    private static func logBinomial(_ alpha: Double, _ i: Double) -> Double {
        SpecialFunctions.logGamma(alpha + 1) - SpecialFunctions.logGamma(i + 1) - logAbsoluteGamma(alpha - i + 1)
    }

    /// `log |Γ(x)|` for x that is no whole number, by reflection below 0.
    private static func logAbsoluteGamma(_ x: Double) -> Double {
        x > 0
            ? SpecialFunctions.logGamma(x) : log(Double.pi / abs(sin(Double.pi * x))) - SpecialFunctions.logGamma(1 - x)
    }
}
