import Foundation
import StrictJSON
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

@testable import Coordination
@testable import DifferentialPrivacy

/// Populations whose mechanisms are mixed by decisions made on the way, and ledgers that other accountants judged before.
@Suite(.timeLimit(.minutes(10)))
struct MixedPopulationTests {
    private static func specification(_ mechanism: String, z: Double, rounds: Int) throws -> RunSpecification {
        try RunSpecification.sample {
            $0 += ["rounds": rounds]
            $0.cohort += ["goal": 1, "minimum": 1, "over_selection": 1, "max_participations": 100]
            $0.privacy += ["mode": "central", "mechanism": mechanism, "noise_multiplier": z]
        }
    }

    private static func play(_ coordinator: Coordinator, _ run: String, _ client: String) async throws {
        for _ in 0..<20 where try await coordinator.run(run).state == .running {
            if let work = try await Bench.assignment(coordinator, client) {
                _ = try await Bench.submit(coordinator, client, work.id, value: 0)
            }
            _ = try await Bench.untilSettled(coordinator, run)
        }
    }

    private static func addRun(_ coordinator: Coordinator, _ specification: RunSpecification) async throws -> String {
        let run = try await coordinator.createRun(specification, initialModel: ParameterVector(zeros: Bench.layout)).id
        _ = try await coordinator.startRun(run)
        return run
    }

    private static func start(
        _ bench: Bench,
        _ edit: @escaping @Sendable (inout StoredState) -> Void = { _ in }
    ) async throws -> String {
        do {
            _ = try await Bench.start(bench.directory, bench.clock, EditedStore(bench.store, edit))
            return "started"
        } catch let error as CoordinationError {
            return error.code
        }
    }

    private static func audit(_ coordinator: Coordinator) async throws -> (LedgerAuditDocument, LedgerAudit) {
        let document = try await coordinator.ledgerAudit(population: "p")
        return (document, try LedgerAudit(WireCoding.encode(document)))
    }

    /// One fixed plan, whose totals are found by loss distributions, and then a second run.
    @Test(.slow) func aLedgerOfLossDistributionsIsFoundAgainAndGoesOnByAFilter() async throws {
        let bench = try await Bench(.memory)
        let (first, clients) = try await bench.startRun(
            try Self.specification("laplace", z: 20, rounds: 4),
            budget: BudgetSpecification(epsilon: 4, delta: 1e-5),
            clients: 1
        )
        try await Self.play(bench.coordinator, first, clients[0])
        let (fixedDocument, fixed) = try await Self.audit(bench.coordinator)
        #expect(fixedDocument.budget.accountant == "pld" && fixed.judge == .pld && fixed.problems.isEmpty)
        let four = CappedRelease(.laplace(scale: 20), count: 4, cap: 100)
        let spent = try BudgetArithmetic.epsilon(of: [four], delta: 1e-5, accountant: .pld)
        #expect(abs(fixedDocument.spentEpsilon - spent) < 1e-9)
        let last = try #require(try bench.store.load().ledger.last)
        #expect(last.state == .committed && abs(last.epsilonAfter - spent) < 1e-9)
        // A start finds the total that loss distributions gave, and no other.
        #expect(try await Self.start(bench) == "started")
        #expect(
            try await Self.start(bench) { $0.ledger[$0.ledger.count - 1].epsilonAfter *= 1.001 } == "ledger_broken"
        )

        let coordinator = try await bench.restarted()
        let second = try await Self.addRun(coordinator, Self.specification("gaussian", z: 10, rounds: 3))
        try await Self.play(coordinator, second, clients[0])
        #expect(try await coordinator.run(second).committedRounds == 3)
        let (document, audit) = try await Self.audit(coordinator)
        #expect(document.budget.accountant == "filter" && document.isAdaptive && audit.judge == .filter)
        #expect(audit.problems.isEmpty, "\(audit.problems)")
        // Loss distributions could have spent δ on the first run alone: what is mixed has a twentieth beside it.
        let mixed = [four, CappedRelease(.gaussian(noiseMultiplier: 10), count: 3, cap: 100, coordinateCount: 4)]
        let expected = try BudgetArithmetic.epsilon(of: mixed, delta: 0.05 * 1e-5, accountant: .filter)
        #expect(abs(document.spentEpsilon - expected) < 1e-9)
        #expect(try await Self.start(bench) == "started")

