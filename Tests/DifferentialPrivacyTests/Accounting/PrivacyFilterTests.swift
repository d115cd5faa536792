import Foundation
import Testing

@testable import DifferentialPrivacy

/// What may judge releases that were chosen after seeing earlier ones.
struct PrivacyFilterTests {
    @Test func theSharesAreNoMoreThanTheWholeDelta() {
        let weights = PrivacyFilter.orders.map(\.weight)
        #expect(weights.allSatisfy { $0 > 0 } && abs(weights.reduce(0, +) - 1) < 1e-12)
        let shares = PrivacyFilter.zeroConcentratedShare + PrivacyFilter.ordersShare + PrivacyFilter.additiveShare
        #expect(shares <= 1 + 1e-12)
        #expect(Set(PrivacyFilter.orders.map(\.order)).count == weights.count)
    }

    /// The largest r(α) that one order admits.
    private static func room(_ order: Double, epsilon: Double, delta: Double) -> Double {
        var (low, high) = (0.0, epsilon + 100)
        for _ in 0..<200 {
            let middle = (low + high) / 2
            let found = RenyiAccountant.epsilon(divergence: middle, order: order, delta: delta)
            if found <= epsilon { low = middle } else { high = middle }
        }
        return low
    }

    /// What someone gains who sees one Gaussian release's loss and then takes the order at which to spend the rest.
    ///
    /// Against a mechanism that needs all of `room` at order α, the proof bounds δ after a loss of L by
    /// `f(L) = c e^{(α − 1)(L − ε + rest)}`, whose mean is the order's own δ. Choosing by L takes the largest.
    private static func delta(of conditions: [(order: Double, delta: Double)], epsilon: Double) -> Double {
        let square = 0.15
        let bounds = conditions.compactMap { order, delta -> (Double, Double)? in
            let rest = room(order, epsilon: epsilon, delta: delta) - square * order / 2
            guard rest >= 0 else { return nil }
            let constant = (order - 1) * log1p(-1 / order) - log(order) + (order - 1) * (rest - epsilon)
            return (order - 1, constant)
        }
        let (mean, deviation) = (square / 2, square.squareRoot())
        let step = deviation / 500
        var total = 0.0
        for index in -10_000...10_000 {
            let x = Double(index) * step / deviation
            let loss = mean + x * deviation
            let bound = bounds.map { $0.0 * loss + $0.1 }.max() ?? -.infinity
            total += exp(bound - x * x / 2) * step / deviation
        }
        return total / (2 * Double.pi).squareRoot()
    }

    @Test func choosingTheOrderByWhatWasSeenStaysWithinDelta() {
        let (epsilon, delta) = (4.0, 1e-5)
        let fixed = PrivacyFilter.orders.map { ($0.order, PrivacyFilter.ordersShare * $0.weight * delta) }
        #expect(Self.delta(of: fixed, epsilon: epsilon) <= PrivacyFilter.ordersShare * delta)
        // One order alone is what the theorem says; the best of many at the whole δ each is more than it.
        #expect(abs(Self.delta(of: [(8, delta)], epsilon: epsilon) / delta - 1) < 1e-3)
        let best = RenyiAccountant.defaultOrders.map { ($0, delta) }
        #expect(Self.delta(of: best, epsilon: epsilon) > 1.5 * delta)
    }

    private static let mixtures: [[(PrivacyEvent, Int)]] = [
        [(.laplace(scale: 10), 20)],
        [(.laplace(scale: 2), 1), (.gaussian(noiseMultiplier: 4), 6)],
        [(.discreteGaussian(noiseMultiplier: 5), 9), (.laplace(scale: 20), 30)],
        [(.poissonGaussian(samplingRate: 0.01, noiseMultiplier: 1), 300), (.gaussian(noiseMultiplier: 10), 5)],
        [(.approximate(epsilon: 0.2, delta: 1e-9), 10), (.gaussian(noiseMultiplier: 6), 4)],
    ]

