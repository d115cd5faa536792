import ArgumentParser
import BenchmarkHarness
import Crypto
import Foundation
import LocalTraining
import MartletClient
import Synchronization
import Tensors
import WireFormat

/// Whole rounds: the server as users run it, and a fleet of SDK clients whose trainer gives back a ready update, so that only
/// the system is measured.
///
/// The limit of large rounds is the intake of the same bytes in the same run: the same number of clients that have their files
/// ready and do nothing but `PUT` them.
struct RoundBenchmark: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "round",
        abstract: "A round from its opening to the commit: seconds, the server's peak memory and processor seconds."
    )

    @Option(help: "Cases as CLIENTSxPARAMETERS, separated by commas.")
    var cases = "8x1400000,100x1400000,16x25000000"
    @Option(help: "Rounds that are measured; one before them warms up.") var repeats = 5
    @Option(help: "The updates' encoding.") var encoding = "f32"
    @Option(help: "Clients that are active at the same time.") var width = 16
    @Option(help: "Where the SDK's clients keep their state: devices have disks of their own, not the server's.")
    var deviceDirectory = FileManager.default.fileExists(atPath: "/dev/shm") ? "/dev/shm" : NSTemporaryDirectory()

    @Flag(
        help: "Only compare rounds with the default bounds on one client (norm, examples) to rounds without, by turns."
    )
    var compareBounds = false

    func run() async throws {
        for name in cases.split(separator: ",") {
            let numbers = name.split(separator: "x").compactMap { Int($0) }
            guard numbers.count == 2, numbers.allSatisfy({ $0 > 0 }) else {
                throw ValidationError("'\(name)' is not CLIENTSxPARAMETERS")
            }
            let size = Case(clients: numbers[0], parameters: numbers[1])
            if compareBounds { try await measureBounds(size) } else { try await measure(size) }
        }
    }

    private struct Case {
        var clients: Int
        var parameters: Int
        var name: String { "k=\(clients) n=\(parameters)" }
    }

    // MARK: - One case

    private func measure(_ size: Case) async throws {
        let workspace = try ScratchDirectory()
        let server = try ServedProcess(dataDirectory: workspace.path + "/data", arguments: ["--log-level", "error"])
        let model = Self.model(parameters: size.parameters)
        try SafetensorsWriter.encode(model, metadata: [:]).write(to: URL(fileURLWithPath: workspace.path + "/model"))
        let idle = server.residentBytes
        let processorStart = server.processorSeconds
        let (url, directory, width) = (server.url, workspace.path, width)
        let devices = deviceDirectory + "/martlet-devices-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: devices) }
        let fleet = try await rounds(size, count: repeats + 1, server, workspace, name: "fleet") { token in
            var update = model
            for index in update.values.indices { update.values[index] = Float(index % 1000) * 1e-6 }
            let trainer = ReadyTrainer(update: update)
            try await Fleet(
                server: url,
                enrollmentToken: token,
                stateDirectory: devices,
                clientCount: size.clients,
                width: min(width, size.clients)
            ) { _ in trainer }.run()
        }
        let processorSeconds = server.processorSeconds - processorStart
        let peak = server.peakResidentBytes
        let bare = try await rounds(size, count: 4, server, workspace, name: "bare") { token in
            let clients = try await BareClients(
                server: url,
                count: size.clients,
                enrollmentToken: token,
                update: model,
                workspace: directory
            )
            for _ in 0..<4 { try await clients.takePart() }
        }
        report(size, fleet, bare, idle: idle, peak: peak, processorSeconds: processorSeconds)
    }

    /// What the default bounds cost: runs of three rounds with and without them, by turns, so that both see the same machine.
    private func measureBounds(_ size: Case) async throws {
        let workspace = try ScratchDirectory()
        let server = try ServedProcess(dataDirectory: workspace.path + "/data", arguments: ["--log-level", "error"])
        let model = Self.model(parameters: size.parameters)
        try SafetensorsWriter.encode(model, metadata: [:]).write(to: URL(fileURLWithPath: workspace.path + "/model"))
        var update = model
        for index in update.values.indices { update.values[index] = Float(index % 1000) * 1e-6 }
        let (url, directory, ready) = (server.url, workspace.path, update)
        var seconds: [String: [Double]] = [:]
        var intake: [String: [Double]] = [:]
        for turn in 0..<(2 * repeats) {
            // Whoever is first in a pair is second in the next one.
            let isBounded = (turn / 2 + turn) % 2 == 0
            let key = isBounded ? "with" : "without"
            let measured = try await rounds(
                size,
                count: 4,
                server,
                workspace,
                name: "bare-\(turn)",
                aggregation: isBounded ? "{}" : #"{"norm_bound": "none", "example_cap": "none"}"#
            ) { token in
                let clients = try await BareClients(
                    server: url,
                    count: size.clients,
                    enrollmentToken: token,
                    update: ready,
                    workspace: directory
                )
                for _ in 0..<4 { try await clients.takePart() }
            }
            seconds[key, default: []].append(median(measured.dropFirst().map(\.seconds)))
            intake[key, default: []].append(median(measured.dropFirst().map(\.reporting)))
        }
        for (name, values) in [("open to committed", seconds), ("first to last upload", intake)] {
            let (with, without) = (values["with"] ?? [], values["without"] ?? [])
            MeasuredCase(
                benchmark: "round",
                name: "\(size.name): \(name), with the default bounds on one client",
                unit: "times",
                values: zip(with, without).map { $0 / $1 },
                limit: 1.1,
                limitName: "the same without, in pairs, at most",
                required: 1,
                extra: ["with_s": median(with), "without_s": median(without)]
            ).report()
        }
    }

    private func report(
        _ size: Case,
        _ fleet: [Round],
        _ bare: [Round],
        idle: Double,
        peak: Double,
        processorSeconds: Double
    ) {
        let measured = Array(fleet.dropFirst())
        let modelBytes = Double(4 * size.parameters)
        let intake = MeasuredCase(
            benchmark: "round",
            name: "\(size.name): clients that only upload",
            unit: "bytes/s",
            values: bare.dropFirst().map { Double($0.bytesUp) / $0.reporting }
        )
        intake.report()
        let bytes = Double(measured.map(\.bytesUp).max() ?? 0)
        // Small rounds are judged by the clock, large ones by what the intake of their bytes takes.
        let isSmall = size.clients <= 8 && size.parameters <= 1_500_000
        let limit = isSmall ? 0.2 : 1.2 * bytes / intake.median
        let limitName = isSmall ? "asked for, at most" : "1.2 times the bytes over the intake rate, at most"
        let cases: [(clients: String, rounds: [Round])] = [
            ("SDK clients", measured), ("clients that only upload", Array(bare.dropFirst())),
        ]
        for (clients, rounds) in cases {
            MeasuredCase(
                benchmark: "round",
                name: "\(size.name): open to committed, \(clients)",
                unit: "s",
                values: rounds.map(\.seconds),
                limit: limit,
                limitName: limitName,
                extra: [
                    "bytes": bytes, "encoding": encoding,
                    "selecting_s": median(rounds.map(\.selecting)), "reporting_s": median(rounds.map(\.reporting)),
                ]
            ).report()
            MeasuredCase(
                benchmark: "round",
                name: "\(size.name): last upload to committed, \(clients)",
                unit: "s",
                values: rounds.map(\.aggregating),
                limit: isSmall ? 0.05 : nil,
                limitName: isSmall ? "asked for, at most" : nil
            ).report()
        }
        MeasuredCase(
            benchmark: "round",
            name: "\(size.name): server's processor time in a round of SDK clients",
            unit: "s",
            values: [processorSeconds / Double(fleet.count)]
        ).report()
        MeasuredCase(
            benchmark: "round",
            name: "\(size.name): server's peak memory above idle",
            unit: "bytes",
            values: [peak - idle],
            limit: 4 * modelBytes + Double(64 << 20),
            limitName: "4 models and 64 MiB, at most",
            extra: ["peak_resident_bytes": peak, "idle_resident_bytes": idle]
        ).report()
    }

    private func median(_ values: [Double]) -> Double { values.sorted()[values.count / 2] }

    // MARK: - Rounds

    private struct Round {
        var seconds: Double
        var selecting: Double
        var reporting: Double
        var aggregating: Double
        var bytesUp: Int
    }

    /// Creates a run, lets clients take part in all of its rounds, and reads what they took.
    private func rounds(
        _ size: Case,
        count: Int,
        _ server: ServedProcess,
        _ workspace: ScratchDirectory,
        name: String,
        aggregation: String = "{}",
        _ takePart: @escaping @Sendable (_ enrollmentToken: String) async throws -> Void
    ) async throws -> [Round] {
        try server.call(Endpoints.createPopulation(), #"{"name": "\#(name)"}"#)
        let token = try server.call(
            Endpoints.createEnrollmentToken(PopulationReference(name)),
            #"{"max_uses": \#(size.clients)}"#
        )["token"]
        let run = try server.call(
            Endpoints.createRun(),
            """
            {"name": "\(name)", "population": "\(name)", "model": {"architecture": "external"}, "rounds": \(count),
             "cohort": {"goal": \(size.clients), "minimum": \(size.clients), "over_selection": 1.0},
             "training": {"encoding": "\(name.hasPrefix("bare") ? "f32" : encoding)"}, "privacy": {"mode": "none"},
             "aggregation": \(aggregation)}
            """
        )["id"]
        guard let token = token as? String, let run = run as? String else {
            throw BenchmarkError("the server gave no run")
        }
        _ = try Command.run([
            "curl", "--silent", "--show-error", "--fail-with-body", "-X", "PUT", "-H",
            "Authorization: Bearer \(server.adminToken)", "-H", "Content-Type: application/vnd.safetensors", "-T",
            workspace.path + "/model", server.url + Endpoints.putModel(RunReference(run)).path,
        ])
        try server.call(Endpoints.startRun(RunReference(run)))
        let failure = Mutex<(any Error)?>(nil)
        let clients = Task {
            do { try await takePart(token) } catch { failure.withLock { $0 = error } }
        }
        defer { clients.cancel() }
        while true {
            if let error = failure.withLock({ $0 }) { throw error }
            let state = (try server.call(Endpoints.run(RunReference(run)))["state"] as? String).flatMap(RunPhase.init)
            if state == .completed { break }
            guard state == .running else { throw BenchmarkError("the run is \(state?.rawValue ?? "gone")") }
            try await Task.sleep(for: .milliseconds(500))
        }
        let page = try server.call(Endpoints.rounds(RunReference(run)).with("limit", 100))
        return (page["items"] as? [[String: Any]] ?? []).filter {
            $0["state"] as? String == RoundPhase.committed.rawValue
        }.map { round in
            let phases = round["phase_seconds"] as? [String: Any] ?? [:]
            func number(_ value: Any?) -> Double { (value as? NSNumber)?.doubleValue ?? .nan }
            return Round(
                seconds: number(round["seconds"]),
                selecting: number(phases["selecting"]),
                reporting: number(phases["reporting"]),
                aggregating: number(phases["aggregating"]),
                bytesUp: (round["bytes_up"] as? NSNumber)?.intValue ?? 0
            )
        }
    }

    private static func model(parameters: Int) -> ParameterVector {
        // A few tensors, as models have.
        let part = parameters / 10
        var tensors = (0..<9).map { TensorSpecification(name: "layer.\($0).weight", shape: [part]) }
        tensors.append(TensorSpecification(name: "layer.9.weight", shape: [parameters - 9 * part]))
        return ParameterVector(zeros: ParameterLayout(tensors))
    }
}

