import Foundation

/// Releases of one plan as a budget counts them: one client is in at most `cap` of them.
///
/// For one client only its own rounds differ, so `count` rounds cost it at most a `min(count, cap)`-fold composition.
/// No sampling is assumed. What breaks it: a client enrolled twice, a cap counted at the report instead of at the
/// assignment, or a participation pattern that depends on the data.
public struct CappedRelease: Hashable, Sendable {
    /// The event of one release.
    public var event: PrivacyEvent
    /// How many releases were published or may still be.
    public var count: Int
    /// How many of the releases one client may be in; 0 is no limit.
    ///
    /// A matrix mechanism has its own cap and ignores this one.
    public var cap: Int
    /// Noised coordinates of one release; 0 if the noise is exact on integers.
    public var coordinateCount: Int
    /// How many of the releases belong to a plan that was fixed before anything was seen, and whose own δ is set aside.
    ///
    /// See ``EnforcingRule``.
    public var prepaidCount: Int
    /// δ with which each release fails beside the curve of its event; it adds up over the releases that one client is in.
    public var failureDelta: Double

    /// Creates a release.
    public init(
        _ event: PrivacyEvent,
        count: Int = 1,
        cap: Int = 0,
        coordinateCount: Int = 0,
        prepaidCount: Int = 0,
        failureDelta: Double = 0
    ) {
        self.event = event
        self.count = count
        self.cap = cap
        self.coordinateCount = coordinateCount
        self.prepaidCount = prepaidCount
        self.failureDelta = failureDelta
    }

    var composed: (event: PrivacyEvent, count: Int) {
        if case .bandedMatrix = event { return (event, 1) }
        return (event, cap > 0 ? min(count, cap) : count)
    }

    /// How many releases of one client have failures that count: all turns of a client may be among those that are not prepaid.
    var failingCount: Int {
        let later = max(0, count - prepaidCount)
        return min(later, composed.count)
    }
}

/// The kind of a population's first charge, which decides for the population's life how its δ is divided.
public enum BudgetStart: Hashable, Sendable {
    /// Nothing is set aside: one of the exact accountants has the whole δ.
    case exact
    /// Gaussian releases that also fail on their own: ``EnforcingRule/thresholded``.
    case thresholded
    /// ``PrivacyFilter`` judges all releases.
    case filtered
}

/// A share of δ that is used up, whatever is left of ε.
public struct DeltaShortage: Hashable, Sendable {
    /// The δ with which the releases fail together.
    public var needed: Double
    /// The δ that the rule sets aside for that.
    public var allowed: Double
}

/// The accountant that judges a population's releases, and the shares of δ that it has.
///
/// A decision that the first charge makes, before anything was seen, costs nothing. Exact composition of Gaussian releases, loss
/// distributions of one fixed plan, and ``PrivacyFilter`` from the beginning therefore have the whole δ.
///
/// A population may start in one of the first two ways and later mix mechanisms by decisions of its own. It could have gone on either way,
/// and both ways together cost the sum of their δ (the union in ``PrivacyFilter``). So the mixed releases get ``mixedShare`` of δ in
/// addition. Failures of the fixed plan's own releases are in the first sum and do not count again (``CappedRelease/prepaidCount``).
///
/// Failures beside a Gaussian curve (``CappedRelease/failureDelta``) have a share of δ of their own, fixed beforehand. ε is judged at
/// ``deltaShare``, and the sum of the failures by ``failureShare``, independently. To subtract the failures from the δ at which ε is
/// judged would be no filter: after an outcome of little loss nearly all of δ could be spent on failures, after one of large loss on
/// noise, and the two together may reach twice δ. With both shares fixed, the loss adds at most `deltaShare·δ` (Smith and Thakurta
/// 2022, arXiv:2210.17520, for Σ 1/z²) and failures at most `failureShare·δ` on every path.
public struct EnforcingRule: Hashable, Sendable {
    /// The share of δ for mixed releases: δ of a population that mixes later is at most (1 + `mixedShare`) times the budget's.
    public static let mixedShare = 0.05
    /// The rule of a population whose first releases fail on their own: everything together is (ε, δ)-private.
    public static let thresholded = EnforcingRule(
        .gaussian,
        deltaShare: 1 - PrivacyFilter.additiveShare,
        failureShare: PrivacyFilter.additiveShare
    )

