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

    /// Creates a release.
    public init(
        _ event: PrivacyEvent,
        count: Int = 1,
        cap: Int = 0,
        coordinateCount: Int = 0,
        prepaidCount: Int = 0
    ) {
        self.event = event
        self.count = count
        self.cap = cap
        self.coordinateCount = coordinateCount
        self.prepaidCount = prepaidCount
    }

    var composed: (event: PrivacyEvent, count: Int) {
        if case .bandedMatrix = event { return (event, 1) }
        return (event, cap > 0 ? min(count, cap) : count)
    }
}

/// Who judges a population's releases, and with how much of δ.
///
/// What is decided by the first charge, when nothing was seen, costs nothing: exact composition of Gaussian releases,
/// loss distributions of one fixed plan, or ``PrivacyFilter`` from the beginning have the whole δ. A population that was judged in one
/// of the first two ways and then mixes mechanisms by decisions of its own could have gone on either way: both
/// together cost the sum of their δ (the union in ``PrivacyFilter``), so that what was mixed gets ``mixedShare`` of δ beside it. Failures
/// of the fixed plan's own releases are part of the first sum and not counted again (``CappedRelease/prepaidCount``).
public struct EnforcingRule: Hashable, Sendable {
    /// δ of a population that mixes later is at most 1 + this times the budget's.
    public static let mixedShare = 0.05

    /// The accountant.
    public var accountant: AccountantKind
    /// The share of δ at which it answers.
    public var deltaShare: Double

    /// Creates a rule.
    public init(_ accountant: AccountantKind, deltaShare: Double = 1) {
        self.accountant = accountant
        self.deltaShare = deltaShare
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
        rule: EnforcingRule
    ) throws(PrivacyError) -> Double {
        try epsilon(of: releases, delta: delta * rule.deltaShare, accountant: rule.accountant)
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
        accountant kind: AccountantKind
    ) throws(PrivacyError) -> Double {
        try Require.delta(delta)
        if kind == .filter { return try filtered(releases, delta: delta) }
        let composed = releases.map(\.composed)
        let accountant = try kind.accountant(of: composed)
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
            // What the sampler takes off the least δ leaves one at which losses are not composed.
            if delta >= LossDistributionAccountant.smallestDelta, remaining < LossDistributionAccountant.smallestDelta {
                return upper
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
        unit: Double
    ) throws(PrivacyError) -> Double {
        var epsilon = try accountant.epsilon(delta: delta)
        guard epsilon > 0, epsilon.isFinite else { return epsilon }
        for _ in 0..<8 {
            let assumed = epsilon * (1 + 1e-9) + 1e-12
            let remaining = delta - (1 + exp(assumed)) * unit
            guard remaining > 0 else { return .infinity }
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
            try filter.add(event, count: count, prepaid: release.prepaidCount)
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
    ///   - isFiltered: Whether ``startsFiltered(with:isAdaptive:)`` was true of the first charge.
    /// - Returns: The accountant and its share of δ.
    public static func enforcingRule(
        of releases: [CappedRelease],
        isAdaptive: Bool,
        isFiltered: Bool = false
    ) -> EnforcingRule {
        if isFiltered { return EnforcingRule(.filter) }
        if releases.allSatisfy({ $0.event.isGaussian }) { return EnforcingRule(.gaussian) }
        guard !isAdaptive else { return EnforcingRule(.filter, deltaShare: EnforcingRule.mixedShare) }
        let hasLosses = releases.allSatisfy {
            switch $0.event {
            case .poissonGaussian, .laplace, .approximate: true
            default: $0.event.isGaussian
            }
        }
        return EnforcingRule(hasLosses ? .pld : .rdp)
    }

    /// Whether a population whose first charge this is gets judged by filters from the beginning, with the whole δ.
    public static func startsFiltered(with event: PrivacyEvent, isAdaptive: Bool) -> Bool {
        isAdaptive && !event.isGaussian
    }
}
