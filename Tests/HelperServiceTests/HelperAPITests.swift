import Coordination
import CoordinatorAPI
import Foundation
import GRDB
import HTTPServing
import HTTPTypes
import HelperService
import StrictJSON
import TestSupport
import Testing
import WireFormat
import Yams

/// The routes: who may ask what, how large it may be, and how it is refused.
@Suite(.timeLimit(.minutes(5)))
struct HelperAPITests {
    private static let repository = URL(fileURLWithPath: #filePath).deletingLastPathComponent().path + "/../.."
    private static let admin = "admin-token-of-more-than-32-characters"
    private static let viewer = "viewer-token-of-more-than-32-characters"

    private struct Answer {
        var status: Int
        var headers: HTTPFields
        var json: [String: JSONValue]
        var body: ResponseBody
        var code: String? { json["code"]?.stringValue }
    }

    private func call(
        _ router: Router,
        _ method: String,
        _ path: String,
        token: String?,
        _ body: [UInt8] = [],
        headers: HTTPFields = [:]
    ) async throws -> Answer {
        var headers = headers
        if let token { headers[.authorization] = "Bearer " + token }
        let request = try ServerRequest(
            method: method,
            rawTarget: path,
            headers: headers,
            body: MemoryBody(body),
            requestID: "r"
        )
        let response = await router.handle(request)
        var fields: [String: JSONValue] = [:]
        if case .bytes(let bytes) = response.body, case .object(let object)? = try? JSONValue(parsing: bytes) {
            fields = object
        }
        return Answer(status: response.status, headers: response.headers, json: fields, body: response.body)
    }

    private func service(
        epsilon: Double? = nil
    ) async throws -> (fixture: HelperFixture, router: Router, server: String, stranger: String) {
        let fixture = try await HelperFixture(epsilon: epsilon)
        try await fixture.helper.ensureToken(Self.admin, role: .admin)
        try await fixture.helper.ensureToken(Self.viewer, role: .viewer)
        _ = try await fixture.helper.createDomain(
            HelperDomainRequest(name: "voices", budget: nil, policy: HelperPolicy())
        )
        let router = HelperAPI(helper: fixture.helper).router()
        var tokens: [String] = []
        for (domain, server) in [("keyboards", "srv_1"), ("voices", "srv_1")] {
            let made = try await call(
                router,
                "POST",
                "/v1/helper/domains/\(domain)/tokens",
                token: Self.admin,
                Array(#"{"server": "\#(server)"}"#.utf8)
            )
            tokens.append(try #require(made.json["token"]?.stringValue))
        }
        return (fixture, router, tokens[0], tokens[1])
    }

    private func body(_ request: HelperSessionRequest) throws -> [UInt8] { Array(try WireCoding.encode(request)) }

    @Test func theDescriptionTheTableAndTheRoutesAreTheSame() async throws {
        let table = Set(HelperEndpoints.all.map { "\($0.method.rawValue) \($0.template)" })
        let text = try String(contentsOfFile: Self.repository + "/openapi-helper.yaml", encoding: .utf8)
        let document = try #require(try Yams.load(yaml: text) as? [String: Any])
        var described: Set<String> = []
        for (path, operations) in try #require(document["paths"] as? [String: [String: Any]]) {
            for method in operations.keys where method != "parameters" {
                described.insert(method.uppercased() + " " + path)
            }
        }
        #expect(described == table, "\(described.symmetricDifference(table))")
        let routes = try await service().router.routes.map { "\($0.method) \($0.template)" }
        #expect(Set(routes) == table && routes.count == HelperEndpoints.all.count)
        // Every code that a helper refuses with is described.
        for code in HelperCode.allCases.map(\.rawValue) + Self.listCodes {
            #expect(text.contains(code), "\(code) is not in openapi-helper.yaml")
        }
    }

    private static let listCodes = [
        "cohort_too_small", "cohort_too_large", "duplicate_pseudonym", "seeds_unopened", "participation_cap",
        "invalid_list",
        "invalid_document",
    ]

    /// Every row of the table, asked by every kind of caller.
    @Test func everyRowLetsInWhomItsRuleLetsIn() async throws {
        let (_, router, server, stranger) = try await service(epsilon: 8)
        for row in HelperEndpoints.all {
            let path = row.path(
                row.placeholders.map { $0 == "domain" ? "keyboards" : String(repeating: "a", count: 64) }
            )
            for (caller, token) in [
                ("nobody", nil), ("viewer", Self.viewer), ("admin", Self.admin), ("server", server),
                ("stranger", stranger),
            ] as [(String, String?)] {
                let answer = try await call(router, row.method.rawValue, path, token: token)
                let passes: Bool
                switch row.access {
                case .anybody: passes = true
                case .staff(let least): passes = caller == "admin" || caller == "viewer" && least == .viewer
                case .client: passes = caller == "server" || caller == "stranger"
                case .populationReader: passes = caller != "nobody" && caller != "stranger"
                case .enrollment, .modelReader, .clientItself, .tokenItself: passes = false
                }
                let isRefused = answer.status == 401 || answer.status == 403
                #expect(isRefused != passes, "\(row.method) \(row.template) by \(caller): \(answer.status)")
                if caller == "nobody", !passes { #expect(answer.code == "unauthorized") }
            }
        }
    }

    @Test func aSessionByHTTP() async throws {
        let (fixture, router, server, stranger) = try await service()
        let made = try await call(router, "POST", "/v1/helper/sessions", token: server, try body(fixture.request()))
        #expect(made.status == 201)
        let again = try await call(router, "POST", "/v1/helper/sessions", token: server, try body(fixture.request()))
        #expect(again.status == 200 && again.json == made.json)
        let view = try await fixture.grant(fixture.request())
        let path = try #require(made.headers[.location])
        #expect(path == "/v1/helper/sessions/\(view.session)")
        #expect(try await call(router, "GET", path, token: stranger).code == "session_unknown")
        #expect(try await call(router, "GET", path + "/sum", token: server).code == "not_found")
        let members = try devices(3, of: view)
        let bytes = try list(members)
        #expect(try await call(router, "POST", path + "/sum", token: stranger, bytes).code == "session_unknown")
        let sum = try await call(router, "POST", path + "/sum", token: server, bytes)
        #expect(sum.status == 200)
        guard case .file(let file, let range) = sum.body else {
            Issue.record("no file")
            return
        }
        #expect(range == 0..<20)
        let digest = try #require(HTTPField.Name("Repr-Digest").flatMap { sum.headers[$0] })
        let stored = try await fixture.helper.sumFile(view.session, of: HelperFixture.server)
        #expect(digest == ContentDigest.text(hexadecimal: stored.sha256) && file == stored.path)
        let part = try await call(router, "GET", path + "/sum", token: server, headers: [.range: "bytes=4-7"])
        guard case .file(_, let partRange) = part.body else {
            Issue.record("no part")
            return
        }
        #expect(part.status == 206 && partRange == 4..<8 && part.headers[.contentRange] == "bytes 4-7/20")
        #expect(
            try await call(router, "GET", path + "/sum", token: server, headers: [.range: "bytes=20-"]).status == 416
        )
        #expect(try await call(router, "DELETE", path, token: server).code == "session_spent")
        #expect(try await call(router, "DELETE", path + "/sum", token: server).status == 204)
        let gone = try await call(router, "GET", path + "/sum", token: server)
        #expect(gone.status == 410 && gone.code == "session_expired")
    }

    @Test func bodiesHaveLimits() async throws {
        let (fixture, router, server, _) = try await service()
        let large = [UInt8](repeating: 32, count: 20 << 10)
        #expect(try await call(router, "POST", "/v1/helper/sessions", token: server, large).status == 413)
        let view = try await fixture.grant(fixture.request())
        let path = "/v1/helper/sessions/\(view.session)/sum"
        // More than n_max and a few entries are not read at all.
        let list = [UInt8](repeating: 0, count: 117 * 1200)
        #expect(try await call(router, "POST", path, token: server, list).status == 413)
        let over = try await call(router, "POST", path, token: server, Array(list.prefix(101 * 1200)))
        #expect(over.status == 422 && over.code == "cohort_too_large")
        struct Endless: RequestBody {
            var contentLength: Int? { nil }
            func read() async throws -> [UInt8]? { [UInt8](repeating: 0, count: 1 << 20) }
        }
        let request = try ServerRequest(
            method: "POST",
            rawTarget: path,
            headers: [.authorization: "Bearer " + server],
            body: Endless(),
            requestID: "r"
        )
        #expect(await router.handle(request).status == 411)
        let coded = try await call(router, "POST", path, token: server, [1], headers: [.contentEncoding: "gzip"])
        #expect(coded.status == 415)
    }

    @Test func wrongFieldsAreNamedAndUnknownOnesRefused() async throws {
        let (fixture, router, server, _) = try await service()
        var fields = try #require(try JSONValue(parsing: try body(fixture.request())).fields)
        func refused(_ name: String, _ value: JSONValue?) async throws -> String? {
            var changed = fields
            changed[name] = value
            let answer = try await call(
                router,
                "POST",
                "/v1/helper/sessions",
                token: server,
                Array(JSONValue.object(changed).text.utf8)
            )
            return answer.status == 422 ? answer.code : "\(answer.status)"
        }
        // A weight, a server of its own choice, a public key: nothing that the helper does not know.
        for name in ["weights", "server", "domain", "public_key", "expires"] {
            #expect(try await refused(name, .string("x")) == "invalid_document")
        }
        for name in fields.keys where name != "expires_in_s" && name != "noise_deviation" {
            #expect(try await refused(name, nil) == "invalid_document", "\(name) is missing")
        }
        for (name, value) in [
            ("run", .string("a\nb")), ("run", .string("a#b")), ("run", .string("")), ("round", .integer(0)),
            ("attempt", .integer(0)), ("round", .integer(1 << 33)), ("model", .string("A")), ("bits", .integer(33)),
            ("step", .integer(0)), ("step", .number(-1)), ("norm", .integer(0)), ("minimum", .integer(101)),
            ("noise", .string("uniform")), ("expires_in_s", .integer(31 * 86_400)), ("coordinates", .string("5")),
        ] as [(String, JSONValue)] {
            #expect(try await refused(name, value) == "invalid_document", "\(name) \(value)")
        }
        fields["round"] = .integer(2)
        #expect(try await refused("attempt", .integer(1)) == "201")
    }

    @Test func everyChangeLeavesItsRowInTheAuditLog() async throws {
        let (fixture, router, server, _) = try await service()
        let made = try await call(router, "POST", "/v1/helper/sessions", token: server, try body(fixture.request()))
        let path = try #require(made.headers[.location])
        _ = try await call(router, "DELETE", path, token: server)
        _ = try await call(router, "POST", "/v1/helper/domains", token: server, Array(#"{"name": "x"}"#.utf8))
        let audit = try await call(router, "GET", "/v1/helper/audit", token: Self.viewer)
        let items = try #require(audit.json["items"]?.elements)
        let rows = items.compactMap { $0.fields }.map {
            [$0["action"], $0["outcome"], $0["actor_name"]].map { $0?.stringValue ?? "" }.joined(separator: " ")
        }
        #expect(
            rows.prefix(3) == [
                "POST /v1/helper/domains refused srv_1", "DELETE /v1/helper/sessions/{session} done srv_1",
                "POST /v1/helper/sessions done srv_1",
            ]
        )
        let metrics = try await call(router, "GET", "/metrics", token: Self.viewer)
        guard case .bytes(let text) = metrics.body else {
            Issue.record("no metrics")
            return
        }
        let exposition = String(decoding: text, as: UTF8.self)
        #expect(exposition.contains(#"martlet_helper_sessions_total{state="granted"} 1"#))
        #expect(exposition.contains(#"martlet_helper_sessions_total{state="cancelled"} 1"#))
    }

    @Test func aRevokedTokenOpensNothing() async throws {
        let (_, router, server, _) = try await service()
        let tokens = try await call(router, "GET", "/v1/helper/domains/keyboards/tokens", token: Self.admin)
        let token = try #require(tokens.json["items"]?.elements?.first?.fields)
        #expect(token["token"] == nil && token["server"]?.stringValue == "srv_1")
        let id = try #require(token["id"]?.stringValue)
        #expect(try await call(router, "DELETE", "/v1/helper/tokens/\(id)", token: Self.admin).status == 204)
        #expect(try await call(router, "GET", "/v1/helper/domains/keyboards", token: server).status == 401)
        #expect(try await call(router, "DELETE", "/v1/helper/tokens/\(id)", token: Self.admin).status == 404)
    }

    /// Every column, and every metric, is in the section `helper` of `docs/privacy-inventory.yaml`.
    @Test func everythingThatIsKeptOrMeasuredIsInTheInventory() async throws {
        let fixture = try await HelperFixture()
        let text = try String(contentsOfFile: Self.repository + "/docs/privacy-inventory.yaml", encoding: .utf8)
        let document = try #require(try Yams.load(yaml: text) as? [String: Any])
        let tables = try #require(document["helper_sql"] as? [String: [String: String]])
        let found = try await DatabaseQueue(path: fixture.directory + "/helper.sqlite").read { database in
            let names = try String.fetchAll(
                database,
                sql: "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
            )
            return Dictionary(
                uniqueKeysWithValues: try names.map { ($0, Set(try database.columns(in: $0).map(\.name))) }
            )
        }
        #expect(found == tables.mapValues { Set($0.keys) })
        let known = try #require(document["metrics"] as? [String: String])
        let own = try #require(document["helper_metrics"] as? [String: String])
        let names = MetricsRegistry.helper().exposition().split(separator: "\n").filter { $0.hasPrefix("# TYPE ") }
            .compactMap { $0.split(separator: " ").dropFirst(2).first.map(String.init) }
        #expect(Set(names).subtracting(known.keys) == Set(own.keys))
    }
}

extension JSONValue {
    fileprivate var fields: [String: JSONValue]? {
        if case .object(let fields) = self { return fields }
        return nil
    }

    fileprivate var elements: [JSONValue]? {
        if case .array(let items) = self { return items }
        return nil
    }
}
