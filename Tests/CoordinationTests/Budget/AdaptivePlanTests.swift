import DifferentialPrivacy
import Foundation
import StrictJSON
import TestBenches
import TestSupport
import Testing
import WireFormat

@testable import Coordination

/// Which plans loss distributions may judge: those that nothing published can change.
struct AdaptivePlanTests {
    private static func specification(stop: Bool) throws -> RunSpecification {
        try RunSpecification.sample {
            $0.rounds = 20
            $0.cohort += ["goal": 2, "minimum": 2, "max_participations": 20]
            $0.evaluation += [
                "every": 2, "cohort_goal": 2, "noise_multiplier": 20, "max_participations": 2, "metrics": ["loss"],
            ]
            $0.privacy += ["mode": "central", "mechanism": "laplace", "noise_multiplier": 40]
            $0.privacy.clipping.policy = "l1"
            if stop { $0.stop = ["metric": "loss", "patience": 2] }
        }
    }

    private static func projection(stop: Bool) throws -> PrivacyProjection {
        try PrivacyProjection(of: specification(stop: stop), parameterCount: 4, delta: 1e-5, budget: 8)
    }

    /// What was done until a measurement said stop is no composition that was fixed beforehand.
    @Test(.slow) func aRuleToStopByAMeasurementMakesFiltersEnforce() throws {
        let (fixed, stopping) = (try Self.projection(stop: false), try Self.projection(stop: true))
        #expect(fixed.accountant == "pld" && stopping.accountant == "filter")
        #expect(stopping.epsilon > stopping.epsilonRdp && stopping.epsilonRdp > fixed.epsilon)
        #expect(stopping.epsilonRdp == fixed.epsilonRdp && stopping.roundsThatFit <= fixed.roundsThatFit)
        let specification = try Self.specification(stop: true)
        #expect(PrivacyCharge(of: specification, parameterCount: 4).isAdaptive == true)
        #expect(PrivacyCharge.evaluation(of: specification)?.isAdaptive == true)
        #expect(PrivacyCharge(of: try Self.specification(stop: false), parameterCount: 4).isAdaptive == nil)
        var account = PopulationAccount()
        try account.take(Self.row("r", round: 1, PrivacyCharge(of: specification, parameterCount: 4)))
        // Decided by the first charge: filters have the whole δ.
        let releases = try account.releases()
        #expect(account.isAdaptive && account.course.rule(of: releases) == EnforcingRule(.filter))
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
        // Loss distributions could have gone on with the whole δ: what is mixed has a share beside it.
        let releases = try account.releases()
        #expect(account.course.rule(of: releases) == EnforcingRule(.filter, deltaShare: EnforcingRule.mixedShare))
        #expect(releases.map(\.prepaidCount) == [2, 0])
        try account.take(Self.row("first", round: 3, charge))
        #expect(try account.releases().map(\.prepaidCount) == [2, 0])
    }

    /// Whoever knows beforehand that mechanisms will be mixed says so, and pays no share.
    @Test func aPopulationMayBeFilteredFromItsFirstChargeOn() throws {
        let charge = PrivacyCharge(of: try Self.specification(stop: false), parameterCount: 4)
        var account = PopulationAccount()
        let note = LedgerNote(kind: .budget, epsilon: 8, delta: 1e-5, accountant: .rdp)
        var row = Self.row("", round: 1, charge)
        (row.event, row.state) = (note.canonical, .committed)
        try account.take(row)
        #expect(account.course(with: charge, of: "first").rule(of: []) == EnforcingRule(.filter))
        try account.take(Self.row("first", round: 1, charge))
        try account.take(Self.row("second", round: 1, charge))
        #expect(account.course.rule(of: try account.releases()) == EnforcingRule(.filter))
    }

