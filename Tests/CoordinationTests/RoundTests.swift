import Coordination
import Foundation
import Logging
import SQLiteStorage
import StrictJSON
import Synchronization
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

@Suite(.timeLimit(.minutes(10)))
struct RoundTests {
    @Test(arguments: Bench.StoreKind.allCases)
    func aWholeRoundGivesTheWeightedMeanInAnyOrder(_ kind: Bench.StoreKind) async throws {
        var hashes: Set<String> = []
        for order in [[0, 1, 2], [2, 0, 1], [1, 2, 0]] {
            let bench = try await Bench(kind)
            let (run, clients) = try await bench.startRun(try Bench.specification())
            let coordinator = bench.coordinator
            var ids: [String] = []
            for client in clients.prefix(3) {
                ids.append(try #require(try await Bench.assignment(coordinator, client)).id)
            }
            for index in order {
                let receipt = try await Bench.submit(
                    coordinator,
                    clients[index],
                    ids[index],
                    value: Float(index + 1) * 0.1,
                    examples: index + 1
                )
                #expect(receipt.state == .accepted)
            }
            let view = try await Bench.untilSettled(coordinator, run)
            #expect(view.state == .completed)
            // (1·0.1 + 2·0.2 + 3·0.3) / 6, in the sorted layout b, w.
            let expected: [Float] = [1.4 / 6, -1.4 / 6, 2.8 / 6, 0.5]
            for (value, right) in zip(try await Bench.model(coordinator, run), expected) {
                #expect(abs(value - right) < 1e-6)
            }
            hashes.insert(try #require(view.modelSha256))
            // The answer to a retry is the same when the round is long over, also after a restart.
            for again in [coordinator, try await bench.restarted()] {
                let receipt = try await Bench.submit(again, clients[0], ids[0], value: 0.1)
                #expect(receipt.state == .accepted)
            }
            #expect(coordinator.blobs.spoolNames().isEmpty)
        }
        #expect(hashes.count == 1)
    }

    @Test(arguments: Bench.StoreKind.allCases)
    func theSameBytesGetTheSameAnswerAndOthersAreRefused(_ kind: Bench.StoreKind) async throws {
        let bench = try await Bench(kind)
        let (run, clients) = try await bench.startRun(try Bench.specification())
        let id = try #require(try await Bench.assignment(bench.coordinator, clients[0])).id
        let first = try await Bench.submit(bench.coordinator, clients[0], id, value: 1)
        #expect(try await Bench.submit(bench.coordinator, clients[0], id, value: 1) == first)
        await #expect(throws: CoordinationError.self) {
            try await Bench.submit(bench.coordinator, clients[0], id, value: 2)
        }
        #expect(try await bench.coordinator.round(run: run, number: 1).accepted == 1)
        await #expect(throws: CoordinationError.self) {
            try await bench.coordinator.beginUpdate(assignment: id, client: clients[1])
        }
    }

