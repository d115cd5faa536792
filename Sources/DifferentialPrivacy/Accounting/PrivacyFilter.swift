import Foundation

/// Adds up releases that are chosen after earlier ones were seen: a finite set of filters, fixed beforehand, each with its own
/// share of δ.
///
/// A Rényi filter holds at one order α that is chosen before the first release: as long as `Σ r(α)` stays within a budget,
/// everything together is (α, budget)-RDP, whatever was decided on the way (Feldman and Zrnic 2021, arXiv:2008.11193,
/// Theorem 3.1; Lécuyer 2021, arXiv:2103.01379). Taking the best order after the fact, as ``RenyiAccountant`` does for a fixed plan,
/// is no filter. After the first outputs one can go on with releases that are cheap at one order if the loss was high, and at
/// another if it was low, and pays δ in both cases (Regehr et al. 2026, arXiv:2602.15815, show that such filters are not free).
/// A union of filters always holds:
///
/// > Let `F_1, …, F_k` be filters for (ε, δ_1), …, (ε, δ_k), whose conditions never become true again once they are false.
/// > An interaction that goes on only while at least one of the conditions is true is (ε, Σ δ_j)-DP.
///
/// Proof: split the transcripts by the first condition that is true at their end. Those of `F_j` are also transcripts, with the same
/// probabilities, of the interaction that stops when `F_j` says so. Hence their share of `P(S) − e^ε Q(S)` is at most δ_j.
///
/// The set here has three kinds of filters. Zero-concentration bounds all orders at once by `Σ ρ` and has ``zeroConcentratedShare``
/// of δ. The orders ``orders`` are for sampled releases, whose curves are not linear; they have ``ordersShare``, by weights. The sum
/// of all ε is for releases that are all pure, and needs no δ. Failures of releases themselves add up along every path, whichever
/// filter admits it, up to ``additiveShare``.
public struct PrivacyFilter: PrivacyAccountant {
    /// The accountant's name in documents.
    public static let name = "filter"
    /// Whether the bound holds for events that are chosen adaptively.
    public static let isFilter = true

    /// The share of δ for `Σ ρ`.
    public static let zeroConcentratedShare = 0.6
    /// The share of δ for all ``orders`` together.
    public static let ordersShare = 0.2
    /// The share of δ for failures of releases themselves: δ of `approximate` events, and the error of sampled integer noise.
    public static let additiveShare = 0.2
    /// Orders α and their weights within ``ordersShare``; orders that are best for ε of ½ to 10 have the most.
    public static let orders: [(order: Double, weight: Double)] = {
        let parts: [(Double, Double)] = [
            (1.5, 1), (2, 1), (3, 3), (5, 6), (9, 8), (17, 8), (33, 6), (65, 3), (129, 2), (257, 1), (1025, 1),
        ]
        let total = parts.reduce(0) { $0 + $1.1 }
        return parts.map { ($0.0, $0.1 / total) }
    }()

    /// Σ ρ; infinite if a release has no such bound.
    public private(set) var rho = 0.0
    /// Σ ε of pure releases; infinite if a release is not pure.
    public private(set) var pureEpsilon = 0.0
    /// Σ r(α) at each of ``orders``.
    public private(set) var divergences = [Double](repeating: 0, count: PrivacyFilter.orders.count)
    /// The δ with which releases themselves fail.
    public private(set) var additiveDelta = 0.0
    private var curves: [PrivacyEvent: [Double]] = [:]

    /// A filter without events.
    public init() {}

    /// Adds `count` releases of an event.
    public mutating func add(_ event: PrivacyEvent, count: Int) throws(PrivacyError) {
        try add(event, count: count, prepaid: 0)
    }

    /// Adds `count` releases of an event; `failing` is a δ beside the curve of each.
    ///
    /// The own δ of `prepaid` of them is set aside elsewhere and does not count here.
    mutating func add(
        _ event: PrivacyEvent,
        count: Int,
        prepaid: Int,
        failing: Double = 0
    ) throws(PrivacyError) {
        try event.validate()
        guard count > 0 else { return }
        let times = Double(count)
        let curve = curves[event] ?? Self.orders.map { RenyiAccountant.divergence(of: event, order: $0.order) }
        curves[event] = curve
        for index in curve.indices { divergences[index] += times * curve[index] }
        rho += times * (event.concentration ?? .infinity)
        pureEpsilon += times * (event.pureEpsilon ?? .infinity)
        var own = failing
        if case .approximate(_, let delta) = event { own += delta }
        additiveDelta += Double(max(0, count - prepaid)) * own
    }

    /// The smallest ε at which one of the conditions is true; infinity if failures exceed their share of δ.
    public func epsilon(delta: Double) throws(PrivacyError) -> Double {
        try Require.delta(delta)
        guard additiveDelta <= Self.additiveShare * delta else { return .infinity }
        var best = pureEpsilon
        if rho.isFinite {
            let share = Self.zeroConcentratedShare * delta
            best = min(best, ZeroConcentratedAccountant.tightEpsilon(rho: rho, delta: share).epsilon)
        }
        for ((order, weight), divergence) in zip(Self.orders, divergences) where divergence.isFinite {
            let share = Self.ordersShare * weight * delta
            best = min(best, RenyiAccountant.epsilon(divergence: divergence, order: order, delta: share))
        }
        return best
    }

    /// The smallest δ whose shares make one of the conditions true at ε.
    public func delta(epsilon: Double) throws(PrivacyError) -> Double {
        // ε falls as δ grows, so bisection on the logarithm finds δ.
        var (lower, upper) = (-700.0, 0.0)
        guard try self.epsilon(delta: exp(-1e-15)) <= epsilon else { return 1 }
        if try self.epsilon(delta: exp(lower)) <= epsilon { return 0 }
        while upper - lower > 1e-9 {
            let middle = (lower + upper) / 2
            if try self.epsilon(delta: exp(middle)) <= epsilon { upper = middle } else { lower = middle }
        }
        return min(1, exp(upper))
    }
}
