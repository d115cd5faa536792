import Coordination
import HTTPServing
import HTTPTypes

/// The resource is not any more as the caller believes.
struct PreconditionError: Error {
    /// What its tag is now.
    var tag: String
}

/// Conditional requests and negotiation, RFC 9110 sections 12 and 13.
extension CoordinatorAPI {
    /// JSON with its tag; 304 when the caller has it.
    static func tagged(_ value: some TaggedView, _ request: ServerRequest) throws -> ServerResponse {
        let tag = try value.tag
        if let wanted = request.headers[.ifMatch], !StateTag.list(wanted, namesStateOf: tag) {
            throw PreconditionError(tag: tag)
        }
        if let known = request.headers[.ifNoneMatch], EntityTag.list(known, contains: tag) {
            return ServerResponse(status: 304, headers: [.eTag: tag])
        }
        var response = try json(value)
        response.headers[.eTag] = tag
        return response
    }

    /// Changes a resource, unless it is not any more as the request's `If-Match` names it.
    ///
    /// Comparison and change are one step of the coordinator: nobody comes between.
    ///
    /// - Parameters:
    ///   - request: The request; its caller must still be allowed, see ``step(_:_:)``.
    ///   - resource: What the tag belongs to.
    ///   - change: What is done.
    /// - Returns: What `change` gives.
    /// - Throws: ``PreconditionError``, and what `resource` and `change` throw.
    func change<Result: Sendable>(
        _ request: ServerRequest,
        of resource: @Sendable (isolated Coordinator) throws -> any TaggedView,
        _ change: @Sendable (isolated Coordinator) throws -> Result
    ) async throws -> Result {
        guard let wanted = request.headers[.ifMatch] else { return try await step(request, change) }
        return try await step(request) { coordinator in
            let tag = try resource(coordinator).tag
            guard StateTag.list(wanted, namesStateOf: tag) else { throw PreconditionError(tag: tag) }
            return try change(coordinator)
        }
    }

    /// Serves a request whose caller takes what it would be sent.
    ///
    /// Actions answer in JSON, and are not begun for somebody who cannot read how they ended.
    @Sendable func negotiated(_ request: ServerRequest, _ handler: Router.Handler) async throws -> ServerResponse {
        guard let field = request.headers[.accept], field != "*/*" else { return try await handler(request) }
        let accept = AcceptField(field)
        let isRead = ["GET", "HEAD"].contains(request.method)
        if !isRead { try Self.requireAcceptable("application/json", accept) }
        let response = try await handler(request)
        if isRead, [200, 206].contains(response.status), let type = response.headers[.contentType] {
            try Self.requireAcceptable(type, accept)
        }
        return response
    }

    /// Whether the caller takes JSON; decided without waiting.
    static func takesJSON(_ request: ServerRequest) -> Bool {
        request.headers[.accept].map { $0 == "*/*" || AcceptField($0).takes("application/json") } ?? true
    }

    static func requireAcceptable(_ type: String, _ accept: AcceptField) throws {
        guard accept.takes(type) else {
            throw ParseFailure(
                status: 406,
                detail: "this is \(type), which Accept does not take; ask for it or for */*"
            )
        }
    }
}
