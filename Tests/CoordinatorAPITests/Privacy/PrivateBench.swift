import Coordination
import CoordinatorAPI
import DifferentialPrivacy
import Foundation
import HTTPServing
import HTTPTypes
import LocalTraining
import Logging
import SQLiteStorage
import Synchronization
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

#if canImport(Glibc)
import Glibc
#endif

/// A private run driven through the routes, as `curl` would, with a server that can be restarted.
final class PrivateBench {
    private var service: Service
    private let drawNoiseKey: (@Sendable (_ run: String, _ round: Int) -> NoiseKey)?
    let layout: ParameterLayout
    private(set) var run = ""
    private(set) var clients: [String] = []
    /// What the last assignment of a private run said.
    private(set) var updateByteCount: Int?

    var directory: TemporaryDirectory { service.directory }
    var clock: TestClock { service.clock }
    var store: any RunStore { service.store }
    var coordinator: Coordinator { service.coordinator }
    var router: Router { service.router }
    var admin: String { service.admin }

    /// - Parameters:
    ///   - tensors: Of the model.
    ///   - isStored: Whether the database is a file of the directory.
    ///   - drawNoiseKey: Makes the keys of the noise; `nil` as a server does.
    /// - Throws: What the store or the coordinator throws.
    init(
        tensors: [TensorSpecification] = [.init(name: "a", shape: [2, 2])],
        isStored: Bool = false,
        drawNoiseKey: (@Sendable (_ run: String, _ round: Int) -> NoiseKey)? = nil
    ) async throws {
        self.drawNoiseKey = drawNoiseKey
        layout = ParameterLayout(tensors)
        let directory = try TemporaryDirectory()
        let log = LogFile(path: directory.path + "/server.log")
        service = try await Service(
            in: directory,
            store: isStored ? SQLiteRunStore(path: directory.path + "/martlet.sqlite") : InMemoryRunStore(),
            logger: Logger(label: "test", factory: { _ in log }),
            { if let drawNoiseKey { $0.drawNoiseKey = drawNoiseKey } },
            makeInitialModel: { try Self.initialModel($0) }
        )
        try #require(!admin.isEmpty)
    }

    /// As the executable makes it.
    private static func initialModel(_ model: RunSpecification.Model) throws -> ParameterVector? {
        guard model.architecture != "external", let config = model.config else { return nil }
        let description = ModelDescription(
            architecture: model.architecture,
            config: String(decoding: try WireCoding.encode(config), as: UTF8.self)
        )
        return try ModelArchitectures.make(description).initialParameters(seed: 42)
    }

    func restart() async throws {
        service = try await service.restarted { [drawNoiseKey] in
            if let drawNoiseKey { $0.drawNoiseKey = drawNoiseKey }
        }
    }

    func call(
        _ method: String,
        _ target: String,
        token: String? = nil,
        _ body: [UInt8] = [],
        type: String? = nil
    ) async throws -> (status: Int, json: [String: Any]) {
        let answer = try await exchange(method, target, token: token, body, type: type)
        return (answer.status, (try? JSONSerialization.jsonObject(with: answer.body)) as? [String: Any] ?? [:])
    }

