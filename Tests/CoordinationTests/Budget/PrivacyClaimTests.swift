import Coordination
import DifferentialPrivacy
import StrictJSON
import TestSupport
import Testing
import WireFormat

/// What a claim says beside its ε follows from the charges, whatever they are.
struct PrivacyClaimTests {
    private func run(_ change: (inout RunFile) throws -> Void) throws -> RunSpecification {
        try RunSpecification.sample {
            $0.rounds = 4
            $0.cohort += ["goal": 2, "max_participations": 2]
            try change(&$0)
        }
    }

    private func claim(_ specification: RunSpecification, after earlier: PrivacyCharge? = nil) throws -> PrivacyClaim {
        try PrivacyProjection(
            of: specification,
            parameterCount: 4,
            delta: 1e-5,
            budget: nil,
            earlier: earlier.map { [try $0.release(count: 1)] } ?? [],
            earlierCharges: earlier.map { [$0] } ?? [],
            isAdaptive: earlier != nil,
            start: earlier == nil ? nil : .exact
        ).claim
    }

    @Test(.slow) func eachModeNamesWhatItRestsOn() throws {
        let central = try claim(run { $0.privacy += ["mode": "central", "noise_multiplier": 1] })
        #expect(central.relations == [.zeroOut] && central.assumptions == [.serverAddsNoise] && central.delta == 1e-5)
        let local = try claim(run { $0.privacy += ["mode": "local", "noise_multiplier": 1] })
        #expect(
            local.relations == [.replaceOne] && local.assumptions.isEmpty && local.protection.contains("the server")
        )
        let amplified = try claim(
            run {
                $0.privacy += ["mode": "central", "noise_multiplier": 1, "amplification": "poisson"]
                $0.cohort = ["goal": 2, "policy": "poisson", "sampling_rate": 0.5]
            }
        )
        #expect(amplified.relations == [.addRemove] && amplified.amplification == .poisson)
        #expect(amplified.assumptions == [.serverAddsNoise, .drawIsSecret])
        #expect(amplified.terms().contains("amplified by poisson sampling"))
    }

    /// Where a cost counts on a secret draw a round lasts the same time whoever came, and nowhere else does it have to.
    @Test func roundsLastAsLongAsASecretDrawNeeds() throws {
        func analytics(_ change: (inout RunFile) throws -> Void) throws -> RunSpecification {
            try RunSpecification.sample(of: .analytics, change)
        }
        for (specification, isSecret) in [
            (
                try run {
                    $0.privacy += ["mode": "central", "noise_multiplier": 1, "amplification": "poisson"]
                    $0.cohort = ["goal": 2, "policy": "poisson", "sampling_rate": 0.5]
                }, true
            ),
            (try analytics { $0.analytics += ["method": "triehh", "epsilon": 4] }, true),
            (
                try analytics {
                    $0.analytics.method = "votes"
                    $0.cohort.goal = 2
                    $0.privacy.noise_multiplier = 1
                }, false
            ),
            (
                try run {
                    $0.privacy += ["mode": "central", "noise_multiplier": 1]
                    $0.cohort += ["goal": 2, "policy": "poisson", "sampling_rate": 0.5, "max_participations": 2]
                }, false
            ),
            (try run { $0.privacy += ["mode": "local", "noise_multiplier": 1] }, false),
            (try run { $0.privacy += ["mode": "central", "mechanism": "laplace", "noise_multiplier": 1] }, false),
        ] {
            let charge = PrivacyCharge(of: specification, parameterCount: 4)
            #expect((charge.samplingRate != nil) == isSecret && RoundTerms(specification).isSecret == isSecret)
        }
    }

    @Test func whatIsMixedInLaterIsProvenAtALargerDelta() throws {
        let earlier = PrivacyCharge(mode: .central, noiseMultiplier: 2, participationCap: 1, parameterCount: 4)
        let laplace = try run { $0.privacy += ["mode": "central", "mechanism": "laplace", "noise_multiplier": 5] }
        let alone = try claim(laplace)
        let mixed = try claim(laplace, after: earlier)
        #expect(alone.delta == 1e-5 && alone.accountant == "pld")
        #expect(abs(mixed.delta / 1.05e-5 - 1) < 1e-12 && mixed.accountant == "filter" && mixed.epsilon > alone.epsilon)
        // TrieHH of earlier versions does not protect from clients that work together, and is named wherever it was charged.
        var votes = PrivacyCharge(
            kind: .sampleAndThreshold,
            mode: .central,
            noiseMultiplier: 0,
            participationCap: 0,
            parameterCount: 2
        )
        votes.samplingRate = 0.01
        votes.threshold = 15
        let old = try claim(run { $0.privacy += ["mode": "central", "noise_multiplier": 5] }, after: votes)
        #expect(old.relations == [.addRemove, .zeroOut] && old.relation == "add_remove, zero_out")
        #expect(old.assumptions == [.serverAddsNoise, .noClientColludes])
        #expect(!old.protection.contains("other clients together"))
    }
}
