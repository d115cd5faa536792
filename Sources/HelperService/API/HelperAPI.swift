import Coordination
package import CoordinatorAPI
import Crypto
import Foundation
package import HTTPServing
import HTTPTypes
import Logging
import SecureAggregation
import StrictJSON
import Synchronization
import Tensors
import WireFormat

/// The helper's routes: HTTP in, calls of ``Helper``, HTTP out.
package struct HelperAPI: Sendable {
    let helper: Helper
    let limits: CallerLimits
    let requestLog: RequestLog
    private let lists: ListRoom
    /// Grants cost a transaction each, and rows that stay.
    private let grants = RateLimiter(.init(perSecond: 2, burst: 120))
    /// An export has a line for each row of the ledger.
    private let exports = RateLimiter(.init(perSecond: 0.1, burst: 10))

    package init(helper: Helper, limits: CallerLimits = CallerLimits(), requestLog: RequestLog = RequestLog()) {
        self.helper = helper
        self.limits = limits
        self.requestLog = requestLog
        lists = ListRoom(byteLimit: helper.configuration.listByteLimit)
    }

    /// Every route.
    package func router() -> Router {
        var router = Router(errorHandler: Self.response)
        router.admit = admit
        router.around = audited
        router.observe = observed
        router.inFlight = { [metrics = helper.metrics] in
            metrics.add("martlet_http_requests_in_flight", Double($0))
        }
        addRoutes(to: &router)
        addDomainRoutes(to: &router)
        addSessionRoutes(to: &router)
        return router
    }

    private func add(_ row: EndpointRow, to router: inout Router, _ handler: @escaping Handler) {
        router.add(row.method.rawValue, row.template) { request in
            try await handler(request, try await authorize(request, row))
        }
    }

    private typealias Handler = @Sendable (ServerRequest, HelperPrincipal?) async throws -> ServerResponse

    private func addRoutes(to router: inout Router) {
        add(HelperEndpoints.health.row, to: &router) { _, _ in try CoordinatorAPI.json(HealthView(status: "ok")) }
        add(HelperEndpoints.readiness.row, to: &router) { _, _ in
            try CoordinatorAPI.json(HealthView(status: "ready", ledgerRecord: try await helper.checkStorage()))
        }
        add(HelperEndpoints.metrics.row, to: &router) { _, _ in
            ServerResponse(
                status: 200,
                headers: [.contentType: "text/plain; version=0.0.4; charset=utf-8"],
                body: .bytes(Array(await helper.metricsExposition().utf8))
            )
        }
        add(HelperEndpoints.key.row, to: &router) { _, _ in
            let raw = helper.publicKey.rawRepresentation
            return try CoordinatorAPI.json(HelperKeyView(key: raw.base64EncodedString(), pem: HelperKeyFile.pem(raw)))
        }
        add(HelperEndpoints.status.row, to: &router) { _, _ in try CoordinatorAPI.json(try await helper.status()) }
        add(HelperEndpoints.audit.row, to: &router) { request, _ in
            let (limit, cursor) = try request.page(limit: 100)
            let rows = try await helper.audit(before: cursor ?? .max, limit: limit)
            let next = rows.count == limit ? rows.last.map { String($0.sequence) } : nil
            return try CoordinatorAPI.json(Page(items: rows, nextCursor: next))
        }
        add(HelperEndpoints.acknowledge.row, to: &router) { request, _ in
            let body = try HelperAcknowledgement.read(await CoordinatorAPI.document(request))
            return try CoordinatorAPI.json(try await helper.acknowledge(reason: body.reason))
        }
    }

    private func addDomainRoutes(to router: inout Router) {
        add(HelperEndpoints.createDomain.row, to: &router) { request, _ in
            let body = try HelperDomainRequest.read(await CoordinatorAPI.document(request))
            return try CoordinatorAPI.json(try await helper.createDomain(body), status: 201)
        }
        add(HelperEndpoints.domains.row, to: &router) { request, _ in
            try await CoordinatorAPI.list(helper.domainViews(), request)
        }
        add(HelperEndpoints.domain.row, to: &router) { request, caller in
            let name = try Self.domain(request, HelperEndpoints.domain.row, caller)
            return try CoordinatorAPI.json(try await helper.domainView(name))
        }
        add(HelperEndpoints.changeDomain.row, to: &router) { request, caller in
            let name = try Self.domain(request, HelperEndpoints.changeDomain.row, caller)
            let body = try HelperDomainChange.read(await CoordinatorAPI.document(request))
            return try CoordinatorAPI.json(try await helper.changeDomain(name, body))
        }
        add(HelperEndpoints.ledger.row, to: &router) { request, caller in
            let name = try Self.domain(request, HelperEndpoints.ledger.row, caller)
            if case .server = caller { try take(exports, name) }
            return try CoordinatorAPI.json(try await helper.ledgerAudit(name))
        }
        add(HelperEndpoints.createToken.row, to: &router) { request, caller in
            let name = try Self.domain(request, HelperEndpoints.createToken.row, caller)
            let body = try HelperTokenRequest.read(await CoordinatorAPI.document(request))
            return try CoordinatorAPI.json(try await helper.createToken(domain: name, body), status: 201)
        }
        add(HelperEndpoints.tokens.row, to: &router) { request, caller in
            let name = try Self.domain(request, HelperEndpoints.tokens.row, caller)
            return try await CoordinatorAPI.list(helper.tokenViews(domain: name), request)
        }
        add(HelperEndpoints.revokeToken.row, to: &router) { request, _ in
            let token = try HelperEndpoints.revokeToken.row.parameter(TokenReference.self, in: request.pathSegments)
            try await helper.revokeToken(token.text)
            return ServerResponse(status: 204)
        }
    }

    private func addSessionRoutes(to router: inout Router) {
        add(HelperEndpoints.createSession.row, to: &router) { request, caller in
            let server = try Self.server(caller)
            try take(grants, server.domain + "\n" + server.server)
            var request = request
            request.documentByteLimit = min(request.documentByteLimit, Self.sessionDocumentBytes)
            let body = try HelperSessionRequest.read(await CoordinatorAPI.document(request))
            let (session, isNew) = try await helper.createSession(body, by: server)
            var response = try CoordinatorAPI.json(session, status: isNew ? 201 : 200)
            response.headers[.location] = HelperEndpoints.session(SessionReference(session.session)).path
            return response
        }
        add(HelperEndpoints.session.row, to: &router) { request, caller in
            let (id, server) = (try Self.session(request, HelperEndpoints.session.row), try Self.server(caller))
            return try CoordinatorAPI.json(try await helper.sessionView(id, of: server))
        }
        add(HelperEndpoints.cancelSession.row, to: &router) { request, caller in
            let id = try Self.session(request, HelperEndpoints.cancelSession.row)
            try await helper.cancelSession(id, of: try Self.server(caller))
            return ServerResponse(status: 204)
        }
        add(HelperEndpoints.makeSum.row, to: &router) { request, caller in
            let (id, server) = (try Self.session(request, HelperEndpoints.makeSum.row), try Self.server(caller))
            // A stranger to the session sends no list, and a list that was summed is only hashed.
            let expected = try await helper.expectedList(id, of: server)
            let count = try Self.listByteCount(request.body.contentLength, limit: expected.byteLimit)
            guard !expected.isSummed else {
                let digest = try await Self.digest(of: request.body, limit: count)
                return Self.bytes(of: try await helper.repeatedSum(id, of: server, digest: digest), request)
            }
            try lists.reserve(count, domain: server.domain, session: id)
            defer { lists.release(count, domain: server.domain, session: id) }
            let list = try await request.body.collect(limit: count)
            return Self.bytes(of: try await helper.makeSum(id, of: server, list: list), request)
        }
        add(HelperEndpoints.sum.row, to: &router) { request, caller in
            let (id, server) = (try Self.session(request, HelperEndpoints.sum.row), try Self.server(caller))
            return Self.bytes(of: try await helper.sumFile(id, of: server), request)
        }
        add(HelperEndpoints.deleteSum.row, to: &router) { request, caller in
            let id = try Self.session(request, HelperEndpoints.deleteSum.row)
            try await helper.deleteSum(id, of: try Self.server(caller))
            return ServerResponse(status: 204)
        }
    }

    private func take(_ limiter: RateLimiter, _ party: String) throws {
        guard let wait = limiter.take(party) else { return }
        helper.metrics.add("martlet_rate_limited_total", 1, ["scope": RateLimitError.Scope.client.rawValue])
        throw RateLimitError(scope: .client, retryAfter: wait)
    }

    /// The length of a list, which has to be said.
    ///
    /// - Throws: `ParseFailure` 411 or 413.
    private static func listByteCount(_ declared: Int?, limit: Int) throws -> Int {
        guard let declared else {
            throw ParseFailure(status: 411, detail: "a list says its length: send Content-Length")
        }
        guard declared <= limit else {
            throw ParseFailure(status: 413, detail: "the session's list may have at most \(limit) bytes")
        }
        return declared
    }

    /// SHA-256 of a body of which nothing is kept.
    private static func digest(of body: any RequestBody, limit: Int) async throws -> String {
        var hasher = SHA256()
        var count = 0
        while let bytes = try await body.read() {
            count += bytes.count
            guard count <= limit else {
                throw ParseFailure(status: 413, detail: "the list has more than the \(limit) bytes that it said")
            }
            hasher.update(data: bytes)
        }
        return hasher.finalize().hexadecimal
    }

    /// A session's request has less than 1 KiB.
    private static let sessionDocumentBytes = 16 << 10

    // MARK: - Parameters and answers

    private static func session(_ request: ServerRequest, _ row: EndpointRow) throws -> String {
        try row.parameter(SessionReference.self, in: request.pathSegments).text
    }

    /// The domain that the path names; servers are shown their own alone.
    private static func domain(
        _ request: ServerRequest,
        _ row: EndpointRow,
        _ caller: HelperPrincipal?
    ) throws -> String {
        let name = try row.parameter(DomainReference.self, in: request.pathSegments).text
        if case .server(let server) = caller, server.domain != name {
            throw forbidden("this token is of another domain")
        }
        return name
    }

    private static func server(_ caller: HelperPrincipal?) throws -> ServerCaller {
        guard case .server(let server) = caller else { throw forbidden("this takes a server's token of a domain") }
        return server
    }

    /// M, whole or the range that a GET asks for.
    private static func bytes(of sum: SumFile, _ request: ServerRequest) -> ServerResponse {
        let tag = "\"\(sum.sha256)\""
        var headers: HTTPFields = [
            .contentType: "application/octet-stream", .eTag: tag, .acceptRanges: "bytes", .cacheControl: "no-store",
        ]
        if let name = ContentDigest.representationField { headers[name] = ContentDigest.text(hexadecimal: sum.sha256) }
        let isStillMeant = request.headers[.ifRange].map { $0 == tag } ?? true
        if request.method == RequestMethod.get.rawValue, let field = request.headers[.range], isStillMeant {
            switch ByteRange.parse(field, byteCount: sum.byteCount) {
            case .whole: break
            case .unsatisfiable:
                headers[.contentRange] = "bytes */\(sum.byteCount)"
                return ServerResponse(status: 416, headers: headers)
            case .part(let range):
                headers[.contentRange] = "bytes \(range.lowerBound)-\(range.upperBound - 1)/\(sum.byteCount)"
                return ServerResponse(status: 206, headers: headers, body: .file(path: sum.path, range: range))
            }
        }
        return ServerResponse(status: 200, headers: headers, body: .file(path: sum.path, range: 0..<sum.byteCount))
    }

    /// The answer to an error; refused lists name all entries that are wrong.
    static func response(_ error: any Error, _ request: ServerRequest?) -> ServerResponse {
        guard let error = error as? SecureAggregationError else { return ErrorMapping.response(error, request) }
        let (kind, code) = (CoordinationError.Kind(error.code), error.code.rawValue)
        var response = ErrorMapping.response(CoordinationError(kind, code, error.description), request)
        guard !error.places.isEmpty, case .bytes(let bytes) = response.body,
            case .object(var fields)? = try? JSONValue(parsing: bytes)
        else { return response }
        fields["entries"] = .array(error.places.map { JSONValue.integer($0) })
        response.body = .bytes(Array(JSONValue.object(fields).text.utf8))
        return response
    }
}

