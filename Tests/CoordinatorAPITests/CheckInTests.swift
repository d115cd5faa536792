import Coordination
import CoordinatorAPI
import Foundation
import HTTPServing
import HTTPTypes
import TestBenches
import TestSupport
import Testing
import WireFormat

/// Check-ins that are answered where their request was read, beside the same ones answered by the coordinator.
@Suite(.timeLimit(.minutes(10)))
struct CheckInTests {
    private func request(
        _ token: String?,
        _ body: String = "{}",
        _ fields: [String: String] = [:]
    ) throws -> ServerRequest {
        var headers: HTTPFields = [.contentType: "application/json"]
        if let token { headers[.authorization] = "Bearer \(token)" }
        for (name, value) in fields { headers[try #require(HTTPField.Name(name))] = value }
        return try ServerRequest(
            method: "POST",
            rawTarget: "/v1/checkins",
            headers: headers,
            body: MemoryBody(Array(body.utf8)),
            requestID: "r"
        )
    }

    private func bytes(_ response: ServerResponse?) -> String? {
        guard case .bytes(let bytes)? = response?.body else { return nil }
        return String(decoding: bytes, as: UTF8.self)
    }

    private func newClient(_ service: Service) async throws -> (id: String, token: String) {
        let enrollment = try #require(
            try await service.post("/v1/populations/p/enrollment-tokens", #"{"max_uses": 5}"#).json["token"] as? String
        )
        let answer = try await service.post("/v1/clients", token: enrollment).json
        return (try #require(answer["client_id"] as? String), try #require(answer["token"] as? String))
    }

    /// Nobody holds a connection for longer than a minute by asking for it.
    @Test func aWaitIsOneOfUpToAMinute() throws {
        for (text, seconds) in [
            ("wait=30", 30), ("wait=60", 60), ("wait=61", 60), ("wait=9223372036854775807", 60),
            ("respond-async, wait=7", 7),
            ("wait=99999999999999999999", 0), ("wait=-1", 0), ("wait=0", 0), ("wait=1.5", 0), ("wait=", 0), ("", 0),
        ] {
            #expect(CoordinatorAPI.wait(try request(nil, "{}", ["Prefer": text])) == .seconds(seconds), "\(text)")
        }
    }

    @Test func withoutWorkTheAnswerComesAtOnceAndIsTheSame() async throws {
        let service = try await Service()
        _ = try await service.post("/v1/populations", #"{"name": "p"}"#)
        let client = try await newClient(service)
        func expectAtOnce(_ reason: String, token: String, _ body: String = "{}") async throws {
            var request = try self.request(token, body)
            // The coordinator may be at work still: then the answer does not come at once, and the request is as it was.
            var atOnce = service.router.handleImmediately(&request)
            try await wait(for: "an answer at once") {
                if atOnce != nil { return true }
                request = try self.request(token, body)
                atOnce = service.router.handleImmediately(&request)
                return atOnce != nil
            }
            let slow = await service.router.handle(
                try self.request(token, body, ["Content-Type": "application/json; a=b"])
            )
            #expect(atOnce?.status == 200 && bytes(atOnce) == bytes(slow), "\(bytes(slow) ?? "")")
            #expect(bytes(atOnce)?.contains("\"reason\":\"\(reason)\"") == true)
            #expect(atOnce?.headers[.contentType] == slow.headers[.contentType])
            #expect((1...7200).contains(atOnce?.headers[.retryAfter].flatMap { Int($0) } ?? 0))
        }
        try await expectAtOnce("no_run", token: client.token)
        let (_, working, _) = try await service.assigned()
        // Who holds an assignment gets it again, from the coordinator.
        var again = try request(working)
        #expect(service.router.handleImmediately(&again) == nil)
        #expect(await service.router.handle(again).status == 201)
        // Two places are free (2 · 1.2, rounded up, less one): only the coordinator can give them.
        for token in [client.token, try await newClient(service).token] {
            var wanted = try request(token)
            #expect(service.router.handleImmediately(&wanted) == nil)
            #expect(await service.router.handle(wanted).status == 201)
        }
        // Now the round is full.
        let late = try await newClient(service)
        try await expectAtOnce("no_open_slot", token: late.token)
        try await expectAtOnce("no_run", token: late.token, #"{"runs": ["run_x"]}"#)
        let seen = try await service.call("GET", "/v1/clients/\(late.id)", token: service.admin).json["last_seen_at"]
        #expect(seen is String)
        #expect(service.coordinator.metrics.value("martlet_checkins_total", ["outcome": "no_open_slot"]) == 2)
    }

    @Test(.slow) func whatMustWaitOrIsWrongIsLeftToTheCoordinator() async throws {
        let service = try await Service()
        _ = try await service.post("/v1/populations", #"{"name": "p"}"#)
        let client = try await newClient(service)
        let capable = #"{"capabilities": {"memory_bytes": 1000}}"#
        for (request, status) in [
            (try request(client.token, "{}", ["Prefer": "wait=1"]), 200), (try request(nil), 401),
            (try request("mlt_wrong"), 401), (try request(service.admin), 403),
            (try request(client.token, "{"), 422), (try request(client.token, #"{"unknown": 1}"#), 422),
            (try request(client.token, "{}", ["Content-Type": "text/plain"]), 415),
            (try request(client.token, capable), 200),
        ] {
            var request = request
            #expect(service.router.handleImmediately(&request) == nil)
            #expect(await service.router.handle(request).status == status, "\(request.headers)")
        }
        _ = try await service.call("DELETE", "/v1/clients/\(client.id)", token: service.admin)
        var revoked = try request(client.token)
        #expect(service.router.handleImmediately(&revoked) == nil)
        #expect(await service.router.handle(revoked).status == 401)
    }

    @Test func aLimitedClientIsCountedOnceForEachRequest() async throws {
        let service = try await Service()
        _ = try await service.post("/v1/populations", #"{"name": "p"}"#)
        let client = try await newClient(service)
        var limits = CallerLimits()
        limits.client = RateLimiter(.init(perSecond: 0.001, burst: 3), capacity: 16)
        limits.address = RateLimiter(.init(perSecond: 0.001, burst: 5), capacity: 16)
        let api = CoordinatorAPI(
            coordinator: service.coordinator,
            isOpen: false,
            limits: limits,
            makeInitialModel: { _ in nil }
        )
        let router = api.router()
        var statuses: [Int] = []
        for index in 0..<6 {
            // In turn at once and, because of its parameter, by the coordinator.
            let type = index % 2 == 0 ? "application/json" : "application/json; a=b"
            var request = try request(client.token, "{}", ["Content-Type": type])
            if let response = router.handleImmediately(&request) {
                statuses.append(response.status)
            } else {
                statuses.append(await router.handle(request).status)
            }
        }
        // Three of the client's, then its limit; the address ends with its fifth.
        #expect(statuses == [200, 200, 200, 429, 429, 429])
        #expect(service.coordinator.metrics.value("martlet_rate_limited_total", ["scope": "client"]) == 2)
        #expect(service.coordinator.metrics.value("martlet_rate_limited_total", ["scope": "address"]) == 1)
    }

    @Test func theDocumentIsTheEncodersToTheByte() throws {
        let windows: [CheckInResponse.RetryWindow?] = [
            nil, .init(minS: 5, maxS: 30), .init(minS: 0.1, maxS: 4.1), .init(minS: 1e-3, maxS: 7200),
            .init(minS: 3.3333333333333335, maxS: 1_000_000),
        ]
        for window in windows {
            for reason in ["no_run", nil] {
                let answer = CheckInResponse(assignment: nil, reason: reason, retryWindow: window)
                #expect(Data(answer.awayDocument) == (try WireCoding.encode(answer)))
            }
        }
    }

    @Test func theCoordinatorIsBorrowedByOneThreadAtATime() async throws {
        let service = try await Service()
        _ = try await service.post("/v1/populations", #"{"name": "p"}"#)
        let client = try await newClient(service)
        let router = service.router
        let requests = try (0..<4).map { _ in try request(client.token) }
        // Threads that borrow it while tasks commit through it: every one is answered, at once or not.
        let counts = await withTaskGroup(of: Int.self) { group in
            for first in requests {
                group.addTask {
                    var answered = 0
                    for _ in 0..<300 {
                        var request = first
                        request.isAdmitted = false
                        if router.handleImmediately(&request)?.status == 200 {
                            answered += 1
                        } else if await router.handle(request).status == 200 {
                            answered += 1
                        }
                    }
                    return answered
                }
            }
            group.addTask {
                for index in 0..<40 {
                    _ = try? await service.post("/v1/populations", #"{"name": "q\#(index)"}"#)
                }
                return 0
            }
            return await group.reduce(into: []) { $0.append($1) }
        }
        #expect(counts.reduce(0, +) == 1200)
        #expect(service.coordinator.metrics.value("martlet_checkins_total", ["outcome": "no_run"]) == 1200)
    }
}
