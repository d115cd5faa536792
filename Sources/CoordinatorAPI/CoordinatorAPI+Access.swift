import Coordination
package import HTTPServing
import HTTPTypes
import Logging
import Synchronization
import WireFormat

/// Who calls, and whether they may.
extension CoordinatorAPI {
    static let forbidden = refusal("this token may not do that")
    private static let unknownToken = CoordinationError(
        .unauthorized,
        "unauthorized",
        "the token is not known, expired or revoked"
    )

    /// The bearer token as it was sent.
    package static func bearer(_ request: ServerRequest) throws -> String? {
        guard let header = request.headers[.authorization] else { return nil }
        guard header.lowercased().hasPrefix("bearer ") else {
            throw CoordinationError(.unauthorized, "unauthorized", "send a token: Authorization: Bearer TOKEN")
        }
        return header.dropFirst(7).trimmingPrefix { $0 == " " }.description
    }

    private func principal(_ request: ServerRequest) async throws -> Principal {
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
            throw Self.unknownToken
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

    /// Finds out who calls an endpoint, and turns away callers whom its rule does not let in; nothing else looks at a role.
    ///
    /// - Returns: The caller; `nil` where everybody is let in.
    /// - Throws: ``CoordinationError`` `unauthorized` or `forbidden`; ``RateLimitError``.
    func authorize(_ request: ServerRequest, _ endpoint: EndpointRow) async throws -> Principal? {
        guard endpoint.access != .anybody else { return nil }
        let caller = try await principal(request)
        var mayReadModels = false
        if endpoint.access == .modelReader, case .client(let id) = caller {
            let run = try endpoint.parameter(RunReference.self, in: request.pathSegments)
            mayReadModels = await coordinator.mayReadModels(client: id, run: run.text)
        }
        try Self.permit(caller, request, endpoint) { _, _ in mayReadModels }
        return caller
    }

    /// Does something for a request's caller in one step of the coordinator, in which the caller is still allowed to do it.
    ///
    /// ``authorize(_:_:)`` has checked the token when the head was read. Whatever has a caller's right behind it and follows on a wait,
    /// for the body, for work or for arithmetic, goes through here: meanwhile the token may have been revoked or rotated, or have expired.
    ///
    /// - Parameters:
    ///   - request: The request.
    ///   - body: What is done; it must not wait.
    /// - Returns: What `body` gives.
    /// - Throws: ``CoordinationError`` `unauthorized` or `forbidden`, and then nothing was done; what `body` throws.
    func step<Result: Sendable>(
        _ request: ServerRequest,
        _ body: @Sendable (isolated Coordinator) throws -> Result
    ) async throws -> Result {
        try await coordinator.perform { coordinator in
            try requireAllowed(request, coordinator)
            return try body(coordinator)
        }
    }

    /// Refuses a request whose caller was let in and has lost that right since; what ``step(_:_:)`` checks.
    ///
    /// - Throws: ``CoordinationError`` `unauthorized` or `forbidden`.
    func requireAllowed(_ request: ServerRequest, _ coordinator: isolated Coordinator) throws {
        guard let endpoint = Self.endpoint(of: request) else { throw Self.forbidden }
        guard endpoint.access != .anybody else { return }
        guard let token = try Self.bearer(request) else {
            guard isOpen else { throw Self.unknownToken }
            return
        }
        guard let caller = try coordinator.principal(token: token, certificateKey: request.peerKey) else {
            throw Self.unknownToken
        }
        try Self.permit(caller, request, endpoint) { client, run in
            coordinator.mayReadModels(client: client, run: run.text)
        }
    }

    private static let endpoints = Dictionary(
        uniqueKeysWithValues: Endpoints.all.map { ("\($0.method.rawValue) \($0.template)", $0) }
    )

    /// The row of the table that a request was routed by.
    private static func endpoint(of request: ServerRequest) -> EndpointRow? {
        endpoints["\(request.method) \(request.route)"]
            ?? (request.method == "HEAD" ? endpoints["GET \(request.route)"] : nil)
    }

    /// Turns away a caller whom an endpoint's rule does not let in.
    private static func permit(
        _ caller: Principal,
        _ request: ServerRequest,
        _ endpoint: EndpointRow,
        mayReadModels: (_ client: String, _ run: RunReference) -> Bool
    ) throws {
        switch (endpoint.access, caller) {
        case (.anybody, _), (.client, .client), (.enrollment, .enrollment), (.modelReader, .staff),
            (.populationReader, .staff), (.populationReader, .client):
            break
        case (.client, _): throw refusal("this takes a client's own token")
        case (.enrollment, _): throw refusal("registering takes an enrollment token")
        case (.staff(let role), _): try require(role, caller)
        case (.modelReader, .client(let id)):
            let run = try endpoint.parameter(RunReference.self, in: request.pathSegments)
            guard mayReadModels(id, run) else { throw forbidden }
        case (.modelReader, .enrollment), (.populationReader, .enrollment): throw forbidden
        case (.clientItself(let role), _):
            let client = try endpoint.parameter(ClientReference.self, in: request.pathSegments)
            if caller != .client(id: client.text) { try require(role, caller) }
        case (.tokenItself, _):
            let token = try endpoint.parameter(TokenReference.self, in: request.pathSegments)
            if token != .current { try require(.admin, caller) }
        }
    }

    private static func require(_ role: StaffRole, _ caller: Principal) throws {
        guard let held = caller.staffRole else { throw forbidden }
        guard held >= role else {
            throw refusal("this takes the role \(role.rawValue); the token's is \(held.rawValue)")
        }
    }

    private static func refusal(_ reason: String) -> CoordinationError {
        CoordinationError(.forbidden, "forbidden", reason)
    }

    /// What clients do for a round is in its history; they are no operators, and they are many.
    private static let participationTemplates = Set(
        Endpoints.all.filter { $0.access == .client }.map(\.template)
    )

    /// Serves a request so that every action of an operator leaves its row in the audit log.
    @Sendable func audited(_ request: ServerRequest, _ handler: Router.Handler) async throws -> ServerResponse {
        guard !Self.participationTemplates.contains(request.route) && !["GET", "HEAD"].contains(request.method) else {
            do { return try await handler(request) } catch {
                noteFailure(error, request)
                throw error
            }
        }
        let trail = AuditTrail(
            action: "\(request.method) \(request.route)",
            target: String(decoding: request.path.utf8.prefix(500), as: UTF8.self),
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
                await auditRefusal(trail, error)
                throw error
            }
        }
    }

