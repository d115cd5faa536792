import Foundation

/// Functions in log space that accountants share.
enum SpecialFunctions {
    /// `log Φ(x)`, also far in the lower tail, in which Φ itself underflows.
    static func logNormalCDF(_ x: Double) -> Double {
        if x > 6 { return log1p(-erfc(x / 2.0.squareRoot()) / 2) }
        if x > -30 { return log(erfc(-x / 2.0.squareRoot()) / 2) }
        // Asymptotic series of Mills' ratio; at x = -30 the sixth term is under 1e-13.
        let inverse = 1 / (x * x)
        let series = 1 - inverse * (1 - 3 * inverse * (1 - 5 * inverse * (1 - 7 * inverse)))
        return -x * x / 2 - log(-x) - log(2 * Double.pi) / 2 + log(series)
    }

    /// `log(eᵃ + eᵇ)`.
    static func logAdd(_ a: Double, _ b: Double) -> Double {
        let (low, high) = a < b ? (a, b) : (b, a)
        return low == -.infinity ? high : high + log1p(exp(low - high))
    }

    /// `log(eᵃ − eᵇ)` for a ≥ b; minus infinity if they are equal.
    static func logSubtract(_ a: Double, _ b: Double) -> Double {
        b == -.infinity ? a : (a > b ? a + log1p(-exp(b - a)) : -.infinity)
    }

    /// `log Σ e^x`.
    static func logSum(_ terms: [Double]) -> Double {
        guard let largest = terms.max(), largest > -.infinity else { return -.infinity }
        return largest + log(terms.reduce(0) { $0 + exp($1 - largest) })
    }

    /// `log Γ(x)` for x > 0, by Lanczos' series (g = 607/128, 15 terms), relative error under 1e-14.
    static func logGamma(_ x: Double) -> Double {
        var series = 0.999_999_999_999_997_1
        for (index, coefficient) in lanczos.enumerated() { series += coefficient / (x + Double(index + 1)) }
        let shifted = x + 5.242_187_5
        return (x + 0.5) * log(shifted) - shifted + log(2.506_628_274_631_000_7 * series / x)
    }

    /// `log C(n, k)`.
    static func logBinomial(_ n: Double, _ k: Double) -> Double {
        if k == 0 || k == n { return 0 }
        return logGamma(n + 1) - logGamma(k + 1) - logGamma(n - k + 1)
    }

    /// `log(eˣ − 1)` for x > 0.
    static func logExpMinusOne(_ x: Double) -> Double {
        x > 40 ? x + log1p(-exp(-x)) : log(expm1(x))
    }

    /// Pr[Bin(n, p) ≥ v].
    static func binomialUpperTail(count n: Int, probability p: Double, atLeast v: Int) -> Double {
        guard v > 0 else { return 1 }
        guard v <= n else { return 0 }
        let terms = (v...n).map { k in
            logBinomial(Double(n), Double(k)) + Double(k) * log(p) + Double(n - k) * log1p(-p)
        }
        return min(1, exp(logSum(terms)))
    }

    private static let lanczos: [Double] = [
        57.156_235_665_862_92, -59.597_960_355_475_49, 14.136_097_974_741_746, -0.491_913_816_097_620_2,
        0.339_946_499_848_118_9e-4, 0.465_236_289_270_485_8e-4, -0.983_744_753_048_795_6e-4,
        0.158_088_703_224_912_5e-3, -0.210_264_441_724_104_88e-3, 0.217_439_618_115_212_64e-3,
        -0.164_318_106_536_763_9e-3, 0.844_182_239_838_527_4e-4, -0.261_908_384_015_814_1e-4,
        0.368_991_826_595_316_2e-5,
    ]
}