        // What earlier versions stated for the same charges is believed; anything else is not.
        for judge in [AccountantKind.rdp, .pld] {
            let stated = try BudgetArithmetic.epsilon(of: mixed, delta: 1e-5, accountant: judge)
            #expect(stated < expected)
            #expect(try await Self.start(bench) { $0.ledger[$0.ledger.count - 1].epsilonAfter = stated } == "started")
            #expect(
                try await Self.start(bench) { $0.ledger[$0.ledger.count - 1].epsilonAfter = stated + 1e-6 }
                    == "ledger_broken"
            )
        }
        // An outsider does not take the word of a document that goes by an accountant which is not proven here.
        var fooled = document
        fooled.budget.accountant = "rdp"
        fooled.spentEpsilon = try BudgetArithmetic.epsilon(of: mixed, delta: 1e-5, accountant: .rdp)
        let problems = try LedgerAudit(WireCoding.encode(fooled)).problems
        #expect(problems.contains { $0.contains("only filter is proven") } && problems.count == 2, "\(problems)")
    }

    @Test func aPopulationThatIsFilteredFromTheStartPaysNoShare() async throws {
        let bench = try await Bench(.memory)
        let coordinator = bench.coordinator
        var budget = BudgetSpecification(epsilon: 4, delta: 1e-5)
        budget.accountant = .rdp
        _ = try await coordinator.createPopulation(PopulationRequest(name: "p", budget: budget))
        let client = try #require(try await bench.enroll(1).first)
        let releases = [
            CappedRelease(.gaussian(noiseMultiplier: 10), count: 2, cap: 100, coordinateCount: 4),
            CappedRelease(.laplace(scale: 20), count: 2, cap: 100),
        ]
        for (index, mechanism) in [("gaussian", 10.0), ("laplace", 20)].enumerated() {
            let run = try await Self.addRun(
                coordinator,
                Self.specification(mechanism.0, z: mechanism.1, rounds: 2)
            )
            try await Self.play(coordinator, run, client)
            let (document, audit) = try await Self.audit(coordinator)
            #expect(document.budget.accountant == "filter" && audit.problems.isEmpty, "\(audit.problems)")
            let expected = try BudgetArithmetic.epsilon(
                of: Array(releases.prefix(index + 1)),
                delta: 1e-5,
                accountant: .filter
            )
            #expect(abs(document.spentEpsilon - expected) < 1e-9)
        }
    }

    /// The budget is what the filter admits: one round less than the best order after the fact would.
    @Test func aMixedPopulationIsRefusedWhereTheBestOrderWouldGoOn() async throws {
        let bench = try await Bench(.memory)
        func releases(_ laplace: Int) -> [CappedRelease] {
            [
                CappedRelease(.gaussian(noiseMultiplier: 10), count: 1, cap: 100, coordinateCount: 4),
                CappedRelease(.laplace(scale: 20), count: laplace, cap: 100),
            ]
        }
        let four = try BudgetArithmetic.epsilon(of: releases(4), delta: 0.05 * 1e-5, accountant: .filter)
        let five = try BudgetArithmetic.epsilon(of: releases(5), delta: 0.05 * 1e-5, accountant: .filter)
        let budget = (four + five) / 2
        #expect(try BudgetArithmetic.epsilon(of: releases(5), delta: 1e-5, accountant: .rdp) < budget)
        let (first, clients) = try await bench.startRun(
            try Self.specification("gaussian", z: 10, rounds: 1),
            budget: BudgetSpecification(epsilon: budget, delta: 1e-5),
            clients: 1
        )
        try await Self.play(bench.coordinator, first, clients[0])
        let second = try await Self.addRun(bench.coordinator, Self.specification("laplace", z: 20, rounds: 9))
        #expect(try await bench.coordinator.population("p").budget?.roundsThatFit[second] == 3)
        try await Self.play(bench.coordinator, second, clients[0])
        let view = try await bench.coordinator.run(second)
        #expect(view.committedRounds == 4 && view.state == .failed && view.reason == "budget_exhausted")
        #expect(try await Self.audit(bench.coordinator).1.problems.isEmpty)
    }

    /// Below 1e-13 loss distributions round too much: an audit goes without them, and says so by leaving them out.
    @Test func anAuditGoesWithoutLossDistributionsWhereTheyDoNotHold() throws {
        var ledger = PrivacyLedger()
        func append(_ run: String, _ round: Int, _ state: ChargeState, _ event: String) throws {
            _ = try ledger.append(
                population: "p",
                run: run,
                round: round,
                attempt: run.isEmpty ? 0 : 1,
                state: state,
                event: event,
                epsilonAfter: 0,
                at: Date(timeIntervalSince1970: 1)
            )
        }
        let charge = PrivacyCharge(mode: .central, noiseMultiplier: 2, participationCap: 5, parameterCount: 1)
        for state in [ChargeState.reserved, .committed] { try append("r", 1, state, charge.canonical) }
        let lines = try ledger.rows.map { row -> String in
            let time = ISO8601DateFormatter().string(from: row.createdAt)
            let text = try WireCoding.encode(LedgerAuditDocument.Row(row, isShown: true))
            return String(decoding: text, as: UTF8.self).dropLast() + #","created_at":"\#(time)"}"#
        }
        let data = Data(lines.joined(separator: "\n").utf8)
        for (delta, expected) in [
            (1e-5, [AccountantKind.gaussian, .pld, .rdp]), (1e-13, [.gaussian, .pld, .rdp]),
            (9e-14, [.gaussian, .rdp]),
        ] {
            let audit = try LedgerAudit(data, delta: delta)
            #expect(audit.epsilons.map(\.accountant) == expected && audit.committed == 1)
            #expect(audit.problems.isEmpty, "\(audit.problems)")
        }
        #expect(try LedgerAudit(data).problems == ["no delta is stated: give --delta"])
    }
}
