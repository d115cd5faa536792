import Coordination
import CoordinatorAPI
import Foundation
import HTTPServing
import HTTPTypes
import TestBenches
import TestSupport
import Testing
import WireFormat

@Suite(.timeLimit(.minutes(10)))
struct AccessTests {
    private func issue(
        _ service: Service,
        _ role: String,
        expiresIn: Double? = nil
    ) async throws -> (id: String, text: String) {
        let expiry = expiresIn.map { ", \"expires_in_s\": \($0)" } ?? ""
        let answer = try await service.post(
            "/v1/tokens",
            "{\"role\": \"\(role)\", \"name\": \"\(role) of the test\"\(expiry)}"
        )
        #expect(answer.status == 201)
        return (try #require(answer.json["id"] as? String), try #require(answer.json["token"] as? String))
    }

    @Test func textsAreShownOnceAndKeptAsHashesOnly() async throws {
        let service = try await Service()
        let (id, text) = try await issue(service, "operator")
        let list = try await service.call("GET", "/v1/tokens", token: service.admin)
        #expect(!String(decoding: list.bytes, as: UTF8.self).contains(text))
        #expect((list.json["items"] as? [[String: Any]])?.contains { $0["id"] as? String == id } == true)
        let own = try await service.call("GET", "/v1/tokens/current", token: text).json
        #expect(own["id"] as? String == id && own["role"] as? String == "operator")
        #expect(own["last_used_at"] != nil && own["token"] == nil)
        #expect(text.utf8.count >= 43, "256 bits in base64")
    }

    @Test func rotationKeepsTheIdAndEndsTheOldText() async throws {
        let service = try await Service()
        let (id, old) = try await issue(service, "viewer")
        let now = try await service.post("/v1/tokens/current/rotate", token: old)
        #expect(now.status == 201 && now.json["id"] as? String == id)
        let renewed = try #require(now.json["token"] as? String)
        #expect(try await service.call("GET", "/v1/runs", token: old).status == 401)
        #expect(try await service.call("GET", "/v1/runs", token: renewed).status == 200)
        let graceful = try await service.post("/v1/tokens/\(id)/rotate", #"{"grace_period_s": 3600}"#)
        let third = try #require(graceful.json["token"] as? String)
        for text in [renewed, third] { #expect(try await service.call("GET", "/v1/runs", token: text).status == 200) }
        let listed = try await service.call("GET", "/v1/tokens", token: service.admin).json["items"] as? [[String: Any]]
        #expect(listed?.filter { $0["id"] as? String == id }.count == 1)
        #expect(try await service.call("DELETE", "/v1/tokens/\(id)", token: service.admin).status == 204)
        for text in [renewed, third] { #expect(try await service.call("GET", "/v1/runs", token: text).status == 401) }
        let (_, client, _) = try await service.assigned()
        let changed = try await service.post("/v1/tokens/current/rotate", token: client)
        #expect(changed.status == 201)
        #expect(try await service.post("/v1/checkins", token: client).status == 401)
        #expect(try await service.post("/v1/checkins", token: changed.json["token"] as? String).status == 201)
    }

    @Test func theOldTextEndsWithItsGracePeriodOrWithTheTokenIfThatIsSooner() async throws {
        let service = try await Service()
        func status(_ text: String) async throws -> Int {
            try await service.call("GET", "/v1/runs", token: text).status
        }
        for (expiresIn, grace, lasts) in [(nil, 100.0, 100.0), (50, 100, 50), (1000, 100, 100)]
            as [(Double?, Double, Double)]
        {
            let (_, old) = try await issue(service, "viewer", expiresIn: expiresIn)
            let answer = try await service.post(
                "/v1/tokens/current/rotate",
                token: old,
                "{\"grace_period_s\": \(grace)}"
            )
            let new = try #require(answer.json["token"] as? String)
            service.clock.advance(by: lasts - 1)
            for text in [old, new] { #expect(try await status(text) == 200) }
            service.clock.advance(by: 2)
            #expect(try await status(old) == 401)
            // The new text lives as long as the token was to live.
            let hasEnded = expiresIn.map { $0 < lasts + 1 } ?? false
            #expect(try await status(new) == (hasEnded ? 401 : 200))
        }
        // What has expired is not brought back.
        let (id, _) = try await issue(service, "viewer", expiresIn: 10)
        service.clock.advance(by: 11)
        let late = try await service.post("/v1/tokens/\(id)/rotate")
        #expect(late.status == 409 && late.code == "token_expired")
    }

    /// However often either text is rotated: the one that was presented and the newest work, and nothing older is kept.
    @Test func rotationNeverLeavesMoreThanTwoTexts() async throws {
        let service = try await Service()
        let (_, first, _) = try await service.assigned()
        func status(_ text: String) async throws -> Int {
            try await service.call("GET", "/v1/tokens/current", token: text).status
        }
        func stored() throws -> Int { try service.store.load().tokens.count { $0.role == .client } }
        var newest: [String] = []
        for _ in 0..<5 {
            let answer = try await service.post(
                "/v1/tokens/current/rotate",
                token: first,
                #"{"grace_period_s": 1000}"#
            )
            newest.append(try #require(answer.json["token"] as? String))
            service.clock.advance(by: 100)
        }
        for text in newest.dropLast() { #expect(try await status(text) == 401) }
        let last = try #require(newest.last)
        for text in [first, last] { #expect(try await status(text) == 200) }
        #expect(try stored() == 2)
        // The old text ends when its first grace period does; the newest one has no end of its own.
        service.clock.advance(by: 600)
        #expect(try await status(first) == 401)
        #expect(try await status(last) == 200)
        // Along the chain it is the same.
        var text = last
        for _ in 0..<3 {
            let answer = try await service.post("/v1/tokens/current/rotate", token: text, #"{"grace_period_s": 9000}"#)
            let next = try #require(answer.json["token"] as? String)
            for each in [text, next] { #expect(try await status(each) == 200) }
            text = next
        }
        #expect(try stored() == 2)
        // What has expired is removed by itself, from the database too.
        service.clock.advance(by: 20_000)
        try await service.coordinator.tick()
        #expect(try stored() == 1)
        #expect(try await status(text) == 200)
    }

    @Test func theLastAdministratorStays() async throws {
        let service = try await Service()
        let own = try #require(
            try await service.call("GET", "/v1/tokens/current", token: service.admin).json["id"] as? String
        )
        let refused = try await service.call("DELETE", "/v1/tokens/\(own)", token: service.admin)
        #expect(refused.status == 409 && refused.code == "last_admin_token")
        _ = try await issue(service, "admin", expiresIn: 60)
        #expect(try await service.call("DELETE", "/v1/tokens/\(own)", token: service.admin).status == 409)
        _ = try await issue(service, "admin")
        #expect(try await service.call("DELETE", "/v1/tokens/\(own)", token: service.admin).status == 204)
        #expect(try await service.call("GET", "/v1/runs", token: service.admin).status == 401)
    }

    @Test func everyActionLeavesOneRowAndReadingLeavesNone() async throws {
        let service = try await Service()
        let (run, client, _) = try await service.assigned()
        let (viewerID, viewer) = try await issue(service, "viewer")
        _ = try await service.call("GET", "/v1/runs", token: viewer)
        #expect(try await service.post("/v1/runs/\(run)/cancel", token: viewer).status == 403)
        #expect(try await service.post("/v1/runs/\(run)/start").status == 409)
        #expect(try await service.post("/v1/runs/\(run)/pause").status == 200)
        _ = try await service.post("/v1/checkins", token: client)
        _ = try await service.post("/v1/runs", token: "mlt_guess")
        let answer = try await service.call("GET", "/v1/audit", token: viewer)
        let rows = try #require(answer.json["items"] as? [[String: Any]])
        let told = rows.map { row in
            let fields = ["action", "outcome", "code"].map { row[$0] as? String ?? "-" }
            return fields.joined(separator: " ")
        }
        #expect(
            told == [
                "POST /v1/runs/{run}/pause done -", "POST /v1/runs/{run}/start refused wrong_state",
                "POST /v1/runs/{run}/cancel refused forbidden", "POST /v1/tokens done -",
                "POST /v1/populations/{population}/enrollment-tokens done -", "POST /v1/runs/{run}/start done -",
                "PUT /v1/runs/{run}/model done -", "POST /v1/runs done -", "POST /v1/populations done -",
            ]
        )
        #expect(rows[2]["actor"] as? String == viewerID && rows[2]["role"] as? String == "viewer")
        #expect(rows[0]["target"] as? String == "/v1/runs/\(run)/pause" && rows[0]["request_id"] as? String == "test")
        #expect(rows.allSatisfy { $0["address"] as? String == "192.0.2.7" })
        func count(_ query: String) async throws -> Int? {
            try await (service.call("GET", "/v1/audit?\(query)", token: viewer).json["items"] as? [Any])?.count
        }
        #expect(try await count("outcome=refused") == 2)
        #expect(try await count("actor=\(viewerID)") == 1)
        #expect(try await count("action=POST%20/v1/runs") == 1)
        #expect(try await count("since=2100-01-01T00:00:00Z") == 0)
        let page = try await service.call("GET", "/v1/audit?limit=4", token: viewer)
        let cursor = try #require(page.json["next_cursor"] as? String)
        #expect(try await count("cursor=\(cursor)") == 5)
        for query in ["limit=0", "limit=x", "cursor=x", "outcome=maybe", "since=yesterday"] {
            #expect(try await service.call("GET", "/v1/audit?\(query)", token: viewer).status == 400, "\(query)")
        }
    }

    @Test func expiredTokensEnd() async throws {
        let service = try await Service()
        let (_, text) = try await issue(service, "viewer", expiresIn: 100)
        #expect(try await service.call("GET", "/v1/runs", token: text).status == 200)
        service.clock.advance(by: 101)
        #expect(try await service.call("GET", "/v1/runs", token: text).status == 401)
        #expect(try await service.call("GET", "/v1/runs", token: service.admin).status == 200)
    }

    /// Without tokens, what a browser sends for a page of another site is all that stands between that site and the server.
    @Test func anOpenServerAnswersItsOwnPagesAndLocalProgramsOnly() async throws {
        let service = try await Service()
        let router = CoordinatorAPI(coordinator: service.coordinator, isOpen: true, makeInitialModel: { _ in nil })
            .router()
        func status(_ method: String, host: String?, origin: String? = nil) async throws -> Int {
            var headers: HTTPFields = [:]
            if let host { headers[try #require(HTTPField.Name("Host"))] = host }
            headers[.origin] = origin
            let request = try ServerRequest(
                method: method,
                rawTarget: method == "GET" ? "/v1/runs" : "/v1/populations",
                headers: headers,
                body: MemoryBody(method == "GET" ? [] : Array(#"{"name": "p"}"#.utf8)),
                requestID: "r"
            )
            return await router.handle(request).status
        }
        for host in ["127.0.0.1:8080", "localhost:8080", "LocalHost", "[::1]:8080", "[::1]", "127.8.0.1"] {
            #expect(try await status("GET", host: host) == 200, "\(host)")
            #expect(try await status("GET", host: host, origin: "http://" + host) == 200, "\(host)")
        }
        // A name of another site that leads here, and a page of another site that calls here.
        for host in ["evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.1", ""] {
            #expect(try await status("GET", host: host) == 403, "\(host)")
        }
        for origin in ["http://evil.example", "null", "http://127.0.0.1:9", "https://127.0.0.1:8080"] {
            #expect(try await status("POST", host: "127.0.0.1:8080", origin: origin) == 403, "\(origin)")
        }
        #expect(try await status("POST", host: "127.0.0.1:8080") == 201)
        let rows = try await service.call("GET", "/v1/audit", token: service.admin).json["items"] as? [[String: Any]]
        #expect(rows?.count == 1 && rows?.first?["actor"] as? String == "open")
    }

    /// A secret is replaced because it may have leaked: what the file held before ends.
    @Test func anotherTextInATokenFileEndsTheOneBefore() async throws {
        let service = try await Service()
        let texts = (1...3).map { "a-secret-of-more-than-thirty-two-characters-\($0)" }
        func status(_ token: String) async throws -> Int {
            try await service.call("GET", "/v1/runs", token: token).status
        }
        for text in texts.prefix(2) {
            // At every start of the server.
            for _ in 0..<2 {
                try await service.coordinator.ensureToken(text, role: .admin, name: "admin_token_file")
            }
        }
        try await service.coordinator.ensureToken(texts[2], role: .viewer, name: "viewer_token_file")
        #expect(try await [status(texts[0]), status(texts[1]), status(texts[2])] == [401, 200, 200])
        #expect(try await status(service.admin) == 200)
        // The same text for both would make a viewer of the administrator, or the other way round.
        let error = await #expect(throws: CoordinationError.self) {
            try await service.coordinator.ensureToken(texts[1], role: .viewer, name: "viewer_token_file")
        }
        #expect(error?.code == "token_in_use")
        // A new text that the next start forgets is no rotation.
        let rotated = try await service.post("/v1/tokens/current/rotate", token: texts[1])
        #expect(rotated.status == 409 && rotated.code == "not_rotatable")
        #expect(try await status(texts[1]) == 200)
    }

    /// Keys are remembered for as long as their clients.
    @Test func keysOfRegistrationsAreShort() async throws {
        let service = try await Service()
        _ = try await service.post("/v1/populations", #"{"name": "p"}"#)
        let made = try await service.post("/v1/populations/p/enrollment-tokens", #"{"max_uses": 2}"#)
        let enrollment = try #require(made.json["token"] as? String)
        for (count, status) in [(200, 201), (201, 400), (10_000, 400)] {
            let fields = ["Idempotency-Key": String(repeating: "k", count: count)]
            let answer = try await service.call("POST", "/v1/clients", token: enrollment, [], fields)
            #expect(answer.status == status, "\(count)")
        }
        // What was refused has used nothing up.
        #expect(try await service.post("/v1/clients", token: enrollment).status == 201)
    }

    /// A proxy that repeats a registration does not cost the client its token; what nobody has used makes room.
    @Test func aRepeatedRegistrationEndsTheTokenBeforeWhenItsOwnIsUsed() async throws {
        let service = try await Service()
        _ = try await service.post("/v1/populations", #"{"name": "p"}"#)
        let enrollment = try #require(
            try await service.post("/v1/populations/p/enrollment-tokens", #"{"max_uses": 1}"#).json["token"] as? String
        )
        func register() async throws -> String {
            let answer = try await service.call("POST", "/v1/clients", token: enrollment, [], ["Idempotency-Key": "k"])
            return try #require(answer.json["token"] as? String)
        }
        func status(_ token: String) async throws -> Int {
            try await service.post("/v1/checkins", token: token).status
        }
        let first = try await register()
        #expect(try await status(first) == 200)
        let second = try await register()
        // The client may never have seen the second answer.
        #expect(try await status(first) == 200)
        let third = try await register()
        #expect(try await status(first) == 200)
        #expect(try await status(second) == 401)
        #expect(try await status(third) == 200)
        #expect(try await status(first) == 401)
        #expect(try await status(third) == 200)
        let clients = try await service.call("GET", "/v1/clients", token: service.admin)
        #expect(String(decoding: clients.bytes, as: UTF8.self).components(separatedBy: "clt_").count == 2)
    }
}
