import DifferentialPrivacy
import Testing

struct ParticipationCappedAccountantTests {
    @Test func costGrowsWithTheCapAndNotWithTheRounds() {
        func epsilon(rounds: Int, cap: Int) -> Double {
            ParticipationCappedAccountant.epsilon(
                of: [.init(noiseMultiplier: 1, participationCap: cap, roundCount: rounds, parameterCount: 10_000)],
                delta: 1e-5
            )
        }
        #expect(epsilon(rounds: 0, cap: 1) == 0)
        #expect(abs(epsilon(rounds: 1, cap: 1) - 4.37717809568) < 1e-3)
        #expect(abs(epsilon(rounds: 50, cap: 1) - epsilon(rounds: 1, cap: 1)) < 1e-3)
        // Four releases at z = 1 are one at z = 1/2; one run's cost and another's add in 1/z².
        #expect(abs(epsilon(rounds: 50, cap: 4) - GaussianAccountant.epsilon(delta: 1e-5, noiseMultiplier: 0.5)) < 1e-2)
        let twoRuns = ParticipationCappedAccountant.epsilon(
            of: [
                .init(noiseMultiplier: 1, participationCap: 1, roundCount: 9, parameterCount: 10),
                .init(noiseMultiplier: 2, participationCap: 2, roundCount: 9, parameterCount: 10),
            ],
            delta: 1e-5
        )
        #expect(abs(twoRuns - GaussianAccountant.epsilon(delta: 1e-5, noiseMultiplier: (1 / 1.5).squareRoot())) < 1e-3)
    }

    @Test func theSamplersErrorIsTakenOffDelta() {
        let charge = { (dimension: Int) in
            ParticipationCappedAccountant.epsilon(
                of: [.init(noiseMultiplier: 1, participationCap: 1, roundCount: 1, parameterCount: dimension)],
                delta: 1e-8
            )
        }
        #expect(charge(1 << 40) > charge(1))
        #expect(charge(1 << 60) == .infinity)
    }

    @Test func theClassicalBoundIsRefusedWhereItIsNotProven() throws {
        #expect(try GaussianAccountant.classicalNoiseMultiplier(epsilon: 0.5, delta: 1e-5) > 9.6)
        for epsilon in [0, 1, 8, .infinity, .nan] {
            #expect(throws: PrivacyError.self) {
                try GaussianAccountant.classicalNoiseMultiplier(epsilon: epsilon, delta: 1e-5)
            }
        }
    }
}
