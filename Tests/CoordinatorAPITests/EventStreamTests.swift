import Coordination
import CoordinatorAPI
import Foundation
import HTTPServing
import HTTPTypes
import StrictJSON
import Synchronization
import TestBenches
import TestSupport
import Testing
import WireFormat

/// `GET /v1/events` as a browser's EventSource uses it: where a stream begins, what it leaves out, and when it lives.
@Suite(.timeLimit(.minutes(10)))
struct EventStreamTests {
    /// What a stream says until the server stops, with what happens meanwhile.
    private func stream(
        _ service: Service,
        _ target: String = "/v1/events",
        _ fields: [String: String] = [:],
        during body: () async throws -> Void = {}
    ) async throws -> String {
        async let answer = service.call("GET", target, token: service.admin, [], fields)
        try await wait(for: "a stream of events") { await service.coordinator.listenerCount > 0 }
        try await body()
        await service.coordinator.stopServing()
        return String(decoding: try await answer.bytes, as: UTF8.self)
    }

    private func ids(_ text: String) -> [Int] {
        text.split(separator: "\n").filter { $0.hasPrefix("id: ") }.compactMap { Int($0.dropFirst(4)) }
    }

    /// Runs that are only created: one event each.
    private func createRuns(_ service: Service, _ count: Int) async throws -> [String] {
        let specification = try RunSpecification.sample { $0.cohort.goal = 2 }
        var runs: [String] = []
        for _ in 0..<count {
            runs.append(try await service.coordinator.createRun(specification, initialModel: nil).id)
        }
        return runs
    }

