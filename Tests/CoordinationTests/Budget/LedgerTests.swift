import Coordination
import DifferentialPrivacy
import Foundation
import Logging
import StrictJSON
import Synchronization
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

@Suite(.timeLimit(.minutes(10)))
struct LedgerTests {
    private static let privacy = #", "privacy": {"mode": "central", "noise_multiplier": 1}"#

    /// A run of `rounds` private rounds of two clients, played to its end.
    private func play(_ bench: Bench, _ coordinator: Coordinator, run: String, clients: [String]) async throws {
        var patience = Patience("the end of the run")
        while try await coordinator.run(run).state == .running {
            for client in clients {
                guard let work = try await Bench.assignment(coordinator, client) else { continue }
                _ = try await Bench.submit(coordinator, client, work.id, value: 0)
            }
            _ = try await Bench.untilSettled(coordinator, run)
            try await patience.pause()
        }
    }

    private static func specification(rounds: Int, cap: Int, z: Double = 1) throws -> RunSpecification {
        try RunSpecification.sample {
            $0 += ["rounds": rounds]
            $0.cohort += ["goal": 2, "minimum": 2, "over_selection": 1, "max_participations": cap]
            $0.privacy += ["mode": "central", "noise_multiplier": z]
        }
    }

    @Test func theBudgetIsTheLedgersFirstRowAndItsChangesStayThere() async throws {
        let bench = try await Bench(.sqlite)
        let coordinator = bench.coordinator
        _ = try await coordinator.createPopulation(
            PopulationRequest(name: "p", budget: BudgetSpecification(epsilon: 8, delta: 1e-5))
        )
        #expect(try await coordinator.changeBudget(population: "p", .init(epsilon: 4)).budget?.epsilon == 4)
        do {
            _ = try await coordinator.changeBudget(population: "p", .init(epsilon: 6))
            Issue.record("the budget was raised without a reason")
        } catch let error as CoordinationError {
            #expect(error.code == "reason_required")
        }
        _ = try await coordinator.changeBudget(population: "p", .init(epsilon: 6, reason: "the board agreed"))
        let again = try await bench.restarted()
        let rows = try await again.ledgerRows(population: "p")
        #expect(rows.count == 3 && rows.allSatisfy { $0.runId.isEmpty && $0.state == .committed })
        #expect(rows[2].event.contains("the board agreed") && rows[2].event.contains(#""previousEpsilon":4"#))
        #expect(try await again.population("p").budget?.epsilon == 6)
    }

