import Coordination
import CoordinatorAPI
import HTTPServing
import HTTPTypes
import Logging
import SecureAggregation
import WireFormat

/// Who calls, whether they may, and what is written down of it.
extension HelperAPI {
    static func forbidden(_ reason: String) -> CoordinationError {
        CoordinationError(.forbidden, "forbidden", reason)
    }

    /// Finds out who is at the other end, and turns away who asks too often.
    @Sendable func admit(_ request: inout ServerRequest) throws {
        request.documentByteLimit = limits.documentBytes
        if let proxies = limits.proxies, !proxies.isEmpty {
            request.remoteAddress = ForwardedAddress.client(
                peer: request.remoteAddress,
                forwarded: Self.field("Forwarded", request),
                legacy: Self.field("X-Forwarded-For", request),
                proxies: proxies
            )
        }
        try charge(limits.address, request, .address)
        try CoordinatorAPI.requireIdentity(request)
    }

    private func charge(_ limiter: RateLimiter?, _ request: ServerRequest, _ scope: RateLimitError.Scope) throws {
        guard let limiter, !limits.isExempt(request.remoteAddress) else { return }
        let party = NetworkAddress(request.remoteAddress)?.party ?? request.remoteAddress
        guard let wait = limiter.take(party) else { return }
        helper.metrics.add("martlet_rate_limited_total", 1, ["scope": scope.rawValue])
        throw RateLimitError(scope: scope, retryAfter: wait)
    }

    private static func field(_ name: String, _ request: ServerRequest) -> String? {
        HTTPField.Name(name).flatMap { request.headers[$0] }
    }

    /// Turns away callers whom an endpoint's rule does not let in; nothing else looks at a role.
    ///
    /// - Throws: `CoordinationError` `unauthorized` or `forbidden`; `RateLimitError`.
    func authorize(_ request: ServerRequest, _ endpoint: EndpointRow) async throws -> HelperPrincipal? {
        guard endpoint.access != .anybody else { return nil }
        guard let token = try CoordinatorAPI.bearer(request), let caller = try await helper.principal(token: token)
        else {
            try charge(limits.guesses, request, .guesses)
            throw CoordinationError(
                .unauthorized,
                "unauthorized",
                "send a token that is valid here: Authorization: Bearer TOKEN"
            )
        }
        switch (endpoint.access, caller) {
        case (.anybody, _), (.client, .server), (.populationReader, _): return caller
        case (.staff(let least), .staff(let role)):
            guard role >= least else { throw Self.forbidden("this takes the role \(least); the token's is \(role)") }
            return caller
        case (.client, .staff): throw Self.forbidden("this takes a server's token of a domain")
        case (.staff, .server), (.enrollment, _), (.modelReader, _), (.clientItself, _), (.tokenItself, _):
            throw Self.forbidden("this token may not do that")
        }
    }

    /// Serves a request so that every action leaves its row in the audit log.
    @Sendable func audited(_ request: ServerRequest, _ handler: Router.Handler) async throws -> ServerResponse {
        let reads = [RequestMethod.get, .head].contains { $0.rawValue == request.method }
        let trail = AuditTrail(
            action: "\(request.method) \(request.route)",
            target: String(decoding: request.path.utf8.prefix(500), as: UTF8.self),
            address: request.remoteAddress,
            requestID: request.requestID
        )
        return try await AuditTrail.$current.withValue(reads ? nil : trail) {
            do {
                return try await handler(request)
            } catch {
                note(error, request)
                // Each is a transaction that stays for ever, so one token's are written while they are few.
                if !reads, !trail.isWritten, let actor = trail.actorID, limits.refusals?.take(actor) == nil {
                    await helper.audit(trail, refusal: Self.response(error, nil).problemCode ?? "internal")
                }
                throw error
            }
        }
    }

    private func note(_ error: any Error, _ request: ServerRequest) {
        guard !(error is SecureAggregationError), ErrorMapping.isInternal(error) else { return }
        requestLog.logger.error(
            "A request failed inside the helper",
            metadata: ["request.id": "\(request.requestID)", "http.route": "\(request.route)", "error": "\(error)"]
        )
    }

    /// Counts and logs an answer.
    @Sendable func observed(_ request: ServerRequest, _ response: ServerResponse, _ duration: Duration) {
        let metrics = helper.metrics
        let route = request.route.isEmpty ? "unmatched" : request.route
        let method = RequestMethod(rawValue: request.method)?.rawValue ?? "other"
        metrics.add(
            "martlet_http_requests_total",
            1,
            ["method": method, "route": route, "status": String(response.status)]
        )
        metrics.observe("martlet_http_request_duration_seconds", duration / .seconds(1), ["route": route])
        metrics.add("martlet_http_received_bytes_total", Double(request.body.contentLength ?? 0))
        metrics.add("martlet_http_sent_bytes_total", Double(response.body.byteCount ?? 0))
        if response.status == 401 { metrics.add("martlet_authentication_failures_total") }
        guard requestLog.logger.logLevel <= .info else { return }
        var metadata: Logger.Metadata = [
            "request.id": "\(request.requestID)", "http.method": "\(request.method)", "http.route": "\(route)",
            "http.status": "\(response.status)", "client.address": "\(request.remoteAddress)",
        ]
        if let code = response.problemCode { metadata["error.code"] = "\(code)" }
        requestLog.logger.info("A request was answered", metadata: metadata)
    }
}
