import Foundation

/// The least noise that meets a target.
public enum NoiseCalibration {
    /// The smallest noise multiplier with ε at most `epsilon` after `steps` Poisson-sampled Gaussian releases.
    ///
    /// The bracket is doubled, then halved on ln z to a relative width of 1e-6; the upper end is returned, and the
    /// accountant that is named has found it within the target. With q = 1 and an exact accountant the closed form is
    /// `√T` times the single release's.
    ///
    /// - Throws: ``PrivacyError``: parameters out of range, or no z up to 1e6 that meets the target.
    public static func noiseMultiplier(
        epsilon target: Double,
        delta: Double,
        samplingRate q: Double,
        steps: Int,
        accountant: AccountantKind
    ) throws(PrivacyError) -> Double {
        guard target > 0, target.isFinite else {
            throw .invalidParameter(name: "epsilon", value: target, allowed: "more than 0 and finite")
        }
        try Require.delta(delta)
        try Require.samplingRate(q)
        try Require.positive("steps", Double(steps))
        if q == 1 && (accountant == .gaussian || accountant == .pld) {
            return try GaussianAccountant.noiseMultiplier(epsilon: target, delta: delta) * Double(steps).squareRoot()
        }
        if accountant == .pld {
            // The coarse grid's ε is an upper bound too; the default grid has the last word.
            var found = try search(target, width: 2e-4) { z throws(PrivacyError) in
                try Self.epsilon(q, z, steps, delta, LossDistributionAccountant(grid: .coarse))
            }
            while try Self.epsilon(q, found, steps, delta, LossDistributionAccountant()) > target { found *= 1.0002 }
            return found
        }
        // What an outsider's dp-accounting would find has to be within the target too.
        let fresh: any PrivacyAccountant =
            accountant == .rdp ? RenyiAccountant(usesUnsignedSeries: true) : accountant.make()
        return try search(target, width: 1e-6) { z throws(PrivacyError) in
            try Self.epsilon(q, z, steps, delta, fresh)
        }
    }

    /// How many identical releases fit; at most `limit`.
    public static func roundsThatFit(
        _ event: PrivacyEvent,
        epsilon target: Double,
        delta: Double,
        accountant: AccountantKind,
        limit: Int = 1_000_000
    ) throws(PrivacyError) -> Int {
        func fits(_ count: Int) throws(PrivacyError) -> Bool {
            try epsilon(event, count, delta, accountant.make()) <= target
        }
        // A coarse grid never admits too many, and is quick.
        let start =
            accountant == .pld
            ? try largest(from: 1, limit: limit) { count throws(PrivacyError) in
                try epsilon(event, count, delta, LossDistributionAccountant(grid: .coarse)) <= target
            } : 0
        if start == 0 { return try largest(from: 1, limit: limit, fits) }
        return try largest(from: start, step: max(1, start / 64), limit: limit, fits)
    }

    /// The largest count that fits, where all smaller ones fit too; 0 when `start` does not.
    private static func largest(
        from start: Int,
        step: Int? = nil,
        limit: Int,
        _ fits: (Int) throws(PrivacyError) -> Bool
    ) throws(PrivacyError) -> Int {
        guard try fits(start) else { return 0 }
        var good = start
        var stride = step ?? start
        var bad = min(limit + 1, start + stride)
        while bad <= limit, try fits(bad) {
            good = bad
            stride *= 2
            bad = min(limit + 1, bad + stride)
        }
        while bad - good > 1 {
            let middle = good + (bad - good) / 2
            if try fits(middle) { good = middle } else { bad = middle }
        }
        return good
    }

    // MARK: -

    private static func epsilon(
        _ q: Double,
        _ z: Double,
        _ steps: Int,
        _ delta: Double,
        _ fresh: any PrivacyAccountant
    ) throws(PrivacyError) -> Double {
        try epsilon(
            q == 1 ? .gaussian(noiseMultiplier: z) : .poissonGaussian(samplingRate: q, noiseMultiplier: z),
            steps,
            delta,
            fresh
        )
    }

    private static func epsilon(
        _ event: PrivacyEvent,
        _ count: Int,
        _ delta: Double,
        _ fresh: any PrivacyAccountant
    ) throws(PrivacyError) -> Double {
        var accountant = fresh
        try accountant.add(event, count: count)
        return try accountant.epsilon(delta: delta)
    }

    private static func search(
        _ target: Double,
        width: Double,
        _ epsilon: (Double) throws(PrivacyError) -> Double
    ) throws(PrivacyError) -> Double {
        var upper = 0.3
        var lower: Double
        if try epsilon(upper) > target {
            repeat {
                lower = upper
                upper *= 2
                guard upper < 1e6 else { throw .unreachableTarget(epsilon: target, delta: 0) }
            } while try epsilon(upper) > target
        } else {
            lower = upper / 2
            while try epsilon(lower) <= target, lower > 1e-3 {
                upper = lower
                lower /= 2
            }
        }
        while log(upper / lower) > width {
            let middle = (lower * upper).squareRoot()
            if try epsilon(middle) > target { lower = middle } else { upper = middle }
        }
        return upper
    }
}
