import Coordination
import HTTPServing
import HTTPTypes
import WireFormat

/// Who calls, and whether they may.
extension CoordinatorAPI {
    static let forbidden = CoordinationError(.forbidden, "forbidden", "this token may not do that")

    /// The bearer token as it was sent.
    static func bearer(_ request: ServerRequest) throws -> String? {
        guard let header = request.headers[.authorization] else { return nil }
        guard header.lowercased().hasPrefix("bearer ") else {
            throw CoordinationError(.unauthorized, "unauthorized", "send a token: Authorization: Bearer TOKEN")
        }
        return header.dropFirst(7).trimmingPrefix { $0 == " " }.description
    }

    func principal(_ request: ServerRequest) async throws -> Principal {
        guard let token = try Self.bearer(request) else {
            if isOpen {
                try Self.requireOwnPage(request)
                coordinator.identifyOpenCaller()
                return .open
            }
            try noteGuess(request)
            throw CoordinationError(.unauthorized, "unauthorized", "send a token: Authorization: Bearer TOKEN")
        }
        guard let found = try await coordinator.principal(token: token, certificateKey: request.peerKey) else {
            try noteGuess(request)
            throw CoordinationError(.unauthorized, "unauthorized", "the token is not known, expired or revoked")
        }
        if case .client(let id) = found { try noteClient(id, request) }
        return found
    }

    /// On a server without tokens, a page of another site that is open in the operator's browser must not act: neither under
    /// its own name, nor under one that it has resolve to this machine.
    private static func requireOwnPage(_ request: ServerRequest) throws {
        guard let host = HTTPField.Name("Host").flatMap({ request.headers[$0] })?.lowercased() else { return }
        let name = host.hasPrefix("[") ? host.prefix { $0 != "]" }.dropFirst() : host.prefix { $0 != ":" }
        let isLocal = name == "localhost" || name == "::1" || NetworkAddress(name)?.party.hasPrefix("127.") ?? false
        let isOwn = request.headers[.origin].map { $0.lowercased() == "http://" + host } ?? true
        guard isLocal && isOwn else {
            throw CoordinationError(
                .forbidden,
                "forbidden",
                "this server asks for no token, so it answers its own pages and local programs only, not a page of \(request.headers[.origin] ?? host)"
            )
        }
    }

    /// May read everything but tokens.
    func requireViewer(_ request: ServerRequest) async throws { _ = try await require(.viewer, request) }

    /// May also create and steer runs, and revoke clients.
    func requireOperator(_ request: ServerRequest) async throws { _ = try await require(.operator, request) }

    /// May everything.
    func requireAdmin(_ request: ServerRequest) async throws { _ = try await require(.admin, request) }

    /// The id of the token that was used, when its role is `role` or more.
    func require(_ role: StaffRole, _ request: ServerRequest) async throws -> String {
        guard case .staff(let held, let id) = try await principal(request) else { throw Self.forbidden }
        guard held >= role else {
            throw CoordinationError(
                .forbidden,
                "forbidden",
                "this takes the role \(role.rawValue); the token's is \(held.rawValue)"
            )
        }
        return id
    }

    func requireClient(_ request: ServerRequest) async throws -> String {
        guard case .client(let id) = try await principal(request) else {
            throw CoordinationError(.forbidden, "forbidden", "this takes a client's own token")
        }
        return id
    }

    /// Serves a request so that every action of an operator leaves its row in the audit log.
    @Sendable func audited(_ request: ServerRequest, _ handler: Router.Handler) async throws -> ServerResponse {
        // What clients do for a round is in its history; they are no operators, and they are many.
        let isParticipation = request.route == "/v1/checkins" || request.route.hasPrefix("/v1/assignments/")
        guard !isParticipation && !["GET", "HEAD"].contains(request.method) else {
            do { return try await handler(request) } catch {
                noteFailure(error, request)
                throw error
            }
        }
        let trail = AuditTrail(
            action: "\(request.method) \(request.route)",
            target: String(request.path.prefix(500)),
            address: request.remoteAddress,
            requestID: request.requestID
        )
        return try await AuditTrail.$current.withValue(trail) {
            do {
                let response = try await handler(request)
                try await coordinator.auditCompletion(trail)
                return response
            } catch {
                noteFailure(error, request)
                await coordinator.auditRefusal(trail, code: ErrorMapping.code(of: error))
                throw error
            }
        }
    }
}
