package import Coordination
package import Foundation
import Logging
import SQLiteStorage
import StrictJSON
package import Tensors
package import TestSupport
import Testing
package import WireFormat

/// A coordinator with a small external model, on either store.
package struct Bench: Sendable {
    package enum StoreKind: String, CaseIterable, Sendable { case memory, sqlite }

    package static let layout = ParameterLayout([.init(name: "w", shape: [3]), .init(name: "b", shape: [])])
    package let directory: TemporaryDirectory
    package let clock = TestClock()
    package let store: any RunStore
    package let coordinator: Coordinator

    package init(_ kind: StoreKind) async throws {
        directory = try TemporaryDirectory()
        store = kind == .memory ? InMemoryRunStore() : try SQLiteRunStore(path: directory.path + "/martlet.sqlite")
        coordinator = try await Self.start(directory, clock, store)
    }

    package static func start(
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
    package func restarted(_ change: (inout CoordinatorConfiguration) -> Void = { _ in }) async throws -> Coordinator {
        try await Self.start(directory, clock, store, change)
    }

    /// Lets a second pass where a closed round waits to be tried again.
    ///
    /// The arithmetic of a server whose store is dead goes on in this process, on the same files: it can take one from under
    /// the server after it, as no second process may.
    package func passStall(_ coordinator: Coordinator, _ run: String) async throws {
        guard try await coordinator.run(run).waitingFor.contains("; tried again in ") else { return }
        clock.advance(by: 1)
        try await coordinator.tick()
    }

    /// A run that asks for twice its goal, with 50 s to find clients and 100 s to report.
    package static func specification(
        goal: Int = 3,
        rounds: Int = 1,
        _ change: (inout RunFile) throws -> Void = { _ in }
    ) throws -> RunSpecification {
        try timedSpecification(rounds: rounds) {
            $0.cohort += ["goal": goal, "minimum": min(2, goal), "over_selection": 2]
            try change(&$0)
        }
    }

    /// A run that asks for exactly its goal, with 50 s to find clients and 100 s to report.
    package static func exactSpecification(
        rounds: Int = 3,
        _ change: (inout RunFile) throws -> Void
    ) throws -> RunSpecification {
        try timedSpecification(rounds: rounds) {
            $0.cohort.over_selection = 1
            try change(&$0)
        }
    }

    /// A run with 50 s to find clients and 100 s to report.
    package static func timedSpecification(
        rounds: Int = 3,
        _ change: (inout RunFile) throws -> Void
    ) throws -> RunSpecification {
        try RunSpecification.sample {
            $0 += ["rounds": rounds]
            $0.cohort += ["selection_timeout_s": 50, "report_timeout_s": 100]
            try change(&$0)
        }
    }

    /// A population, an initial model of zeros, a started run, and clients.
    package func startRun(
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

    package func enroll(_ count: Int, prefix: String = "k") async throws -> [String] {
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

    package static func assignment(_ coordinator: Coordinator, _ client: String) async throws -> AssignmentBody? {
        try await coordinator.checkIn(client: client, CheckInRequest(), wait: .zero).assignment
    }

    /// What a client is told that asks for work and does not wait.
    package func checkIn(_ client: String, examples: Int? = nil) async throws -> CheckInResponse {
        try await coordinator.checkIn(client: client, CheckInRequest(numExamples: examples), wait: .zero)
    }

    /// Runs one round in which client `i` submits `values[i]`, and waits for its end.
    package static func playRound(
        _ coordinator: Coordinator,
        _ run: String,
        _ clients: [String],
        _ values: [Float]
    ) async throws {
        for (client, value) in zip(clients, values) {
            let assignment = try #require(try await Bench.assignment(coordinator, client))
            _ = try await Bench.submit(coordinator, client, assignment.id, value: value)
        }
        _ = try await Bench.untilSettled(coordinator, run)
    }

    /// Writes an update of four equal values as intake would, and hands it over.
    package static func submit(
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
    package static func written(
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
    package static func received(
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
    package static func untilSettled(_ coordinator: Coordinator, _ run: String) async throws -> RunView {
        // In this order: between two questions the arithmetic may end.
        try await wait(for: "the end of the aggregation") {
            try await coordinator.rounds(run: run).last?.state != .aggregating
        }
        return try await coordinator.run(run)
    }

    package static func model(_ coordinator: Coordinator, _ run: String) async throws -> [Float] {
        let version = try await coordinator.model(run: run, version: "latest")
        return try SafetensorsFile(path: coordinator.blobs.path(sha256: version.sha256)).readAll().values
    }
}

/// Why the coordinator refused; `nil` where it did not.
package func refusal<Result>(_ body: () async throws -> Result) async -> CoordinationError? {
    do {
        _ = try await body()
        return nil
    } catch {
        return error as? CoordinationError
    }
}
