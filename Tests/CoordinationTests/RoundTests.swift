import Coordination
import Foundation
import Logging
import SQLiteStorage
import StrictJSON
import Synchronization
import Tensors
import TestSupport
import Testing
import WireFormat

/// A coordinator with a small external model, on either store.
struct Bench: Sendable {
    enum StoreKind: String, CaseIterable, Sendable { case memory, sqlite }

    static let layout = ParameterLayout([.init(name: "w", shape: [3]), .init(name: "b", shape: [])])
    let directory: TemporaryDirectory
    let clock = TestClock()
    let store: any RunStore
    let coordinator: Coordinator

    init(_ kind: StoreKind) async throws {
        directory = try TemporaryDirectory()
        store = kind == .memory ? InMemoryRunStore() : try SQLiteRunStore(path: directory.path + "/martlet.sqlite")
        coordinator = try await Self.start(directory, clock, store)
    }

    static func start(
        _ directory: TemporaryDirectory,
        _ clock: TestClock,
        _ store: any RunStore,
        _ change: (inout CoordinatorConfiguration) -> Void = { _ in }
    ) async throws -> Coordinator {
        var configuration = CoordinatorConfiguration(dataDirectory: directory.path)
        configuration.now = { clock.now }
        change(&configuration)
        return try await Coordinator(configuration: configuration, store: store, logger: Logger(label: "test"))
    }

    /// Another server on the same directory and store.
    func restarted(_ change: (inout CoordinatorConfiguration) -> Void = { _ in }) async throws -> Coordinator {
        try await Self.start(directory, clock, store, change)
    }

    /// Lets a second pass where a closed round waits to be tried again.
    ///
    /// The arithmetic of a server whose store is dead goes on in this process, on the same files: it can take one from under
    /// the server after it, as no second process may.
    func passStall(_ coordinator: Coordinator, _ run: String) async throws {
        guard try await coordinator.run(run).waitingFor.contains("; tried again in ") else { return }
        clock.advance(by: 1)
        try await coordinator.tick()
    }

    static func specification(_ extra: String = "", goal: Int = 3, rounds: Int = 1) throws -> RunSpecification {
        let text = """
            {"population": "p", "model": {"architecture": "external"}, "rounds": \(rounds),
             "cohort": {"goal": \(goal), "minimum": \(min(2, goal)), "over_selection": 2, "report_timeout_s": 100,
                        "selection_timeout_s": 50\(extra.contains("noise") ? "" : ", \"max_participations\": 0")}\(extra)}
            """
        return try RunSpecification.read(JSONValue.parse(Array(text.utf8)))
    }

    /// A run that asks for exactly its goal, with 50 s to find it and 100 s to report.
    static func exactSpecification(
        _ cohort: String,
        rounds: Int = 3,
        extra: String = ""
    ) throws -> RunSpecification {
        let text = """
            {"population": "p", "model": {"architecture": "external"}, "rounds": \(rounds),
             "cohort": {"selection_timeout_s": 50, "report_timeout_s": 100, "over_selection": 1, \(cohort)}\(extra)}
            """
        return try RunSpecification.read(JSONValue.parse(Array(text.utf8)))
    }

    /// A population, an initial model of zeros, a started run, and clients.
    func startRun(
        _ specification: RunSpecification,
        budget: BudgetSpecification? = nil,
        clients count: Int = 4
    ) async throws -> (run: String, clients: [String]) {
        _ = try await coordinator.createPopulation(PopulationRequest(name: "p", budget: budget))
        let run = try await coordinator.createRun(specification, initialModel: ParameterVector(zeros: Self.layout)).id
        let clients = try await enroll(count)
        _ = try await coordinator.startRun(run)
        return (run, clients)
    }

    func enroll(_ count: Int, prefix: String = "k") async throws -> [String] {
        let token = try await coordinator.createEnrollmentToken(population: "p", EnrollmentTokenRequest(maxUses: count))
        guard case .enrollment(_, let hash) = await coordinator.principal(token: token) else { return [] }
        var clients: [String] = []
        for index in 0..<count {
            clients.append(
                try await coordinator.register(
                    enrollmentTokenHash: hash,
                    RegistrationRequest(name: nil),
                    idempotencyKey: "\(prefix)\(index)"
                ).clientId
            )
        }
        return clients
    }

    static func assignment(_ coordinator: Coordinator, _ client: String) async throws -> AssignmentBody? {
        try await coordinator.checkIn(client: client, CheckInRequest(), wait: .zero).assignment
    }

    /// Writes an update of four equal values as intake would, and hands it over.
    static func submit(
        _ coordinator: Coordinator,
        _ client: String,
        _ id: String,
        value: Float,
        examples: Int = 1
    ) async throws -> UpdateReceipt {
        let vector = ParameterVector(layout: layout, values: [value, -value, value * 2, 0.5])
        let update = try await received(coordinator, client, id, vector, examples: examples)
        defer { try? FileManager.default.removeItem(atPath: update.path) }
        return try await coordinator.finishUpdate(assignment: id, client: client, update)
    }

    /// What intake has once a body has come in by these terms.
    static func written(
        _ data: Data,
        by terms: UploadTerms,
        examples: Int = 1,
        metrics: [String: Double] = [:]
    ) throws -> ReceivedUpdate {
        try data.write(to: URL(fileURLWithPath: terms.spoolPath))
        return ReceivedUpdate(
            path: terms.spoolPath,
            sha256: Secrets.sha256(data),
            byteCount: data.count,
            exampleCount: examples,
            metrics: metrics
        )
    }

    /// Writes an update as intake would, and leaves it to the caller.
    static func received(
        _ coordinator: Coordinator,
        _ client: String,
        _ id: String,
        _ vector: ParameterVector,
        examples: Int = 1
    ) async throws -> ReceivedUpdate {
        let terms = try await coordinator.beginUpdate(assignment: id, client: client)
        return try written(SafetensorsWriter.encode(vector), by: terms, examples: examples)
    }

    /// Waits for the background arithmetic.
    static func untilSettled(_ coordinator: Coordinator, _ run: String) async throws -> RunView {
        // In this order: between two questions the arithmetic may end.
        try await wait(for: "the end of the aggregation") {
            try await coordinator.rounds(run: run).last?.state != .aggregating
        }
        return try await coordinator.run(run)
    }

    static func model(_ coordinator: Coordinator, _ run: String) async throws -> [Float] {
        let version = try await coordinator.model(run: run, version: "latest")
        return try SafetensorsFile(path: coordinator.blobs.path(sha256: version.sha256)).readAll().values
    }
}

/// Why the coordinator refused; `nil` where it did not.
func refusal<Result>(_ body: () async throws -> Result) async -> CoordinationError? {
    do {
        _ = try await body()
        return nil
    } catch {
        return error as? CoordinationError
    }
}

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
            try Bench.specification(#", "privacy": {"mode": "central", "noise_multiplier": 1}"#),
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
            try Bench.specification(privacy),
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
            try Bench.specification(privacy),
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
            try Bench.specification(#", "privacy": {"mode": "central", "noise_multiplier": 100}"#, goal: 4),
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
            try Bench.specification(#", "privacy": {"mode": "central", "noise_multiplier": 1}"#),
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
