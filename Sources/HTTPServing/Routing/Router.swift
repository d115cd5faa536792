import HTTPTypes

/// Finds the handler of a request by method and path.
package struct Router: Sendable {
    package typealias Handler = @Sendable (ServerRequest) async throws -> ServerResponse
    /// Makes the answer to an error, also for requests without a route.
    package typealias ErrorHandler = @Sendable (any Error, ServerRequest?) -> ServerResponse

    private struct Route: Sendable {
        var method: String
        var template: String
        var segments: [String]
        var handler: Handler
        /// Set if the route can often answer without waiting.
        var immediate: ImmediateHandler?
    }

    /// Answers without waiting, or returns `nil` if the route's handler, which may wait, must answer.
    package typealias ImmediateHandler = @Sendable (ServerRequest) throws -> ServerResponse?

    private var table: [Route] = []
    /// Positions in `table`.
    private var immediateRoutes: [Int] = []
    package let errorHandler: ErrorHandler
    /// Called for every answer, with the time that its handler took.
    package var observe: (@Sendable (ServerRequest, ServerResponse, Duration) -> Void)?
    /// Called when a handler begins (1) and ends (-1).
    package var inFlight: (@Sendable (Int) -> Void)?
    /// Called first for every request; an error that it throws becomes the answer.
    package var admit: (@Sendable (inout ServerRequest) throws -> Void)?
    /// Returns the router that answers in place of this one, asked for every request: a server listens before it can serve.
    package var current: (@Sendable () -> Router)?
    /// Runs around every route's handler.
    package var around: (@Sendable (ServerRequest, Handler) async throws -> ServerResponse)?

    package init(errorHandler: @escaping ErrorHandler) {
        self.errorHandler = errorHandler
    }

    /// Adds a route; a segment in braces matches anything.
    package mutating func add(_ method: String, _ template: String, _ handler: @escaping Handler) {
        table.append(
            Route(
                method: method,
                template: template,
                segments: template.split(separator: "/").map(String.init),
                handler: handler
            )
        )
    }

    /// Adds a route whose answer needs no waiting: the event loop that read the request answers, without a task.
    package mutating func addImmediate(
        _ method: String,
        _ template: String,
        _ handler: @escaping @Sendable (ServerRequest) throws -> ServerResponse
    ) {
        add(method, template, immediately: { try handler($0) }, otherwise: { try handler($0) })
    }

    /// Adds a route that can often answer without waiting.
    ///
    /// - Parameters:
    ///   - method: The method.
    ///   - template: The path; without parameters.
    ///   - immediate: Answers on the event loop in microseconds, or returns `nil`; it must not wait.
    ///   - handler: Answers otherwise.
    package mutating func add(
        _ method: String,
        _ template: String,
        immediately immediate: @escaping ImmediateHandler,
        otherwise handler: @escaping Handler
    ) {
        add(method, template, handler)
        table[table.count - 1].immediate = immediate
        immediateRoutes.append(table.count - 1)
    }

    /// Answers at once, or returns `nil` if the route's handler must answer.
    package func handleImmediately(_ request: inout ServerRequest) -> ServerResponse? {
        if let current { return current().handleImmediately(&request) }
        guard let route = immediateRoutes.lazy.map({ table[$0] }).first(where: { $0.segments == request.pathSegments }),
            let handler = route.immediate,
            route.method == request.method || (request.method == "HEAD" && route.method == "GET")
        else { return nil }
        let start = ContinuousClock.now
        request.route = route.template
        var response: ServerResponse
        // `inFlight` is not called: the answer is there before anybody could read the count.
        do {
            try admit?(&request)
            request.isAdmitted = true
            guard let answer = try handler(request) else { return nil }
            response = answer
        } catch {
            response = errorHandler(error, request)
        }
        if let name = Self.requestIDField { response.headers[name] = request.requestID }
        observe?(request, response, ContinuousClock.now - start)
        return response
    }

    private static let requestIDField = HTTPField.Name("X-Request-Id")

    /// The answer to a request that could not be parsed, with the id of its line in the log.
    func refusal(_ failure: ParseFailure, requestID: String) -> ServerResponse {
        let nobody = try? ServerRequest(
            method: "",
            rawTarget: "/",
            headers: [:],
            body: MemoryBody([]),
            requestID: requestID
        )
        var response = errorHandler(failure, nobody)
        if let name = Self.requestIDField { response.headers[name] = requestID }
        return response
    }

    /// Every method and template, for the test that compares them with `openapi.yaml`.
    package var routes: [(method: String, template: String)] { table.map { ($0.method, $0.template) } }

    /// Answers a request; never throws.
    package func handle(_ request: ServerRequest) async -> ServerResponse {
        if let current { return await current().handle(request) }
        var request = request
        var response: ServerResponse
        let start = ContinuousClock.now
        inFlight?(1)
        defer { inFlight?(-1) }
        do {
            if !request.isAdmitted { try admit?(&request) }
            response = try await answer(&request)
        } catch {
            response = errorHandler(error, request)
        }
        if let name = Self.requestIDField { response.headers[name] = request.requestID }
        observe?(request, response, ContinuousClock.now - start)
        return response
    }

    private func answer(_ request: inout ServerRequest) async throws -> ServerResponse {
        if request.rawTarget == "*" {
            guard request.method == "OPTIONS" else {
                throw ParseFailure(status: 400, detail: "the target * goes with OPTIONS only")
            }
            return ServerResponse(status: 204, headers: [.allow: "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"])
        }
        var allowed: Set<String> = []
        for route in table {
            guard Self.matches(route.segments, request.pathSegments) else { continue }
            allowed.insert(route.method)
            guard route.method == request.method || (request.method == "HEAD" && route.method == "GET") else {
                continue
            }
            request.route = route.template
            guard let around else { return try await route.handler(request) }
            return try await around(request, route.handler)
        }
        guard !allowed.isEmpty else { throw ParseFailure(status: 404, detail: "nothing is at \(request.path)") }
        if allowed.contains("GET") { allowed.insert("HEAD") }
        allowed.insert("OPTIONS")
        let allow = allowed.sorted().joined(separator: ", ")
        if request.method == "OPTIONS" { return ServerResponse(status: 204, headers: [.allow: allow]) }
        var response = errorHandler(
            ParseFailure(status: 405, detail: "\(request.path) takes \(allow)"),
            request
        )
        response.headers[.allow] = allow
        return response
    }

    private static func matches(_ template: [String], _ path: [String]) -> Bool {
        template.count == path.count && zip(template, path).allSatisfy { $0.hasPrefix("{") || $0 == $1 }
    }
}
