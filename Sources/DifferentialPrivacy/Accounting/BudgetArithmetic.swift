import Foundation

/// Releases of one plan as a budget counts them: any one client is in at most `cap` of them.
///
/// For any one client only its own rounds differ, so `count` rounds cost it at most a `min(count, cap)`-fold composition.
/// No sampling is assumed. What breaks it: a client enrolled twice, a cap counted at the report instead of at the
/// assignment, or a participation pattern that depends on the data.
public struct CappedRelease: Hashable, Sendable {
    /// One release.
    public var event: PrivacyEvent
    /// Releases that were published or may still be.
    public var count: Int
    /// Releases that one client may be in; 0 is without limit.
    ///
    /// A matrix mechanism has its cap inside and ignores this.
    public var cap: Int
    /// Noised coordinates of one release; 0 where the noise is exact on integers.
    public var coordinateCount: Int
    /// How many of them belong to a plan that was fixed before anything was seen, whose own δ is set aside: see
    /// ``EnforcingRule``.
    public var prepaidCount: Int
    /// δ with which each release fails, beside the curve of its event: it adds up over those that one client is in.
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

    /// Releases that one client is in and whose failures count: a client may have all its turns among the later ones.
    var failingCount: Int {
        let later = max(0, count - prepaidCount)
        return min(later, composed.count)
    }
}

/// How a population's first charge was, which decides for its life how its δ is divided.
public enum BudgetStart: Hashable, Sendable {
    /// Nothing was set aside: one of the exact accountants has the whole δ.
    case exact
    /// Gaussian releases that also fail on their own: ``EnforcingRule/thresholded``.
    case thresholded
    /// Filters judge everything.
    case filtered
}

/// A part of δ that is used up, whatever is left of ε.
public struct DeltaShortage: Hashable, Sendable {
    /// What the releases fail with together.
    public var needed: Double
    /// What the rule sets aside for that.
    public var allowed: Double
}

/// Who judges a population's releases, and with how much of δ.
///
/// What is decided by the first charge, when nothing was seen, costs nothing: exact composition of Gaussian releases,
/// loss distributions of one fixed plan, or ``PrivacyFilter`` from the beginning have the whole δ. A population that was judged in one
/// of the first two ways and then mixes mechanisms by decisions of its own could have gone on either way: both
/// together cost the sum of their δ (the union in ``PrivacyFilter``), so that what was mixed gets ``mixedShare`` of δ beside it. Failures
/// of the fixed plan's own releases are part of the first sum and not counted again (``CappedRelease/prepaidCount``).
///
/// Failures beside a Gaussian curve (``CappedRelease/failureDelta``) have a share of δ of their own, fixed beforehand: ε is judged at
/// ``deltaShare`` and their sum by ``failureShare``, each for itself. Subtracting what they have used from the δ at which ε is
/// judged would be no filter: whoever has seen an outcome of little loss could spend nearly all of δ on failures, and one who has
/// seen a large loss go on with noise, and the two together may reach twice δ. With a box on both, the loss adds at most
/// `deltaShare·δ` (Smith and Thakurta 2022, arXiv:2210.17520, for Σ 1/z²) and failures at most `failureShare·δ` on every path.
public struct EnforcingRule: Hashable, Sendable {
    /// δ of a population that mixes later is at most 1 + this times the budget's.
    public static let mixedShare = 0.05
    /// Of a population whose first releases fail on their own: everything together is (ε, δ).
    public static let thresholded = EnforcingRule(
        .gaussian,
        deltaShare: 1 - PrivacyFilter.additiveShare,
        failureShare: PrivacyFilter.additiveShare
    )

    /// The accountant.
    public var accountant: AccountantKind
    /// The share of δ at which it answers.
    public var deltaShare: Double
    /// The share of δ for what Gaussian releases fail with themselves; ``PrivacyFilter`` has its own.
    ///
    /// Where nothing was set aside for them they come beside δ, as everything does that is mixed in later.
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