    /// A run that stops by its measurements takes its first charge with the whole δ, and stays within what that admits.
    @Test(.slow, .timeLimit(.minutes(10)))
    func aPrivateRunWithARuleToStopEndsByItsBudgetOrByItsRule() async throws {
        // Twelve standard deviations of the noised rate lie between 1 and ½; nobody reaches 1,000 rounds without gain.
        for (rule, version) in [("at_least", 2), ("patience", 0)] {
            let specification = try RunSpecification.sample {
                $0.rounds = 30
                $0.cohort += ["goal": 2, "minimum": 2, "over_selection": 1, "max_participations": 30]
                $0.evaluation += ["every": 2, "cohort_goal": 16, "minimum": 16, "noise_multiplier": 0.5]
                $0.evaluation += ["max_participations": 30, "metrics": ["top1"]]
                $0.privacy += ["mode": "central", "mechanism": "laplace", "noise_multiplier": 10]
                $0.privacy.clipping.policy = "l1"
                $0.stop.metric = "top1"
                $0.stop += rule == "patience" ? ["patience": 1000] : ["at_least": 0.5]
            }
            func cost(rounds: Int, evaluations: Int) throws -> Double {
                let releases = [
                    CappedRelease(.laplace(scale: 10), count: rounds, cap: 30),
                    CappedRelease(.gaussian(noiseMultiplier: 0.5), count: evaluations, cap: 30, coordinateCount: 2),
                ]
                return try BudgetArithmetic.epsilon(
                    of: releases.filter { $0.count > 0 },
                    delta: 1e-5,
                    accountant: .filter
                )
            }
            let bench = try await Bench(.memory)
            let (run, clients) = try await bench.startRun(
                specification,
                budget: BudgetSpecification(epsilon: try cost(rounds: 7, evaluations: 1) + 1e-6, delta: 1e-5),
                clients: 16
            )
            var coordinator = bench.coordinator
            for turn in 0..<60 where try await coordinator.run(run).state == .running {
                try await Self.turn(coordinator, clients, run)
                if turn == 2 { coordinator = try await bench.restarted() }
                bench.clock.advance(by: 2)
                try await coordinator.tick()
            }
            let view = try await coordinator.run(run)
            let status = try #require(try await coordinator.population("p").budget)
            let audit = try LedgerAudit(WireCoding.encode(await coordinator.ledgerAudit(population: "p")))
            #expect(audit.problems.isEmpty && audit.judge == .filter && status.accountant == "filter")
            if version > 0 {
                #expect(view.state == .completed && view.committedRounds >= 2 && view.bestVersion == version)
            } else {
                // A second evaluation is not admitted, and training goes on as long as it is.
                #expect(view.state == .failed && view.reason == "budget_exhausted", "\(view.state) \(view.waitingFor)")
                #expect(view.committedRounds == 7)
                #expect(abs(status.spentEpsilon - (try cost(rounds: 7, evaluations: 1))) < 1e-9)
            }
            #expect(status.spentEpsilon + status.reservedEpsilon <= status.epsilon)
        }
    }

    /// Gives every client what work there is, once.
    private static func turn(_ coordinator: Coordinator, _ clients: [String], _ run: String) async throws {
        for client in clients {
            guard let work = try await Bench.assignment(coordinator, client) else { continue }
            if work.kind == .train {
                _ = try await Bench.submit(coordinator, client, work.id, value: 0.1)
                continue
            }
            let terms = try await coordinator.beginUpdate(assignment: work.id, client: client)
            let result = EvaluationResult(numExamples: 10, metrics: ["tokens": 10, "hit1": 10])
            _ = try await coordinator.finishUpdate(
                assignment: work.id,
                client: client,
                Bench.written(WireCoding.encode(result), by: terms, examples: 10, metrics: result.metrics)
            )
        }
        try await wait(for: "the end of the aggregation") {
            let states = try await [
                coordinator.rounds(run: run).last?.state, coordinator.evaluations(run: run).last?.state,
            ]
            return !states.contains(.aggregating)
        }
    }

    private static func row(_ run: String, round: Int, _ charge: PrivacyCharge) -> LedgerRow {
        LedgerRow(
            sequence: 1,
            populationId: "p",
            runId: run,
            round: round,
            attempt: 1,
            state: .reserved,
            event: charge.canonical,
            epsilonAfter: 0,
            createdAt: Date(timeIntervalSince1970: 0),
            previousHash: "",
            rowHash: ""
        )
    }
}
