import DifferentialPrivacy
import Foundation
import Logging
import StrictJSON
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

@testable import Coordination

/// What an open attempt costs where another server may have gone on with it: this database may be older than what was published, and
/// knows nothing of who took part there.
@Suite(.timeLimit(.minutes(10)))
struct DoubtfulAttemptTests {
    /// A run in mode `amplified` has no cap: each client may be drawn in every round.
    private static func specification(
        _ mode: String,
        goal: Int = 2,
        cap: Int,
        rounds: Int = 4
    ) throws -> RunSpecification {
        guard mode == "amplified" else {
            return try Bench.exactSpecification(rounds: rounds) {
                $0.cohort += ["goal": goal, "minimum": 1, "max_participations": cap]
                $0.privacy += ["mode": mode, "noise_multiplier": 4]
            }
        }
        return try RunSpecification.sample {
            $0 += ["rounds": rounds]
            $0.cohort += ["goal": goal, "policy": "poisson", "sampling_rate": 0.5]
            $0.privacy += ["mode": "central", "noise_multiplier": 4, "amplification": "poisson"]
        }
    }

    /// Why it is not known whether this database is the newest one.
    enum Doubt: String, CaseIterable, Sendable { case ahead, missing, unread, lostUpdates }

    /// Who ends the attempt.
    enum Ending: String, CaseIterable, Sendable { case cancelled, budgetLowered, failed }

    private func record(_ bench: Bench) -> String { bench.directory.path + "/ledger.head" }

    private func doubt(_ bench: Bench, _ doubt: Doubt) throws {
        let path = record(bench)
        switch doubt {
        case .ahead:
            var head = try #require(try LedgerHead.read(path: path))
            head.sequence += 3
            try head.write(path: path)
        case .missing: try FileManager.default.removeItem(atPath: path)
        case .unread:
            try FileManager.default.moveItem(atPath: path, toPath: path + ".away")
            try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
        case .lostUpdates: break
        }
    }

    private func rows(_ coordinator: Coordinator, _ run: String) async throws -> [LedgerRow] {
        try await coordinator.ledgerRows(population: "p").filter { $0.runId == run }
    }

    private func end(_ coordinator: Coordinator, _ run: String, _ ending: Ending) async throws {
        switch ending {
        case .cancelled: _ = try await coordinator.cancelRun(run)
        case .budgetLowered: _ = try await coordinator.changeBudget(population: "p", .init(epsilon: 0.01))
        case .failed:
            try await coordinator.perform { try $0.drive(run: run, .failed(code: "method_withdrawn", cause: "a test")) }
        }
    }

    /// Nobody was given work before the copy was made: in mode `local`, too, the server that is gone may have gone on.
    @Test(.slow, arguments: Doubt.allCases, Ending.allCases)
    func noEndingRefundsWhatAnotherServerMayHavePublished(_ doubt: Doubt, _ ending: Ending) async throws {
        for mode in ["local", "central", "amplified"] {
            // Small transforms, so that a build for tests is done in time.
            try await ComposedLoss.$cellLimit.withValue(1 << 12) { () async throws in
                try await judge(doubt, ending, mode)
            }
        }
    }

