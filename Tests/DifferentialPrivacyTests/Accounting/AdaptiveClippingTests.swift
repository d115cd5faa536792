import DifferentialPrivacy
import Testing

/// The rule by which a clipping norm follows its quantile, and what it refuses.
struct AdaptiveClippingTests {
    private static func rule(z: Double = 1, countNoise: Double = 5, norm: Double = 2) throws -> AdaptiveClipping {
        try AdaptiveClipping(initialNorm: norm, noiseMultiplier: z, countNoise: countNoise)
    }

    /// A count that is noised too little leaves no share of the budget for the update.
    @Test func theCountMayNotTakeTheWholeBudget() throws {
        for z in [10, 10.1, 50] as [Double] {
            let error = #expect(throws: PrivacyError.self) { try Self.rule(z: z) }
            #expect(error?.description.contains("raise the cohort's goal") == true, "\(error as Any)")
        }
        #expect(try Self.rule(z: 9.99).updateNoiseMultiplier > 200)
        for bad in [0, -1, .infinity, .nan] as [Double] {
            #expect(throws: PrivacyError.self) { try Self.rule(z: bad) }
            #expect(throws: PrivacyError.self) { try Self.rule(norm: bad) }
        }
    }

    /// 1/z² = 1/z_Δ² + 1/(2σ_b)², for any number that is chosen for the count by default too.
    @Test(arguments: [(2, 0.1), (100, 1.0), (100, 3.0), (1_000_000, 8.0)])
    func updateAndCountTogetherCostOneGaussian(_ cohort: Int, _ z: Double) throws {
        let countNoise = AdaptiveClipping.defaultCountNoise(cohortSize: cohort, noiseMultiplier: z)
        let rule = try Self.rule(z: z, countNoise: countNoise)
        let both = 1 / (rule.updateNoiseMultiplier * rule.updateNoiseMultiplier) + 1 / (4 * countNoise * countNoise)
        #expect(abs(both * z * z - 1) < 1e-12)
        #expect(rule.updateNoiseMultiplier > z && rule.updateNoiseMultiplier < 1.11 * z)
    }

    @Test func theNormFollowsTheQuantileWithinPublicBounds() throws {
        let rule = try Self.rule()
        #expect(rule.nextNorm(after: 2, unclippedFraction: 0.5) == 2)
        #expect(rule.nextNorm(after: 2, unclippedFraction: 1) < 2 && rule.nextNorm(after: 2, unclippedFraction: 0) > 2)
        #expect(rule.nextNorm(after: 2, unclippedFraction: -1e6) == 2e6)
        #expect(rule.nextNorm(after: 2, unclippedFraction: 1e6) == 2e-6)
    }
}
