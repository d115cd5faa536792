import Foundation

/// Estimates the noise and bounds ε from many releases on two neighbouring inputs.
///
/// One input is empty, the other is one client's `(C, 0, …, 0)`. Of each release only the first coordinate is kept, in units of C.
public struct ManyRunAudit: Sendable {
    /// A figure with its 95 % confidence interval.
    public struct Estimate: Equatable, Sendable {
        /// The figure.
        public let value: Double
        /// The interval's lower end.
        public let lower: Double
        /// The interval's upper end.
        public let upper: Double
    }

    private let without: [Double]
    private let with: [Double]

    /// Creates an audit of first coordinates, in units of C.
    ///
    /// - Precondition: At least four of each.
    public init(without: [Double], with: [Double]) {
        precondition(without.count >= 4 && with.count >= 4, "four releases of each kind at least")
        self.without = without
        self.with = with
    }

    /// The noise multiplier that the mechanism really has: 1/μ̂, with μ̂ the difference of means over the pooled standard deviation.
    ///
    /// The interval is that of a normal μ̂ with variance `1/n + 1/m + μ²/(2(n+m))`; `upper` is infinite if the interval of μ̂ holds 0.
    public var noiseMultiplier: Estimate {
        let mu = difference
        return Estimate(
            value: 1 / mu.value,
            lower: 1 / mu.upper,
            upper: mu.lower > 0 ? 1 / mu.lower : .infinity
        )
    }

    /// ε at `delta` of a Gaussian mechanism with that noise multiplier.
    ///
    /// A claimed ε below the interval is refuted, provided that the noise is Gaussian.
    public func epsilon(delta: Double) -> Estimate {
        func epsilon(_ z: Double) -> Double { GaussianAccountant.epsilon(delta: delta, noiseMultiplier: z) }
        let z = noiseMultiplier
        return Estimate(
            value: epsilon(z.value),
            lower: z.upper.isFinite ? epsilon(z.upper) : 0,
            upper: epsilon(z.lower)
        )
    }

    /// A lower bound on ε that assumes nothing about the noise, at 95 % confidence.
    ///
    /// Half of the releases choose a threshold and a direction. On the other half, `ln((TPR − δ)/FPR)` is computed from exact binomial bounds
    /// of 97.5 % each (Clopper and Pearson 1934).
    public func epsilonLowerBound(delta: Double) -> Double {
        func halves(_ values: [Double]) -> (trial: [Double], test: [Double]) {
            (
                stride(from: 0, to: values.count, by: 2).map { values[$0] },
                stride(from: 1, to: values.count, by: 2).map { values[$0] }
            )
        }
        let (out, into) = (halves(without), halves(with))
        let candidates = (out.trial + into.trial).sorted()
        let step = max(1, candidates.count / 50)
        var best = (estimate: -Double.infinity, threshold: 0.0, isUpper: true)
        for index in stride(from: 0, to: candidates.count, by: step) {
            for isUpper in [true, false] {
                let counts = Self.counts(out.trial, into.trial, candidates[index], isUpper)
                // A quick estimate, two standard deviations off. The exact bounds are computed for the chosen threshold only.
                let hits = Double(counts.hits)
                let least = (hits - 2 * hits.squareRoot()) / Double(counts.trials) - delta
                let alarms = Double(counts.alarms)
                let most = (alarms + 2 * alarms.squareRoot() + 4) / Double(counts.others)
                let estimate = least > 0 ? log(least / most) : -.infinity
                if estimate > best.estimate { best = (estimate, candidates[index], isUpper) }
            }
        }
        let counts = Self.counts(out.test, into.test, best.threshold, best.isUpper)
        let rate = Self.lowerBound(counts.hits, of: counts.trials) - delta
        return rate > 0 ? max(0, log(rate / Self.upperBound(counts.alarms, of: counts.others))) : 0
    }

    private struct Counts {
        var hits: Int
        var trials: Int
        var alarms: Int
        var others: Int
    }

    /// Counts guesses: above the threshold the client is said to be in or, with `isUpper` false, below it to be out.
    private static func counts(_ without: [Double], _ with: [Double], _ threshold: Double, _ isUpper: Bool) -> Counts {
        isUpper
            ? Counts(
                hits: with.count { $0 > threshold },
                trials: with.count,
                alarms: without.count { $0 > threshold },
                others: without.count
            )
            : Counts(
                hits: without.count { $0 < threshold },
                trials: without.count,
                alarms: with.count { $0 < threshold },
                others: with.count
            )
    }

    /// The least p at which `hits` of `count` or more have a probability of 2.5 %.
    private static func lowerBound(_ hits: Int, of count: Int) -> Double {
        guard hits > 0 else { return 0 }
        return bisect { SpecialFunctions.binomialUpperTail(count: count, probability: $0, atLeast: hits) < 0.025 }
    }

    /// The largest p at which `hits` of `count` or fewer have a probability of 2.5 %.
    private static func upperBound(_ hits: Int, of count: Int) -> Double {
        guard hits < count else { return 1 }
        return bisect { SpecialFunctions.binomialUpperTail(count: count, probability: $0, atLeast: hits + 1) < 0.975 }
    }

    private static func bisect(_ isBelow: (Double) -> Bool) -> Double {
        var (lower, upper) = (0.0, 1.0)
        for _ in 0..<40 {
            let middle = (lower + upper) / 2
            if isBelow(middle) { lower = middle } else { upper = middle }
        }
        return upper
    }

    private var difference: Estimate {
        func mean(_ values: [Double]) -> Double { values.reduce(0, +) / Double(values.count) }
        let (low, high) = (mean(without), mean(with))
        let squares =
            without.reduce(0) { $0 + ($1 - low) * ($1 - low) } + with.reduce(0) { $0 + ($1 - high) * ($1 - high) }
        let (n, m) = (Double(without.count), Double(with.count))
        let mu = (high - low) / (squares / (n + m - 2)).squareRoot()
        let error = 1.959_964 * (1 / n + 1 / m + mu * mu / (2 * (n + m))).squareRoot()
        return Estimate(value: mu, lower: mu - error, upper: mu + error)
    }
}
