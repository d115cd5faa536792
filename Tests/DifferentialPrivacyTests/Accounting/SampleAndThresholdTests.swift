import DifferentialPrivacy
import Foundation
import Testing

struct SampleAndThresholdTests {
    @Test func theCostIsThePapers() throws {
        // language-model.md, section 6: epsilon 4 over 10 rounds, threshold 15.
        let rate = -expm1(-0.4) / 15
        let cost = try SampleAndThreshold.cost(samplingRate: rate, threshold: 15)
        #expect(abs(cost.epsilon - 0.4) < 1e-12 && abs(cost.delta / 8.28e-13 - 1) < 0.01)
    }

    @Test func itHoldsForEveryNumberOfOtherVoters() throws {
        // The release about one prefix is one bit; with c others it is in with P(Bin(c, q) >= θ), with the client's own
        // vote more often. Exact binomial tails in log space show both directions for every c.
        for (epsilon, threshold) in [(0.4, 15), (1.5, 12), (0.05, 6), (4.0, 8)] {
            let rate = -expm1(-epsilon) / Double(threshold)
            let cost = try SampleAndThreshold.cost(samplingRate: rate, threshold: threshold)
            #expect(abs(cost.epsilon - epsilon) < 1e-9)
            let bound = exp(cost.epsilon)
            for count in 0...Int(4 / rate) {
                let without = tail(count, rate, threshold)
                let own = threshold > 0 ? exp(mass(count, rate, threshold - 1)) * rate : 0
                let with = without + own
                #expect(with <= bound * without + cost.delta, "in: \(epsilon) \(threshold) \(count)")
                #expect(1 - without <= bound * (1 - with) + cost.delta, "out: \(epsilon) \(threshold) \(count)")
            }
            // With a delta of zero it would not hold, for a prefix that one vote less would miss: the check can fail.
            #expect(exp(mass(threshold - 1, rate, threshold - 1)) * rate > bound * tail(threshold - 1, rate, threshold))
        }
    }

    @Test func whatPromisesNothingIsRefused() {
        #expect(throws: PrivacyError.self) { try SampleAndThreshold.cost(samplingRate: 0.1, threshold: 3) }
        #expect(throws: PrivacyError.self) { try SampleAndThreshold.cost(samplingRate: 0.1, threshold: 10) }
        #expect(throws: PrivacyError.self) { try SampleAndThreshold.cost(samplingRate: 0, threshold: 10) }
    }

    private func mass(_ count: Int, _ rate: Double, _ value: Int) -> Double {
        guard value <= count, value >= 0 else { return -.infinity }
        let (n, k) = (Double(count), Double(value))
        return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1) + k * log(rate) + (n - k) * log1p(-rate)
    }

    private func tail(_ count: Int, _ rate: Double, _ threshold: Int) -> Double {
        threshold > count ? 0 : (threshold...count).reversed().reduce(0) { $0 + exp(mass(count, rate, $1)) }
    }
}
