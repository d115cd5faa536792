import Foundation
import HTTPServing
import HTTPTypes
import TestBenches
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(10)))
struct OverviewTests {
    @Test func theOverviewShowsClientsRunsProblemsAndEvents() async throws {
        let service = try await Service()
        let (run, token, assignment) = try await service.assigned()
        let id = try #require(assignment["id"] as? String)
        _ = try await service.post("/v1/assignments/\(id)/failure", token: token, #"{"code": "out_of_memory"}"#)
        let overview = try await service.call("GET", "/v1/overview", token: service.admin).json
        #expect(overview["role"] as? String == "admin")
        let clients = try #require(overview["clients"] as? [String: Any])
        #expect(clients["total"] as? Int == 1 && clients["working"] as? Int == 0)
        #expect(clients["by_state"] as? [String: Int] == ["active": 1])
        let runs = try #require(overview["runs"] as? [[String: Any]])
        #expect(runs.map { $0["id"] as? String } == [run] && runs.first?["rounds"] as? Int == 1)
        let problems = try #require(overview["problems"] as? [[String: Any]])
        let refused = try #require(problems.first { ($0["code"] as? String) == "updates_refused:out_of_memory" })
        #expect(refused["count"] as? Int == 1 && refused["run"] as? String == run)
        let recent = try #require(overview["recent"] as? [[String: Any]])
        #expect(recent.first?["state"] as? String == "selecting" && recent.last?["state"] as? String == "created")
        let round = try await service.call("GET", "/v1/runs/\(run)/rounds/1", token: service.admin).json
        #expect(round["refusals"] as? [String: Int] == ["out_of_memory": 1])
    }

    @Test func measurementsOfAModelAreKeptBySourceAndReadStrictly() async throws {
        let service = try await Service()
        let (run, _, _) = try await service.assigned()
        let target = "/v1/runs/\(run)/models/0/metrics"
        let first = try await service.post(target, #"{"metrics": {"accuracy": 0.25, "loss": 2}}"#)
        #expect(first.status == 201)
        _ = try await service.post(target, #"{"metrics": {"accuracy": 0.5}}"#)
        _ = try await service.post(target, #"{"metrics": {"accuracy": 0.375}, "source": "federated"}"#)
        let model = try await service.call("GET", "/v1/runs/\(run)/models/latest", token: service.admin).json
        let metrics = try #require(model["metrics"] as? [String: [String: Double]])
        #expect(metrics == ["held-out": ["accuracy": 0.5], "federated": ["accuracy": 0.375]])
        for (body, pointer) in [
            (#"{}"#, "/metrics"), (#"{"metrics": {"a b": 1}}"#, "/metrics/a b"),
            (#"{"metrics": {"a": "1"}}"#, "/metrics/a"),
            (#"{"metrics": {"a": 1}, "source": "é"}"#, "/source"), (#"{"metrics": 3}"#, "/metrics"),
        ] {
            let answer = try await service.post(target, body)
            let errors = answer.json["errors"] as? [[String: Any]]
            #expect(answer.status == 422, "\(body)")
            #expect(errors?.contains { $0["pointer"] as? String == pointer } == true, "\(body): \(answer.json)")
        }
        let missing = try await service.post("/v1/runs/\(run)/models/7/metrics", #"{"metrics": {"a": 1}}"#)
        #expect(missing.status == 404)
    }

    @Test func downloadsOfAModelAreCountedInTheRoundThatStartsFromIt() async throws {
        let service = try await Service()
        let (run, token, _) = try await service.assigned()
        let target = "/v1/runs/\(run)/models/0/weights"
        func down() async throws -> Int? {
            try await service.call("GET", "/v1/runs/\(run)/rounds/1", token: service.admin).json["bytes_down"] as? Int
        }
        #expect(try await down() == 0)
        let whole = try await service.call("GET", target, token: token).bytes.count
        #expect(try await down() == whole)
        _ = try await service.call("GET", target, token: token, [], ["Range": "bytes=0-9"])
        _ = try await service.call("HEAD", target, token: token)
        #expect(try await down() == whole + 10)
    }

    @Test func curvesComeWithAsManyPointsAsAreAskedFor() async throws {
        let service = try await Service()
        let (run, _, _) = try await service.assigned()
        _ = try await service.post("/v1/runs/\(run)/models/0/metrics", #"{"metrics": {"accuracy": 0.25, "loss": 2}}"#)
        let answer = try await service.call("GET", "/v1/runs/\(run)/curves?points=4", token: service.admin)
        let series = try #require(answer.json["series"] as? [[String: Any]])
        #expect(series.map { $0["name"] as? String } == ["accuracy", "loss"])
        #expect(series.first?["points"] as? [[Double]] == [[0, 0.25]])
        #expect(answer.json["through_round"] as? Int == 0)
        for points in ["3", "10001", "many"] {
            let refused = try await service.call("GET", "/v1/runs/\(run)/curves?points=\(points)", token: service.admin)
            #expect(refused.status == 400, "\(points)")
        }
        #expect(try await service.call("GET", "/v1/runs/run_x/curves", token: service.admin).status == 404)
    }

    @Test func roundsCanBeReadFromANumberOn() async throws {
        let service = try await Service()
        let (run, _, _) = try await service.assigned()
        func count(_ query: String) async throws -> Int? {
            let answer = try await service.call("GET", "/v1/runs/\(run)/rounds\(query)", token: service.admin)
            return (answer.json["items"] as? [Any])?.count
        }
        #expect(try await count("") == 1)
        #expect(try await count("?after=0") == 1)
        #expect(try await count("?after=1") == 0)
        #expect(try await count("?before=2&last=1") == 1)
        #expect(try await count("?before=1") == 0)
        #expect(try await count("?after=5&before=3") == 0)
    }

    @Test func pagesAreSelfContainedUnderAStrictPolicy() async throws {
        let service = try await Service()
        var nonces: Set<String> = []
        for target in ["/", "/docs", "/"] {
            let answer = try await service.call("GET", target, token: nil)
            let text = String(decoding: answer.bytes, as: UTF8.self)
            #expect(answer.status == 200 && answer.headers[.contentType] == "text/html; charset=utf-8")
            #expect(!text.contains("{{"), "\(target) has an unfilled place")
            #expect(!text.contains("https://") && !text.contains("src=\""), "\(target) asks for something elsewhere")
            let policy = try #require(answer.headers[.contentSecurityPolicy])
            #expect(policy.hasPrefix("default-src 'none'") && !policy.contains("unsafe"))
            let nonce = try #require(policy.firstMatch(of: /nonce-([^']+)'/)?.1)
            nonces.insert(String(nonce))
            for tag in text.matches(of: /<(script|style)[^>]*>/) { #expect(tag.0.contains("nonce=\"\(nonce)\"")) }
            #expect(text.matches(of: /\s(style|on[a-z]+)="/).isEmpty, "\(target) has inline styles or handlers")
        }
        #expect(nonces.count == 3)
    }

    @Test(arguments: [
        (nil, "en"), ("zh-CN,zh;q=0.9,en;q=0.8", "zh"), ("en-GB,en;q=0.9,zh;q=0.8", "en"), ("de,zh;q=0.5", "zh"),
        ("fr", "en"), ("zh;q=nonsense", "zh"), (",;=", "en"),
    ])
    func thePageComesInTheBrowsersLanguage(_ field: String?, _ language: String) async throws {
        let service = try await Service()
        let headers = field.map { ["Accept-Language": $0] } ?? [:]
        let answer = try await service.call("GET", "/", token: nil, [], headers)
        #expect(String(decoding: answer.bytes, as: UTF8.self).contains("<html lang=\"\(language)\""))
    }

    @Test func theReferenceShowsEveryCallWithACurlLine() async throws {
        let service = try await Service()
        let page = String(decoding: try await service.call("GET", "/docs", token: nil).bytes, as: UTF8.self)
        let lines = page.matches(of: /<code class="curl" data-operation="([A-Za-z]+)">([^<]+)<\/code>/)
        #expect(lines.count == service.router.routes.count)
        let byName = Dictionary(lines.map { (String($0.1), String($0.2)) }) { first, _ in first }
        #expect(
            byName["createEnrollmentToken"]?.replacing("&quot;", with: "\"") == #"""
                curl -sS \
                    -H "Authorization: Bearer $MARTLET_TOKEN" \
                    -H "Content-Type: application/json" \
                    -d '{"max_uses": 100}' \
                    "$MARTLET_URL/v1/populations/$POPULATION/enrollment-tokens"
                """#
        )
        #expect(byName["putUpdate"]?.contains("--data-binary @update.safetensors") == true)
        let yaml = try await service.call("GET", "/openapi.yaml", token: nil)
        #expect(String(decoding: yaml.bytes, as: UTF8.self).hasPrefix("openapi: 3.1.0"))
    }
}
