import Foundation

/// Finds the least noise for a target, and the rounds that fit a budget.
public enum NoiseCalibration {
    /// The smallest noise multiplier with ε at most `epsilon` after `steps` Poisson-sampled Gaussian releases.
    ///
    /// The bracket is doubled, then narrowed on ln z to a relative width of 1e-6. Its upper end is returned, for which the named
    /// accountant has computed an ε within the target. With q = 1 and an exact accountant the closed form is `√T` times the noise
    /// of a single release.
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
        let range = 1e-3...1e6
        if accountant == .pld {
            // The coarse grid's ε is an upper bound too. The default grid verifies the result.
            var found = try search(target, delta: delta, width: 2e-4, in: range) { z throws(PrivacyError) in
                try Self.epsilon(q, z, steps, delta, LossDistributionAccountant(grid: .coarse))
            }
            var stride = 1.0002
            while try Self.epsilon(q, found, steps, delta, LossDistributionAccountant()) > target {
                found *= stride
                stride *= stride
                guard found <= range.upperBound else {
                    throw .unreachableTarget(epsilon: target, delta: delta, limit: range.upperBound)
                }
            }
            return found
        }
        // ε by an outsider's dp-accounting must be within the target too.
        let fresh: any PrivacyAccountant =
            accountant == .rdp ? RenyiAccountant(usesUnsignedSeries: true) : accountant.make()
        return try search(target, delta: delta, width: 1e-6, in: range) { z throws(PrivacyError) in
            try Self.epsilon(q, z, steps, delta, fresh)
        }
    }

    /// How many identical releases fit (ε, δ); at most `limit`.
    ///
    /// - Throws: ``PrivacyError``.
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
        guard accountant == .pld else { return try largest(near: 1, limit: limit, fits) }
        // A coarse grid is fast and never admits too many. The default grid verifies the result.
        let near = try guess(target, limit: limit) { count throws(PrivacyError) in
            try epsilon(event, count, delta, LossDistributionAccountant(grid: .coarse))
        }
        let nearer = try guess(target, from: near, tries: 1, limit: limit) { count throws(PrivacyError) in
            try epsilon(event, count, delta, LossDistributionAccountant())
        }
        return try largest(near: nearer, limit: limit, fits)
    }

    /// The largest count that fits; 0 if none does.
    ///
    /// All smaller counts must fit too.
    private static func largest(
        near start: Int,
        limit: Int,
        _ fits: (Int) throws(PrivacyError) -> Bool
    ) throws(PrivacyError) -> Int {
        var (good, bad) = (0, limit + 1)
        var (stride, next) = (1, min(limit, start))
        // Steps outwards from the guess until the answer is bracketed.
        while good < next && next < bad {
            if try fits(next) {
                good = next
                next = min(limit, next + stride)
            } else {
                bad = next
                next = max(1, next - stride)
            }
            if good > 0 && bad <= limit { break }
            stride *= 2
        }
        while bad - good > 1 {
            let middle = good + (bad - good) / 2
            if try fits(middle) { good = middle } else { bad = middle }
        }
        return good
    }

    /// A guess at the largest count that fits.
    ///
    /// ε is close to a power of the count; the first guess assumes the square root.
    private static func guess(
        _ target: Double,
        from start: Int = 1,
        tries: Int = 6,
        limit: Int,
        _ epsilon: (Int) throws(PrivacyError) -> Double
    ) throws(PrivacyError) -> Int {
        var (count, last) = (start, (count: start, epsilon: 0.0))
        for _ in 0..<tries {
            let found = try epsilon(count)
            guard found > 0, found.isFinite else { return count }
            let slope =
                last.epsilon > 0 && count != last.count
                ? log(found / last.epsilon) / log(Double(count) / Double(last.count)) : 0.5
            let next = Double(count) * pow(target / found, 1 / max(0.25, min(1.5, slope)))
            let rounded = max(1, min(limit, Int(min(next, Double(limit)))))
            if abs(rounded - count) <= max(1, count / 256) { return rounded }
            last = (count, found)
            count = rounded
        }
        return count
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

    /// The smallest value in a range at which a falling ε is at most the target, from above to a relative width.
    ///
    /// - Parameters:
    ///   - target: The largest ε that is allowed.
    ///   - delta: The δ for which `epsilon` computes ε; the error names it.
    ///   - width: The width of the final bracket, as a difference of logarithms.
    ///   - start: Where the search begins.
    ///   - range: The noise multipliers that are searched.
    ///   - epsilon: Computes ε at a noise multiplier.
    /// - Returns: A noise multiplier for which `epsilon` has returned at most the target.
    /// - Throws: ``PrivacyError/unreachableTarget(epsilon:delta:limit:)`` if the range's upper end does not meet the target.
    package static func search(
        _ target: Double,
        delta: Double,
        width: Double,
        from start: Double = 0.3,
        in range: ClosedRange<Double>,
        _ epsilon: (Double) throws(PrivacyError) -> Double
    ) throws(PrivacyError) -> Double {
        var (upper, lower) = (start, start)
        var atUpper = try epsilon(upper)
        var atLower = atUpper
        if atUpper > target {
            repeat {
                guard upper < range.upperBound else {
                    throw .unreachableTarget(epsilon: target, delta: delta, limit: range.upperBound)
                }
                (lower, atLower) = (upper, atUpper)
                upper = min(range.upperBound, 2 * upper)
                atUpper = try epsilon(upper)
            } while atUpper > target
        } else {
            repeat {
                (upper, atUpper) = (lower, atLower)
                guard upper > range.lowerBound else { return upper }
                lower = max(range.lowerBound, upper / 2)
                atLower = try epsilon(lower)
            } while atLower <= target
        }
        while log(upper / lower) > width {
            let (low, high) = (log(lower), log(upper))
            var next = (low + high) / 2
            // ε is close to a power of z, so the next point is on the straight line between the logarithms. It goes a little beyond the
            // crossing, so that the farther end moves too.
            if atLower.isFinite, atUpper > 0, atLower > atUpper {
                let share = log(atLower / target) / log(atLower / atUpper)
                let estimate = low + (high - low) * share
                let step = 0.45 * width
                let beyond = high - estimate > estimate - low ? estimate + step : estimate - step
                if beyond > low + step / 2, beyond < high - step / 2 { next = beyond }
            }
            let before = high - low
            let z = exp(next)
            let found = try epsilon(z)
            if found > target { (lower, atLower) = (z, found) } else { (upper, atUpper) = (z, found) }
            // If the line did not halve the bracket, a bisection step does.
            guard log(upper / lower) > before / 2, log(upper / lower) > width else { continue }
            let middle = (lower * upper).squareRoot()
            let half = try epsilon(middle)
            if half > target { (lower, atLower) = (middle, half) } else { (upper, atUpper) = (middle, half) }
        }
        return upper
    }
}