    /// A filter admits no more than the composition of the same releases, had they been fixed beforehand.
    @Test(arguments: 0..<5)
    func aFilterSaysNoLessThanACompositionThatWasFixed(_ index: Int) throws {
        let events = Self.mixtures[index].map { (event: $0.0, count: $0.1) }
        for delta in [1e-4, 1e-6] {
            var filter = PrivacyFilter()
            for (event, count) in events { try filter.add(event, count: count) }
            let fixed = try AccountantKind.rdp.accountant(of: events).epsilon(delta: delta)
            let epsilon = try filter.epsilon(delta: delta)
            let pure = events.allSatisfy { $0.event.pureEpsilon != nil } ? filter.pureEpsilon : .infinity
            #expect(epsilon >= min(fixed, pure) && epsilon.isFinite)
            // What it costs not to have fixed the plan; sampled releases share a fifth of δ among their orders.
            let most = index == 3 ? 1.6 : 1.3
            #expect(epsilon < most * fixed)
            // The other way round.
            let found = try filter.delta(epsilon: epsilon)
            #expect(found <= delta * (1 + 1e-6) && found > 0)
            #expect(try filter.epsilon(delta: found) <= epsilon)
        }
    }

    @Test func pureReleasesAddUpWithoutAnyDelta() throws {
        var filter = PrivacyFilter()
        #expect(try filter.epsilon(delta: 1e-9) == 0)
        try filter.add(.laplace(scale: 4), count: 2)
        #expect(try filter.epsilon(delta: 1e-9) == 0.5)
        try filter.add(.approximate(epsilon: 0.25, delta: 1e-12), count: 1)
        #expect(try filter.epsilon(delta: 1e-9) == 0.75)
        // One that is not pure, and the sum says nothing any more.
        try filter.add(.gaussian(noiseMultiplier: 100))
        #expect(try filter.epsilon(delta: 1e-9) > 0.75)
    }

    @Test func whatReleasesFailWithHasItsOwnShare() throws {
        func epsilon(_ count: Int, prepaid: Int = 0) throws -> Double {
            let release = CappedRelease(.approximate(epsilon: 0.01, delta: 1e-7), count: count, prepaidCount: prepaid)
            return try BudgetArithmetic.epsilon(of: [release], delta: 1e-5, accountant: .filter)
        }
        // A fifth of 1e-5 is twenty of them; those of a plan that was fixed before are set aside already.
        #expect(try epsilon(19).isFinite && epsilon(21) == .infinity)
        #expect(try epsilon(60, prepaid: 45).isFinite && epsilon(60, prepaid: 30) == .infinity)
        #expect(try epsilon(60, prepaid: 45) < 0.6)
        let sampled = CappedRelease(
            .poissonGaussian(samplingRate: 0.5, noiseMultiplier: 50),
            count: 2,
            coordinateCount: 1 << 60
        )
        #expect(try BudgetArithmetic.epsilon(of: [sampled], delta: 1e-8, accountant: .filter) == .infinity)
        // Integer noise that is not sampled has the curve of its Gaussian itself.
        let whole = CappedRelease(.gaussian(noiseMultiplier: 50), count: 2, coordinateCount: 1 << 60)
        #expect(try BudgetArithmetic.epsilon(of: [whole], delta: 1e-8, accountant: .filter) < 1)
    }

    @Test func sampledReleasesGainBySamplingAndLoseNothing() throws {
        func epsilon(_ q: Double) throws -> Double {
            let event = PrivacyEvent.poissonGaussian(samplingRate: q, noiseMultiplier: 1)
            return try AccountantKind.filter.accountant(of: [(event, 10)]).epsilon(delta: 1e-5)
        }
        let unsampled = try AccountantKind.filter.accountant(of: [(.gaussian(noiseMultiplier: 1), 10)])
        #expect(try epsilon(0.999) <= unsampled.epsilon(delta: 1e-5) + 1e-12)
        #expect(try epsilon(0.01) < 0.2 * unsampled.epsilon(delta: 1e-5))
    }
}