    /// The accountant.
    public var accountant: AccountantKind
    /// The share of δ at which it answers.
    public var deltaShare: Double
    /// The share of δ for failures of Gaussian releases; ``PrivacyFilter`` has its own.
    ///
    /// If the first charge set nothing aside, this share is added to δ, as for everything that is mixed in later.
    public var failureShare: Double

    /// Creates a rule.
    public init(
        _ accountant: AccountantKind,
        deltaShare: Double = 1,
        failureShare: Double = Self.mixedShare * PrivacyFilter.additiveShare
    ) {
        self.accountant = accountant
        self.deltaShare = deltaShare
        self.failureShare = failureShare
    }

    /// The δ that is proven for all releases together under a budget of `delta`.
    public func provenDelta(of releases: [CappedRelease], delta: Double) -> Double {
        let isMixed =
            accountant == .filter ? deltaShare < 1 : deltaShare == 1 && BudgetArithmetic.failures(of: releases) > 0
        return isMixed ? delta * (1 + Self.mixedShare) : delta
    }
}

/// Computes the cost of all releases of a population together.
public enum BudgetArithmetic {
    /// The total ε by a rule.
    ///
    /// - Parameters:
    ///   - releases: All releases of the population.
    ///   - delta: The budget's δ.
    ///   - rule: From ``enforcingRule(of:isAdaptive:start:)``.
    ///   - grid: The grid of loss distributions.
    /// - Returns: ε at the rule's share of δ; infinity if failures use up their share.
    /// - Throws: ``PrivacyError``.
    public static func epsilon(
        of releases: [CappedRelease],
        delta: Double,
        rule: EnforcingRule,
        grid: LossDistributionAccountant.Grid = .standard
    ) throws(PrivacyError) -> Double {
        guard rule.accountant != .filter, failures(of: releases) > 0 else {
            return try epsilon(of: releases, delta: delta * rule.deltaShare, accountant: rule.accountant, grid: grid)
        }
        try Require.delta(delta)
        guard failures(of: releases) <= rule.failureShare * delta else { return .infinity }
        return try epsilon(
            of: releases.map(\.unfailing),
            delta: delta * rule.deltaShare,
            accountant: rule.accountant,
            grid: grid
        )
    }

    /// The δ with which releases fail beside the curves of their events.
    static func failures(of releases: [CappedRelease]) -> Double {
        releases.reduce(0) { $0 + Double($1.composed.count) * $1.failureDelta }
    }

    /// The δ that a rule leaves for further failures beside Gaussian curves, after these releases.
    public static func failureAllowance(of releases: [CappedRelease], delta: Double, rule: EnforcingRule) -> Double {
        guard rule.accountant == .filter else {
            return max(0, rule.failureShare * delta - failures(of: releases))
        }
        let used = releases.reduce(0.0) { sum, release in
            var own = release.failureDelta
            if case .approximate(_, let delta) = release.event { own += delta }
            return sum + Double(release.failingCount) * own
        }
        return max(0, PrivacyFilter.additiveShare * rule.deltaShare * delta - used)
    }

