import Foundation

/// Zero-concentrated differential privacy: ρ adds up, also as a filter.
///
/// Source: Bun and Steinke 2016, arXiv:1605.02065. If all events are Gaussian, ``GaussianCompositionAccountant`` is exact and never
/// worse.
public struct ZeroConcentratedAccountant: PrivacyAccountant {
    /// The accountant's name in documents.
    public static let name = "zcdp"
    /// Whether the bound holds for events that are chosen adaptively.
    public static let isFilter = true
    /// The sum of ρ.
    public private(set) var rho = 0.0

    /// An accountant without events.
    public init() {}

    /// Adds `count` releases of an event.
    public mutating func add(_ event: PrivacyEvent, count: Int) throws(PrivacyError) {
        try event.validate()
        switch event {
        case .laplace(let scale): rho += Double(count) / (2 * scale * scale)
        case .discreteGaussian(let z): rho += Double(count) / (2 * z * z)
        case .approximate(let epsilon, let delta) where delta == 0: rho += Double(count) * epsilon * epsilon / 2
        default:
            guard let share = event.gaussianInverseSquare else { throw unsupported(event) }
            rho += Double(count) * share / 2
        }
    }

    /// The smallest ε shown for δ.
    public func epsilon(delta: Double) throws(PrivacyError) -> Double {
        try Require.delta(delta)
        return Self.tightEpsilon(rho: rho, delta: delta).epsilon
    }

    /// The smallest δ shown for ε.
    public func delta(epsilon: Double) throws(PrivacyError) -> Double {
        guard rho > 0 else { return 0 }
        let (_, value) = Self.minimize { logOrder in
            let order = 1 + exp(logOrder)
            return (order - 1) * (rho * order - epsilon + log1p(-1 / order)) - log(order)
        }
        return min(1, exp(value))
    }

    /// `ρ + 2√(ρ ln(1/δ))`: Bun and Steinke 2016, Proposition 1.3.
    public static func simpleEpsilon(rho: Double, delta: Double) -> Double {
        rho + 2 * (rho * log(1 / delta)).squareRoot()
    }

    /// `min over α > 1 of ρα + ln(1/(αδ))/(α − 1) + ln(1 − 1/α)`: Canonne, Kamath and Steinke 2020, Corollary 13.
    ///
    /// - Returns: ε, 0 or more, and the order that gave it.
    public static func tightEpsilon(rho: Double, delta: Double) -> (epsilon: Double, order: Double) {
        guard rho > 0 else { return (0, .infinity) }
        let (logOrder, value) = minimize { logOrder in
            let excess = exp(logOrder)
            let order = 1 + excess
            return rho * order - log(order * delta) / excess + log1p(-1 / order)
        }
        return (max(0, value), 1 + exp(logOrder))
    }

    /// Golden-section search over `log(α − 1)`; any point gives a valid bound.
    private static func minimize(_ value: (Double) -> Double) -> (Double, Double) {
        let ratio = (5.0.squareRoot() - 1) / 2
        var (low, high) = (log(1e-9), log(1e9))
        // A coarse scan first: the curve may be flat far from its minimum.
        let grid = stride(from: low, through: high, by: 0.5).min { value($0) < value($1) } ?? low
        (low, high) = (grid - 0.5, grid + 0.5)
        var (left, right) = (high - ratio * (high - low), low + ratio * (high - low))
        var (atLeft, atRight) = (value(left), value(right))
        for _ in 0..<80 {
            if atLeft < atRight {
                (high, right, atRight) = (right, left, atLeft)
                left = high - ratio * (high - low)
                atLeft = value(left)
            } else {
                (low, left, atLeft) = (left, right, atRight)
                right = low + ratio * (high - low)
                atRight = value(right)
            }
        }
        return atLeft < atRight ? (left, atLeft) : (right, atRight)
    }
}