    @Test(arguments: Bench.StoreKind.allCases)
    func aRestartInTheMiddleOfARoundGoesOnToTheSameEnd(_ kind: Bench.StoreKind) async throws {
        var hashes: Set<String> = []
        for restartAfter in 0...2 {
            let bench = try await Bench(kind)
            let (run, clients) = try await bench.startRun(try Bench.specification())
            var coordinator = bench.coordinator
            var ids: [String] = []
            for client in clients.prefix(3) {
                ids.append(try #require(try await Bench.assignment(coordinator, client)).id)
            }
            for index in 0..<3 {
                if index == restartAfter { coordinator = try await bench.restarted() }
                // A client that comes back holds the assignment that it had.
                #expect(try await Bench.assignment(coordinator, clients[index])?.id == ids[index])
                _ = try await Bench.submit(coordinator, clients[index], ids[index], value: Float(index))
            }
            let view = try await Bench.untilSettled(coordinator, run)
            #expect(view.state == .completed)
            hashes.insert(try #require(view.modelSha256))
        }
        #expect(hashes.count == 1)
    }

    /// Kills the server after each single transaction of a run in turn, starts it again, and lets clients retry.
    @Test(.slow) func deathAfterAnyTransactionLeadsToTheSameModel() async throws {
        var hashes: Set<String> = []
        var deaths = 0
        for survivor in 0... {
            let bench = try await Bench(.memory)
            var faulty = FaultyStore(bench.store, commitLimit: .max)
            let (run, clients) = try await bench.startRun(try Bench.specification(rounds: 2), clients: 3)
            var coordinator = try await Bench.start(bench.directory, bench.clock, faulty)
            faulty.dieAfter(commits: survivor)
            var accepted: Set<String> = []
            var patience = Patience("the run to complete after a death after transaction \(survivor)")
            while try await coordinator.run(run).state != .completed {
                do {
                    for (index, client) in clients.enumerated() {
                        guard let work = try await Bench.assignment(coordinator, client) else { continue }
                        let value = Float(index) + Float(work.round)
                        _ = try await Bench.submit(coordinator, client, work.id, value: value)
                        accepted.insert(work.id)
                    }
                    try await bench.passStall(coordinator, run)
                } catch let error as CoordinationError where error.code == "storage_failed" {
                    // The process is gone; its last words reached nobody.
                }
                if faulty.isDead {
                    deaths += 1
                    // What still runs of the dead server never reaches the store again.
                    faulty = FaultyStore(bench.store, commitLimit: .max)
                    coordinator = try await Bench.start(bench.directory, bench.clock, faulty)
                }
                try await patience.pause()
            }
            hashes.insert(try #require(try await coordinator.run(run).modelSha256))
            if survivor > 40 { break }
        }
        #expect(deaths > 10)
        #expect(hashes.count == 1)
    }

    @Test(arguments: Bench.StoreKind.allCases)
    func tooFewUpdatesAbandonTheAttemptAndALateOneIsGone(_ kind: Bench.StoreKind) async throws {
        let bench = try await Bench(kind)
        let (run, clients) = try await bench.startRun(
            try Bench.specification { $0.privacy += ["mode": "central", "noise_multiplier": 1] },
            budget: BudgetSpecification(epsilon: 8, delta: 1e-5)
        )
        let coordinator = bench.coordinator
        let id = try #require(try await Bench.assignment(coordinator, clients[0])).id
        bench.clock.advance(by: 60)
        try await coordinator.tick()
        #expect(
            try await coordinator.run(run).waitingFor.hasPrefix("attempt 2 to open in 1 s; the last one was abandoned")
        )
        bench.clock.advance(by: 1)
        try await coordinator.tick()
        let rounds = try await coordinator.rounds(run: run)
        #expect(rounds.map(\.state) == [.abandoned, .selecting])
        #expect(rounds.map(\.attempt) == [1, 2])
        await #expect(throws: CoordinationError.self) {
            try await Bench.submit(coordinator, clients[0], id, value: 1)
        }
        let ledger = try await coordinator.ledgerRows(population: "p").filter { !$0.runId.isEmpty }
        #expect(ledger.map(\.state) == [.reserved, .released, .reserved])
        // Counted at the assignment: a dropped client is not asked again beyond its cap of one.
        #expect(
            try await coordinator.checkIn(client: clients[0], CheckInRequest(), wait: .zero).reason
                == "participation_limit"
        )
    }

    @Test(arguments: Bench.StoreKind.allCases)
    func aRoundThatWouldOverdrawIsNotOpenedAlsoAfterARestart(_ kind: Bench.StoreKind) async throws {
        let bench = try await Bench(kind)
        let privacy = #", "privacy": {"mode": "central", "noise_multiplier": 1}"#
        // z = 1 costs 4.377 at delta 1e-5; a second run over the same people would bring it to 6.6.
        let (run, clients) = try await bench.startRun(
            try Bench.specification { $0.privacy += ["mode": "central", "noise_multiplier": 1] },
            budget: BudgetSpecification(epsilon: 6, delta: 1e-5)
        )
        for client in clients.prefix(3) {
            let id = try #require(try await Bench.assignment(bench.coordinator, client)).id
            _ = try await Bench.submit(bench.coordinator, client, id, value: 0)
        }
        let view = try await Bench.untilSettled(bench.coordinator, run)
        #expect(abs(try #require(view.epsilon) - 4.37717) < 1e-3)
        let coordinator = try await bench.restarted()
        let second = try await coordinator.createRun(
            try Bench.specification { $0.privacy += ["mode": "central", "noise_multiplier": 1] },
            initialModel: ParameterVector(zeros: Bench.layout)
        )
        do {
            _ = try await coordinator.startRun(second.id)
            Issue.record("the second run was opened")
        } catch let error as CoordinationError {
            #expect(error.code == "budget_exhausted")
        }
        #expect(try await coordinator.run(second.id).state == .failed)
        #expect(try await coordinator.rounds(run: second.id).isEmpty)
        let budget = try #require(try await coordinator.population("p").budget)
        #expect(abs(budget.spentEpsilon - 4.37717) < 1e-3 && budget.reservedEpsilon == 0)
    }

    @Test func noiseIsAddedAndTheDenominatorIsFixed() async throws {
        let bench = try await Bench(.memory)
        // z of 100 with C of 1 over a goal of 4: a standard deviation of 25 a coordinate. That all four of a seeded-free
        // Gaussian stay under 1e-3 has a chance under (4e-5)^4 < 1e-17.
        let (run, clients) = try await bench.startRun(
            try Bench.specification(goal: 4) {
                $0.privacy += ["mode": "central", "noise_multiplier": 100]
            },
            budget: BudgetSpecification(epsilon: 8, delta: 1e-5)
        )
        for client in clients {
            let id = try #require(try await Bench.assignment(bench.coordinator, client)).id
            _ = try await Bench.submit(bench.coordinator, client, id, value: 0)
        }
        _ = try await Bench.untilSettled(bench.coordinator, run)
        #expect(try await Bench.model(bench.coordinator, run).contains { abs($0) > 1e-3 })
    }