    /// The δ that is proven for all releases together, by a budget of `delta`.
    public func provenDelta(of releases: [CappedRelease], delta: Double) -> Double {
        let isMixed =
            accountant == .filter ? deltaShare < 1 : deltaShare == 1 && BudgetArithmetic.failures(of: releases) > 0
        return isMixed ? delta * (1 + Self.mixedShare) : delta
    }
}

/// What the releases of a population cost together.
public enum BudgetArithmetic {
    /// The total ε by a rule.
    ///
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

    /// What releases fail with beside the curves of their events.
    static func failures(of releases: [CappedRelease]) -> Double {
        releases.reduce(0) { $0 + Double($1.composed.count) * $1.failureDelta }
    }

    /// What a rule leaves for more failures beside Gaussian curves, after these releases.
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

    /// Whether the part of δ that is set aside for failures is used up, whatever ε is; `nil` where it is not.
    ///
    /// Which of its two numbers a budget has come to the end of decides what helps: less noise and fewer rounds for ε, a larger
    /// threshold for δ.
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
            // Events that are known by (ε, δ) alone have all of it.
            allowed = rule.deltaShare * delta
            needed = releases.reduce(0) { sum, release in
                guard case .approximate(_, let own) = release.event else { return sum }
                return sum + Double(release.composed.count) * own
            }
        }
        return needed > allowed ? DeltaShortage(needed: needed, allowed: allowed) : nil
    }

    /// The total ε at δ, with the sampler's own error taken off δ first where it counts.
    ///
    /// `δ_sampler = (1 + e^ε) √(D / (1152 Σ*⁴))` over D noised coordinates bounds how far the integer noise is from the
    /// rounded continuous Gaussian. Rényi divergences of unsampled Gaussians hold for the integer noise itself (Canonne,
    /// Kamath and Steinke 2020, arXiv:2004.00010), so they pay nothing; and where ε is so large that the error would use
    /// up δ, exact composition falls back to them. Both are thresholds on Σ 1/z², so the smaller one is a filter too.
    ///
    /// - Returns: Infinity when the sampler's error alone uses up δ.
    /// - Throws: ``PrivacyError``, among others for an event on which the accountant has no rule.
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
            // Of a plan that was fixed beforehand.
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
            // Rényi never shows less: what it leaves of δ is enough, and one composition instead of several.
            let upper = try epsilon(of: releases, delta: delta, accountant: .rdp)
            let remaining = delta - (1 + exp(upper)) * unit
            // Far out Rényi shows so much more that e^ε would take all of δ: losses themselves say what the sampler takes. Where that
            // leaves a δ at which they are not composed, Rényi has the last word.
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

    /// ε at the δ that the sampler leaves, which depends on ε: a few fixed-point steps.
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
        // Not settled: then nothing is shown.
        return .infinity
    }

    /// ε by ``PrivacyFilter``, in which only sampled releases pay for the error of the integer noise.
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

    /// Who enforces: exact composition where all events are Gaussian; where the plan was fixed beforehand, loss distributions,
    /// or Rényi divergences for events that have none; ``PrivacyFilter`` otherwise.
    ///
    /// A plan that ends early by what it has published, or whose share of a budget depends on when another run ends, was not
    /// fixed beforehand: the composition of what was done is then no bound for how it came to be done.
    ///
    /// - Parameters:
    ///   - releases: What counts.
    ///   - isAdaptive: Whether any of it was decided after something had been published.
    ///   - start: What ``start(with:isAdaptive:)`` said of the first charge.
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

    /// How a population whose first charge this is gets judged.
    public static func start(with release: CappedRelease, isAdaptive: Bool) -> BudgetStart {
        if isAdaptive && !release.event.isGaussian { return .filtered }
        return release.failureDelta > 0 ? .thresholded : .exact
    }
}

extension CappedRelease {
    /// The release without what it fails with.
    fileprivate var unfailing: CappedRelease {
        var release = self
        release.failureDelta = 0
        return release
    }
}