    @Test func anEditedBudgetAnUnknownEventAndAWrongTotalFailClosed() async throws {
        let bench = try await Bench(.memory)
        _ = try await bench.startRun(
            try Self.specification(rounds: 1, cap: 1),
            budget: BudgetSpecification(epsilon: 8, delta: 1e-5)
        )
        func start(_ edit: @escaping @Sendable (inout StoredState) -> Void) async throws -> String? {
            do {
                _ = try await Bench.start(bench.directory, bench.clock, EditedStore(bench.store, edit))
                return nil
            } catch let error as CoordinationError {
                return error.code
            }
        }
        #expect(try await start { _ in } == nil)
        #expect(try await start { $0.populations[0].budgetEpsilon = 80 } == "ledger_broken")
        #expect(try await start { $0.ledger[1].epsilonAfter += 1e-6 } == "ledger_broken")
        #expect(
            try await start { $0.ledger[1].event = $0.ledger[1].event.replacing("1", with: "2") } == "ledger_broken"
        )
        #expect(
            try await start { state in
                // An event of a later version, with a hash that fits.
                state.ledger[1].event = state.ledger[1].event.replacing("gaussian", with: "oracle")
                state.ledger[1].rowHash = PrivacyLedger.hash(state.ledger[1])
            } == "ledger_broken"
        )
        #expect(try await start { $0.ledger.remove(at: 0) } == "ledger_broken")
    }

    @Test func aRestoredOldDatabaseStopsPrivateRoundsUntilItIsAcknowledged() async throws {
        let bench = try await Bench(.memory)
        let budget = BudgetSpecification(epsilon: 20, delta: 1e-5)
        let (run, clients) = try await bench.startRun(
            try Self.specification(rounds: 4, cap: 4),
            budget: budget,
            clients: 2
        )
        var backup = StoredState()
        var spent = 0.0
        var patience = Patience("the end of the run")
        while try await bench.coordinator.run(run).state == .running {
            for client in clients {
                guard let work = try await Bench.assignment(bench.coordinator, client) else { continue }
                _ = try await Bench.submit(bench.coordinator, client, work.id, value: 0)
            }
            if try await Bench.untilSettled(bench.coordinator, run).committedRounds == 1 {
                backup = try bench.store.load()
            }
            spent = try #require(try await bench.coordinator.population("p").budget).spentEpsilon
            try await patience.pause()
        }
        let restored = try await rolledBack(bench, to: backup)
        let second = try await restored.createRun(
            try Self.specification(rounds: 1, cap: 1),
            initialModel: ParameterVector(zeros: Bench.layout)
        ).id
        do {
            _ = try await restored.startRun(second)
            Issue.record("a private round opened on a rolled-back ledger")
        } catch let error as CoordinationError {
            #expect(error.code == "ledger_rolled_back")
        }
        #expect(try await restored.run(second).state == .created)
        #expect(try await restored.acknowledgeRollback(reason: "the disk failed").alarm == nil)
        let status = try #require(try await restored.population("p").budget)
        // The open round of the backup is charged beside all that was published before.
        #expect(status.spentEpsilon + status.reservedEpsilon >= spent - 1e-9)
        #expect(try await restored.startRun(second).state == .running)
        await #expect(throws: CoordinationError.self) { try await restored.acknowledgeRollback(reason: "again") }
    }

    /// A server on the state of a backup that is older than the ledger's head.
    private func rolledBack(_ bench: Bench, to backup: StoredState) async throws -> Coordinator {
        let restored = try await Bench.start(
            bench.directory,
            bench.clock,
            EditedStore(InMemoryRunStore()) { $0 = backup }
        )
        #expect(try #require(await restored.ledgerState().alarm).contains("old backup"))
        return restored
    }

    /// Rows of correlated noise that the restored database does not know of are used: the mechanism has ended.
    @Test func aRollBackEndsARunWithCorrelatedNoise() async throws {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(
            try RunSpecification.sample {
                $0.rounds = 4
                $0.cohort += [
                    "goal": 1, "minimum": 1, "over_selection": 1, "max_participations": 2, "min_separation_rounds": 2,
                ]
                $0.privacy += ["mode": "central", "mechanism": "banded_matrix", "noise_multiplier": 2]
            },
            budget: BudgetSpecification(epsilon: 50, delta: 1e-5),
            clients: 2
        )
        var backup = StoredState()
        for round in 1...3 {
            let work = try #require(try await Bench.assignment(bench.coordinator, clients[round % 2]))
            _ = try await Bench.submit(bench.coordinator, clients[round % 2], work.id, value: 0)
            #expect(try await Bench.untilSettled(bench.coordinator, run).committedRounds == round)
            if round == 1 { backup = try bench.store.load() }
        }
        let spent = try #require(try await bench.coordinator.population("p").budget).spentEpsilon
        let restored = try await rolledBack(bench, to: backup)
        #expect(try await restored.acknowledgeRollback(reason: "the disk failed").alarm == nil)
        let view = try await restored.run(run)
        #expect(view.state == .failed && view.reason == "noise_state_lost" && view.committedRounds == 1)
        await #expect(throws: CoordinationError.self) { try await restored.resumeRun(run) }
        #expect(try await Bench.assignment(restored, clients[0]) == nil)
        let status = try #require(try await restored.population("p").budget)
        #expect(status.spentEpsilon >= spent && status.reservedEpsilon == 0)
        let audit = try LedgerAudit(WireCoding.encode(await restored.ledgerAudit(population: "p")))
        #expect(audit.problems.isEmpty && audit.committed >= 3, "\(audit.problems)")
    }

    /// The restored server has forgotten who took part in what was lost: one client may be in both.
    @Test func whatComesBackAfterARollbackHasACapOfItsOwn() throws {
        var charge = PrivacyCharge(mode: .central, noiseMultiplier: 1, participationCap: 1, parameterCount: 4)
        func epsilon(_ round: Int) throws -> Double {
            var ledger = PrivacyLedger()
            let time = Date(timeIntervalSince1970: 1)
            func add(_ round: Int, _ state: ChargeState) throws {
                _ = try ledger.append(
                    population: "p",
                    run: "r",
                    round: round,
                    attempt: 1,
                    state: state,
                    event: charge.canonical,
                    epsilonAfter: 0,
                    at: time
                )
            }
            charge.count = nil
            for state in [ChargeState.reserved, .committed] { try add(1, state) }
            charge.count = round == 0 ? 3 : nil
            for state in round == 0 ? [ChargeState.committed] : [.reserved, .committed] { try add(round, state) }
            charge.count = nil
            let releases = try ledger.releases(population: "p", run: "r", charge: charge)
            return try BudgetArithmetic.epsilon(of: releases, delta: 1e-5, accountant: .gaussian)
        }
        // Rounds of one run share the cap of 1; what came back adds its own: as two releases, 1/z² = 2.
        #expect(abs(try epsilon(2) - GaussianAccountant.epsilon(delta: 1e-5, noiseMultiplier: 1)) < 1e-6)
        let twice = GaussianAccountant.epsilon(delta: 1e-5, noiseMultiplier: (1 / 2.0).squareRoot())
        #expect(abs(try epsilon(0) - twice) < 1e-6)
    }

    /// The integer noise's own error once ended this run after eleven rounds, with an epsilon of infinity.
    @Test func aLargeBudgetIsNotEndedByTheErrorOfTheNoise() async throws {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(
            try RunSpecification.sample {
                $0.rounds = 40
                $0.cohort += ["goal": 2, "minimum": 2, "over_selection": 1, "max_participations": 40]
                $0.privacy += ["mode": "central", "noise_multiplier": 1]
            },
            budget: BudgetSpecification(epsilon: 900, delta: 1e-5),
            clients: 2
        )
        try await play(bench, bench.coordinator, run: run, clients: clients)
        let view = try await bench.coordinator.run(run)
        #expect(view.state == .completed && view.committedRounds == 40, "\(view)")
        let spent = try #require(try await bench.coordinator.population("p").budget?.spentEpsilon)
        // Forty releases of z = 1 to one client: at least what the exact Gaussian says.
        let exact = GaussianAccountant.epsilon(delta: 1e-5, noiseMultiplier: (1 / 40.0).squareRoot())
        #expect(spent.isFinite && spent >= exact * (1 - 1e-9), "\(spent), \(exact)")
    }

    @Test func aBackupWithoutASecondRecordWaitsForAnAcknowledgement() async throws {
        let bench = try await Bench(.memory)
        let (run, _) = try await bench.startRun(
            try Self.specification(rounds: 2, cap: 2),
            budget: BudgetSpecification(epsilon: 20, delta: 1e-5),
            clients: 2
        )
        try FileManager.default.removeItem(atPath: bench.directory.path + "/ledger.head")
        try Data("{}".utf8).write(to: URL(fileURLWithPath: bench.directory.path + "/restored.json"))
        let restored = try await bench.restarted()
        #expect(try #require(await restored.ledgerState().alarm).contains("was made of a backup"))
        #expect(try await restored.acknowledgeRollback(reason: "nothing was spent").alarm == nil)
        // From here on there is a record again.
        #expect(try await bench.restarted().ledgerState().alarm == nil)
        #expect(try await restored.run(run).state == .running)
    }

    /// A record of before the backup agrees with it and says nothing of what came after.
    @Test func aRecordThatIsOlderThanTheRestoredBackupIsNotBelieved() async throws {
        let bench = try await Bench(.memory)
        let (path, note) = (bench.directory.path + "/ledger.head", bench.directory.path + "/restored.json")
        let old = try Data(contentsOf: URL(fileURLWithPath: path))
        _ = try await bench.startRun(
            try Self.specification(rounds: 2, cap: 2),
            budget: BudgetSpecification(epsilon: 20, delta: 1e-5),
            clients: 2
        )
        let rows = try await bench.coordinator.ledgerState().rows
        try #require(rows > 1)
        try old.write(to: URL(fileURLWithPath: path))
        try Data("{\"ledger_rows\": \(rows)}".utf8).write(to: URL(fileURLWithPath: note))
        let restored = try await bench.restarted()
        #expect(try #require(await restored.ledgerState().alarm).contains("older than that"))
        #expect(try await restored.acknowledgeRollback(reason: "nothing was spent").alarm == nil)
        #expect(try await bench.restarted().ledgerState().alarm == nil)
        // What is behind a ledger that has grown since is what a stop leaves.
        try Data("{\"ledger_rows\": \(rows - 1)}".utf8).write(to: URL(fileURLWithPath: note))
        let kept = try Data(contentsOf: URL(fileURLWithPath: path))
        _ = try await restored.changeBudget(population: "p", .init(epsilon: 19))
        try kept.write(to: URL(fileURLWithPath: path))
        #expect(try await bench.restarted().ledgerState().alarm == nil)
    }

    @Test func deltaHasToBeLessThanTheShareOfOneClient() async throws {
        let bench = try await Bench(.memory)
        do {
            _ = try await bench.startRun(
                try Self.specification(rounds: 1, cap: 1),
                budget: BudgetSpecification(epsilon: 8, delta: 0.1),
                clients: 12
            )
            Issue.record("a delta of more than 1/N was accepted")
        } catch let error as CoordinationError {
            #expect(error.code == "delta_too_large")
            #expect(error.message.contains("1/12"))
        }
    }

    @Test func anOutsiderFindsTheSameTotalsAndEveryEdit() async throws {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(
            try Self.specification(rounds: 3, cap: 3, z: 2),
            budget: BudgetSpecification(epsilon: 20, delta: 1e-5),
            clients: 2
        )
        _ = try await bench.coordinator.createPopulation(
            PopulationRequest(name: "q", budget: BudgetSpecification(epsilon: 1, delta: 1e-6))
        )
        try await play(bench, bench.coordinator, run: run, clients: clients)
        let document = try await bench.coordinator.ledgerAudit(population: "p")
        #expect(document.participations == [run: ["3": 2]])
        #expect(document.rows.filter { $0.event == nil }.count == 1)
        let data = try WireCoding.encode(document)
        let audit = try LedgerAudit(data)
        #expect(audit.problems.isEmpty)
        #expect(audit.committed == 3 && audit.reserved == 0 && audit.released == 0)
        #expect(audit.epsilons.map(\.accountant) == [.gaussian, .pld, .rdp])
        let exact = try #require(audit.epsilons.first).spent
        #expect(abs(exact - document.spentEpsilon) < 1e-9)
        #expect(abs(exact - GaussianAccountant.epsilon(delta: 1e-5, noiseMultiplier: 2 / 3.0.squareRoot())) < 1e-3)
        #expect(audit.epsilons[2].spent > exact)

        func problems(_ edit: (inout LedgerAuditDocument) -> Void) throws -> [String] {
            var copy = document
            edit(&copy)
            return try LedgerAudit(WireCoding.encode(copy)).problems
        }
        let row = try #require(document.rows.firstIndex { $0.state == "committed" && $0.runId == run })
        #expect(try problems { $0.rows[row].state = "released" }.contains { $0.contains("edited") })
        #expect(try problems { $0.rows[row].event = $0.rows[row].event?.replacing("2", with: "9") }.count >= 2)
        #expect(try problems { $0.rows.remove(at: row) }.contains { $0.contains("missing") })
        #expect(try problems { $0.spentEpsilon = 0.1 }.contains { $0.contains("is spent") })
        #expect(try problems { $0.budget.epsilon = 100 }.contains { $0.contains("budget") })
        #expect(try problems { $0.rows.removeLast() }.contains { $0.contains("head") })
        #expect(throws: CoordinationError.self) { try LedgerAudit(Data("{}".utf8)) }
    }

    @Test func aProjectionIsWhatTheLedgerWillSay() async throws {
        let bench = try await Bench(.memory)
        let specification = try Self.specification(rounds: 3, cap: 2, z: 2)
        let (run, clients) = try await bench.startRun(
            specification,
            budget: BudgetSpecification(epsilon: 20, delta: 1e-5),
            clients: 4
        )
        let before = try PrivacyProjection(of: specification, parameterCount: 4, delta: 1e-5, budget: 20)
        try await play(bench, bench.coordinator, run: run, clients: clients)
        let status = try #require(try await bench.coordinator.population("p").budget)
        #expect(abs(before.epsilon - status.spentEpsilon) < 1e-9)
        #expect(before.roundsThatFit == 3 && before.participations == 2)
        #expect(abs(before.noiseOfMean - 1) < 1e-12)
        let after = try await bench.coordinator.projection(of: specification, parameterCount: 4)
        let four = GaussianAccountant.epsilon(delta: 1e-5, noiseMultiplier: 1)
        #expect(abs(try #require(after.populationEpsilon) - four) < 1e-3)
    }
}

/// A store that gives an edited state at the next start.
final class EditedStore: ForwardingRunStore {
    let inner: any RunStore
    private let edit: @Sendable (inout StoredState) -> Void

    init(_ inner: any RunStore, _ edit: @escaping @Sendable (inout StoredState) -> Void) {
        self.inner = inner
        self.edit = edit
    }

    func load() throws -> StoredState {
        var state = try inner.load()
        edit(&state)
        return state
    }
}