    /// Leaves the row of a refused request; each is a transaction that everybody waits for and stays for ever, so one token's are counted
    /// where it has many, and the count goes with the next one that has a row.
    private func auditRefusal(_ trail: AuditTrail, _ error: any Error) async {
        guard let actor = trail.actorID else { return }
        // What was done in part has its row in any case.
        guard trail.isWritten || limits.refusals?.take(actor) == nil else {
            if unwrittenRefusals.note(actor) == 1 {
                requestLog.logger.warning(
                    "A token has many requests refused: the audit log counts them from here on",
                    metadata: ["token.id": "\(actor)"]
                )
            }
            return
        }
        let unwritten = unwrittenRefusals.take(actor)
        let isWritten = await coordinator.auditRefusal(trail, code: ErrorMapping.code(of: error), unwritten: unwritten)
        if !isWritten { _ = unwrittenRefusals.note(actor, unwritten + 1) }
    }
}

/// How many refused requests of each operator's token have no row in the audit log.
final class UnwrittenRefusals: Sendable {
    private let counts = Mutex<[String: Int]>([:])

    /// Counts some.
    ///
    /// - Returns: How many there are now.
    func note(_ actor: String, _ count: Int = 1) -> Int {
        counts.withLock {
            $0[actor, default: 0] += count
            return $0[actor] ?? 0
        }
    }

    /// Gives the count away.
    func take(_ actor: String) -> Int { counts.withLock { $0.removeValue(forKey: actor) ?? 0 } }
}
