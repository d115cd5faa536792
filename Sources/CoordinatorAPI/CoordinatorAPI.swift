package import Coordination
import Foundation
package import HTTPServing
import HTTPTypes
package import StrictJSON
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
    let unwrittenRefusals = UnwrittenRefusals()
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
        var routes = EndpointRoutes(api: self, router: router)
        addServerRoutes(to: &routes)
        Self.addPageRoutes(to: &routes.router)
        addTokenRoutes(to: &routes)
        addAuditRoutes(to: &routes)
        addEventRoutes(to: &routes)
        addPopulationRoutes(to: &routes)
        addLedgerRoutes(to: &routes)
        addClientRoutes(to: &routes)
        addRunRoutes(to: &routes)
        addRoundRoutes(to: &routes)
        addModelRoutes(to: &routes)
        addDownloadRoutes(to: &routes)
        addArchiveRoutes(to: &routes)
        addWordRoutes(to: &routes)
        addParticipationRoutes(to: &routes)
        addUploadRoutes(to: &routes)
        return routes.router
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
    package static func requireIdentity(_ request: ServerRequest) throws {
        guard let coding = request.headers[.contentEncoding] else { return }
        let names = coding.split(separator: ",").map { $0.trimmingCharacters(in: .whitespaces).lowercased() }
        guard names.allSatisfy({ $0.isEmpty || $0 == "identity" }) else { throw ContentCodingError(coding: coding) }
    }

    /// A document in JSON or YAML.
    package static func document(_ request: ServerRequest) async throws -> JSONValue {
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

    /// An answer in JSON.
    package static func json(_ value: some Encodable, status: Int = 200) throws -> ServerResponse {
        ServerResponse(
            status: status,
            headers: [.contentType: "application/json"],
            body: .bytes(Array(try WireCoding.encode(value)) + [10])
        )
    }

    /// What a POST made, and where it is from now on.
    static func created<Body, Answer>(
        _ value: some Encodable,
        at target: RequestTarget<Body, Answer>
    ) throws -> ServerResponse {
        var response = try json(value, status: 201)
        response.headers[.location] = target.path
        return response
    }

    /// A page of items; the cursor is the position after the last item shown.
    package static func list<Item: Encodable & Sendable>(
        _ items: [Item],
        _ request: ServerRequest
    ) async throws -> ServerResponse {
        let (limit, cursor) = try request.page()
        return try await list(Listing(items, from: cursor ?? 0, limit: limit))
    }

    /// A page that was cut out where the list is.
    static func list<Item: Encodable & Sendable>(_ page: Listing<Item>) async throws -> ServerResponse {
        // Ten thousand entries are 50 ms of work, which would keep one of the few cooperative threads from everybody else.
        try await DiskQueue.run { try json(Page(items: page.items, nextCursor: page.next.map(String.init))) }
    }
}

/// A body that is compressed, or coded in another way.
struct ContentCodingError: Error {
    var coding: String
}
