import Foundation

/// The norms of a clipped vector after conditional stochastic rounding to a grid, in grid units.
///
/// Source: Kairouz, Liu and Steinke 2021, arXiv:2102.06387, Theorem 1.
public struct RoundedNorms: Hashable, Sendable {
    /// The L2 norm, in grid units.
    public let l2: Double
    /// The L1 norm, in grid units.
    public let l1: Double

    /// - Parameters:
    ///   - clip: The L2 clip over the grid's step.
    ///   - beta: The probability that conditional rounding retries.
    ///   - dimension: Coordinates, padding included.
    public init(clip: Double, beta: Double, dimension: Int) {
        let root = Double(dimension).squareRoot()
        let slack = (2 * log(1 / beta)).squareRoot()
        let squared = min(
            clip * clip + Double(dimension) / 4 + slack * (clip + root / 2),
            (clip + root) * (clip + root)
        )
        l2 = squared.squareRoot()
        l1 = l2 * min(root, l2)
    }
}

/// Discrete Gaussian shares of n clients, summed.
///
/// Source: Kairouz, Liu and Steinke 2021, arXiv:2102.06387, Proposition 14. n is the number of clients that survive.
public struct DistributedDiscreteGaussian: Hashable, Sendable {
    /// Norms of one contribution.
    public let norms: RoundedNorms
    /// Coordinates.
    public let dimension: Int
    /// Clients whose shares are in the sum.
    public let clientCount: Int
    /// One share's scale in grid units.
    public let localScale: Double

    /// Names a mechanism.
    public init(norms: RoundedNorms, dimension: Int, clientCount: Int, localScale: Double) {
        self.norms = norms
        self.dimension = dimension
        self.clientCount = clientCount
        self.localScale = localScale
    }

    /// `10 Σ exp(−2π² s² k/(k + 1))`: how far the sum is from one discrete Gaussian.
    public var tau: Double {
        let square = localScale * localScale
        return 10
            * (1..<max(1, clientCount)).reduce(0) {
                $0 + exp(-2 * Double.pi * Double.pi * square * Double($1) / Double($1 + 1))
            }
    }

    /// r(α).
    public func divergence(order: Double) -> Double {
        let (d, n, tau) = (Double(dimension), Double(clientCount), tau)
        let central = norms.l2 * norms.l2 / (n * localScale * localScale)
        let first = central + 2 / order * tau * d
        let second = central + 2 * norms.l1 * tau / (n.squareRoot() * localScale) + tau * tau * d
        let root = norms.l2 / (n.squareRoot() * localScale) + d.squareRoot() * tau
        return order / 2 * min(first, second, root * root)
    }
}

/// Skellam shares of n clients, summed: exactly closed under addition.
///
/// Source: Agarwal, Kairouz and Liu 2021, arXiv:2110.04995, Theorem 3.5; whole orders of 2 or more.
public struct SkellamMechanism: Hashable, Sendable {
    /// Norms of one contribution.
    public let norms: RoundedNorms
    /// μ: the variance of the sum in grid units.
    public let totalVariance: Double

    /// Names a mechanism.
    public init(norms: RoundedNorms, totalVariance: Double) {
        self.norms = norms
        self.totalVariance = totalVariance
    }

    /// r(α); infinite unless α is a whole number of 2 or more.
    public func divergence(order: Double) -> Double {
        guard order >= 2, order == order.rounded() else { return .infinity }
        let (square, mu) = (norms.l2 * norms.l2, totalVariance)
        return order * square / (2 * mu)
            + min(((2 * order - 1) * square + 6 * norms.l1) / (4 * mu * mu), 3 * norms.l1 / (2 * mu))
    }
}
