import BenchmarkHarness
import Foundation
import LocalTraining
import MartletClient
import MartletOperator
import MartletTransport
import Tensors
import WireFormat

/// A server of this build with a fleet beside it: an experiment's runs go through the product as a user's do.
final class LearningServer {
    private let process: ServedProcess
    private let client: OperatorClient
    private let directory: String

    /// Starts the server; earlier runs in the directory are still there.
    init(directory: String) throws {
        self.directory = directory
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        // What an earlier, killed process left.
        try? FileManager.default.removeItem(atPath: directory + "/data/address")
        process = try ServedProcess(dataDirectory: directory + "/data", arguments: ["--log-level", "error"])
        client = try OperatorClient(
            server: process.url,
            token: process.adminToken,
            transport: RetryingTransport(CurlTransport())
        )
    }

    /// Trains one case to its end and measures its versions.
    func perform(_ item: LearningCase, _ task: LearningTask, seed: UInt64) async throws -> [LearningPoint] {
        var order = Array(task.clients.indices)
        var generator = Xoshiro256StarStar(seed: seed)
        generator.shuffle(&order)
        let poisoned = Set(order.shuffled(using: &generator).prefix(Int(item.poisonedShare * Double(order.count))))
        let trained = try await train(
            trainers: order.map { client in
                let honest = DeviceTrainer(data: task.clients[client])
                return poisoned.contains(client) ? PoisonedTrainer(honest: honest) : honest
            },
            isPrivate: item.isPrivate,
            runFile: {
                try item.runFile(population: $0, model: task.model, clientCount: task.clients.count, seed: seed)
            }
        )
        return try await measure(item, task, trained.run, seed: seed, seconds: trained.seconds)
    }

    /// Creates a population with these clients and a run, and waits until it is completed.
    ///
    /// - Parameters:
    ///   - trainers: One a client; they come in this order, round and round.
    ///   - isPrivate: Whether the population has a budget, the largest there is.
    ///   - runFile: The run file for a population's name.
    /// - Returns: The run's id, and how long it took from its start.
    /// - Throws: ``BenchmarkError`` when the server refuses something or the run fails; the fleet's errors.
    func train(
        trainers: [any LocalTrainer],
        isPrivate: Bool = false,
        runFile: (String) throws -> Data
    ) async throws -> (run: String, seconds: Double) {
        let population = "p" + UUID().uuidString.prefix(8).lowercased()
        _ = try await client.createPopulation(population, epsilon: isPrivate ? 1000 : nil, delta: 1e-5)
        let run = try await client.createRun(runFile(population), .json).id
        let token = try await client.createEnrollmentToken(for: population, clientCount: trainers.count).token
        try await client.startRun(run)
        let start = ContinuousClock.now
        let states = directory + "/" + population
        defer { try? FileManager.default.removeItem(atPath: states) }
        let fleet = Fleet(
            server: process.url,
            enrollmentToken: token,
            stateDirectory: states,
            clientCount: trainers.count,
            width: 4,
            makeTrainer: { trainers[$0] }
        )
        let client = client
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await fleet.run() }
            group.addTask {
                let view = try await client.waitForEnd(of: run, interval: .milliseconds(200))
                guard view.state == .completed else {
                    throw BenchmarkError("the run is \(view.state): \(view.reason ?? "no reason was recorded")")
                }
            }
            defer { group.cancelAll() }
            _ = try await group.next()
        }
        return (run, (ContinuousClock.now - start) / .seconds(1))
    }

    private func measure(
        _ item: LearningCase,
        _ task: LearningTask,
        _ run: String,
        seed: UInt64,
        seconds: Double
    ) async throws -> [LearningPoint] {
        let rounds = try await client.rounds(of: run).filter { $0.state == .committed }
        var points: [LearningPoint] = []
        for version in item.measured {
            let metrics = try task.judge.measure(try await weights(run, version))
            let until = rounds.filter { $0.number <= version }
            var point = LearningPoint(
                item.name,
                seed: seed,
                round: version,
                metrics,
                bytesUp: until.reduce(0) { $0 + ($1.bytesUp ?? 0) },
                seconds: seconds * Double(version) / Double(item.rounds)
            )
            let excluded = until.reduce(0) { $0 + $1.excluded }
            if excluded > 0 { point.excluded = excluded }
            point.epsilon = until.last?.epsilon
            points.append(point)
            let report = [
                "accuracy": metrics.accuracy, "loss": metrics.loss, "recall_at_3": metrics.recallAt3,
            ].filter(\.value.isFinite)
            try await client.reportMetrics(report, of: version, run: run)
        }
        if !points.isEmpty { points[points.count - 1].sign() }
        return points
    }

    /// What a run's population has spent when its last round was published; `nil` without privacy.
    func epsilon(_ run: String) async throws -> Double? {
        try await client.latestRounds(1, of: run).last?.epsilon
    }

    /// A version's parameters.
    func weights(_ run: String, _ version: Int) async throws -> ParameterVector {
        let path = directory + "/version.safetensors"
        try await client.downloadModel(version, of: run, to: path)
        return try SafetensorsFile(path: path).readAll()
    }

    /// Draws the finished runs of one seed over each other with `martlet run plot`.
    func plot(_ experiment: LearningExperiment, seed: UInt64, to path: String) async throws {
        let runs = try await client.runs().filter { $0.state == .completed }
        var arguments = [ServedProcess.binary, "run", "plot"]
        var labels: [String] = []
        for item in experiment.cases where experiment.drawn.isEmpty || experiment.drawn.contains(item.name) {
            let run = runs.last { $0.name == "\(item.name), seed \(seed)" }
            guard labels.count < 8, let id = run?.id else { continue }
            arguments.append(id)
            labels.append(item.name)
        }
        guard !labels.isEmpty else { return }
        arguments += labels.flatMap { ["--label", $0] } + ["--panel", "accuracy", "--panel", "loss", "-o", path]
        _ = try Command.run(
            arguments,
            environment: ["MARTLET_URL": process.url, "MARTLET_TOKEN": process.adminToken]
        )
    }
}
