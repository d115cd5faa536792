import Coordination
import CoordinatorAPI
import Foundation
import HTTPServing
import HTTPTypes
import Logging
import Tensors
import TestSupport
import Testing
import WireFormat

/// A private run driven through the routes, as `curl` would, with a server that can be restarted.
final class PrivateBench {
    let directory: TemporaryDirectory
    let clock = TestClock()
    let store: any RunStore = InMemoryRunStore()
    let layout: ParameterLayout
    private(set) var coordinator: Coordinator
    private var router: Router
    private(set) var admin = ""
    private(set) var run = ""
    private(set) var clients: [String] = []

    init(tensors: [TensorSpecification] = [.init(name: "a", shape: [2, 2])]) async throws {
        directory = try TemporaryDirectory()
        layout = ParameterLayout(tensors)
        (coordinator, router) = try await Self.start(directory, clock, store)
        admin = try #require(try await coordinator.makeFirstAdminToken())
    }

    private static func start(
        _ directory: TemporaryDirectory,
        _ clock: TestClock,
        _ store: any RunStore
    ) async throws -> (Coordinator, Router) {
        var configuration = CoordinatorConfiguration(dataDirectory: directory.path)
        configuration.now = { [clock] in clock.now }
        let coordinator = try await Coordinator(
            configuration: configuration,
            store: store,
            logger: Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })
        )
        return (
            coordinator,
            CoordinatorAPI(coordinator: coordinator, isOpen: false, makeInitialModel: { _ in nil }).router()
        )
    }

    func restart() async throws { (coordinator, router) = try await Self.start(directory, clock, store) }

    func call(
        _ method: String,
        _ target: String,
        token: String? = nil,
        _ body: [UInt8] = []
    ) async throws -> (status: Int, json: [String: Any]) {
        var headers: HTTPFields = [.authorization: "Bearer \(token ?? admin)"]
        headers[.contentType] = method == "PUT" ? "application/vnd.safetensors" : "application/json"
        var request = try ServerRequest(
            method: method,
            rawTarget: target,
            headers: headers,
            body: MemoryBody(body),
            requestID: "test"
        )
        request.remoteAddress = "192.0.2.7"
        let response = await router.handle(request)
        guard case .bytes(let data) = response.body else { return (response.status, [:]) }
        return (response.status, (try? JSONSerialization.jsonObject(with: Data(data))) as? [String: Any] ?? [:])
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
        epsilon: Double = 500
    ) async throws {
        _ = try await post("/v1/populations", #"{"name": "p", "budget": {"epsilon": \#(epsilon), "delta": 1e-5}}"#)
        let enrollment = try #require(
            try await post("/v1/populations/p/enrollment-tokens", #"{"max_uses": 1000}"#).json["token"] as? String
        )
        for _ in 0..<count {
            clients.append(try #require(try await post("/v1/clients", token: enrollment).json["token"] as? String))
        }
        let created = try await post(
            "/v1/runs",
            """
            {"population": "p", "rounds": \(rounds), "model": {"architecture": "external"}, "cohort": \(cohort),
             "privacy": \(privacy)\(extra)}
            """
        )
        try #require(created.status == 201, "\(created.json)")
        run = try #require(created.json["id"] as? String)
        let model = Array(SafetensorsWriter.encode(ParameterVector(zeros: layout)))
        try #require(try await call("PUT", "/v1/runs/\(run)/model", model).status == 201)
        let started = try await post("/v1/runs/\(run)/start")
        try #require(started.status == 200, "\(started.json)")
    }

    /// What a client is told when it asks for work.
    func checkIn(_ client: Int) async throws -> [String: Any] {
        try await post("/v1/checkins", token: clients[client]).json
    }

    /// Uploads an update for an assignment.
    func upload(
        _ client: Int,
        _ assignment: [String: Any],
        _ values: [Float],
        metadata: [String: String] = [:]
    ) async throws -> (status: Int, json: [String: Any]) {
        let body = SafetensorsWriter.encode(ParameterVector(layout: layout, values: values), metadata: metadata)
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
            try await coordinator.rounds(run: run).last?.state != "aggregating"
        }
        let version = try await coordinator.model(run: run, version: "latest")
        return try SafetensorsFile(path: coordinator.blobs.path(sha256: version.sha256)).readAll().values
    }

    /// The events of the ledger that were committed for the run.
    func charges() async throws -> [[String: Any]] {
        try await coordinator.ledgerRows(population: "p").filter { $0.runId == run && $0.state == "committed" }.map {
            try #require(try JSONSerialization.jsonObject(with: Data($0.event.utf8)) as? [String: Any])
        }
    }

    func spent() async throws -> Double { try #require(try await coordinator.population("p").budget).spentEpsilon }
}

/// Standard deviation around zero.
func rootMeanSquare(_ values: some Collection<Float>) -> Double {
    (values.reduce(0.0) { $0 + Double($1) * Double($1) } / Double(values.count)).squareRoot()
}
