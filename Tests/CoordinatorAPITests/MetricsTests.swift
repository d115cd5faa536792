import Coordination
import CoordinatorAPI
import Foundation
import HTTPServing
import HTTPTypes
import Logging
import Synchronization
import Tensors
import TestBenches
import Testing

@Suite(.timeLimit(.minutes(10)))
struct MetricsTests {
    @Test func histogramsCountCumulatively() {
        let registry = MetricsRegistry([
            .init("t_seconds", .histogram([0.1, 1]), "A test."), .init("c", .counter, "C."),
        ])
        for value in [0.05, 0.1, 0.5, 2] { registry.observe("t_seconds", value, ["route": "a\"b"]) }
        registry.add("c", 2)
        #expect(
            registry.exposition() == """
                # HELP t_seconds A test.
                # TYPE t_seconds histogram
                t_seconds_bucket{route="a\\"b",le="0.1"} 2
                t_seconds_bucket{route="a\\"b",le="1"} 3
                t_seconds_bucket{route="a\\"b",le="+Inf"} 4
                t_seconds_sum{route="a\\"b"} 2.65
                t_seconds_count{route="a\\"b"} 4
                # HELP c C.
                # TYPE c counter
                c 2

                """
        )
    }

    /// A rate or an increase of a series that begins with its first event does not see that event, and a sum over no series
    /// is not 0 but nothing: rules that wait for it would wait for ever.
    @Test func whatRulesWaitForIsThereBeforeItHappens() {
        let text = MetricsRegistry.server().exposition()
        for line in [
            "martlet_rounds_total{outcome=\"abandoned\"} 0", "martlet_rounds_total{outcome=\"committed\"} 0",
            "martlet_updates_total{outcome=\"accepted\"} 0", "martlet_updates_total{outcome=\"rejected\"} 0",
            "martlet_store_commit_failures_total 0", "martlet_authentication_failures_total 0",
            "martlet_http_connections_refused_total{reason=\"limit\"} 0", "martlet_http_timeouts_total 0",
            "martlet_rate_limited_total{scope=\"guesses\"} 0", "martlet_uploads_refused_total 0",
            "martlet_round_duration_seconds_bucket{le=\"+Inf\"} 0", "martlet_round_duration_seconds_count 0",
            "martlet_aggregation_seconds_bucket{phase=\"noise\",le=\"1\"} 0",
        ] {
            #expect(text.contains(line + "\n"), "\(line)")
        }
        #expect(
            !text.contains("tls_certificate_expiry_timestamp_seconds 0"),
            "a server without a certificate has no end of one"
        )
    }

    @Test func aRunIsSeenInTheMetrics() async throws {
        let service = try await Service()
        let (run, token, assignment) = try await service.assigned()
        let url = try #require(assignment["update_url"] as? String)
        let (good, bad) = (Service.update([1, 2, 3, 4]), Service.update([1, 2, 3, .nan]))
        #expect(try await service.call("PUT", url, token: token, good).status == 200)
        let enrollment = try #require(
            try await service.post("/v1/populations/p/enrollment-tokens", #"{"max_uses": 1}"#).json["token"] as? String
        )
        let second = try #require(try await service.post("/v1/clients", token: enrollment).json["token"] as? String)
        let other = try #require(
            try await service.post("/v1/checkins", token: second).json["assignment"] as? [String: Any]
        )
        #expect(
            try await service.call("PUT", try #require(other["update_url"] as? String), token: second, bad).status
                == 422
        )
        _ = try await service.call("GET", "/v1/runs", token: "guess")
        _ = try await service.call("GET", "/nothing/here", token: nil)
        let answer = try await service.call("GET", "/metrics", token: service.admin)
        #expect(answer.headers[.contentType]?.hasPrefix("text/plain; version=0.0.4") == true)
        let text = String(decoding: answer.bytes, as: UTF8.self)
        for line in [
            "martlet_updates_total{outcome=\"accepted\"} 1", "martlet_updates_total{outcome=\"rejected\"} 1",
            "martlet_update_refusals_total{code=\"not_finite\"} 1", "martlet_update_bytes_total \(good.count)",
            "martlet_checkins_total{outcome=\"assigned\"} 2",
            "martlet_http_requests_total{method=\"PUT\",route=\"/v1/assignments/{assignment}/update\",status=\"200\"} 1",
            "martlet_http_requests_total{method=\"GET\",route=\"unmatched\",status=\"404\"} 1",
            "martlet_authentication_failures_total 1", "martlet_clients{population=\"p\",state=\"active\"} 2",
            "martlet_runs{state=\"running\"} 1", "martlet_http_requests_in_flight 1",
        ] {
            #expect(text.contains(line + "\n"), "\(line)")
        }
        #expect(text.contains("martlet_store_commit_duration_seconds_count "))
        // Neither ids of clients, runs or assignments, nor tokens, nor anything computed from data.
        for forbidden in ["clt_", "run_", "asg_", "mlt_", "loss", "examples", "norm"] {
            #expect(!text.contains(forbidden), "\(forbidden)")
        }
        for line in text.split(separator: "\n") where !line.hasPrefix("#") {
            #expect(line.wholeMatch(of: /[a-z_]+(\{[^{}]*(\{[a-z]+\}[^{}]*)*\})? [-+0-9.eEInf]+/) != nil, "\(line)")
        }
        _ = run
    }

    @Test func requestsAreLoggedWithTheirIdsAndSlowOnesStandOut() async throws {
        let lines = Mutex<[(level: Logger.Level, message: String, metadata: Logger.Metadata)]>([])
        let log = LineLog { level, message, metadata in lines.withLock { $0.append((level, message, metadata)) } }
        let service = try await Service()
        var logger = Logger(label: "test", factory: { _ in log })
        logger.logLevel = .info
        let router = CoordinatorAPI(
            coordinator: service.coordinator,
            isOpen: false,
            requestLog: RequestLog(logger: logger, slowerThan: .zero),
            makeInitialModel: { _ in nil }
        ).router()
        var headers: HTTPFields = [.authorization: "Bearer mlt_secret"]
        let request = try ServerRequest(
            method: "GET",
            rawTarget: "/v1/runs/run_7?token=mlt_query",
            headers: headers,
            body: MemoryBody([]),
            requestID: "id-7"
        )
        _ = await router.handle(request)
        headers[try #require(HTTPField.Name("Prefer"))] = "wait=30"
        let polling = try ServerRequest(
            method: "POST",
            rawTarget: "/v1/checkins",
            headers: headers,
            body: MemoryBody([]),
            requestID: "id-8"
        )
        _ = await router.handle(polling)
        let written = lines.withLock { $0 }
        #expect(written.map(\.level) == [.warning, .info])
        #expect(written[0].metadata["request.id"] == "id-7" && written[0].metadata["http.status"] == "401")
        #expect(written[0].metadata["error.code"] == "unauthorized")
        #expect(written[0].metadata["http.route"] == "/v1/runs/{run}" && written[1].metadata["request.id"] == "id-8")
        #expect(!"\(written)".contains("mlt_"), "tokens are never logged")
    }

    @Test func aRequestIsSlowFromTheThresholdOnUnlessItWasToWait() async throws {
        let lines = Mutex<[(level: Logger.Level, message: String, metadata: Logger.Metadata)]>([])
        var logger = Logger(
            label: "test",
            factory: { _ in
                LineLog { level, message, metadata in lines.withLock { $0.append((level, message, metadata)) } }
            }
        )
        logger.logLevel = .notice
        let router = CoordinatorAPI(
            coordinator: try await Service().coordinator,
            isOpen: false,
            requestLog: RequestLog(logger: logger, slowerThan: .milliseconds(250)),
            makeInitialModel: { _ in nil }
        ).router()
        let observe = try #require(router.observe)
        func answered(_ id: String, after duration: Duration, route: String = "/v1/runs", prefer: String? = nil) throws
        {
            var headers: HTTPFields = [:]
            if let prefer { headers[try #require(HTTPField.Name("Prefer"))] = prefer }
            var request = try ServerRequest(
                method: "GET",
                rawTarget: "/v1/runs",
                headers: headers,
                body: MemoryBody([]),
                requestID: id
            )
            request.route = route
            observe(request, ServerResponse(status: 200), duration)
        }
        try answered("quick", after: .milliseconds(249))
        try answered("slow", after: .milliseconds(250))
        try answered("poll", after: .seconds(20), route: "/v1/checkins", prefer: "wait=30")
        try answered("stream", after: .seconds(2000), route: "/v1/events")
        try answered("other preference", after: .seconds(1), prefer: "return=minimal")
        let written = lines.withLock { $0 }
        #expect(written.map { $0.metadata["request.id"] } == ["slow", "other preference"])
        #expect(written.allSatisfy { $0.level == .warning && $0.message == "A request was slow" })
        #expect(written.first?.metadata["http.seconds"] == "0.25")
    }
}

/// Hands each line to a closure.
private struct LineLog: LogHandler {
    var metadata: Logger.Metadata = [:]
    var logLevel: Logger.Level = .info
    let write: @Sendable (Logger.Level, String, Logger.Metadata) -> Void

    init(_ write: @escaping @Sendable (Logger.Level, String, Logger.Metadata) -> Void) { self.write = write }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) { write(event.level, "\(event.message)", event.metadata ?? [:]) }
}
