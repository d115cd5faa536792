import Coordination
import CoordinatorAPI
import Foundation
import HTTPServing
import HTTPTypes
import Logging
import Synchronization
import TestBenches
import Testing
import WireFormat

@Suite(.timeLimit(.minutes(10)))
struct CallerLimitsTests {
    /// A frozen clock: nothing is refilled while a test runs.
    private func limiter(_ burst: Double) -> RateLimiter {
        let start = ContinuousClock.now
        return RateLimiter(.init(perSecond: 0.5, burst: burst), now: { start })
    }

    private func router(_ service: Service, _ change: (inout CallerLimits) -> Void) -> Router {
        var limits = CallerLimits()
        change(&limits)
        return CoordinatorAPI(
            coordinator: service.coordinator,
            isOpen: false,
            limits: limits,
            makeInitialModel: { _ in nil }
        ).router()
    }

    private func call(
        _ router: Router,
        from address: String,
        token: String?,
        _ fields: [String: String] = [:],
        method: String = "GET",
        _ target: String = "/v1/runs",
        body: String? = nil
    ) async throws -> ServerResponse {
        var headers: HTTPFields = [:]
        if let token { headers[.authorization] = "Bearer \(token)" }
        if body != nil { headers[.contentType] = "application/json" }
        for (name, value) in fields { headers[try #require(HTTPField.Name(name))] = value }
        var request = try ServerRequest(
            method: method,
            rawTarget: target,
            headers: headers,
            body: MemoryBody(Array((body ?? "").utf8)),
            requestID: "r"
        )
        request.remoteAddress = address
        return await router.handle(request)
    }

    @Test func anAddressIsToldWhenToComeAgainAndOthersAreNotHeldUp() async throws {
        let service = try await Service()
        let router = router(service) { $0.address = limiter(3) }
        for _ in 0..<3 { #expect(try await call(router, from: "192.0.2.1", token: service.admin).status == 200) }
        let refused = try await call(router, from: "192.0.2.1", token: service.admin)
        #expect(refused.status == 429 && refused.headers[.retryAfter] == "2")
        #expect(refused.headers[.contentType] == "application/problem+json")
        #expect(try await call(router, from: "192.0.2.2", token: service.admin).status == 200)
        // One IPv6 host has a whole /64: changing the address inside it helps nobody.
        for index in 0..<3 {
            #expect(try await call(router, from: "2001:db8::\(index)", token: service.admin).status == 200)
        }
        #expect(try await call(router, from: "2001:db8::99", token: service.admin).status == 429)
        #expect(service.coordinator.metrics.value("martlet_rate_limited_total", ["scope": "address"]) == 2)
    }

    @Test func guessingTokensIsSlowAndLeavesGoodTokensAlone() async throws {
        let service = try await Service()
        let router = router(service) { $0.guesses = limiter(2) }
        var statuses: [Int] = []
        for index in 0..<4 { statuses.append(try await call(router, from: "192.0.2.1", token: "mlt_\(index)").status) }
        #expect(statuses == [401, 401, 429, 429])
        #expect(try await call(router, from: "192.0.2.1", token: service.admin).status == 200)
    }

    /// Each row is a transaction for which everybody waits, and stays for ever: one token's many are counted.
    @Test func refusedRequestsOfOneTokenHaveFewRows() async throws {
        let service = try await Service()
        let time = Mutex(ContinuousClock.now)
        let router = router(service) {
            $0.refusals = RateLimiter(.init(perSecond: 1, burst: 2), now: { time.withLock { $0 } })
        }
        func token(_ name: String) async throws -> String {
            let answer = try await service.post("/v1/tokens", "{\"role\": \"viewer\", \"name\": \"\(name)\"}")
            return try #require(answer.json["token"] as? String)
        }
        let (loud, other) = (try await token("loud"), try await token("other"))
        // A character that is many bytes: what is kept of a path has a length in bytes.
        let long = "/v1/runs/" + String(repeating: "%CC%81", count: 2000) + "/start"
        func refuse(_ token: String) async throws {
            let answer = try await call(router, from: "192.0.2.1", token: token, method: "POST", long, body: "{}")
            #expect(answer.status == 403)
        }
        for _ in 0..<6 { try await refuse(loud) }
        try await refuse(other)
        func rows() async throws -> [AuditRow] {
            try await service.coordinator.auditRows(AuditQuery(limit: 100, outcome: .refused)).reversed()
        }
        let first = try await rows()
        #expect(first.map(\.actorName) == ["loud", "loud", "other"])
        #expect(first.allSatisfy { $0.target.utf8.count <= 510 }, "\(first.map(\.target.utf8.count))")
        time.withLock { $0 += .seconds(1) }
        try await refuse(loud)
        let last = try await rows().suffix(2)
        #expect(last.map(\.action) == ["refused requests without a row", "POST /v1/runs/{run}/start"])
        #expect(last.first?.target == "4")
    }

    /// Each is a transaction for which everybody waits; so they are few, from whatever address, and for nobody else.
    @Test func renewalsOfOneCallerAreFew() async throws {
        let service = try await Service()
        let (_, client, _) = try await service.assigned()
        let enrollment = try #require(
            try await service.post("/v1/populations/p/enrollment-tokens", #"{"max_uses": 9}"#).json["token"] as? String
        )
        let router = router(service) {
            $0.renewals = limiter(2)
            $0.exempt = NetworkList(["127.0.0.0/8"])
        }
        var (token, statuses) = (client, [Int]())
        for _ in 0..<4 {
            let answer = try await call(
                router,
                from: "127.0.0.1",
                token: token,
                method: "POST",
                "/v1/tokens/current/rotate"
            )
            statuses.append(answer.status)
            if answer.status == 429 { #expect(answer.headers[.retryAfter] == "2") }
            if case .bytes(let bytes) = answer.body, answer.status == 201 {
                let fields = try JSONSerialization.jsonObject(with: Data(bytes)) as? [String: Any]
                token = try #require(fields?["token"] as? String)
            }
        }
        #expect(statuses == [201, 201, 429, 429])
        // Nothing but renewals is held up, and nobody else's.
        #expect(try await call(router, from: "127.0.0.1", token: token).status == 403)
        let other = try await call(
            router,
            from: "127.0.0.1",
            token: service.admin,
            method: "POST",
            "/v1/tokens/current/rotate"
        )
        #expect(other.status == 201)
        // A registration that is repeated is one, by its key.
        for (key, expected) in [("a", 201), ("a", 201), ("a", 429), ("b", 201)] {
            let answer = try await call(
                router,
                from: "127.0.0.1",
                token: enrollment,
                ["Idempotency-Key": key],
                method: "POST",
                "/v1/clients"
            )
            #expect(answer.status == expected, "\(key)")
        }
        #expect(service.coordinator.metrics.value("martlet_rate_limited_total", ["scope": "renewals"]) == 3)
    }

    /// What a client says again and again, each time otherwise, costs a bounded number of transactions, for which everybody waits.
    @Test(arguments: [
        ("POST", "/v1/assignments/{assignment}/heartbeat", [#"{"phase": "training"}"#, #"{"phase": "uploading"}"#]),
        ("POST", "/v1/assignments/{assignment}/heartbeat", [#"{"progress": 0.1}"#, #"{"progress": 0.2}"#, "{}"]),
        (
            "POST", "/v1/checkins",
            [#"{"capabilities": {"memory_bytes": 1}}"#, #"{"capabilities": {"memory_bytes": 2}}"#, "{}"]
        ),
        ("PATCH", "/v1/clients/{client}", [#"{"name": "a"}"#, #"{"name": "b"}"#]),
        ("PATCH", "/v1/clients/{client}", [#"{"labels": {"site": "a"}}"#, #"{"labels": {"site": "b"}}"#]),
        ("POST", "/v1/tokens/current/rotate", ["{}"]),
        ("POST", "/v1/assignments/{assignment}/failure", [#"{"code": "training_failed"}"#, #"{"code": "no_data"}"#]),
        ("GET", "/v1/assignments/{assignment}", [""]),
    ])
    func oneClientCostsFewTransactions(_ method: String, _ route: String, _ bodies: [String]) async throws {
        let service = try await Service()
        let (_, token, assignment) = try await service.assigned()
        guard case .client(let client) = try await service.coordinator.principal(token: token) else { return }
        let target = route.replacing("{assignment}", with: assignment["id"] as? String ?? "")
            .replacing("{client}", with: client)
        let router = router(service) { $0.renewals = limiter(10) }
        func commits() throws -> Int {
            let name = "martlet_store_commit_duration_seconds_count "
            let line = service.coordinator.metrics.exposition().split(separator: "\n").first { $0.hasPrefix(name) }
            return try #require(line.flatMap { Int($0.dropFirst(name.count)) })
        }
        let before = try commits()
        var statuses: Set<Int> = []
        for index in 0..<60 {
            let body = bodies[index % bodies.count]
            let answer = try await call(
                router,
                from: "192.0.2.1",
                token: token,
                method: method,
                target,
                body: body.isEmpty ? nil : body
            )
            statuses.insert(answer.status)
        }
        #expect(try commits() - before <= 12, "\(statuses)")
        #expect(statuses.isSubset(of: [200, 201, 204, 401, 409, 410, 429]), "\(statuses)")
    }

    @Test func onlyANamedProxySpeaksForOthers() async throws {
        let service = try await Service()
        let router = router(service) {
            $0.address = limiter(1)
            $0.proxies = NetworkList(["10.0.0.1"])
        }
        for index in 0..<3 {
            let fields = ["X-Forwarded-For": "203.0.113.\(index)"]
            #expect(try await call(router, from: "10.0.0.1", token: service.admin, fields).status == 200)
        }
        let forged = (0..<2).map { ["X-Forwarded-For": "198.51.100.\($0)"] }
        #expect(try await call(router, from: "192.0.2.9", token: service.admin, forged[0]).status == 200)
        #expect(try await call(router, from: "192.0.2.9", token: service.admin, forged[1]).status == 429)
    }

    /// A proxy on this machine has an exempt address; whoever makes it unclear who calls does not get that by it.
    @Test func whoeverHidesBehindAProxyIsNotExempt() async throws {
        let service = try await Service()
        let router = router(service) {
            $0.address = limiter(3)
            $0.exempt = NetworkList(["127.0.0.0/8", "192.0.2.0/24"])
            $0.proxies = NetworkList(["127.0.0.1"])
        }
        for fields in [
            ["Forwarded": "for=127.0.0.9", "X-Forwarded-For": "203.0.113.5"], ["X-Forwarded-For": "unknown"], [:],
        ] {
            #expect(try await call(router, from: "127.0.0.1", token: service.admin, fields).status == 200)
        }
        #expect(try await call(router, from: "127.0.0.1", token: service.admin).status == 429)
        for _ in 0..<5 {
            let known = ["X-Forwarded-For": "192.0.2.77"]
            #expect(try await call(router, from: "127.0.0.1", token: service.admin, known).status == 200)
            #expect(try await call(router, from: "127.0.0.2", token: service.admin).status == 200)
        }
    }

    /// The usual mistake: a proxy on the same machine that nobody has named.
    @Test func aProxyThatIsNotNamedIsNotedOnce() async throws {
        let service = try await Service()
        let lines = Mutex<[String]>([])
        struct Collector: LogHandler {
            var metadata: Logger.Metadata = [:]
            var logLevel = Logger.Level.notice
            let note: @Sendable (String) -> Void
            subscript(metadataKey key: String) -> Logger.Metadata.Value? {
                get { metadata[key] }
                set { metadata[key] = newValue }
            }
            func log(event: LogEvent) { note("\(event.level) \(event.message) \(event.metadata ?? [:])") }
        }
        let collector = Collector { line in lines.withLock { $0.append(line) } }
        var limits = CallerLimits()
        limits.exempt = NetworkList(["127.0.0.0/8"])
        let router = CoordinatorAPI(
            coordinator: service.coordinator,
            isOpen: false,
            requestLog: RequestLog(logger: Logger(label: "test") { _ in collector }, slowerThan: .seconds(3600)),
            limits: limits,
            makeInitialModel: { _ in nil }
        ).router()
        let fields = ["X-Forwarded-For": "203.0.113.5"]
        _ = try await call(router, from: "127.0.0.1", token: service.admin)
        _ = try await call(router, from: "192.0.2.1", token: service.admin, fields)
        #expect(lines.withLock { $0 } == [])
        for _ in 0..<3 { _ = try await call(router, from: "127.0.0.1", token: service.admin, fields) }
        let noted = lines.withLock { $0 }
        #expect(noted.count == 1 && noted[0].hasPrefix("warning A proxy that behind_proxy does not name"), "\(noted)")
        #expect(noted[0].contains("127.0.0.1") && !noted[0].contains("203.0.113.5"))
    }

    @Test func aClientIsLimitedWhereverItCallsFrom() async throws {
        let service = try await Service()
        let (_, token, assignment) = try await service.assigned()
        let router = router(service) { $0.client = limiter(2) }
        var statuses: [Int] = []
        for index in 0..<3 {
            var request = try ServerRequest(
                method: "GET",
                rawTarget: "/v1/assignments/\(try #require(assignment["id"] as? String))",
                headers: [.authorization: "Bearer \(token)"],
                body: MemoryBody([]),
                requestID: "r"
            )
            request.remoteAddress = "192.0.2.\(index)"
            statuses.append(await router.handle(request).status)
        }
        #expect(statuses == [200, 200, 429])
    }
}
