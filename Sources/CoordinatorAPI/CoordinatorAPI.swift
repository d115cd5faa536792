package import Coordination
import Foundation
package import HTTPServing
import HTTPTypes
import StrictJSON
package import Tensors
package import WireFormat

/// The routes: HTTP in, coordinator calls, HTTP out.
package struct CoordinatorAPI: Sendable {
    let coordinator: Coordinator
    let isOpen: Bool
    let makeInitialModel: @Sendable (RunSpecification.Model) throws -> ParameterVector?
    /// The names of models that run files may give; `nil`: any.
    let architectures: [String]?
    let baseLayout: @Sendable (RunSpecification.Model) throws -> ParameterLayout?
    let modelFiles: ModelFiles
    /// The files of a model's directory, from its weights and those of the base that it names.
    package typealias ModelFiles =
        @Sendable (_ model: RunSpecification.Model, _ weightsPath: String, _ basePath: String?) throws -> [ArchiveFile]
    let requestLog: RequestLog
    let limits: CallerLimits
    let uploads: UploadBudget
    let partialUploads = PartialUploads()
    let variants: ModelVariants

    /// Joins the routes to a coordinator.
    ///
    /// - Parameters:
    ///   - coordinator: Takes the decisions.
    ///   - isOpen: Whether callers without a token are administrators (loopback only).
    ///   - requestLog: Where requests are logged.
    ///   - limits: How often callers may ask.
    ///   - makeInitialModel: The first version of a built-in architecture; the server itself links no trainer.
    ///   - architectures: The names of models that run files may give; absent: any.
    ///   - baseLayout: The tensors of the other model that a built-in architecture builds on.
    ///   - modelFiles: What a model's archive holds beside its card and specification.
    package init(
        coordinator: Coordinator,
        isOpen: Bool,
        requestLog: RequestLog = RequestLog(),
        limits: CallerLimits = CallerLimits(),
        makeInitialModel: @escaping @Sendable (RunSpecification.Model) throws -> ParameterVector?,
        architectures: [String]? = nil,
        baseLayout: @escaping @Sendable (RunSpecification.Model) throws -> ParameterLayout? = { _ in nil },
        modelFiles: @escaping ModelFiles = { _, weights, _ in
            [ArchiveFile(name: "model.safetensors", content: .file(path: weights))]
        }
    ) {
        self.coordinator = coordinator
        self.isOpen = isOpen
        self.requestLog = requestLog
        self.limits = limits
        variants = ModelVariants(dataDirectory: coordinator.configuration.dataDirectory)
        uploads = UploadBudget(
            byteLimit: coordinator.configuration.uploadByteLimit,
            metrics: coordinator.metrics,
            now: coordinator.configuration.now
        )
        self.makeInitialModel = makeInitialModel
        self.architectures = architectures
        self.baseLayout = baseLayout
        self.modelFiles = modelFiles
    }

    /// Every route of the API.
    package func router() -> Router {
        var router = Router(errorHandler: ErrorMapping.response)
        router.admit = { request in
            try admit(&request)
            try Self.requireIdentity(request)
        }
        router.around = { request, handler in try await audited(request) { try await negotiated($0, handler) } }
        router.observe = observed
        router.inFlight = { [metrics = coordinator.metrics] in
            metrics.add("martlet_http_requests_in_flight", Double($0))
        }
        addStatusRoutes(to: &router)
        addPopulationRoutes(to: &router)
        addPrivacyRoutes(to: &router)
        addRunRoutes(to: &router)
        addTokenizerRoutes(to: &router)
        addModelRoutes(to: &router)
        addDownloadRoutes(to: &router)
        addArchiveRoute(to: &router)
        addParticipationRoutes(to: &router)
        addUploadRoutes(to: &router)
        addOverviewRoutes(to: &router)
        Self.addPageRoutes(to: &router)
        addTokenRoutes(to: &router)
        addEventRoutes(to: &router)
        addRobustnessRoutes(to: &router)
        addAnalyticsRoutes(to: &router)
        return router
    }

    private func addStatusRoutes(to router: inout Router) {
        let healthy = ServerResponse(
            status: 200,
            headers: [.contentType: "application/json"],
            body: .bytes(Array(#"{"status":"ok"}"#.utf8) + [10])
        )
        router.add("GET", "/healthz", immediately: { Self.takesJSON($0) ? healthy : nil }, otherwise: { _ in healthy })
        router.add("GET", "/readyz") { _ in
            try await coordinator.checkStorage()
            return try Self.json(["status": "ready", "ledger_record": await coordinator.ledgerRecordState])
        }
        router.add("GET", "/metrics") { request in
            try await requireViewer(request)
            return ServerResponse(
                status: 200,
                headers: [.contentType: "text/plain; version=0.0.4; charset=utf-8"],
                body: .bytes(Array(await coordinator.metricsExposition().utf8))
            )
        }
    }

    private func addPopulationRoutes(to router: inout Router) {
        router.add("POST", "/v1/populations") { request in
            try await requireAdmin(request)
            let body = try PopulationRequest.read(await Self.document(request))
            let population = try await coordinator.createPopulation(body)
            return try Self.created(population, at: "/v1/populations/\(population.id)")
        }
        router.add("GET", "/v1/populations") { request in
            try await requireViewer(request)
            let (limit, cursor) = try request.page()
            return try Self.list(await coordinator.listPopulations(from: cursor ?? 0, limit: limit))
        }
        router.add("GET", "/v1/populations/{population}") { request in
            try await requireViewer(request)
            return try Self.tagged(await coordinator.population(request.parameters["population"] ?? ""), request)
        }
        router.add("GET", "/v1/populations/{population}/ledger") { request in
            try await requireViewer(request)
            let population = request.parameters["population"] ?? ""
            switch try request.choice("format", default: LedgerFormat.json) {
            case .audit: return try Self.json(await coordinator.ledgerAudit(population: population))
            case .json:
                let (limit, cursor) = try request.page()
                let rows = try await coordinator.ledgerRows(population: population, from: cursor ?? 0, limit: limit)
                return try Self.list(Listing(items: rows.map(LedgerRowView.init), next: rows.next))
            case .jsonl: break
            }
            let first = try await coordinator.ledgerRows(population: population, limit: 1000)
            return ServerResponse(
                status: 200,
                headers: [.contentType: "application/jsonl"],
                body: .stream { send in
                    var part = first
                    while true {
                        for row in part { try await send(Array(try WireCoding.encode(LedgerRowView(row))) + [10]) }
                        guard let next = part.next else { return }
                        part = try await coordinator.ledgerRows(population: population, from: next, limit: 1000)
                    }
                }
            )
        }
        router.add("POST", "/v1/populations/{population}/enrollment-tokens") { request in
            let creator = try await require(.admin, request)
            let body = try EnrollmentTokenRequest.read(await Self.document(request))
            let issued = try await coordinator.issueEnrollmentToken(
                population: request.parameters["population"] ?? "",
                body,
                by: creator
            )
            return try Self.created(issued, at: "/v1/tokens/\(issued.id)")
        }
        router.add("GET", "/v1/clients") { request in
            try await requireViewer(request)
            let (limit, cursor) = try request.page()
            return try Self.list(await coordinator.listClients(from: cursor ?? 0, limit: limit))
        }
        router.add("GET", "/v1/clients/{client}") { request in
            let id = request.parameters["client"] ?? ""
            let caller = try await principal(request)
            guard caller.staffRole != nil || caller == .client(id: id) else { throw Self.forbidden }
            return try Self.tagged(await coordinator.clientView(id), request)
        }
        router.add("PATCH", "/v1/clients/{client}") { request in
            let id = request.parameters["client"] ?? ""
            if try await principal(request) == .client(id: id) {
                try noteRenewal("client " + id)
            } else {
                try await requireOperator(request)
            }
            let body = try ClientChange.read(await Self.clientDocument(request))
            return try Self.json(
                await change(request, of: { try $0.client(id) }) { try $0.changeClient(id, body) }
            )
        }
        router.add("DELETE", "/v1/clients/{client}") { request in
            try await requireOperator(request)
            let id = request.parameters["client"] ?? ""
            try await change(request, of: { try $0.client(id) }) { try $0.revokeClient(id) }
            return ServerResponse(status: 204)
        }
    }

    // MARK: - Bodies

    /// The most bytes of a document that clients send again and again: a check-in that names 1,000 runs has half of them.
    static let clientDocumentBytes = 64 << 10

    /// A document of a client: as small as what clients say, since they are many.
    static func clientDocument(_ request: ServerRequest) async throws -> JSONValue {
        var request = request
        request.documentByteLimit = min(request.documentByteLimit, clientDocumentBytes)
        return try await document(request)
    }

    /// Refuses a body in another coding before anything is done with the request: no route reads one, and an assignment whose
    /// update comes like that lives on.
    private static func requireIdentity(_ request: ServerRequest) throws {
        guard let coding = request.headers[.contentEncoding] else { return }
        let names = coding.split(separator: ",").map { $0.trimmingCharacters(in: .whitespaces).lowercased() }
        guard names.allSatisfy({ $0.isEmpty || $0 == "identity" }) else { throw ContentCodingError(coding: coding) }
    }

    static func document(_ request: ServerRequest) async throws -> JSONValue {
        let type = (request.headers[.contentType] ?? "application/json").prefix { $0 != ";" }
            .trimmingCharacters(in: .whitespaces).lowercased()
        guard type == "application/json" || type == "application/yaml" || type == "application/x-www-form-urlencoded"
        else {
            throw ParseFailure(status: 415, detail: "send application/json or application/yaml, not \(type)")
        }
        let bytes = try await request.body.collect(limit: request.documentByteLimit)
        guard type == "application/yaml" else { return try JSONValue.parse(bytes.isEmpty ? Array("{}".utf8) : bytes) }
        return try YAMLDocument.parse(bytes)
    }

    static func json(_ value: some Encodable, status: Int = 200) throws -> ServerResponse {
        ServerResponse(
            status: status,
            headers: [.contentType: "application/json"],
            body: .bytes(Array(try WireCoding.encode(value)) + [10])
        )
    }

    /// What a POST made, and where it is from now on.
    static func created(_ value: some Encodable, at path: String) throws -> ServerResponse {
        var response = try json(value, status: 201)
        response.headers[.location] = path
        return response
    }

    /// A page of items; the cursor is the position after the last item shown.
    static func list<Item: Encodable & Sendable>(_ items: [Item], _ request: ServerRequest) throws -> ServerResponse {
        let (limit, cursor) = try request.page()
        return try list(Listing(items, from: cursor ?? 0, limit: limit))
    }

    /// A page that was cut out where the list is.
    static func list<Item: Encodable>(_ page: Listing<Item>) throws -> ServerResponse {
        try json(Page(items: page.items, nextCursor: page.next.map(String.init)))
    }
}

/// A charge as it is shown; with `created_at` in milliseconds an outsider can compute the chain of hashes again.
private struct LedgerRowView: Encodable, Sendable {
    var sequence: Int
    var populationId: String
    var runId: String
    var round: Int
    var attempt: Int
    var state: String
    var event: String
    var epsilonAfter: Double
    var createdAt: String
    var previousHash: String
    var rowHash: String
    var format: Int
    var populationNumber: Int?
    var populationPreviousHash: String?

    init(_ row: LedgerRow) {
        format = row.format
        populationNumber = row.populationNumber
        populationPreviousHash = row.populationPreviousHash
        sequence = row.sequence
        populationId = row.populationId
        runId = row.runId
        round = row.round
        attempt = row.attempt
        state = row.state.rawValue
        event = row.event
        epsilonAfter = row.epsilonAfter
        createdAt = row.createdAt.wireTimestamp
        previousHash = row.previousHash
        rowHash = row.rowHash
    }
}

/// A body that is compressed, or coded in another way.
struct ContentCodingError: Error {
    var coding: String
}

/// How a population's ledger is shown.
private enum LedgerFormat: String, CaseIterable {
    case json, jsonl, audit
}

/// One page of a list.
private struct Page<Item: Encodable>: Encodable {
    var items: [Item]
    var nextCursor: String?
}