    /// The shortage of δ if the share that is set aside for failures is used up, whatever ε is; else `nil`.
    ///
    /// ε and δ have different remedies: more noise or fewer rounds help ε, a larger threshold helps δ.
    public static func shortage(of releases: [CappedRelease], delta: Double, rule: EnforcingRule) -> DeltaShortage? {
        var needed = rule.accountant == .filter ? 0 : failures(of: releases)
        var allowed = rule.failureShare * delta
        if rule.accountant == .filter {
            allowed = PrivacyFilter.additiveShare * rule.deltaShare * delta
            needed = releases.reduce(0) { sum, release in
                guard case .approximate(_, let own) = release.event else {
                    return sum + Double(release.failingCount) * release.failureDelta
                }
                return sum + Double(release.failingCount) * own
            }
        } else if needed == 0 {
            // Events that are known by (ε, δ) only may use all of δ.
            allowed = rule.deltaShare * delta
            needed = releases.reduce(0) { sum, release in
                guard case .approximate(_, let own) = release.event else { return sum }
                return sum + Double(release.composed.count) * own
            }
        }
        return needed > allowed ? DeltaShortage(needed: needed, allowed: allowed) : nil
    }

    /// The total ε at δ by one accountant.
    ///
    /// The sampler's own error is subtracted from δ first, if it counts.
    ///
    /// `δ_sampler = (1 + e^ε) √(D / (1152 Σ*⁴))` over D noised coordinates bounds how far the integer noise is from the
    /// rounded continuous Gaussian. Rényi divergences of unsampled Gaussians hold for the integer noise itself (Canonne,
    /// Kamath and Steinke 2020, arXiv:2004.00010), so they pay nothing. If ε is so large that the error would use up δ, exact
    /// composition falls back to them. Both are thresholds on Σ 1/z², so the smaller of the two is a filter too.
    ///
    /// - Returns: ε; infinity if the sampler's error alone uses up δ.
    /// - Throws: ``PrivacyError``, among others for an event for which the accountant has no rule.
    public static func epsilon(
        of releases: [CappedRelease],
        delta: Double,
        accountant kind: AccountantKind,
        grid: LossDistributionAccountant.Grid = .standard
    ) throws(PrivacyError) -> Double {
        try Require.delta(delta)
        if kind == .filter { return try filtered(releases, delta: delta) }
        let failing = failures(of: releases)
        if failing > 0 {
            // The plan was fixed beforehand, so failures may be subtracted from δ.
            guard failing < delta else { return .infinity }
            return try epsilon(of: releases.map(\.unfailing), delta: delta - failing, accountant: kind, grid: grid)
        }
        let composed = releases.map(\.composed)
        let accountant: any PrivacyAccountant
        if kind == .pld {
            var losses = LossDistributionAccountant(grid: grid)
            for (event, count) in composed { try losses.add(event, count: count) }
            accountant = losses
        } else {
            accountant = try kind.accountant(of: composed)
        }
        let coordinates = releases.reduce(0.0) { $0 + Double($1.count) * Double($1.coordinateCount) }
        let isConcentrated = releases.allSatisfy { $0.coordinateCount == 0 || $0.event.gaussianInverseSquare != nil }
        let unit = (coordinates / 1152).squareRoot() / Double(IntegerGaussianSampler.variance)
        if coordinates == 0 || (isConcentrated && (kind == .rdp || kind == .zcdp)) {
            return try accountant.epsilon(delta: delta)
        }
        if kind == .pld {
            // Rényi never shows a smaller ε, so the δ that is left at its ε is enough, and one composition does instead of several.
            let upper = try epsilon(of: releases, delta: delta, accountant: .rdp)
            let remaining = delta - (1 + exp(upper)) * unit
            // At large ε Rényi shows so much more that e^ε would use up δ. Then ε of the losses themselves decides what the sampler costs.
            // If that leaves a δ at which losses are not composed, Rényi's ε is returned.
            let least = LossDistributionAccountant.smallestDelta
            if delta >= least, remaining < least {
                return min(upper, try withoutSamplerError(accountant, delta: delta, unit: unit, least: least))
            }
            if remaining > 0.99 * delta { return min(upper, try accountant.epsilon(delta: remaining)) }
        }
        let exact = try withoutSamplerError(accountant, delta: delta, unit: unit)
        guard kind == .gaussian, isConcentrated else { return exact }
        return min(exact, try AccountantKind.zcdp.accountant(of: composed).epsilon(delta: delta))
    }

