import DifferentialPrivacy
import Foundation
import Testing

/// The sparse histogram's numbers against an independent implementation, and its claim against exact curves.
struct SparseHistogramTests {
    private struct Vectors: Decodable {
        struct Failure: Decodable {
            var noiseMultiplier, threshold, failureDelta, continuous: Double
        }
        struct Composition: Decodable {
            var noiseMultiplier, threshold, epsilon, claimedDelta, exactDeltaOfFixedPatterns: Double
            var levels: Int
        }
        struct Budget: Decodable {
            var noiseMultiplier, delta, epsilon: Double
            var levels: Int
        }
        var failureDeltas: [Failure]
        var compositions: [Composition]
        var budgets: [Budget]
    }

    private func vectors() throws -> Vectors {
        let url = try #require(
            Bundle.module.url(forResource: "sparse-histogram", withExtension: "json", subdirectory: "Fixtures")
        )
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        return try decoder.decode(Vectors.self, from: Data(contentsOf: url))
    }

    @Test func singleVotesArePublishedAsOftenAsTheSamplersTailSays() throws {
        for vector in try vectors().failureDeltas {
            let histogram = try GaussianSparseHistogram(
                noiseMultiplier: vector.noiseMultiplier,
                threshold: vector.threshold
            )
            let ratio = histogram.failureDelta / vector.failureDelta
            #expect(ratio > 1 - 1e-9 && ratio < 1 + 1e-8, "\(vector): \(ratio)")
            // Near the continuous Gaussian's, as the noise is.
            #expect(abs(vector.failureDelta / vector.continuous - 1) < 1e-3)
        }
    }

    @Test func whatIsChargedIsNeverLessThanAnyFixedPatternCosts() throws {
        for vector in try vectors().compositions {
            let histogram = try GaussianSparseHistogram(
                noiseMultiplier: vector.noiseMultiplier,
                threshold: vector.threshold
            )
            let levels = Double(vector.levels)
            let gaussian = GaussianAccountant.delta(
                epsilon: vector.epsilon,
                noiseMultiplier: vector.noiseMultiplier / levels.squareRoot()
            )
            let claimed = gaussian + levels * histogram.failureDelta
            #expect(abs(claimed / vector.claimedDelta - 1) < 1e-6, "\(vector)")
            #expect(claimed >= vector.exactDeltaOfFixedPatterns)
        }
        for vector in try vectors().budgets {
            let release = CappedRelease(
                .gaussian(noiseMultiplier: vector.noiseMultiplier),
                count: 1000,
                cap: vector.levels,
                failureDelta: 0.2 * vector.delta / Double(vector.levels) * (1 - 1e-9)
            )
            let epsilon = try BudgetArithmetic.epsilon(of: [release], delta: vector.delta, rule: .thresholded)
            #expect(abs(epsilon / vector.epsilon - 1) < 1e-6)
        }
    }

    @Test(arguments: [0.1, 1, 3.42, 100, 10_000])
    func theThresholdIsTheLeastThatFailsSoSeldom(_ z: Double) throws {
        for delta in [0.3, 1e-3, 2e-7, 1e-12] {
            let threshold = try GaussianSparseHistogram.threshold(noiseMultiplier: z, failureDelta: delta)
            #expect(try GaussianSparseHistogram(noiseMultiplier: z, threshold: threshold).failureDelta <= delta)
            let less = max(1, threshold - 0.002 - 0.001 * threshold)
            let lower = try GaussianSparseHistogram(noiseMultiplier: z, threshold: less)
            #expect(less == 1 || lower.failureDelta > delta)
        }
    }

    @Test func parametersOutsideTheDomainAreRefused() {
        for (z, threshold) in [(0.01, 5.0), (1, 0.5), (1, .nan), (1, .infinity), (.nan, 5), (20_000, 5)] {
            #expect(throws: PrivacyError.self) {
                try GaussianSparseHistogram(noiseMultiplier: z, threshold: threshold)
            }
        }
        #expect(throws: PrivacyError.self) {
            try GaussianSparseHistogram.threshold(noiseMultiplier: 1, failureDelta: 0)
        }
    }

    /// Counts keep their order under the noise as far as they are apart, and zeros are never published.
    @Test func largeCountsStayInOrder() throws {
        let histogram = try GaussianSparseHistogram(noiseMultiplier: 2, threshold: 12)
        let published = try histogram.release([1000, 900, 0, 800, 0])
        let values = published.compactMap { $0 }
        #expect(values.count == 3 && values == values.sorted(by: >) && published[2] == nil && published[4] == nil)
        // 14 standard deviations are beyond what the sampler makes.
        #expect(abs(histogram.votes(values[0]) - 1000) < 28)
    }
}