    @Test func aBrokenLedgerIsNoticedAtStart() async throws {
        let bench = try await Bench(.memory)
        _ = try await bench.startRun(
            try Bench.specification { $0.privacy += ["mode": "central", "noise_multiplier": 1] },
            budget: BudgetSpecification(epsilon: 8, delta: 1e-5)
        )
        var state = try bench.store.load()
        state.ledger[0].event = state.ledger[0].event.replacing("1", with: "2")
        #expect(throws: CoordinationError.self) { try PrivacyLedger(verifying: state.ledger) }
    }

    @Test func pausingCancellingAndRevokingDoWhatTheySay() async throws {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(try Bench.specification())
        let coordinator = bench.coordinator
        _ = try await coordinator.pauseRun(run)
        #expect(try await Bench.assignment(coordinator, clients[0]) == nil)
        await #expect(throws: CoordinationError.self) { try await coordinator.startRun(run) }
        _ = try await coordinator.resumeRun(run)
        #expect(try await Bench.assignment(coordinator, clients[0]) != nil)
        try await coordinator.revokeClient(clients[1])
        await #expect(throws: CoordinationError.self) { try await Bench.assignment(coordinator, clients[1]) }
        #expect(try await coordinator.cancelRun(run).state == .cancelled)
        #expect(try await coordinator.rounds(run: run).last?.state == .abandoned)
    }

    @Test func storesReadBackWhatWasWritten() async throws {
        let bench = try await Bench(.sqlite)
        let (run, _) = try await bench.startRun(try Bench.specification())
        let path = bench.directory.path + "/martlet.sqlite"
        let (left, right) = (try bench.store.load(), try SQLiteRunStore(path: path).load())
        #expect(left.runs == right.runs && left.rounds == right.rounds && left.clients == right.clients)
        #expect(left.tokens == right.tokens && left.tokens.count == 5)
        #expect(
            try bench.store.history(run: run, round: 1, assignments: false, from: 0, limit: .max).map(\.state) == [
                "selecting"
            ]
        )
    }

    @Test func cancellingWhileTheSumIsMadePublishesNothing() async throws {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(
            try Bench.timedSpecification {
                $0.cohort += ["goal": 1, "minimum": 1]
                $0.privacy += ["mode": "central", "noise_multiplier": 1]
            },
            budget: BudgetSpecification(epsilon: 8, delta: 1e-5),
            clients: 1
        )
        let id = try #require(try await Bench.assignment(bench.coordinator, clients[0])).id
        _ = try await Bench.submit(bench.coordinator, clients[0], id, value: 1)
        // The arithmetic reports to the actor: either it was first, or the run is cancelled before.
        let view = try await bench.coordinator.cancelRun(run)
        _ = try await Bench.untilSettled(bench.coordinator, run)
        #expect(view.state == .cancelled)
        let state = try await bench.coordinator.round(run: run, number: 1).state
        let ledger = try await bench.coordinator.ledgerRows(population: "p").filter { $0.runId == run }.map(\.state)
        // Nothing that may have been noised is ever given back.
        #expect(ledger.prefix(2) == [.reserved, .committed])
        #expect(try await bench.coordinator.models(run: run).count == (state == .committed ? 2 : 1))
    }
}

/// A store that stops writing after some transactions, as a killed process does.
final class FaultyStore: ForwardingRunStore {
    let inner: any RunStore
    private let remaining: Mutex<Int>

    init(_ inner: any RunStore, commitLimit: Int) {
        self.inner = inner
        remaining = Mutex(commitLimit)
    }

    var isDead: Bool { remaining.withLock { $0 <= 0 } }
    func dieAfter(commits: Int) { remaining.withLock { $0 = commits } }

    func commit(_ changes: [StoreChange]) throws {
        let allowed = remaining.withLock { left in
            defer { left -= 1 }
            return left > 0
        }
        guard allowed else { throw CoordinationError(.unavailable, "storage_failed", "dead") }
        try inner.commit(changes)
    }
}

extension InMemoryRunStore {
    /// A store that holds a whole state, as one that was restored from a backup does.
    convenience init(restoring state: StoredState) throws {
        self.init()
        try commit(
            state.populations.map { .population($0) } + state.tokens.map { .token($0) }
                + state.clients.map { .client($0) } + state.runs.map { .run($0) } + state.rounds.map { .round($0) }
                + state.assignments.map { .assignment($0) } + state.modelVersions.map { .modelVersion($0) }
                + state.ledger.map { .ledger($0) }
        )
    }
}
