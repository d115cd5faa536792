import Coordination
import Foundation
import Logging
import StrictJSON
import Synchronization
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

/// A store that remembers what was stored.
private final class RecordingStore: ForwardingRunStore {
    let inner: any RunStore = InMemoryRunStore()
    private let changes = Mutex<[StoreChange]>([])

    func commit(_ changes: [StoreChange]) throws {
        try inner.commit(changes)
        self.changes.withLock { $0 += changes }
    }

    var lines: [(name: String, text: String)] {
        get throws { try changes.withLock { $0 }.map { try Self.line($0) } }
    }

    private static func line(_ change: StoreChange) throws -> (name: String, text: String) {
        func text(_ value: some Encodable) throws -> String { try JSONValue(encoding: value).text }
        return switch change {
        case .population(let record): ("population", try text(record))
        case .token(let record): ("token", try text(record))
        case .deleteToken: ("delete token", "")
        case .client(let record): ("client", try text(record))
        case .run(let record): ("run", try text(record))
        case .round(let record): ("round", try text(record))
        case .assignment(let record): ("assignment", try text(record))
        case .modelVersion(let record): ("model version", try text(record))
        case .modelMetrics(let record): ("model metrics", try text(record))
        case .ledger(let row): ("ledger", try text(row))
        case .history(let row): ("history", try text(row))
        case .audit(let row): ("audit", try text(row))
        case .event(let row): ("event", try text(row))
        case .deleteEvents(let id): ("delete events", "\(id)")
        case .updateScore(let record): ("update score", try text(record))
        case .protectedSession(let record): ("protected session", try text(record))
        case .pseudonym(let record): ("pseudonym", try text(record))
        }
    }
}

/// Rows of a server's life: one script, whose ids and hashes are replaced by numbers in the order in which they come.
@Suite(.timeLimit(.minutes(10)))
struct GoldenRowTests {
    private struct Place {
        let directory: TemporaryDirectory
        let clock = TestClock()
        let store = RecordingStore()
        let coordinator: Coordinator

        init() async throws {
            directory = try TemporaryDirectory()
            coordinator = try await Bench.start(directory, clock, store)
        }
    }

