import Foundation
import Tensors
import TestSupport
import Testing

@testable import DifferentialPrivacy

/// What the many-run audit says of a mechanism that is known; seeds are fixed.
struct ManyRunAuditTests {
    /// Values of a Gaussian mechanism by Box and Muller: noise of deviation z, and 1 more with the client.
    private static func audit(z: Double, count: Int = 4000, seed: UInt64 = 3) -> ManyRunAudit {
        var generator = Xoshiro256StarStar(seed: seed)
        func normal() -> Double {
            let radius = (-2 * log(max(Double(generator.nextUniform()), 0x1p-30))).squareRoot()
            return radius * cos(2 * .pi * Double(generator.nextUniform()))
        }
        let without = (0..<count).map { _ in z * normal() }
        return ManyRunAudit(without: without, with: (0..<count).map { _ in 1 + z * normal() })
    }

    @Test(.slow, arguments: [0.5, 1, 2])
    func theIntervalHoldsTheTruth(_ z: Double) {
        let audit = Self.audit(z: z)
        let noise = audit.noiseMultiplier
        #expect(noise.lower < z && z < noise.upper && noise.upper / noise.lower < 1.25, "\(noise)")
        let claim = GaussianAccountant.epsilon(delta: 1e-5, noiseMultiplier: z)
        let epsilon = audit.epsilon(delta: 1e-5)
        #expect(epsilon.lower < claim && claim < epsilon.upper, "\(epsilon)")
        let bound = audit.epsilonLowerBound(delta: 1e-5)
        #expect(bound < claim && bound > claim / 8, "\(bound)")
    }

    @Test func halfTheNoiseRefutesTheClaim() {
        let claim = GaussianAccountant.epsilon(delta: 1e-5, noiseMultiplier: 2)
        #expect(Self.audit(z: 1).epsilon(delta: 1e-5).lower > claim)
        // Without any assumption: almost no noise, and a claim of 1.
        #expect(Self.audit(z: 0.2).epsilonLowerBound(delta: 1e-5) > 4)
    }

    @Test func aClientThatChangesNothingShowsNothing() {
        let values = (0..<100).map { sin(Double($0) * 1.3) }
        let audit = ManyRunAudit(without: values, with: values.reversed())
        #expect(audit.noiseMultiplier.upper == .infinity && audit.epsilon(delta: 1e-5).lower == 0)
        #expect(audit.epsilonLowerBound(delta: 1e-5) == 0)
    }
}
