import BenchmarkHarness
import Coordination
import Foundation
import Logging
import StrictJSON
import Synchronization
import Tensors
import WireFormat

/// Clients of different speed on a simulated clock, against the real coordinator: hours pass in seconds.
///
/// Events are handled one after another in the order of their simulated times, so every run of it is the same.
struct SimulatedFleet {
    /// One specification, and how its clients behave.
    struct Plan {
        var cohort: String
        var aggregation: String
        var rounds: Int
        var learningRate: Float
        /// Seconds that each client's work takes.
        var workSeconds: [Double]
        /// Whose share is reported.
        var isSlow: [Bool]
    }

    /// One published version.
    struct Point {
        var seconds: Double
        var accuracy: Double
    }

    struct Outcome {
        var curve: [Point]
        var deliveries = 0
        var slowDeliveries = 0
        /// Finished work that nobody wanted any more.
        var refused = 0

        /// Simulated seconds to the first version with so much accuracy; `nil` where none has it.
        func seconds(to accuracy: Double) -> Double? { curve.first { $0.accuracy >= accuracy }?.seconds }
    }

    private struct Event {
        enum Kind {
            case asks
            case delivers(assignment: String, update: [Float])
            case tick
        }
        var time: Double
        var order: Int
        var client: Int
        var kind: Kind
    }

    let data: SyntheticClassification

    /// Plays a run to its end, or to `accuracy`.
    func play(_ plan: Plan, until accuracy: Double, directory: String) async throws -> Outcome {
        let player = Player(data: data, plan: plan)
        return try await player.play(until: accuracy, directory: directory)
    }

    private final class Player: Sendable {
        private let data: SyntheticClassification
        private let plan: Plan
        private let time = Mutex(Date(timeIntervalSince1970: 1_800_000_000))
        private let start = Date(timeIntervalSince1970: 1_800_000_000)

        init(data: SyntheticClassification, plan: Plan) {
            self.data = data
            self.plan = plan
        }

        func play(until accuracy: Double, directory: String) async throws -> Outcome {
            try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
            var configuration = CoordinatorConfiguration(dataDirectory: directory)
            configuration.now = { [self] in time.withLock { $0 } }
            var logger = Logger(label: "simulation")
            logger.logLevel = .error
            let coordinator = try await Coordinator(
                configuration: configuration,
                store: InMemoryRunStore(),
                logger: logger
            )
            let (run, clients) = try await prepare(coordinator)
            var queue: [Event] = []
            var order = 0
            func add(_ time: Double, _ client: Int, _ kind: Event.Kind) {
                order += 1
                queue.append(Event(time: time, order: order, client: client, kind: kind))
            }
            for client in clients.indices { add(Double(client) * 0.01, client, .asks) }
            add(1, 0, .tick)
            var outcome = Outcome(curve: [])
            var known = 0
            var parameters = [Float](repeating: 0, count: data.layout.parameterCount)
            while known < plan.rounds {
                guard
                    let index = queue.indices.min(by: {
                        (queue[$0].time, queue[$0].order) < (queue[$1].time, queue[$1].order)
                    })
                else { break }
                let event = queue.remove(at: index)
                time.withLock { $0 = start.addingTimeInterval(event.time) }
                switch event.kind {
                case .tick:
                    try await coordinator.tick()
                    add(event.time + 1, 0, .tick)
                case .asks:
                    let answer = try await coordinator.checkIn(
                        client: clients[event.client],
                        CheckInRequest(),
                        wait: .zero
                    )
                    guard let work = answer.assignment else {
                        add(event.time + 2, event.client, .asks)
                        continue
                    }
                    let update = data.train(
                        client: event.client,
                        from: parameters,
                        epochs: 2,
                        learningRate: plan.learningRate,
                        seed: UInt64(event.client * 100_003 + work.model.version)
                    )
                    add(
                        event.time + plan.workSeconds[event.client],
                        event.client,
                        .delivers(assignment: work.id, update: update)
                    )
                case .delivers(let assignment, let update):
                    do {
                        try await deliver(
                            coordinator,
                            clients[event.client],
                            assignment,
                            update,
                            examples: data.clients[event.client].count
                        )
                        outcome.deliveries += 1
                        if plan.isSlow[event.client] { outcome.slowDeliveries += 1 }
                    } catch let error as CoordinationError where error.kind == .gone {
                        outcome.refused += 1
                    }
                    add(event.time + 0.1, event.client, .asks)
                    // The arithmetic takes no simulated time.
                    while try await coordinator.rounds(run: run).last?.state == .aggregating { await Task.yield() }
                    let version = try await coordinator.model(run: run, version: "latest")
                    guard version.version > known else { continue }
                    known = version.version
                    parameters = try SafetensorsFile(path: coordinator.blobs.path(sha256: version.sha256)).readAll()
                        .values
                    let reached = data.accuracy(of: parameters)
                    outcome.curve.append(Point(seconds: event.time, accuracy: reached))
                    if reached >= accuracy { return outcome }
                }
            }
            return outcome
        }

        private func prepare(_ coordinator: Coordinator) async throws -> (run: String, clients: [String]) {
            _ = try await coordinator.createPopulation(PopulationRequest(name: "p", budget: nil))
            let text = """
                {"population": "p", "model": {"architecture": "external"}, "rounds": \(plan.rounds),
                 "cohort": {\(plan.cohort), "selection_timeout_s": 100000, "report_timeout_s": 100000},
                 "aggregation": {\(plan.aggregation)}}
                """
            let run = try await coordinator.createRun(
                try RunSpecification.read(JSONValue.parse(Array(text.utf8))),
                initialModel: ParameterVector(zeros: data.layout)
            ).id
            let token = try await coordinator.createEnrollmentToken(
                population: "p",
                EnrollmentTokenRequest(maxUses: data.clients.count)
            )
            guard case .enrollment(_, let hash) = await coordinator.principal(token: token) else {
                throw BenchmarkError("no enrollment")
            }
            var clients: [String] = []
            for index in data.clients.indices {
                clients.append(
                    try await coordinator.register(
                        enrollmentTokenHash: hash,
                        RegistrationRequest(name: nil),
                        idempotencyKey: "k\(index)"
                    ).clientId
                )
            }
            _ = try await coordinator.startRun(run)
            return (run, clients)
        }

        private func deliver(
            _ coordinator: Coordinator,
            _ client: String,
            _ assignment: String,
            _ update: [Float],
            examples: Int
        ) async throws {
            let terms = try await coordinator.beginUpdate(assignment: assignment, client: client)
            let bytes = SafetensorsWriter.encode(ParameterVector(layout: data.layout, values: update))
            try bytes.write(to: URL(fileURLWithPath: terms.spoolPath))
            _ = try await coordinator.finishUpdate(
                assignment: assignment,
                client: client,
                ReceivedUpdate(
                    path: terms.spoolPath,
                    sha256: Secrets.sha256(bytes),
                    byteCount: bytes.count,
                    exampleCount: examples
                )
            )
        }
    }
}