/// Gives back the same update at once.
private struct ReadyTrainer: LocalTrainer {
    let update: ParameterVector

    func train(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingResult {
        TrainingResult(delta: update, exampleCount: 10)
    }
}

/// Clients that speak the protocol and have their update ready as a file: what is left is the server.
private struct BareClients {
    /// Requests that are under way at the same time.
    private static let width = 4

    private let server: String
    private let path: String
    private let update: ParameterVector
    private let tokens: [String]
    private let transport: CurlTransport

    /// Registers the clients and writes their update.
    init(
        server: String,
        count: Int,
        enrollmentToken: String,
        update: ParameterVector,
        workspace: String
    ) async throws {
        self.server = server
        path = workspace + "/bare-update"
        self.update = update
        let transport = CurlTransport()
        self.transport = transport
        var tokens: [String] = []
        for _ in 0..<count {
            let answer = try await Self.send(
                transport,
                TransportRequest(
                    method: "POST",
                    url: server + Endpoints.register().path,
                    headers: Self.headers(token: enrollmentToken),
                    body: .bytes(Data("{}".utf8))
                )
            )
            tokens.append(answer["token"] as? String ?? "")
        }
        self.tokens = tokens
    }

    /// Takes part in one round with every client.
    func takePart() async throws {
        // All have their assignment before the first byte is sent, as the round opens for reports then.
        let urls = Mutex<[Int: String]>([:])
        let bases = Mutex<Set<String>>([])
        try await together { index in
            var url: String?
            while url == nil {
                var request = request("POST", Endpoints.checkIn().path, index, .bytes(Data("{}".utf8)))
                request.headers["Prefer"] = "wait=30"
                let answer = try await Self.send(transport, request)
                let assignment = answer["assignment"] as? [String: Any]
                url = assignment?["update_url"] as? String
                let base = (assignment?["model"] as? [String: Any])?["sha256"] as? String
                bases.withLock { known in base.map { _ = known.insert($0) } }
            }
            urls.withLock { $0[index] = url }
        }
        let work = urls.withLock { $0 }
        guard let base = bases.withLock({ $0.count == 1 ? $0.first : nil }) else {
            throw BenchmarkError("the clients of a round start from one model")
        }
        let metadata = ["kind": "delta", "num_examples": "10", "base": base]
        let data = SafetensorsWriter.encode(update, metadata: metadata)
        try data.write(to: URL(fileURLWithPath: path))
        let digest = "sha-256=:\(Data(SHA256.hash(data: data)).base64EncodedString()):"
        try await together { index in
            var request = request("PUT", work[index] ?? "", index, .file(path: path))
            request.headers["Content-Type"] = "application/vnd.safetensors"
            request.headers["Content-Digest"] = digest
            _ = try await Self.send(transport, request)
        }
    }