    /// Random ids, hashes and noised numbers differ from one life to the next.
    private static func masked(_ lines: [(name: String, text: String)]) throws -> [(name: String, text: String)] {
        var names: [String: String] = [:]
        let random = try Regex(#"[a-z]+_[0-9a-f]{20}|[0-9a-f]{64}"#)
        return lines.map { name, text in
            let text = text.replacing(random) { match in
                let found = String(text[match.range])
                if let known = names[found] { return known }
                let kind = found.split(separator: "_").first.map(String.init) ?? ""
                let given = found.contains("_") ? "\(kind)-\(names.count)" : "hash-\(names.count)"
                names[found] = given
                return given
            }
            return (name, text)
        }
    }

    private static func check(_ lines: [(name: String, text: String)], _ fixture: String) throws {
        let path =
            URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().path + "/Fixtures/"
            + fixture
        let differences = try GoldenLines.differences(try masked(lines), from: path)
        #expect(differences.isEmpty, "\(differences.joined(separator: "\n"))")
    }

    private static func specification(
        goal: Int = 2,
        _ change: (inout RunFile) throws -> Void
    ) throws -> RunSpecification {
        try Bench.exactSpecification(rounds: 2) {
            $0.cohort += ["goal": goal, "minimum": 1, "max_participations": 50]
            try change(&$0)
        }
    }

    /// A population with a run in it.
    private static func begin(
        _ coordinator: Coordinator,
        _ specification: RunSpecification,
        budget: BudgetSpecification? = nil
    ) async throws -> (run: String, clients: [String]) {
        _ = try await coordinator.createPopulation(PopulationRequest(name: "p", budget: budget))
        let run = try await coordinator.createRun(specification, initialModel: .init(zeros: Bench.layout)).id
        let token = try await coordinator.createEnrollmentToken(population: "p", EnrollmentTokenRequest(maxUses: 3))
        guard case .enrollment(_, let hash) = await coordinator.principal(token: token) else { return (run, []) }
        var clients: [String] = []
        for index in 0..<3 {
            clients.append(
                try await coordinator.register(
                    enrollmentTokenHash: hash,
                    RegistrationRequest(name: nil, labels: ["place": "here"]),
                    idempotencyKey: "k\(index)"
                ).clientId
            )
        }
        _ = try await coordinator.startRun(run)
        return (run, clients)
    }

    /// Without privacy: updates, a failure, a refusal, an abandoned attempt, an evaluation, a pause, a cancelled run.
    @Test func anOpenRunStoresTheRowsThatItAlwaysDid() async throws {
        let place = try await Place()
        let coordinator = place.coordinator
        let specification = try Self.specification {
            $0.evaluation += ["every": 1, "cohort_goal": 1, "minimum": 1]
            $0.aggregation.anomalies.action = "report"
        }
        let (run, clients) = try await Self.begin(coordinator, specification)
        // Nobody comes.
        place.clock.advance(by: 60)
        try await coordinator.tick()
        place.clock.advance(by: 10)
        try await coordinator.tick()
        let first = try #require(try await Bench.assignment(coordinator, clients[0]))
        let second = try #require(try await Bench.assignment(coordinator, clients[1]))
        _ = try await coordinator.heartbeat(
            assignment: first.id,
            client: clients[0],
            HeartbeatRequest(phase: .downloading, progress: 0.5)
        )
        try await coordinator.reportFailure(
            assignment: second.id,
            client: clients[1],
            FailureReport(code: .trainingFailed, detail: "no reason")
        )
        let third = try #require(try await Bench.assignment(coordinator, clients[2]))
        _ = try await coordinator.beginUpdate(assignment: third.id, client: clients[2])
        try await coordinator.rejectUpdate(assignment: third.id, client: clients[2], code: "not_finite")
        _ = try await Bench.submit(coordinator, clients[0], first.id, value: 1)
        for _ in 0..<2 {
            place.clock.advance(by: 101)
            try await coordinator.tick()
        }
        _ = try await Bench.untilSettled(coordinator, run)
        let next = try #require(try await Bench.assignment(coordinator, clients[1]))
        #expect("\(next.kind)" == "evaluate")
        _ = try await coordinator.beginUpdate(assignment: next.id, client: clients[1])
        _ = try await coordinator.finishUpdate(
            assignment: next.id,
            client: clients[1],
            ReceivedUpdate(
                path: "",
                sha256: String(repeating: "0", count: 64),
                byteCount: 9,
                exampleCount: 10,
                metrics: ["nll": 10, "loss_tokens": 10]
            )
        )
        _ = try await Bench.untilSettled(coordinator, run)
        _ = try await coordinator.pauseRun(run)
        _ = try await coordinator.resumeRun(run)
        try await coordinator.revokeClient(clients[2])
        let token = try await coordinator.createToken(.init(role: .operator, name: "someone"), by: "open")
        _ = try await coordinator.rotateToken(token.id, gracePeriod: 60)
        try await coordinator.revokeToken(token.id)
        _ = try await coordinator.cancelRun(run)
        try Self.check(try place.store.lines, "rows-open.txt")
    }

    /// With privacy for sums: reservations that are spent and given back, a budget that grows, an end by the budget.
    @Test func aPrivateRunStoresTheRowsThatItAlwaysDid() async throws {
        let place = try await Place()
        let coordinator = place.coordinator
        let specification = try Self.specification {
            $0.privacy += ["mode": "central", "noise_multiplier": 30]
            $0.evaluation += ["every": 2, "noise_multiplier": 40]
        }
        let (run, clients) = try await Self.begin(
            coordinator,
            specification,
            budget: BudgetSpecification(epsilon: 8, delta: 1e-5)
        )
        place.clock.advance(by: 60)
        try await coordinator.tick()
        place.clock.advance(by: 10)
        try await coordinator.tick()
        for client in clients.prefix(2) {
            let work = try #require(try await Bench.assignment(coordinator, client))
            _ = try await Bench.submit(coordinator, client, work.id, value: 0.1)
        }
        _ = try await Bench.untilSettled(coordinator, run)
        _ = try await coordinator.changeBudget(population: "p", .init(epsilon: 9, reason: "more"))
        _ = try await coordinator.cancelRun(run)
        try Self.check(try place.store.lines, "rows-central.txt")
    }

    @Test func aLocallyPrivateRunStoresTheRowsThatItAlwaysDid() async throws {
        let place = try await Place()
        let coordinator = place.coordinator
        let specification = try Self.specification {
            $0.privacy += ["mode": "local", "mechanism": "laplace", "noise_multiplier": 900]
        }
        let (run, clients) = try await Self.begin(
            coordinator,
            specification,
            budget: BudgetSpecification(epsilon: 8, delta: 1e-5)
        )
        for client in clients.prefix(2) {
            let work = try #require(try await Bench.assignment(coordinator, client))
            _ = try await Bench.submit(coordinator, client, work.id, value: 0.1)
        }
        _ = try await Bench.untilSettled(coordinator, run)
        _ = try await coordinator.cancelRun(run)
        try Self.check(try place.store.lines, "rows-local.txt")
    }
}
