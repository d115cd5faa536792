import Foundation
import StrictJSON
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

@testable import Coordination

/// What a budget refuses, and what it gives back.
@Suite(.timeLimit(.minutes(10)))
struct LedgerRefusalTests {
    private static func specification(
        _ change: (inout RunFile) throws -> Void
    ) throws -> RunSpecification {
        try RunSpecification.sample {
            $0.rounds = 4
            $0.cohort += ["over_selection": 1, "selection_timeout_s": 50, "report_timeout_s": 50]
            try change(&$0)
        }
    }

    private static func refusal(_ bench: Bench, _ specification: RunSpecification) async -> CoordinationError? {
        await TestBenches.refusal {
            try await bench.coordinator.createRun(specification, initialModel: ParameterVector(zeros: Bench.layout))
        }
    }

    /// A run without privacy would publish what the budget promises to bound.
    @Test func aPopulationWithABudgetTakesNoRunWithoutPrivacyAndTheOtherWayRound() async throws {
        let bench = try await Bench(.memory)
        let open = try Self.specification {
            $0.privacy = [:]
            $0.cohort += ["goal": 2, "max_participations": 0]
        }
        let noised = try Self.specification {
            $0.privacy += ["mode": "central", "noise_multiplier": 1]
            $0.cohort += ["goal": 2, "max_participations": 4]
        }
        _ = try await bench.coordinator.createPopulation(
            PopulationRequest(name: "p", budget: BudgetSpecification(epsilon: 8, delta: 1e-5))
        )
        let refused = try #require(await Self.refusal(bench, open))
        #expect(refused.code == "budget_requires_privacy" && refused.kind == .unprocessable)
        #expect(refused.message.contains("set privacy.mode") && refused.message.contains("'p'"))
        #expect(try bench.store.load().runs.isEmpty)
        #expect(await Self.refusal(bench, noised) == nil)

        let other = try await Bench(.memory)
        _ = try await other.coordinator.createPopulation(PopulationRequest(name: "p", budget: nil))
        let without = try #require(await Self.refusal(other, noised))
        #expect(without.code == "population_without_budget" && without.message.contains("needs a population"))
        #expect(await Self.refusal(other, open) == nil)
    }