    /// Sends a part of an update, from its first byte.
    func append(
        _ target: String,
        token: String,
        _ body: [UInt8],
        isLast: Bool
    ) async throws -> (status: Int, json: [String: Any]) {
        var fields = HTTPFields()
        for (name, value) in ["Upload-Offset": "0", "Upload-Complete": isLast ? "?1" : "?0"] {
            fields[try #require(HTTPField.Name(name))] = value
        }
        let answer = try await exchange(
            "PATCH",
            target,
            token: token,
            body,
            type: "application/partial-upload",
            fields: fields
        )
        return (answer.status, (try? JSONSerialization.jsonObject(with: answer.body)) as? [String: Any] ?? [:])
    }

    /// The answer as its bytes.
    func exchange(
        _ method: String,
        _ target: String,
        token: String? = nil,
        _ body: [UInt8] = [],
        type: String? = nil,
        fields: HTTPFields = [:]
    ) async throws -> (status: Int, body: Data) {
        var headers = fields
        headers[.authorization] = "Bearer \(token ?? admin)"
        headers[.contentType] = type ?? (method == "PUT" ? "application/vnd.safetensors" : "application/json")
        var request = try ServerRequest(
            method: method,
            rawTarget: target,
            headers: headers,
            body: MemoryBody(body),
            requestID: "test"
        )
        request.remoteAddress = "192.0.2.7"
        let response = await router.handle(request)
        guard case .bytes(let data) = response.body else { return (response.status, Data()) }
        return (response.status, Data(data))
    }

    /// What a route streams, as text as far as it is some.
    func text(_ target: String, token: String? = nil) async throws -> String {
        let request = try ServerRequest(
            method: "GET",
            rawTarget: target,
            headers: [.authorization: "Bearer \(token ?? admin)"],
            body: MemoryBody([]),
            requestID: "test"
        )
        let response = await router.handle(request)
        guard case .stream(let produce) = response.body else {
            Issue.record("\(target) was answered by \(response.status): \(response.body)")
            return ""
        }
        let collected = Mutex<[UInt8]>([])
        try await produce { block in collected.withLock { $0 += block } }
        return String(decoding: collected.withLock { $0 }, as: UTF8.self)
    }

    func post(
        _ target: String,
        token: String? = nil,
        _ json: String = "{}"
    ) async throws -> (
        status: Int, json: [String: Any]
    ) {
        try await call("POST", target, token: token, Array(json.utf8))
    }

    /// A population with a budget, clients, and a started run of `rounds`.
    func begin(
        privacy: String,
        cohort: String,
        rounds: Int = 1,
        extra: String = "",
        clients count: Int,
        epsilon: Double = 500,
        isBuiltIn: Bool = false,
        hasBudget: Bool = true
    ) async throws {
        let budget = hasBudget ? #", "budget": {"epsilon": \#(epsilon), "delta": 1e-5}"# : ""
        _ = try await post("/v1/populations", #"{"name": "p"\#(budget)}"#)
        let enrollment = try #require(
            try await post("/v1/populations/p/enrollment-tokens", #"{"max_uses": 1000}"#).json["token"] as? String
        )
        for _ in 0..<count {
            clients.append(try #require(try await post("/v1/clients", token: enrollment).json["token"] as? String))
        }
        let created = try await post(
            "/v1/runs",
            """
            {"population": "p", "rounds": \(rounds)\(isBuiltIn ? "" : #", "model": {"architecture": "external"}"#),
             "cohort": \(cohort), "privacy": \(privacy)\(extra)}
            """
        )
        try #require(created.status == 201, "\(created.json)")
        run = try #require(created.json["id"] as? String)
        if !isBuiltIn {
            let model = Array(SafetensorsWriter.encode(ParameterVector(zeros: layout)))
            try #require(try await call("PUT", "/v1/runs/\(run)/model", model).status == 201)
        }
        let started = try await post("/v1/runs/\(run)/start")
        try #require(started.status == 200, "\(started.json)")
    }

    /// What a client is told when it asks for work.
    func checkIn(_ client: Int) async throws -> [String: Any] {
        let answer = try await post("/v1/checkins", token: clients[client]).json
        if let count = (answer["assignment"] as? [String: Any])?["update_bytes"] as? Int { updateByteCount = count }
        return answer
    }

    /// Uploads an update for an assignment.
    func upload(
        _ client: Int,
        _ assignment: [String: Any],
        _ values: [Float],
        metadata: [String: String] = [:]
    ) async throws -> (status: Int, json: [String: Any]) {
        var metadata = metadata
        metadata["base"] = try #require((assignment["model"] as? [String: Any])?["sha256"] as? String)
        let plain = SafetensorsWriter.encode(ParameterVector(layout: layout, values: values), metadata: metadata)
        let body = SafetensorsWriter.padded(plain, to: assignment["update_bytes"] as? Int ?? 0)
        let target = try #require(assignment["update_url"] as? String)
        return try await call("PUT", target, token: clients[client], Array(body))
    }

    /// Lets clients take part with the same update, and waits for the version.
    @discardableResult
    func play(
        _ members: some Sequence<Int>,
        _ values: [Float],
        metadata: [String: String] = [:]
    ) async throws -> [Float] {
        for client in members {
            let answer = try await checkIn(client)
            let assignment = try #require(answer["assignment"] as? [String: Any], "\(answer)")
            let receipt = try await upload(client, assignment, values, metadata: metadata)
            try #require(receipt.status == 200, "\(receipt.json)")
        }
        return try await settled()
    }

    /// Waits for the background arithmetic, and gives the newest version.
    func settled() async throws -> [Float] {
        try await wait(for: "the end of the aggregation") {
            try await coordinator.rounds(run: run).last?.state != .aggregating
        }
        let version = try await coordinator.model(run: run, version: "latest")
        return try SafetensorsFile(path: coordinator.blobs.path(sha256: version.sha256)).readAll().values
    }

    /// The events of the ledger that were committed for the run.
    func charges() async throws -> [[String: Any]] {
        try await coordinator.ledgerRows(population: "p").filter { $0.runId == run && $0.state == .committed }.map {
            try #require(try JSONSerialization.jsonObject(with: Data($0.event.utf8)) as? [String: Any])
        }
    }

    func spent() async throws -> Double { try #require(try await coordinator.population("p").budget).spentEpsilon }
}

/// Keeps everything that a server says, at every level, in a file.
private struct LogFile: LogHandler {
    let path: String
    var metadata: Logger.Metadata = [:]
    var logLevel = Logger.Level.trace

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    // swift-format-ignore
    func log(level: Logger.Level, message: Logger.Message, metadata: Logger.Metadata?, source: String, file: String, function: String, line: UInt) {
        let line = Array("\(level) \(message) \(self.metadata.merging(metadata ?? [:]) { _, new in new })\n".utf8)
        let descriptor = open(path, O_WRONLY | O_CREAT | O_APPEND, 0o600)
        defer { close(descriptor) }
        _ = line.withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
    }
}

/// Standard deviation around zero.
func rootMeanSquare(_ values: some Collection<Float>) -> Double {
    (values.reduce(0.0) { $0 + Double($1) * Double($1) } / Double(values.count)).squareRoot()
}