    /// ε at the δ that the sampler's error leaves.
    ///
    /// That δ depends on ε, so a few fixed-point steps find both.
    private static func withoutSamplerError(
        _ accountant: any PrivacyAccountant,
        delta: Double,
        unit: Double,
        least: Double = 0
    ) throws(PrivacyError) -> Double {
        var epsilon = try accountant.epsilon(delta: delta)
        guard epsilon > 0, epsilon.isFinite else { return epsilon }
        for _ in 0..<8 {
            let assumed = epsilon * (1 + 1e-9) + 1e-12
            let remaining = delta - (1 + exp(assumed)) * unit
            guard remaining > 0, remaining >= least else { return .infinity }
            epsilon = try accountant.epsilon(delta: remaining)
            if epsilon <= assumed { return epsilon }
        }
        // No fixed point was found, so no ε is proven.
        return .infinity
    }

    /// ε by ``PrivacyFilter``.
    ///
    /// Only releases that are not Gaussian pay for the error of the integer noise.
    private static func filtered(_ releases: [CappedRelease], delta: Double) throws(PrivacyError) -> Double {
        var filter = PrivacyFilter()
        var coordinates = 0.0
        for release in releases {
            let (event, count) = release.composed
            try filter.add(
                event,
                count: count,
                prepaid: count - release.failingCount,
                failing: release.failureDelta
            )
            guard !event.isGaussian else { continue }
            coordinates += Double(max(0, release.count - release.prepaidCount)) * Double(release.coordinateCount)
        }
        let epsilon = try filter.epsilon(delta: delta)
        let unit = (coordinates / 1152).squareRoot() / Double(IntegerGaussianSampler.variance)
        let failing = filter.additiveDelta + (coordinates > 0 ? (1 + exp(epsilon)) * unit : 0)
        return failing <= PrivacyFilter.additiveShare * delta ? epsilon : .infinity
    }

    /// The rule that enforces a budget.
    ///
    /// Exact composition if all events are Gaussian. For one plan that was fixed beforehand: loss distributions, or Rényi divergences for
    /// events that have no loss distribution here. ``PrivacyFilter`` otherwise.
    ///
    /// A plan is not fixed beforehand if it may end early by what it has published, or if its share of a budget depends on the end of
    /// another run. The composition of the releases that happened is then no bound for the whole interaction.
    ///
    /// - Parameters:
    ///   - releases: All releases of the population.
    ///   - isAdaptive: Whether any release was decided after something had been published.
    ///   - start: The result of ``start(with:isAdaptive:)`` for the first charge.
    /// - Returns: The accountant and its share of δ.
    public static func enforcingRule(
        of releases: [CappedRelease],
        isAdaptive: Bool,
        start: BudgetStart = .exact
    ) -> EnforcingRule {
        if start == .filtered { return EnforcingRule(.filter) }
        if releases.allSatisfy({ $0.event.isGaussian }) {
            return start == .thresholded ? .thresholded : EnforcingRule(.gaussian)
        }
        guard !isAdaptive else { return EnforcingRule(.filter, deltaShare: EnforcingRule.mixedShare) }
        let hasLosses = releases.allSatisfy {
            switch $0.event {
            case .poissonGaussian, .laplace, .approximate: true
            default: $0.event.isGaussian
            }
        }
        return EnforcingRule(hasLosses ? .pld : .rdp)
    }

    /// How a population with this first charge is judged.
    public static func start(with release: CappedRelease, isAdaptive: Bool) -> BudgetStart {
        if isAdaptive && !release.event.isGaussian { return .filtered }
        return release.failureDelta > 0 ? .thresholded : .exact
    }
}

extension CappedRelease {
    /// The release without its own failures.
    fileprivate var unfailing: CappedRelease {
        var release = self
        release.failureDelta = 0
        return release
    }
}