    /// Too few clients: nothing is noised, nothing is published, and the cost is given back.
    @Test func aRoundOfFewerThanItsMinimumIsGivenBack() async throws {
        let bench = try await Bench(.sqlite)
        let (run, clients) = try await bench.startRun(
            try Self.specification {
                $0.privacy += ["mode": "central", "noise_multiplier": 1]
                $0.cohort += ["goal": 3, "minimum": 2, "max_participations": 4]
            },
            budget: BudgetSpecification(epsilon: 20, delta: 1e-5),
            clients: 3
        )
        var ids: [String] = []
        for client in clients { ids.append(try #require(try await Bench.assignment(bench.coordinator, client)).id) }
        _ = try await Bench.submit(bench.coordinator, clients[0], ids[0], value: 1)
        #expect(try #require(try await bench.coordinator.population("p").budget).reservedEpsilon > 0)
        bench.clock.advance(by: 60)
        try await bench.coordinator.tick()
        let first = try #require(try await bench.coordinator.rounds(run: run).first)
        #expect(first.state == .abandoned && first.accepted == 1)
        #expect(try await bench.coordinator.run(run).committedRounds == 0)
        let rows = try await bench.coordinator.ledgerRows(population: "p").filter { $0.runId == run }
        #expect(rows.prefix(2).map(\.state) == [.reserved, .released])
        let status = try #require(try await bench.coordinator.population("p").budget)
        #expect(status.spentEpsilon == 0)
        // The next attempt is a charge of its own, and what is left of the file is gone.
        for _ in 0..<5 {
            bench.clock.advance(by: 60)
            try await bench.coordinator.tick()
        }
        let again = try await bench.coordinator.ledgerRows(population: "p").filter { $0.runId == run }
        #expect(again.count > 2 && again[2].state == .reserved && again[2].attempt == 2 && again[2].round == 1)
        let spool = bench.coordinator.blobs.spoolNames()
        #expect(!spool.contains { $0.hasSuffix(".update") || $0.hasSuffix(".result") }, "\(spool)")
    }

    /// A round that would publish fewer clients' updates than the run's minimum does not exist: the file is refused.
    @Test func aMinimumOverTheGoalIsNamed() throws {
        let error = #expect(throws: DocumentError.self) {
            try Self.specification {
                $0.privacy += ["mode": "central", "noise_multiplier": 1]
                $0.cohort += ["goal": 2, "minimum": 3, "max_participations": 1]
            }
        }
        let problem = try #require(error?.problems.first)
        #expect(problem.pointer == "/cohort/minimum" && problem.detail.contains("more than the goal of 2"))
    }

    /// What clients noised themselves is out, whatever becomes of the round, and what they still work on may come late.
    @Test func aLocalRoundThatIsAbandonedKeepsTheCostOfWhatArrivedOrMayArrive() async throws {
        for (uploads, isGivenBack) in [(0, false), (1, false), (0, true)] {
            let bench = try await Bench(.memory)
            let (run, clients) = try await bench.startRun(
                try Self.specification {
                    $0.privacy += ["mode": "local", "noise_multiplier": 2]
                    $0.cohort += ["goal": 3, "minimum": 3, "max_participations": 4]
                },
                budget: BudgetSpecification(epsilon: 50, delta: 1e-5),
                clients: 3
            )
            var ids: [String] = []
            for client in clients {
                ids.append(try #require(try await Bench.assignment(bench.coordinator, client)).id)
            }
            for index in 0..<uploads {
                _ = try await Bench.submit(bench.coordinator, clients[index], ids[index], value: 0.1)
            }
            for (client, id) in zip(clients, ids) where isGivenBack {
                try await bench.coordinator.reportFailure(
                    assignment: id,
                    client: client,
                    FailureReport(code: .privacyRefused)
                )
            }
            bench.clock.advance(by: 60)
            try await bench.coordinator.tick()
            let rows = try await bench.coordinator.ledgerRows(population: "p").filter { $0.runId == run }
            #expect(rows.prefix(2).map(\.state) == [.reserved, isGivenBack ? .released : .committed])
            #expect(try await bench.coordinator.rounds(run: run).first?.state == .abandoned)
        }
    }

    /// Noise may have been drawn of a sum that is being made: cancelling then gives nothing back.
    @Test func aRunThatIsCancelledWhileItsSumIsMadeStaysCharged() async throws {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(
            try Self.specification {
                $0.privacy += ["mode": "central", "noise_multiplier": 1]
                $0.cohort += ["goal": 1, "minimum": 1, "max_participations": 4]
            },
            budget: BudgetSpecification(epsilon: 20, delta: 1e-5),
            clients: 1
        )
        let work = try #require(try await Bench.assignment(bench.coordinator, clients[0]))
        let zeros = ParameterVector(zeros: Bench.layout)
        let update = try await Bench.received(bench.coordinator, clients[0], work.id, zeros)
        try await bench.coordinator.finishUpdate(of: work.id, client: clients[0], update, andCancel: run)
        try await wait(for: "the end of the aggregation") {
            try await bench.coordinator.rounds(run: run).last?.state != .aggregating
        }
        #expect(try await bench.coordinator.run(run).committedRounds == 0)
        let rows = try await bench.coordinator.ledgerRows(population: "p").filter { $0.runId == run }
        #expect(rows.map(\.state) == [.reserved, .committed])
        #expect(try #require(try await bench.coordinator.population("p").budget).spentEpsilon > 4)
    }

    /// A charge that is open counts like one that is spent: two runs cannot both have the last round.
    @Test func anOpenReservationLeavesTheOtherRunNothing() async throws {
        let bench = try await Bench(.memory)
        let specification = try Self.specification {
            $0.privacy += ["mode": "central", "noise_multiplier": 1]
            $0.cohort += ["goal": 1, "minimum": 1, "max_participations": 1]
        }
        // One round costs 4.38, and two 6.5.
        _ = try await bench.startRun(specification, budget: BudgetSpecification(epsilon: 5, delta: 1e-5), clients: 1)
        let second = try await bench.coordinator.createRun(
            specification,
            initialModel: ParameterVector(zeros: Bench.layout)
        ).id
        let error = await #expect(throws: CoordinationError.self) { try await bench.coordinator.startRun(second) }
        #expect(error?.code == "budget_exhausted" && error?.message.contains("nothing was opened") == true)
        let rows = try await bench.coordinator.ledgerRows(population: "p").filter { !$0.runId.isEmpty }
        #expect(rows.map(\.state) == [.reserved])
    }

    /// The states of a charge: reserved, and then committed or released, once.
    @Test func aChargeHasNoOtherStates() throws {
        let charge = PrivacyCharge(mode: .central, noiseMultiplier: 1, participationCap: 1, parameterCount: 4)
        func refused(_ states: [ChargeState]) -> Bool {
            var ledger = PrivacyLedger()
            for state in states {
                do {
                    _ = try ledger.append(
                        population: "p",
                        run: "r",
                        round: 1,
                        attempt: 1,
                        state: state,
                        event: charge.canonical,
                        epsilonAfter: 0,
                        at: Date(timeIntervalSince1970: 1)
                    )
                } catch {
                    // A row that is refused leaves nothing behind.
                    return error.code == "ledger_broken" && ledger.rows.count == states.count - 1
                }
            }
            return false
        }
        for good: [ChargeState] in [[.reserved], [.reserved, .committed], [.reserved, .released]] {
            #expect(!refused(good))
        }
        #expect(!refused([.reserved, .released, .reserved, .committed]))
        for bad: [ChargeState] in [
            [.committed], [.released], [.reserved, .reserved], [.reserved, .committed, .released],
            [.reserved, .committed, .committed], [.reserved, .released, .released],
            [.reserved, .released, .committed],
        ] {
            #expect(refused(bad), "\(bad)")
        }
    }

    /// An edit that changes no total is found by the row's hash.
    @Test func anEditThatKeepsTheTotalIsFoundByTheHash() async throws {
        let bench = try await Bench(.memory)
        _ = try await bench.startRun(
            try Self.specification {
                $0.privacy += ["mode": "central", "noise_multiplier": 1]
                $0.cohort += ["goal": 1, "minimum": 1, "max_participations": 1]
            },
            budget: BudgetSpecification(epsilon: 8, delta: 1e-5)
        )
        let edits: [@Sendable (inout LedgerRow) -> Void] = [
            { $0.createdAt += 1 }, { $0.attempt = 7 }, { $0.round = 2 }, { $0.runId = "run_other" },
            { $0.event = $0.event.replacing(#""parameterCount":4"#, with: #""parameterCount":3"#) },
        ]
        for (index, edit) in edits.enumerated() {
            let store = EditedStore(bench.store) { edit(&$0.ledger[1]) }
            let error = await #expect(throws: CoordinationError.self) {
                try await Bench.start(bench.directory, bench.clock, store)
            }
            #expect(error?.code == "ledger_broken" && error?.message.contains("edited") == true, "\(index)")
        }
    }

    /// A budget that was lowered under what is spent: an outsider sees it.
    @Test func anAuditSaysWhenMoreIsSpentThanTheBudget() async throws {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(
            try Self.specification {
                $0.privacy += ["mode": "central", "noise_multiplier": 1]
                $0.cohort += ["goal": 1, "minimum": 1, "max_participations": 1]
            },
            budget: BudgetSpecification(epsilon: 8, delta: 1e-5)
        )
        let work = try #require(try await Bench.assignment(bench.coordinator, clients[0]))
        _ = try await Bench.submit(bench.coordinator, clients[0], work.id, value: 0.5)
        _ = try await Bench.untilSettled(bench.coordinator, run)
        func problems() async throws -> [String] {
            try LedgerAudit(WireCoding.encode(await bench.coordinator.ledgerAudit(population: "p"))).problems
        }
        #expect(try await problems().isEmpty)
        _ = try await bench.coordinator.changeBudget(population: "p", .init(epsilon: 2))
        let found = try await problems()
        #expect(found.count == 1 && found.first?.contains("more than the budget of 2") == true, "\(found)")
    }

    /// Every client is drawn with the rate of the run, from those who were there when it began.
    ///
    /// 600 coins of ½: 300 ± 12; six deviations and a half are allowed, a chance of 1 in 10¹⁰ a round.
    @Test(.slow) func aPoissonRoundDrawsWithItsRateAndFromItsList() async throws {
        let bench = try await Bench(.memory)
        let (run, _) = try await bench.startRun(
            try RunSpecification.sample {
                $0.rounds = 3
                $0.cohort += ["goal": 300, "policy": "poisson", "sampling_rate": 0.5, "report_timeout_s": 50]
                $0.privacy += ["mode": "central", "noise_multiplier": 1, "amplification": "poisson"]
            },
            budget: BudgetSpecification(epsilon: 200, delta: 1e-5),
            clients: 600
        )
        func drawn() throws -> [Int] { try bench.store.load().rounds.filter { $0.runId == run }.compactMap(\.drawn) }
        let first = try drawn()
        #expect(first.count == 1 && first.allSatisfy { abs($0 - 300) < 80 }, "\(first)")
        // Those who come later are in no later round's draw either.
        bench.clock.advance(by: 1)
        let late = try await bench.enroll(600, prefix: "late")
        bench.clock.advance(by: 60)
        try await bench.coordinator.tick()
        try await wait(for: "the next round") { try drawn().count == 2 }
        let both = try drawn()
        #expect(both.allSatisfy { abs($0 - 300) < 80 }, "\(both)")
        for client in late { #expect(try await Bench.assignment(bench.coordinator, client) == nil) }
    }
}

extension Coordinator {
    /// Takes a round's last update and cancels its run before the arithmetic can have ended.
    fileprivate func finishUpdate(
        of assignment: String,
        client: String,
        _ update: ReceivedUpdate,
        andCancel run: String
    ) throws {
        _ = try finishUpdate(assignment: assignment, client: client, update)
        _ = try cancelRun(run)
    }
}
