import DifferentialPrivacy
import Foundation
import Testing
import WireFormat

@testable import Coordination

/// Which plans loss distributions may judge: those that nothing published can change.
struct AdaptivePlanTests {
    private static func specification(stop: Bool) throws -> RunSpecification {
        let rule = stop ? #", "stop": {"metric": "loss", "patience": 2}"# : ""
        let text = """
            {"population": "p", "model": {"architecture": "external"}, "rounds": 20,
             "cohort": {"goal": 2, "minimum": 2, "max_participations": 20},
             "evaluation": {"every": 2, "cohort_goal": 2, "noise_multiplier": 20, "max_participations": 2, "metrics": ["loss"]},
             "privacy": {"mode": "central", "mechanism": "laplace", "noise_multiplier": 40,
                         "clipping": {"policy": "l1"}}\(rule)}
            """
        return try RunSpecification.read(JSONValue.parse(Array(text.utf8)))
    }

    private static func projection(stop: Bool) throws -> PrivacyProjection {
        try PrivacyProjection(of: specification(stop: stop), parameterCount: 4, delta: 1e-5, budget: 8)
    }

    /// What was done until a measurement said stop is no composition that was fixed beforehand.
    @Test func aRuleToStopByAMeasurementMakesFiltersEnforce() throws {
        let (fixed, stopping) = (try Self.projection(stop: false), try Self.projection(stop: true))
        #expect(fixed.accountant == "pld" && stopping.accountant == "rdp")
        #expect(stopping.epsilon == stopping.epsilonRdp && stopping.epsilon > fixed.epsilon)
        let specification = try Self.specification(stop: true)
        #expect(PrivacyCharge(of: specification, parameterCount: 4).isAdaptive == true)
        #expect(PrivacyCharge.evaluation(of: specification)?.isAdaptive == true)
        #expect(PrivacyCharge(of: try Self.specification(stop: false), parameterCount: 4).isAdaptive == nil)
        var account = PopulationAccount()
        try account.take(Self.row("r", round: 1, PrivacyCharge(of: specification, parameterCount: 4)))
        #expect(account.isAdaptive)
    }

    /// Whoever ends one run by its models gives the other more of the budget.
    @Test func aSecondRunMakesFiltersEnforceBeforeAnythingIsReleased() throws {
        let charge = PrivacyCharge(of: try Self.specification(stop: false), parameterCount: 4)
        var account = PopulationAccount()
        try account.take(Self.row("first", round: 1, charge))
        try account.take(Self.row("first", round: 2, charge))
        #expect(!account.isAdaptive && !account.wouldBeAdaptive(run: "first", charge: charge))
        #expect(account.wouldBeAdaptive(run: "second", charge: charge))
        try account.take(Self.row("second", round: 1, charge))
        #expect(account.isAdaptive && account.wouldBeAdaptive(run: "first", charge: charge))
    }

    private static func row(_ run: String, round: Int, _ charge: PrivacyCharge) -> LedgerRow {
        LedgerRow(
            sequence: 1,
            populationId: "p",
            runId: run,
            round: round,
            attempt: 1,
            state: "reserved",
            event: charge.canonical,
            epsilonAfter: 0,
            createdAt: Date(timeIntervalSince1970: 0),
            previousHash: "",
            rowHash: ""
        )
    }
}
