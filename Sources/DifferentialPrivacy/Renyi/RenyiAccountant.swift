import Foundation

/// Rényi differential privacy at fixed orders: curves add up, and the best order is taken at the end.
///
/// This holds for releases that were fixed beforehand. ``PrivacyFilter`` is for others. Sources: Mironov 2017,
/// arXiv:1702.07476; conversion by Canonne, Kamath and Steinke 2020, arXiv:2004.00010, Proposition 12.
public struct RenyiAccountant: PrivacyAccountant {
    /// The accountant's name in documents.
    public static let name = "rdp"
    /// Whether the bound holds for events that are chosen adaptively.
    public static let isFilter = false
    /// 1.1 to 10.9 in steps of 0.1, 11 to 63, 128, 256, 512, 1024.
    public static let defaultOrders: [Double] = {
        let tenths = (11...109).map { Double($0) / 10 }
        let whole = (11...63).map { Double($0) }
        return tenths + whole + [128, 256, 512, 1024]
    }()

    /// The orders α.
    public let orders: [Double]
    /// The total `r(α)` at each order.
    public private(set) var divergences: [Double]
    /// δ of `approximate` events, which is not in their Rényi curve.
    private var extraDelta = 0.0
    private var curves: [PrivacyEvent: [Double]] = [:]

    private let isUnsigned: Bool

    /// An accountant that has seen nothing.
    public init() { self.init(orders: Self.defaultOrders) }

    /// An accountant at other orders, each more than 1.
    ///
    /// - Parameters:
    ///   - orders: The orders α.
    ///   - usesUnsignedSeries: Whether fractional orders of sampled Gaussians use the larger values of dp-accounting 0.6.0 in place of exact
    ///     ones.
    public init(orders: [Double] = RenyiAccountant.defaultOrders, usesUnsignedSeries: Bool = false) {
        precondition(orders.allSatisfy { $0 > 1 }, "orders must be more than 1")
        self.orders = orders
        isUnsigned = usesUnsignedSeries
        divergences = [Double](repeating: 0, count: orders.count)
    }

    /// Adds `count` releases of an event.
    public mutating func add(_ event: PrivacyEvent, count: Int) throws(PrivacyError) {
        try event.validate()
        let curve = curves[event] ?? orders.map { divergence(event, $0) }
        curves[event] = curve
        for index in orders.indices { divergences[index] += Double(count) * curve[index] }
        if case .approximate(_, let delta) = event { extraDelta += Double(count) * delta }
    }

    /// The smallest ε shown for δ.
    public func epsilon(delta: Double) throws(PrivacyError) -> Double { try bestEpsilon(delta: delta).epsilon }

    /// ε and the order that gave it.
    public func bestEpsilon(delta total: Double) throws(PrivacyError) -> (epsilon: Double, order: Double) {
        try Require.delta(total)
        let delta = total - extraDelta
        guard delta > 0 else { return (.infinity, .infinity) }
        var best = (epsilon: Double.infinity, order: Double.infinity)
        for (order, divergence) in zip(orders, divergences) where divergence.isFinite {
            let candidate = Self.epsilon(divergence: divergence, order: order, delta: delta)
            if candidate < best.epsilon { best = (candidate, order) }
        }
        return best
    }

    /// ε at δ of what is (α, r)-RDP.
    static func epsilon(divergence: Double, order: Double, delta: Double) -> Double {
        // δ ≤ √(1 − e^{−KL}), and the KL divergence is at most r(α).
        if delta * delta + expm1(-divergence) > 0 { return 0 }
        guard order > 1.01 else { return .infinity }
        return max(0, divergence + log1p(-1 / order) - log(delta * order) / (order - 1))
    }

    /// The smallest δ shown for ε.
    public func delta(epsilon: Double) throws(PrivacyError) -> Double {
        var best = 0.0
        for (order, divergence) in zip(orders, divergences) where divergence.isFinite {
            let viaKL = divergence == 0 ? -Double.infinity : 0.5 * log1p(-exp(-divergence))
            let viaRenyi =
                order > 1.01
                ? (order - 1) * (divergence - epsilon + log1p(-1 / order)) - log(order) : .infinity
            best = min(best, viaKL, viaRenyi)
        }
        return min(1, exp(best) + extraDelta)
    }

    private func divergence(_ event: PrivacyEvent, _ order: Double) -> Double {
        guard isUnsigned, order != order.rounded(), case .poissonGaussian(let q, let z) = event, q < 1 else {
            return Self.divergence(of: event, order: order)
        }
        return UnsignedSeries.poissonGaussian(samplingRate: q, noiseMultiplier: z, order: order)
    }

    /// `r(α)` of one release; infinite if no bound is known.
    public static func divergence(of event: PrivacyEvent, order: Double) -> Double {
        switch event {
        case .poissonGaussian(let q, let z):
            return RenyiDivergence.poissonGaussian(samplingRate: q, noiseMultiplier: z, order: order)
        case .fixedSizeGaussian(let q, let z):
            return RenyiDivergence.fixedSizeGaussian(samplingRate: q, noiseMultiplier: z, order: order)
        case .laplace(let scale): return RenyiDivergence.laplace(scale: scale, order: order)
        case .distributedDiscreteGaussian(let mechanism): return mechanism.divergence(order: order)
        case .skellam(let mechanism): return mechanism.divergence(order: order)
        case .approximate(let epsilon, _): return RenyiDivergence.pure(epsilon: epsilon, order: order)
        case .discreteGaussian(let z): return order / (2 * z * z)
        case .gaussian, .bandedMatrix, .tree: return order / 2 * (event.gaussianInverseSquare ?? .infinity)
        }
    }
}
