import Coordination
import HTTPServing
import WireFormat

/// Registers the endpoints of the table: a handler is called for callers whom its endpoint lets in, with typed parameters.
struct EndpointRoutes {
    typealias Handler<each Argument> = @Sendable (ServerRequest, repeat each Argument) async throws -> ServerResponse

    let api: CoordinatorAPI
    var router: Router

    /// Adds an endpoint.
    mutating func add<Caller: CallerKind, Body, Answer, each Parameter: PathParameter>(
        _ endpoint: Endpoint<Caller, Body, Answer, repeat each Parameter>,
        _ handler: @escaping Handler<repeat each Parameter>
    ) {
        router.add(endpoint.row) { [api] request in
            let caller = try await api.authorize(request, endpoint.row)
            let parameters = try endpoint.parameters(in: request.pathSegments)
            return try await Coordination.Caller.$key.withValue(caller?.key) {
                try await handler(request, repeat each parameters)
            }
        }
    }

    /// Adds an endpoint whose handler is told who calls.
    mutating func addKnowingCaller<Caller: KnownCaller, Body, Answer, each Parameter: PathParameter>(
        _ endpoint: Endpoint<Caller, Body, Answer, repeat each Parameter>,
        _ handler: @escaping Handler<Caller.Identity, repeat each Parameter>
    ) {
        router.add(endpoint.row) { [api] request in
            let principal = try await api.authorize(request, endpoint.row)
            guard let caller = Caller.identity(of: principal) else { throw CoordinatorAPI.forbidden }
            let parameters = try endpoint.parameters(in: request.pathSegments)
            return try await Coordination.Caller.$key.withValue(principal?.key) {
                try await handler(request, caller, repeat each parameters)
            }
        }
    }

    /// Adds an endpoint that can often answer without waiting.
    ///
    /// - Parameters:
    ///   - endpoint: The endpoint.
    ///   - immediate: Looks at the caller's token itself; see ``Router/ImmediateHandler``.
    ///   - handler: Answers otherwise.
    mutating func addKnowingCaller<Caller: KnownCaller, Body, Answer>(
        _ endpoint: Endpoint<Caller, Body, Answer>,
        immediately immediate: @escaping Router.ImmediateHandler,
        otherwise handler: @escaping Handler<Caller.Identity>
    ) {
        router.add(endpoint.row.method.rawValue, endpoint.template, immediately: immediate) { [api] request in
            guard let caller = Caller.identity(of: try await api.authorize(request, endpoint.row)) else {
                throw CoordinatorAPI.forbidden
            }
            return try await handler(request, caller)
        }
    }
}

extension Router {
    /// Adds an endpoint that everybody may use.
    mutating func addPublic<Body, Answer>(_ endpoint: Endpoint<Anybody, Body, Answer>, _ handler: @escaping Handler) {
        add(endpoint.row, handler)
    }

    fileprivate mutating func add(_ endpoint: EndpointRow, _ handler: @escaping Handler) {
        add(endpoint.method.rawValue, endpoint.template, handler)
    }
}

/// A kind of callers of which each is known.
protocol KnownCaller: CallerKind {
    /// What a handler is told about its caller.
    associatedtype Identity: Sendable
    /// The caller's identity; `nil` for callers of another kind.
    static func identity(of principal: Principal?) -> Identity?
}

extension Anybody: KnownCaller {
    static func identity(of principal: Principal?) -> Void? { () }
}

/// The staff's token that a request came with.
struct StaffToken: Sendable {
    var role: StaffRole
    var id: String
}

extension Staff: KnownCaller {
    static func identity(of principal: Principal?) -> StaffToken? {
        guard case .staff(let role, let id) = principal else { return nil }
        return StaffToken(role: role, id: id)
    }
}

extension Clients: KnownCaller {
    /// The client's id.
    static func identity(of principal: Principal?) -> String? {
        guard case .client(let id) = principal else { return nil }
        return id
    }
}

extension Enrollees: KnownCaller {
    /// The hash of the enrollment token.
    static func identity(of principal: Principal?) -> String? {
        guard case .enrollment(_, let hash) = principal else { return nil }
        return hash
    }
}

extension TokenHolders: KnownCaller {
    static func identity(of principal: Principal?) -> Principal? { principal }
}