extension CoordinationError.Kind {
    /// What sort of refusal a refused list is.
    fileprivate init(_ code: SecureAggregationError.Code) {
        switch code {
        case .randomSourceFailed: self = .unavailable
        case .noiseUnknown: self = .forbidden
        case .invalidDocument, .invalidGrant, .invalidList, .invalidWords, .duplicatePseudonym, .cohortTooSmall,
            .cohortTooLarge, .seedsUnopened, .participationCap, .outOfRange:
            self = .unprocessable
        }
    }
}

/// How many lists may be in memory at a time: bytes of each domain, and two lists of each session, one of which waits for the other.
///
/// Domains share nothing here: however many lists one sends, another has its room. Their number is the operator's choice.
private final class ListRoom: Sendable {
    private struct Used {
        var bytes: [String: Int] = [:]
        var sessions: [String: Int] = [:]
    }

    private let byteLimit: Int
    private let used = Mutex(Used())

    init(byteLimit: Int) { self.byteLimit = byteLimit }

    /// Reserves room for a list.
    ///
    /// - Throws: `CoordinationError` `lists_full`.
    func reserve(_ count: Int, domain: String, session: String) throws {
        let isFree = used.withLock { used in
            let (bytes, lists) = (used.bytes[domain] ?? 0, used.sessions[session] ?? 0)
            // One list always has room, however large.
            guard lists < 2, bytes == 0 || bytes + count <= byteLimit else { return false }
            used.bytes[domain] = bytes + count
            used.sessions[session] = lists + 1
            return true
        }
        guard isFree else {
            throw CoordinationError(
                .unavailable,
                HelperCode.listsFull.rawValue,
                "too many lists of this domain or session are on their way; send it again in a moment"
            )
        }
    }

    func release(_ count: Int, domain: String, session: String) {
        used.withLock { used in
            used.bytes[domain] = Self.positive((used.bytes[domain] ?? 0) - count)
            used.sessions[session] = Self.positive((used.sessions[session] ?? 0) - 1)
        }
    }

    private static func positive(_ number: Int) -> Int? { number > 0 ? number : nil }
}
