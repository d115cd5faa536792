package import Coordination
package import CoordinatorAPI
package import Foundation
package import HTTPServing
package import HTTPTypes
package import Logging
import Synchronization
package import Tensors
package import TestSupport
import Testing
package import WireFormat

/// The routes over a store, called in the process or over a socket, with a server that can be restarted.
package struct Service {
    package let directory: TemporaryDirectory
    package let store: any RunStore
    package let clock: TestClock
    package let coordinator: Coordinator
    package let router: Router
    package let admin: String
    private let socket: ListeningServer?
    private let logger: Logger
    private let makeInitialModel: ModelMaker
    package static let layout = ParameterLayout([.init(name: "w", shape: [2, 2])])

    /// How a call reaches the routes.
    package enum Way: String, CaseIterable, Sendable { case router, socket }

    package typealias ModelMaker = @Sendable (RunSpecification.Model) throws -> ParameterVector?

    /// - Parameters:
    ///   - way: How calls reach the routes.
    ///   - directory: Of the data; a new one by default.
    ///   - store: Of the states; in memory by default.
    ///   - logger: Of the coordinator.
    ///   - configure: Changes the configuration.
    ///   - makeInitialModel: Makes the first version of built-in models; there are none by default.
    /// - Throws: What the coordinator throws.
    package init(
        _ way: Way = .router,
        in directory: TemporaryDirectory? = nil,
        store: any RunStore = InMemoryRunStore(),
        logger: Logger = Logger(label: "test"),
        _ configure: (inout CoordinatorConfiguration) -> Void = { _ in },
        makeInitialModel: @escaping ModelMaker = { _ in nil }
    ) async throws {
        try await self.init(
            way,
            directory ?? TemporaryDirectory(),
            store,
            TestClock(),
            admin: nil,
            logger,
            makeInitialModel,
            configure
        )
    }

    /// The same data served by a new process, as far as the server can tell.
    package func restarted(_ configure: (inout CoordinatorConfiguration) -> Void = { _ in }) async throws -> Service {
        let way: Way = socket == nil ? .router : .socket
        return try await Service(way, directory, store, clock, admin: admin, logger, makeInitialModel, configure)
    }

    private init(
        _ way: Way,
        _ directory: TemporaryDirectory,
        _ store: any RunStore,
        _ clock: TestClock,
        admin known: String?,
        _ logger: Logger,
        _ makeInitialModel: @escaping ModelMaker,
        _ configure: (inout CoordinatorConfiguration) -> Void
    ) async throws {
        self.directory = directory
        self.store = store
        self.clock = clock
        self.logger = logger
        self.makeInitialModel = makeInitialModel
        var configuration = CoordinatorConfiguration(dataDirectory: directory.path)
        configuration.now = { clock.now }
        configure(&configuration)
        coordinator = try await Coordinator(configuration: configuration, store: store, logger: logger)
        admin = try await coordinator.makeFirstAdminToken() ?? known ?? ""
        router = CoordinatorAPI(coordinator: coordinator, isOpen: false, makeInitialModel: makeInitialModel).router()
        socket = way == .socket ? try await ListeningServer(router) : nil
    }

    package struct Answer {
        package var status: Int
        package var headers: HTTPFields
        package var bytes: [UInt8]
        package var json: [String: Any] {
            ((try? JSONSerialization.jsonObject(with: Data(bytes))) as? [String: Any]) ?? [:]
        }
        package var code: String { json["code"] as? String ?? "" }
    }

    package func call(
        _ method: String,
        _ target: String,
        token: String?,
        _ body: [UInt8] = [],
        _ fields: [String: String] = [:]
    ) async throws -> Answer {
        try await call(method, target, token: token, body: MemoryBody(body), fields)
    }

    package func call(
        _ method: String,
        _ target: String,
        token: String?,
        body: any RequestBody,
        _ fields: [String: String] = [:]
    ) async throws -> Answer {
        var headers: HTTPFields = [:]
        if let token { headers[.authorization] = "Bearer \(token)" }
        for (name, value) in fields { headers[try #require(HTTPField.Name(name))] = value }
        let answer =
            if let socket {
                try await socket.send(method, target, headers, body)
            } else {
                try await Self.handle(router, method, target, headers, body)
            }
        if answer.status >= 400, answer.headers[.contentType] == "application/problem+json" {
            let statuses = ProblemCodes.described[answer.code]
            #expect(
                statuses?.contains(answer.status) == true,
                "openapi.yaml does not describe \(answer.code) with status \(answer.status): \(method) \(target)"
            )
        }
        return answer
    }

    private static func handle(
        _ router: Router,
        _ method: String,
        _ target: String,
        _ headers: HTTPFields,
        _ body: any RequestBody
    ) async throws -> Answer {
        var request = try ServerRequest(
            method: method,
            rawTarget: target,
            headers: headers,
            body: body,
            requestID: "test"
        )
        request.remoteAddress = "192.0.2.7"
        let response = await router.handle(request)
        var bytes: [UInt8] = []
        switch response.body {
        case .none: break
        case .bytes(let data): bytes = data
        case .stream(let produce):
            let collected = Mutex<[UInt8]>([])
            try await produce { block in collected.withLock { $0 += block } }
            bytes = collected.withLock { $0 }
        case .file(let path, let range): bytes = Array(try Data(contentsOf: URL(fileURLWithPath: path))[range])
        }
        return Answer(status: response.status, headers: response.headers, bytes: bytes)
    }

    package func post(_ target: String, token: String? = nil, _ json: String = "{}") async throws -> Answer {
        try await call("POST", target, token: token ?? admin, Array(json.utf8))
    }

    /// What the metadata of an update of the first round names: the hash of the model of zeros.
    package static func base(
        _ layout: ParameterLayout = Self.layout,
        _ others: [String: String] = [:]
    ) -> [String: String] {
        let model = SafetensorsWriter.encode(ParameterVector(zeros: layout))
        return ["base": Secrets.sha256(model)].merging(others) { _, other in other }
    }

    /// An update of the first round with these values.
    package static func update(_ values: [Float], _ others: [String: String] = [:]) -> [UInt8] {
        Array(SafetensorsWriter.encode(ParameterVector(layout: layout, values: values), metadata: base(layout, others)))
    }

    /// Waits until a run is no longer running.
    package func waitForEnd(of run: String, file: String = #fileID, line: Int = #line) async throws {
        try await wait(for: "the end of the run", file: file, line: line) {
            try await call("GET", "/v1/runs/\(run)", token: admin).json["state"] as? String != "running"
        }
    }

    /// A started run with one client that holds an assignment.
    package func assigned(
        encoding: String = "f32",
        layout: ParameterLayout = Self.layout,
        modelEncoding: String = "f32"
    ) async throws -> (run: String, token: String, assignment: [String: Any]) {
        _ = try await post("/v1/populations", #"{"name": "p"}"#)
        let specification =
            RunFile.sample {
                $0.cohort += ["goal": 2, "minimum": 1]
                $0.training += ["encoding": encoding, "model_encoding": modelEncoding]
            }.text
        let run = try #require(try await post("/v1/runs", specification).json["id"] as? String)
        let model = Array(SafetensorsWriter.encode(ParameterVector(zeros: layout)))
        #expect(try await call("PUT", "/v1/runs/\(run)/model", token: admin, model).status == 201)
        #expect(try await post("/v1/runs/\(run)/start").status == 200)
        let enrollment = try #require(
            try await post("/v1/populations/p/enrollment-tokens", #"{"max_uses": 5}"#).json["token"] as? String
        )
        let token = try #require(try await post("/v1/clients", token: enrollment).json["token"] as? String)
        let answer = try await post("/v1/checkins", token: token)
        #expect(answer.status == 201)
        return (run, token, try #require(answer.json["assignment"] as? [String: Any]))
    }
}
