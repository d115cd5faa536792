import Coordination
import Crypto
import DifferentialPrivacy
import Foundation
import Logging
import Synchronization
import TestBenches
import TestSupport
import Testing
import WireFormat

/// A private run of which every transaction fails once, beside the same run undisturbed: same models, same charges, whole chain.
///
/// A transaction that failed is stored or is not, and the store says which at once or only when it is asked again.
@Suite(.timeLimit(.minutes(10)))
struct FailingTransactionTests {
    private static let roundCount = 2
    private static let clientCount = 2

    private struct Outcome: Equatable {
        var models: [String]
        var attempts: [Int]
        var accepted: [Int]
        var charges: [String]
    }

    /// Plays a run to its end; what is refused for the disk's sake is asked again.
    private func play(failing number: Int, isStored: Bool, silence: Int) async throws -> (Outcome, count: Int) {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(
            try Bench.exactSpecification(rounds: Self.roundCount) {
                $0.cohort += ["goal": Self.clientCount, "minimum": 2, "max_participations": Self.roundCount]
                $0.privacy += ["mode": "central", "noise_multiplier": 8]
            },
            budget: BudgetSpecification(epsilon: 50, delta: 1e-5),
            clients: Self.clientCount
        )
        let store = DoubtfulStore(bench.store)
        func start() async throws -> Coordinator {
            var configuration = CoordinatorConfiguration(dataDirectory: bench.directory.path)
            configuration.now = { [clock = bench.clock] in clock.now }
            configuration.drawNoiseKey = { _, round in
                NoiseKey(testKey: SymmetricKey(data: SHA256.hash(data: Data("round \(round)".utf8))))
            }
            return try await Coordinator(
                configuration: configuration,
                store: store,
                logger: Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })
            )
        }
        let coordinator = try await start()
        store.arm(number, isStored: isStored, silence: silence)
        var turn = 0
        var patience = Patience("the run to end")
        while try await coordinator.run(run).state != .completed {
            turn += 1
            if turn == 200_000 {
                let view = try await coordinator.run(run)
                Issue.record("the run does not end after a failure at \(number): \(view.state), \(view.waitingFor)")
                break
            }
            bench.clock.advance(by: 0.6)
            try? await coordinator.tick()
            await coordinator.auditRefusal(
                AuditTrail(action: "readRuns", target: "", address: "", requestID: ""),
                code: "forbidden"
            )
            for (index, client) in clients.enumerated() {
                guard let id = await answered({ try await Bench.assignment(coordinator, client)?.id }) ?? nil else {
                    continue
                }
                let value = Float(index + 1) / 8
                _ = await answered { try await Bench.submit(coordinator, client, id, value: value) }
            }
            if try await coordinator.rounds(run: run).last?.state == .aggregating {
                // The arithmetic is elsewhere; a pause between two tries is a minute of the clock at most.
                try await patience.pause()
            }
        }
        func outcome(_ coordinator: Coordinator) async throws -> Outcome {
            let rounds = try await coordinator.rounds(run: run)
            return Outcome(
                models: try await coordinator.models(run: run).items.map(\.sha256),
                attempts: rounds.map(\.attempt),
                accepted: rounds.map(\.accepted),
                charges: try await coordinator.ledgerRows(population: "p").filter { !$0.runId.isEmpty }.map {
                    "\($0.round) \($0.attempt) \($0.state)"
                }
            )
        }
        let said = try await outcome(coordinator)
        try await spoolIsEmpty(bench)
        let count = store.count
        #expect(try await outcome(try await start()) == said)
        return (said, count)
    }

    /// Whatever transaction of a cancellation is the last one, the round ends with the run, its charge is settled and nothing of an
    /// update stays.
    @Test func aDeathDuringACancellationLeavesNothingOpen() async throws {
        for commits in 0..<6 {
            let bench = try await Bench(.memory)
            let (run, clients) = try await bench.startRun(
                try Bench.exactSpecification(rounds: 1) {
                    $0.cohort += ["goal": 2, "minimum": 2, "max_participations": 1]
                    $0.privacy += ["mode": "central", "noise_multiplier": 8]
                },
                budget: BudgetSpecification(epsilon: 50, delta: 1e-5),
                clients: 2
            )
            let store = FaultyStore(bench.store, commitLimit: .max)
            let dying = try await Bench.start(bench.directory, bench.clock, store)
            let id = try #require(try await Bench.assignment(dying, clients[0])).id
            _ = try await Bench.assignment(dying, clients[1])
            _ = try await Bench.submit(dying, clients[0], id, value: 1)
            store.dieAfter(commits: commits)
            _ = try? await dying.cancelRun(run)
            let coordinator = try await bench.restarted()
            try await coordinator.tick()
            if try await coordinator.run(run).state != .cancelled { _ = try await coordinator.cancelRun(run) }
            #expect(try await coordinator.rounds(run: run).map(\.state) == [.abandoned], "\(commits)")
            #expect(try await coordinator.population("p").budget?.reservedEpsilon == 0, "\(commits)")
            try await spoolIsEmpty(bench)
        }
    }

    /// A disk that fails is asked once a second, however many want to know.
    @Test func everybodyMayAskWhetherTheDiskWorks() async throws {
        let bench = try await Bench(.memory)
        let obstacle = bench.directory.path + "/spool/check"
        try FileManager.default.createDirectory(atPath: obstacle + "/x", withIntermediateDirectories: true)
        func asked() async -> Int {
            var failures = 0
            for _ in 0..<50 {
                if await refusal({ try await bench.coordinator.checkStorage() })?.code == "storage_failed" {
                    failures += 1
                }
            }
            return failures
        }
        #expect(await asked() == 50)
        #expect(await bench.coordinator.storage.current.map(\.count) == [1])
        try FileManager.default.removeItem(atPath: obstacle)
        bench.clock.advance(by: 2)
        #expect(await asked() == 0)
        #expect(await bench.coordinator.storage.current.isEmpty)
    }

    /// Files are removed beside the requests.
    private func spoolIsEmpty(_ bench: Bench) async throws {
        try await wait(for: "an empty spool") {
            try FileManager.default.contentsOfDirectory(atPath: bench.directory.path + "/spool").isEmpty
        }
    }

    /// What is asked, or `nil` where the database cannot say now; anything else fails the test.
    private func answered<Value>(_ ask: () async throws -> Value) async -> Value? {
        do {
            return try await ask()
        } catch let error as CoordinationError where error.code == "storage_failed" {
            return nil
        } catch {
            Issue.record(error)
            return nil
        }
    }

    @Test(.slow, arguments: [false, true], [0, 2])
    func aTransactionThatFailsChangesNothing(isStored: Bool, silence: Int) async throws {
        let (calm, count) = try await play(failing: 0, isStored: false, silence: 0)
        #expect(calm.attempts == [1, 1] && count > 10)
        for number in 1...count {
            let (outcome, _) = try await play(failing: number, isStored: isStored, silence: silence)
            #expect(outcome == calm, "transaction \(number) failed")
        }
    }
}
