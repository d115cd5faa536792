import Coordination
import DifferentialPrivacy
import Foundation
import Logging
import Synchronization
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

/// What a disk refuses delays a round, and costs nobody anything.
@Suite(.timeLimit(.minutes(10)))
struct FailingDiskTests {
    private static let privacy: RunFile = ["mode": "central", "noise_multiplier": 8]

    /// A run of one round with all updates accepted, whose result cannot be written: a directory lies in its place.
    private func blocked(
        _ bench: Bench,
        _ privacy: RunFile,
        budget: BudgetSpecification? = nil
    ) async throws -> (run: String, ids: [String], obstacle: String) {
        let (run, clients) = try await bench.startRun(
            try Bench.specification(goal: 2) { $0.privacy = privacy },
            budget: budget,
            clients: 2
        )
        let obstacle = bench.directory.path + "/spool/\(run)-1-1.result"
        try FileManager.default.createDirectory(atPath: obstacle + "/x", withIntermediateDirectories: true)
        var ids: [String] = []
        for client in clients {
            ids.append(try #require(try await Bench.assignment(bench.coordinator, client)).id)
        }
        for (client, id) in zip(clients, ids) {
            _ = try await Bench.submit(bench.coordinator, client, id, value: 0.25)
        }
        try await wait(for: "the first try") {
            try await bench.coordinator.run(run).waitingFor.contains("the disk")
        }
        return (run, ids, obstacle)
    }

    @Test(arguments: [false, true])
    func aResultThatCannotBeWrittenWaitsWithAllThatWasAcknowledged(_ isPrivate: Bool) async throws {
        let bench = try await Bench(.memory)
        let (run, ids, obstacle) = try await blocked(
            bench,
            isPrivate ? Self.privacy : [:],
            budget: isPrivate ? BudgetSpecification(epsilon: 8, delta: 1e-5) : nil
        )
        let coordinator = bench.coordinator
        // Longer pauses each time, and nothing is given up.
        for seconds in [2.0, 3, 5, 9, 17, 33] {
            bench.clock.advance(by: seconds)
            try await coordinator.tick()
            let round = try await coordinator.round(run: run, number: 1)
            #expect(round.state == .aggregating && round.accepted == 2)
            try await wait(for: "the next try") {
                try await coordinator.run(run).waitingFor.contains("tried again in")
            }
        }
        let problems = try await coordinator.overview(role: .viewer).problems.map(\.code)
        #expect(problems.contains("round_waits_for_disk") && problems.contains("storage_failed"), "\(problems)")
        #expect(await coordinator.metricsExposition().contains("martlet_rounds_stalled 1"))
        try FileManager.default.removeItem(atPath: obstacle)
        try await wait(for: "the end of the run") {
            // A try that was under way when the obstacle went has failed too.
            bench.clock.advance(by: 61)
            try await coordinator.tick()
            return try await coordinator.run(run).state == .completed
        }
        let rounds = try await coordinator.rounds(run: run)
        #expect(rounds.map(\.state) == [.committed] && rounds[0].attempt == 1)
        for id in ids { #expect(try bench.store.assignment(id)?.state == .accepted) }
        if isPrivate {
            let rows = try await coordinator.ledgerRows(population: "p").filter { !$0.runId.isEmpty }.map(\.state)
            #expect(rows == [.reserved, .committed])
        }
        #expect(
            try await coordinator.overview(role: .viewer).problems.allSatisfy { $0.code != "round_waits_for_disk" }
        )
    }

    /// However often the result has to be written again, it has the noise of one release.
    @Test func theNoiseOfAnAttemptIsDrawnOnce() async throws {
        let bench = try await Bench(.memory)
        let draws = Mutex(0)
        var configuration = CoordinatorConfiguration(dataDirectory: bench.directory.path)
        configuration.now = { [clock = bench.clock] in clock.now }
        configuration.drawNoiseKey = { _, _ in
            draws.withLock { $0 += 1 }
            return NoiseKey()
        }
        let (run, clients) = try await bench.startRun(
            try Bench.specification(goal: 1) { $0.privacy = Self.privacy },
            budget: BudgetSpecification(epsilon: 8, delta: 1e-5),
            clients: 1
        )
        let coordinator = try await Coordinator(
            configuration: configuration,
            store: bench.store,
            logger: Logger(label: "test")
        )
        let obstacle = bench.directory.path + "/spool/\(run)-1-1.result"
        try FileManager.default.createDirectory(atPath: obstacle + "/x", withIntermediateDirectories: true)
        let id = try #require(try await Bench.assignment(coordinator, clients[0])).id
        _ = try await Bench.submit(coordinator, clients[0], id, value: 0.25)
        for _ in 0..<4 {
            try await wait(for: "a try") { try await coordinator.run(run).waitingFor.contains("tried again in") }
            bench.clock.advance(by: 61)
            try await coordinator.tick()
        }
        try FileManager.default.removeItem(atPath: obstacle)
        try await wait(for: "the end of the run") {
            // A try that was under way when the obstacle went has failed too.
            bench.clock.advance(by: 61)
            try await coordinator.tick()
            return try await coordinator.run(run).state == .completed
        }
        #expect(draws.withLock { $0 } == 1)
    }

    /// What is in a file is no question of the disk: such an attempt ends, and with privacy its charge stays.
    @Test func contentsThatAreWrongEndTheAttemptAndKeepItsCharge() async throws {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(
            try Bench.specification(goal: 2) { $0.privacy = Self.privacy },
            budget: BudgetSpecification(epsilon: 8, delta: 1e-5),
            clients: 2
        )
        let coordinator = bench.coordinator
        let first = try #require(try await Bench.assignment(coordinator, clients[0])).id
        let second = try #require(try await Bench.assignment(coordinator, clients[1])).id
        _ = try await Bench.submit(coordinator, clients[0], first, value: 0.25)
        try Data("no update".utf8).write(to: URL(fileURLWithPath: bench.directory.path + "/spool/\(first).update"))
        _ = try await Bench.submit(coordinator, clients[1], second, value: 0.25)
        try await wait(for: "the end of the attempt") {
            try await coordinator.rounds(run: run).first?.state == .abandoned
        }
        let reason = try #require(try await coordinator.rounds(run: run)[0].reason)
        #expect(reason.contains("not what was accepted") && !reason.contains("/") && !reason.contains("("), "\(reason)")
        let rows = try await coordinator.ledgerRows(population: "p").filter { $0.round == 1 && $0.attempt == 1 }
        #expect(rows.map(\.state) == [.reserved, .committed])
    }

    // MARK: - Transactions

    /// A store whose transactions are stored although it says that they failed, and which cannot be asked at first.
    private final class LyingStore: ForwardingRunStore {
        let inner: any RunStore
        private let state = Mutex((lies: 0, silence: 0, isDoubtful: false))

        init(_ inner: any RunStore) { self.inner = inner }

        func lie(times: Int, silence: Int) { state.withLock { $0 = (times, silence, false) } }

        func commit(_ changes: [StoreChange]) throws {
            try inner.commit(changes)
            let lies = state.withLock { state in
                guard state.lies > 0 else { return false }
                state.lies -= 1
                state.isDoubtful = true
                return true
            }
            if lies { throw StoreFailure(.refused, detail: "sync", code: EIO) }
        }

        func wasLastCommitStored() throws -> Bool {
            try state.withLock { state in
                if state.silence > 0 {
                    state.silence -= 1
                    throw StoreFailure(.refused, detail: "closed", code: EIO)
                }
                defer { state.isDoubtful = false }
                return state.isDoubtful
            }
        }
    }

    @Test func aTransactionThatFailedAndIsStoredIsAnsweredAsStored() async throws {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(try Bench.specification(goal: 2), clients: 2)
        let store = LyingStore(bench.store)
        let coordinator = try await Bench.start(bench.directory, bench.clock, store)
        let id = try #require(try await Bench.assignment(coordinator, clients[0])).id
        store.lie(times: 1, silence: 0)
        _ = try await Bench.submit(coordinator, clients[0], id, value: 1)
        #expect(try await coordinator.round(run: run, number: 1).accepted == 1)
        #expect(try bench.store.assignment(id)?.state == .accepted)
    }

    /// Nobody is told anything by a state that may be wrong: it is read again as soon as the store can be asked.
    @Test func whileTheStoreCannotBeAskedNothingIsChanged() async throws {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(
            try Bench.specification(goal: 2) { $0.privacy = Self.privacy },
            budget: BudgetSpecification(epsilon: 8, delta: 1e-5),
            clients: 2
        )
        let store = LyingStore(bench.store)
        let coordinator = try await Bench.start(bench.directory, bench.clock, store)
        let id = try #require(try await Bench.assignment(coordinator, clients[0])).id
        let other = try #require(try await Bench.assignment(coordinator, clients[1])).id
        store.lie(times: 1, silence: 3)
        for _ in 0..<3 {
            let error = await #expect(throws: CoordinationError.self) {
                try await Bench.submit(coordinator, clients[0], id, value: 1)
            }
            #expect(
                error?.code == "storage_failed" && error?.message.contains("EIO") == true,
                "\(error?.message ?? "")"
            )
        }
        // Now it answers, and what it has is what counts.
        await #expect(throws: CoordinationError.self) { try await coordinator.tick() }
        #expect(try await coordinator.round(run: run, number: 1).accepted == 1)
        _ = try await Bench.submit(coordinator, clients[0], id, value: 1)
        _ = try await Bench.submit(coordinator, clients[1], other, value: 1)
        #expect(try await Bench.untilSettled(coordinator, run).state == .completed)
        #expect(try await coordinator.round(run: run, number: 1).accepted == 2)
        // The chain is whole.
        _ = try await bench.restarted()
    }
}
