import ArgumentParser
import Foundation
import LocalTraining
import MartletClient
import MartletOperator
import MartletTransport
import Tensors
import WireFormat

/// The main job from beginning to end: a server, a population with a budget, a fleet of virtual clients, a run.
///
/// Server and fleets are processes of their own that speak the real protocol; this command is their operator.
struct DemoCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "demo",
        abstract: "A whole run with virtual clients on this machine."
    )

    @Option(help: "none, central or local.", transform: Self.privacyMode) var privacy = PrivacyMode.central
    @Option(help: "Virtual clients; default 6000, or one per file or role with --text.") var clients: Int?
    @Option(help: "Rounds.") var rounds: Int?
    @Option(help: "Seed of data and model.") var seed: UInt64 = 1
    @Option(help: "Your own text: a file (a play gives one client per role) or a directory (one client per file).")
    var text: String?
    @Option(help: "Processes that share the fleet.") var fleetProcesses = 2
    @Option(help: "Keep everything in this directory; default: a fresh temporary one.") var dataDir: String?
    @Flag(help: "Keep the server running at the end.") var keep = false
    @Flag(help: "Print one JSON line at the end.") var json = false

    private static func privacyMode(_ text: String) throws -> PrivacyMode {
        guard let mode = PrivacyMode(rawValue: text) else {
            throw ValidationError("--privacy is none, central or local, not \(text)")
        }
        return mode
    }

    func validate() throws {
        guard clients ?? 1 >= 1, rounds ?? 1 >= 1, (1...64).contains(fleetProcesses) else {
            throw ValidationError("--clients, --rounds and --fleet-processes must be 1 or more (64 processes at most)")
        }
    }

    func run() async throws {
        let began = ContinuousClock.now
        let directory = dataDir ?? NSTemporaryDirectory() + "martlet-demo-\(UUID().uuidString.prefix(8))"
        guard !FileManager.default.fileExists(atPath: directory + "/server") else {
            throw Failure("\(directory) holds an earlier demo: remove it, or give another --data-dir")
        }
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        let data = try DemoData(text: text, clients: clients, seed: seed)
        let plan = DemoPlan(data: data, privacy: privacy, rounds: rounds, seed: seed)
        say(plan.introduction(data))
        if let warning = plan.warning(privacy: privacy) { say(warning) }
        let processes = DemoProcesses(directory: directory)
        let stopper = Task {
            guard await Signals.waitForStop() else { return }
            processes.stopAll()
            Foundation.exit(130)
        }
        defer { stopper.cancel() }
        do {
            let result = try await conduct(plan, data, processes, directory, began)
            if !keep { processes.stopAll() }
            try finish(result, directory)
        } catch {
            processes.stopAll()
            throw Failure(error)
        }
    }

    private func conduct(
        _ plan: DemoPlan,
        _ data: DemoData,
        _ processes: DemoProcesses,
        _ directory: String,
        _ began: ContinuousClock.Instant
    ) async throws -> DemoResult {
        let url = try await processes.startServer()
        let client = try OperatorClient(
            server: url,
            token: String(contentsOfFile: directory + "/server/admin-token", encoding: .utf8),
            transport: CurlTransport(connectionLimit: 1)
        )
        _ = try await client.createPopulation("demo", epsilon: privacy == .none ? nil : 8, delta: 1e-5)
        let created = try await client.createRun(Data(plan.runFile.utf8), .yaml)
        let token = try await client.createEnrollmentToken(for: "demo", clientCount: data.clientCount).token
        try await client.startRun(created.id)
        try processes.startFleets(
            count: fleetProcesses,
            clientCount: data.clientCount,
            server: url,
            token: token,
            text: text,
            seed: seed
        )
        return try await watch(created.id, plan, data, client, url, processes, directory, began)
    }

    private func watch(
        _ run: String,
        _ plan: DemoPlan,
        _ data: DemoData,
        _ client: OperatorClient,
        _ url: String,
        _ processes: DemoProcesses,
        _ directory: String,
        _ began: ContinuousClock.Instant
    ) async throws -> DemoResult {
        let first = try await model(run, version: 0, client)
        let before = try data.evaluation.evaluate(model: first)
        try await publish(before, run, version: 0, client)
        say(
            String(
                format: "before: accuracy %.3f, loss %.3f (always guessing the most frequent symbol: %.3f)",
                before.accuracy,
                before.loss,
                data.baseline
            )
        )
        var shown = 0
        while true {
            let view = try await client.run(run)
            if view.state == .failed { throw Failure("the run failed: \(view.reason ?? "unknown")") }
            if view.committedRounds > shown {
                shown = view.committedRounds
                let metrics = try data.evaluation.evaluate(model: try await model(run, version: shown, client))
                try await publish(metrics, run, version: shown, client)
                let round = try await client.round(shown, of: run)
                let seconds = (ContinuousClock.now - began).seconds
                let left = seconds / Double(shown) * Double(plan.rounds - shown)
                say(
                    String(
                        format: "round %d/%d: accuracy %.3f, loss %.3f, %@, %d clients, %.1f MB up, about %.0f s left",
                        shown,
                        plan.rounds,
                        metrics.accuracy,
                        metrics.loss,
                        round.epsilon.map { String(format: "epsilon %.2f of 8", $0) } ?? "no privacy budget",
                        round.accepted,
                        Double(round.bytesUp ?? 0) / 1e6,
                        left
                    )
                )
            }
            if view.state == .completed { break }
            do { try processes.checkRunning() } catch {
                // The run may have ended since it was read, and the fleets with it.
                guard try await client.run(run).state == .completed else { throw error }
            }
            try await Task.sleep(for: .milliseconds(200))
        }
        processes.stopFleets()
        let fleets = try processes.fleetProgress()
        let path = directory + "/model.safetensors"
        try await client.downloadModel(shown, of: run, to: path)
        let final = try SafetensorsFile(path: path).readAll()
        let rounds = try await client.rounds(of: run)
        let summary = DemoResult.Summary(
            accuracyBefore: before.accuracy,
            accuracyAfter: try data.evaluation.evaluate(model: final).accuracy,
            baselineAccuracy: data.baseline,
            epsilon: .init(value: rounds.last?.epsilon),
            delta: .init(value: privacy == .none ? nil : 1e-5),
            rounds: shown,
            clients: data.clientCount,
            seconds: (ContinuousClock.now - began).seconds,
            bytesUp: rounds.reduce(0) { $0 + ($1.bytesUp ?? 0) },
            bytesDown: fleets.bytesDown,
            modelPath: path,
            modelSha256: rounds.last(where: { $0.state == .committed })?.modelSha256 ?? "",
            serverUrl: url
        )
        return DemoResult(summary: summary, run: run, suggestions: try plan.suggestions(final))
    }

    private func model(_ run: String, version: Int, _ client: OperatorClient) async throws -> ParameterVector {
        let path = NSTemporaryDirectory() + "martlet-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: path) }
        try await client.downloadModel(version, of: run, to: path)
        return try SafetensorsFile(path: path).readAll()
    }

    /// Records on the server what was measured, so that its pages and lists show it.
    private func publish(
        _ metrics: TrainingMetrics,
        _ run: String,
        version: Int,
        _ client: OperatorClient
    ) async throws {
        let values = ["accuracy": metrics.accuracy, "loss": metrics.loss]
        try await client.reportMetrics(values, of: version, run: run)
    }

    private func finish(_ result: DemoResult, _ directory: String) throws {
        let summary = result.summary
        say("")
        say(
            String(
                format: "after %d rounds and %.0f s: accuracy %.3f -> %.3f, %.1f times the baseline of %.3f",
                summary.rounds,
                summary.seconds,
                summary.accuracyBefore,
                summary.accuracyAfter,
                summary.accuracyAfter / summary.baselineAccuracy,
                summary.baselineAccuracy
            )
        )
        if let epsilon = summary.epsilon.value {
            let meaning =
                privacy == .central ? "client-level, trusted server, zero_out" : "each report, local, replace_one"
            say(String(format: "privacy: (epsilon %.3f, delta 1e-5), %@", epsilon, meaning))
        }
        if text == nil { say("the messages were synthetic: made by a seeded generator, nobody wrote them") }
        for (prompt, words) in result.suggestions { say("  \"\(prompt)\" -> \(words.joined(separator: " | "))") }
        say("model: \(summary.modelPath)")
        if keep {
            say("the server is still running: open \(summary.serverUrl)/ and sign in with the token in")
            say("  \(directory)/server/admin-token")
            say("or look at it with curl:")
            say("  export TOKEN=$(cat \(directory)/server/admin-token)")
            let run = RunReference(result.run)
            for path in [
                Endpoints.run(run).path, Endpoints.rounds(run).path, Endpoints.population("demo").path,
                Endpoints.populationLedger("demo").path,
            ] {
                say("  curl -H \"Authorization: Bearer $TOKEN\" \(summary.serverUrl)\(path)")
            }
            say("and stop it with: kill $(cat \(directory)/server/pid)")
        }
        if json { Terminal.document(String(decoding: try WireCoding.encode(summary), as: UTF8.self)) }
    }

    private func say(_ line: String) {
        // With --json, standard output holds the one line that programs read.
        if json { printError(line) } else { print(line) }
        fflush(nil)
    }
}

extension Duration {
    /// The duration in seconds.
    var seconds: Double { Double(components.seconds) + Double(components.attoseconds) * 1e-18 }
}

/// What the demo came to.
struct DemoResult {
    /// The line that `--json` prints.
    struct Summary: Encodable {
        var accuracyBefore: Double
        var accuracyAfter: Double
        var baselineAccuracy: Double
        var epsilon: Nullable
        var delta: Nullable
        var rounds: Int
        var clients: Int
        var seconds: Double
        var bytesUp: Int
        var bytesDown: Int
        var modelPath: String
        var modelSha256: String
        var serverUrl: String
    }

    /// A number that is printed as `null` where there is none.
    struct Nullable: Encodable {
        var value: Double?

        func encode(to encoder: any Encoder) throws {
            var container = encoder.singleValueContainer()
            if let value { try container.encode(value) } else { try container.encodeNil() }
        }
    }

    var summary: Summary
    var run: String
    var suggestions: [(prompt: String, words: [String])]
}
