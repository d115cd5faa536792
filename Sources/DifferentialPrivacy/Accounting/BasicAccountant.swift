import Foundation

/// Basic composition: ε and δ add up.
///
/// For events about which nothing more is known. Source: Dwork et al. 2006; it is a filter (Rogers et al. 2016, arXiv:1605.08294).
public struct BasicAccountant: PrivacyAccountant {
    /// The accountant's name in documents.
    public static let name = "basic"
    /// Whether the bound holds for events that are chosen adaptively.
    public static let isFilter = true
    private var totalEpsilon = 0.0
    private var totalDelta = 0.0

    /// An accountant without events.
    public init() {}

    /// Adds `count` releases of an event, Laplace or `approximate`.
    public mutating func add(_ event: PrivacyEvent, count: Int) throws(PrivacyError) {
        try event.validate()
        switch event {
        case .laplace(let scale): totalEpsilon += Double(count) / scale
        case .approximate(let epsilon, let delta):
            totalEpsilon += Double(count) * epsilon
            totalDelta += Double(count) * delta
        default: throw unsupported(event)
        }
    }

    /// The smallest ε shown for δ.
    public func epsilon(delta: Double) throws(PrivacyError) -> Double {
        guard delta >= 0, delta < 1 else {
            throw .invalidParameter(name: "delta", value: delta, allowed: "0 or more and less than 1")
        }
        return totalDelta <= delta ? totalEpsilon : .infinity
    }

    /// The smallest δ shown for ε.
    public func delta(epsilon: Double) throws(PrivacyError) -> Double { epsilon >= totalEpsilon ? totalDelta : 1 }
}

/// Composition of k mechanisms that have one known (ε, δ) in common, and nothing more.
public enum HomogeneousComposition {
    /// `ε' = √(2k ln(1/δ'))·ε + kε(e^ε − 1)` with total δ = kδ + δ'.
    ///
    /// Source: Dwork, Rothblum and Vadhan 2010, Theorem III.3.
    public static func advancedEpsilon(epsilon: Double, count: Int, slack: Double) -> Double {
        let k = Double(count)
        return (2 * k * log(1 / slack)).squareRoot() * epsilon + k * epsilon * expm1(epsilon)
    }

    /// The least ε that any composition theorem can show at a total δ, or `nil` if none can show one.
    ///
    /// Source: Kairouz, Oh and Viswanath 2015, arXiv:1311.0776, Theorem 3.3, evaluated in log space, because the plain
    /// binomials overflow near k = 1000.
    ///
    /// - Complexity: O(k log k).
    public static func optimalEpsilon(epsilon: Double, delta: Double, count k: Int, totalDelta: Double) -> Double? {
        let n = Double(k)
        func meets(_ i: Int) -> Bool {
            var terms: [Double] = []
            for l in 0..<i {
                let high = epsilon * Double(k - l)
                let low = epsilon * Double(k - 2 * i + l)
                terms.append(
                    SpecialFunctions.logBinomial(n, Double(l)) + SpecialFunctions.logSubtract(high, low)
                )
            }
            let share = exp(SpecialFunctions.logSum(terms) - n * (epsilon + log1p(exp(-epsilon))))
            return -expm1(n * log1p(-delta) + log1p(-min(share, 1))) <= totalDelta
        }
        guard meets(0) else { return nil }
        // The share grows with i, so the largest i that meets δ is found by bisection.
        var (good, bad) = (0, k / 2 + 1)
        while bad - good > 1 {
            let middle = (good + bad) / 2
            if meets(middle) { good = middle } else { bad = middle }
        }
        return epsilon * Double(k - 2 * good)
    }
}