    private func judge(_ doubt: Doubt, _ ending: Ending, _ mode: String) async throws {
        let cap = mode == "amplified" ? 0 : 3
        let bench = try await Bench(.memory)
        let (run, _) = try await bench.startRun(
            try Self.specification(mode, cap: cap),
            budget: BudgetSpecification(epsilon: 50, delta: 1e-5),
            clients: 2
        )
        try self.doubt(bench, doubt)
        let restored = try await bench.restarted()
        if doubt == .lostUpdates {
            try await restored.perform { coordinator in
                let round = try #require(coordinator.runs[run]?.round)
                coordinator.budgets.trust.attemptsWithLostUpdates.insert(ChargedAttempt(round))
            }
        } else {
            #expect(await restored.ledgerRecordState == (doubt == .unread ? "unread" : "alarm"))
        }
        try await end(restored, run, ending)
        let rows = try await rows(restored, run)
        let name = "\(mode), cap \(cap)"
        // Without a cap each release counts as it is; under one it could be lost.
        #expect(
            rows.map(\.state)
                == (cap == 0 ? [.reserved, .committed] : [.reserved, .released, .committed]),
            "\(name)"
        )
        #expect(cap == 0 || rows.last?.round == 0, "\(name)")
        let population = try #require(await restored.populations.order.first)
        #expect(await restored.budgets.ledger.account(population).count == 1, "\(name)")
        // What was written holds for the next start and for an auditor.
        if doubt == .lostUpdates { _ = try await bench.restarted() }
        let audit = try LedgerAudit(WireCoding.encode(await restored.ledgerAudit(population: "p")))
        #expect(
            audit.problems.allSatisfy { $0.contains("more than the budget") } && audit.committed == 1,
            "\(name): \(audit.problems)"
        )
    }

    /// A device whose client is revoked may have drawn its noise, and may be sending: it gave nothing back.
    @Test(arguments: ["revoked", "kept"])
    func whatWasHandedOutInModeLocalStaysCharged(_ fate: String) async throws {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(
            try Self.specification("local", cap: 3),
            budget: BudgetSpecification(epsilon: 50, delta: 1e-5),
            clients: 2
        )
        _ = try #require(try await Bench.assignment(bench.coordinator, clients[0]))
        if fate == "revoked" { try await bench.coordinator.revokeClient(clients[0]) }
        _ = try await bench.coordinator.cancelRun(run)
        #expect(try await rows(bench.coordinator, run).map(\.state) == [.reserved, .committed])
    }

    /// Without a doubt an attempt that gave nothing away costs nothing.
    @Test(arguments: Ending.allCases)
    func anAttemptOfTheOnlyServerIsRefunded(_ ending: Ending) async throws {
        let bench = try await Bench(.memory)
        let (run, _) = try await bench.startRun(
            try Self.specification("central", cap: 3),
            budget: BudgetSpecification(epsilon: 50, delta: 1e-5),
            clients: 2
        )
        let restarted = try await bench.restarted()
        try await end(restarted, run, ending)
        #expect(try await rows(restarted, run).map(\.state) == [.reserved, .released])
    }

    private func play(_ coordinator: Coordinator, _ run: String, _ client: String) async throws {
        let before = try await coordinator.run(run).committedRounds
        let work = try #require(try await Bench.assignment(coordinator, client))
        _ = try await Bench.submit(coordinator, client, work.id, value: 0)
        #expect(try await Bench.untilSettled(coordinator, run).committedRounds == before + 1)
    }

    /// The record agrees with the backup, and one client takes part in the open round there and again here: its cap lets a commit under
    /// the run's plan cost nothing.
    @Test(arguments: ["local", "central"])
    func aClientThatTakesPartOnBothServersIsChargedForBoth(_ mode: String) async throws {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(
            try Self.specification(mode, goal: 1, cap: 1, rounds: 6),
            budget: BudgetSpecification(epsilon: 50, delta: 1e-5),
            clients: 3
        )
        try await play(bench.coordinator, run, clients[0])
        try await play(bench.coordinator, run, clients[1])
        let (backup, head) = (try bench.store.load(), try Data(contentsOf: URL(fileURLWithPath: record(bench))))
        // After the backup. In mode `local` what the device sends is the release; in `central` the round is published, and the record
        // of that could not be written.
        let work = try #require(try await Bench.assignment(bench.coordinator, clients[2]))
        if mode == "central" {
            _ = try await Bench.submit(bench.coordinator, clients[2], work.id, value: 0)
            #expect(try await Bench.untilSettled(bench.coordinator, run).committedRounds == 3)
        }
        try head.write(to: URL(fileURLWithPath: record(bench)))
        try Data("{}".utf8).write(to: URL(fileURLWithPath: bench.directory.path + "/restored.json"))

        let restored = try await Bench.start(bench.directory, bench.clock, try InMemoryRunStore(restoring: backup))
        #expect(await restored.ledgerState().alarm == nil)
        bench.clock.advance(by: 10)
        try await restored.tick()
        try await play(restored, run, clients[2])
        let spent = try #require(try await restored.population("p").budget).spentEpsilon
        let both = GaussianAccountant.epsilon(delta: 1e-5, noiseMultiplier: (16.0 / 2).squareRoot())
        #expect(spent >= both * (1 - 1e-9) && spent < both * 1.01, "\(spent), two releases cost \(both)")
        let audit = try LedgerAudit(WireCoding.encode(await restored.ledgerAudit(population: "p")))
        #expect(audit.problems.isEmpty, "\(audit.problems)")
    }

    /// The third round was published by the server that is gone, and an operator ends it here before the alarm is acknowledged.
    @Test func whatIsCancelledUnderAnAlarmIsChargedForClientsThatComeBack() async throws {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(
            try Self.specification("central", goal: 1, cap: 1, rounds: 6),
            budget: BudgetSpecification(epsilon: 50, delta: 1e-5),
            clients: 3
        )
        try await play(bench.coordinator, run, clients[0])
        try await play(bench.coordinator, run, clients[1])
        let backup = try bench.store.load()
        try await play(bench.coordinator, run, clients[2])
        try FileManager.default.removeItem(atPath: record(bench))
        try Data("{}".utf8).write(to: URL(fileURLWithPath: bench.directory.path + "/restored.json"))
        let restored = try await Bench.start(bench.directory, bench.clock, try InMemoryRunStore(restoring: backup))
        #expect(await restored.ledgerState().alarm != nil)
        _ = try await restored.changeBudget(population: "p", .init(epsilon: 0.01))
        _ = try await restored.acknowledgeRollback(reason: "a test")
        let spent = try #require(try await restored.population("p").budget).spentEpsilon
        let both = GaussianAccountant.epsilon(delta: 1e-5, noiseMultiplier: (16.0 / 2).squareRoot())
        #expect(spent >= both * (1 - 1e-9), "\(spent), two releases cost \(both)")
    }
}