    private func service(_ configure: (inout CoordinatorConfiguration) -> Void = { _ in }) async throws -> Service {
        let service = try await Service(.router, configure)
        _ = try await service.post("/v1/populations", #"{"name": "p"}"#)
        return service
    }

    @Test func whoComesBackMissesNothing() async throws {
        let service = try await service()
        _ = try await createRuns(service, 9)
        // EventSource sends the last id in a field, whatever its address says.
        let text = try await stream(service, "/v1/events?after=1", ["Last-Event-ID": "6"]) {
            _ = try await createRuns(service, 2)
        }
        #expect(ids(text) == Array(7...11) && !text.contains("event: reset"), "\(text)")
        #expect(text.hasPrefix("retry: 2000\n\n"))
    }

    @Test func whoIsNewHearsWhatHappensFromNowOn() async throws {
        let service = try await service()
        _ = try await createRuns(service, 3)
        #expect(ids(try await stream(service) { _ = try await createRuns(service, 1) }) == [4])
    }

    /// More than one page of the store.
    @Test(.slow) func aLongPastIsToldWhole() async throws {
        let service = try await service { $0.openRunLimit = 2000 }
        _ = try await createRuns(service, 1203)
        #expect(ids(try await stream(service, "/v1/events?after=0")) == Array(1...1203))
    }

    /// The events that it missed are gone, or it has seen a database that is no more: it must read everything anew.
    @Test func whoCannotGoOnIsToldSo() async throws {
        let service = try await service { $0.eventRetention = 20 }
        _ = try await createRuns(service, 50)
        try await service.coordinator.tick()
        let old = try await stream(service, "/v1/events", ["Last-Event-ID": "4"])
        #expect(old.contains("id: 30\nevent: reset\ndata: {\"first\":31}\n\n"), "\(old)")
        #expect(ids(old) == Array(30...50))
        let other = try await self.service()
        _ = try await createRuns(other, 3)
        let ahead = try await stream(other, "/v1/events", ["Last-Event-ID": "900"]) {
            _ = try await createRuns(other, 1)
        }
        #expect(ahead.contains("id: 3\nevent: reset\n") && ids(ahead) == [3, 4], "\(ahead)")
    }

    @Test func aStreamOfOneRunHasItsEventsOnly() async throws {
        let service = try await service()
        let runs = try await createRuns(service, 3)
        let text = try await stream(service, "/v1/events?after=0&run=\(runs[1])") {
            for run in runs { _ = try await service.coordinator.cancelRun(run) }
        }
        #expect(ids(text) == [2, 5], "\(text)")
        #expect(text.contains(runs[1]) && !text.contains(runs[0]) && !text.contains(runs[2]))
    }

    /// A silent stream says that it lives every quarter of a minute, also when the clock was put back.
    @Test func aStreamThatIsSilentLives() async throws {
        let service = try await service()
        try await service.coordinator.tick()
        let text = try await stream(service) {
            for seconds in [1.0, 15, 1, -86_400] {
                service.clock.advance(by: seconds)
                try await service.coordinator.tick()
            }
        }
        #expect(text.split(separator: ": alive\n\n", omittingEmptySubsequences: false).count == 3, "\(text)")
    }

    /// A place is taken before the stream begins, and free again when nobody will read it.
    @Test func aPlaceIsTakenAndGivenBackWithTheAnswer() async throws {
        let service = try await service { $0.eventListenerLimit = 1 }
        let request = try ServerRequest(
            method: "GET",
            rawTarget: "/v1/events",
            headers: [.authorization: "Bearer \(service.admin)"],
            body: MemoryBody([]),
            requestID: "r"
        )
        for _ in 0..<3 {
            var answer: ServerResponse? = await service.router.handle(request)
            #expect(answer?.status == 200)
            #expect(await service.router.handle(request).status == 503)
            answer = nil
            try await wait(for: "the place") { await service.coordinator.listenerCount == 0 }
        }
    }

    /// Whoever loses the right to listen hears nothing more: a stream is one request that would otherwise last for days.
    @Test(arguments: ["revoked", "rotated", "expired", "replaced after its grace"])
    func aStreamEndsWithItsToken(_ fate: String) async throws {
        let service = try await service()
        let issued = try await service.post(
            "/v1/tokens",
            #"{"role": "viewer", "name": "screen", "expires_in_s": 3600}"#
        ).json
        let (id, token) = (try #require(issued["id"] as? String), try #require(issued["token"] as? String))
        async let viewer = service.call("GET", "/v1/events", token: token)
        async let administrator = service.call("GET", "/v1/events", token: service.admin)
        try await wait(for: "two streams") { await service.coordinator.listenerCount == 2 }
        _ = try await createRuns(service, 1)
        switch fate {
        case "revoked":
            #expect(try await service.call("DELETE", "/v1/tokens/\(id)", token: service.admin).status == 204)
        case "rotated": #expect(try await service.post("/v1/tokens/\(id)/rotate").status == 201)
        case "expired": service.clock.advance(by: 3601)
        default:
            let rotated = try await service.post("/v1/tokens/\(id)/rotate", #"{"grace_period_s": 60}"#)
            #expect(rotated.status == 201)
            _ = try await createRuns(service, 1)
            #expect(await service.coordinator.listenerCount == 2)
            service.clock.advance(by: 61)
            try await service.coordinator.tick()
        }
        _ = try await createRuns(service, 1)
        // The server goes on: what ends the stream is its token.
        let heard = ids(String(decoding: try await viewer.bytes, as: UTF8.self))
        #expect(heard == (fate.hasSuffix("grace") ? [1, 2] : [1]))
        #expect(await service.coordinator.listenerCount == 1)
        await service.coordinator.stopServing()
        #expect(ids(String(decoding: try await administrator.bytes, as: UTF8.self)).count == heard.count + 1)
    }

    /// Whoever only knows `Retry-After` is spread as well: 300 clients for one place come within six seconds of their window.
    @Test func theMomentToComeAgainIsDrawnFromTheWindow() async throws {
        let service = try await Service()
        _ = try await service.assigned()
        let enrollment = try #require(
            try await service.post("/v1/populations/p/enrollment-tokens", #"{"max_uses": 300}"#).json["token"]
                as? String
        )
        var tokens: [String] = []
        for _ in 0..<300 {
            let answer = try await service.post("/v1/clients", token: enrollment)
            tokens.append(try #require(answer.json["token"] as? String))
        }
        var moments: Set<Int> = []
        for token in tokens.suffix(60) {
            let answer = try await service.post("/v1/checkins", token: token)
            guard answer.status == 200 else { continue }
            let window = try #require(answer.json["retry_window"] as? [String: Double])
            let moment = try #require(answer.headers[.retryAfter].flatMap { Int($0) })
            #expect(Double(moment) >= window["min_s"] ?? 0 && Double(moment) <= (window["max_s"] ?? 0) + 1)
            moments.insert(moment)
        }
        // Fewer than three of six values in 58 draws: under 1e-25.
        #expect(moments.count >= 3, "\(moments)")
    }

    @Test("Who reads slowly has what is stored no longer than its token: the stream ends before the next page.")
    func storedEventsEndWithTheToken() async throws {
        let service = try await service { $0.openRunLimit = 2000 }
        _ = try await createRuns(service, 1200)
        let viewer = try await service.post("/v1/tokens", #"{"role": "viewer", "name": "reader"}"#).json
        let token = try #require(viewer["token"] as? String)
        let id = try #require(viewer["id"] as? String)
        let sent = Mutex<[UInt8]>([])
        let request = try ServerRequest(
            method: "GET",
            rawTarget: "/v1/events?after=0",
            headers: [.authorization: "Bearer \(token)"],
            body: MemoryBody([]),
            requestID: "test"
        )
        guard case .stream(let body) = await service.router.handle(request).body else {
            Issue.record("the answer is no stream")
            return
        }
        let error = await #expect(throws: CoordinationError.self) {
            try await body { bytes in
                let isFirst = sent.withLock { sent in
                    defer { sent += bytes }
                    return sent.isEmpty
                }
                // The preamble; then one page of 500, after which the token goes.
                if !isFirst { _ = try await service.call("DELETE", "/v1/tokens/\(id)", token: service.admin) }
            }
        }
        #expect(error?.code == "unauthorized")
        #expect(ids(String(decoding: sent.withLock { $0 }, as: UTF8.self)).last == 500)
    }
}