    private func together(_ body: @escaping @Sendable (_ index: Int) async throws -> Void) async throws {
        let count = tokens.count
        try await withThrowingTaskGroup(of: Void.self) { group in
            for lane in 0..<Self.width {
                group.addTask {
                    for index in stride(from: lane, to: count, by: Self.width) { try await body(index) }
                }
            }
            try await group.waitForAll()
        }
    }

    private func request(
        _ method: String,
        _ path: String,
        _ index: Int,
        _ body: TransportRequest.Body
    )
        -> TransportRequest
    {
        TransportRequest(
            method: method,
            url: server + path,
            headers: Self.headers(token: tokens[index]),
            body: body,
            timeoutSeconds: 600
        )
    }

    private static func headers(token: String) -> [String: String] {
        ["Authorization": "Bearer \(token)", "Content-Type": "application/json"]
    }

    private static func send(_ transport: CurlTransport, _ request: TransportRequest) async throws -> [String: Any] {
        let response = try await transport.send(request)
        guard (200..<300).contains(response.status) else {
            throw BenchmarkError(
                "\(request.method) \(request.url): \(response.status) \(String(decoding: response.body, as: UTF8.self))"
            )
        }
        return (try? JSONSerialization.jsonObject(with: response.body)) as? [String: Any] ?? [:]
    }
}
