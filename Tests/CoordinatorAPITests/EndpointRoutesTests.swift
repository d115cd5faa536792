import Foundation
import HTTPServing
import HTTPTypes
import TestBenches
import Testing
import WireFormat
import Yams

/// The table of endpoints beside what describes it and what serves it.
@Suite(.timeLimit(.minutes(1)))
struct EndpointRoutesTests {
    private static let table = Set(Endpoints.all.map { "\($0.method.rawValue) \($0.template)" })

    @Test func theDescriptionAndTheTableAreTheSame() throws {
        let path = URL(fileURLWithPath: #filePath).deletingLastPathComponent().path + "/../../openapi.yaml"
        let text = try String(contentsOfFile: path, encoding: .utf8)
        let document = try #require(try Yams.load(yaml: text) as? [String: Any])
        let paths = try #require(document["paths"] as? [String: [String: Any]])
        var described: Set<String> = []
        for (path, operations) in paths {
            for method in operations.keys where method != "parameters" {
                described.insert(method.uppercased() + " " + path)
            }
        }
        #expect(described.subtracting(Self.table).isEmpty, "described, and not in the table")
        #expect(Self.table.subtracting(described).isEmpty, "in the table, and not described")
    }

    @Test func theRoutesAndTheTableAreTheSame() async throws {
        let routes = try await Service().router.routes.map { "\($0.method) \($0.template)" }
        #expect(Set(routes) == Self.table, "\(Self.table.symmetricDifference(routes))")
        #expect(routes.count == Endpoints.all.count && Self.table.count == Endpoints.all.count)
    }

    private enum Caller: String, CaseIterable {
        case nobody, viewer, `operator`, admin
        /// A client with work in the run, and one without.
        case worker, stranger
        case enrollee

        var role: StaffRole? { StaffRole(rawValue: rawValue) }
        var isClient: Bool { self == .worker || self == .stranger }

        /// Whether a rule lets the caller in; the path names the worker, and another token than the caller's.
        func mayPass(_ rule: AccessRule) -> Bool {
            switch rule {
            case .anybody: true
            case .staff(let least): role.map { $0 >= least } ?? false
            case .client: isClient
            case .enrollment: self == .enrollee
            case .modelReader: role != nil || self == .worker
            case .populationReader: role != nil || isClient
            case .clientItself(let least): self == .worker || role.map { $0 >= least } ?? false
            case .tokenItself: self == .admin
            }
        }
    }

    /// Every row of the table, asked by every kind of caller.
    @Test func everyRowLetsInWhomItsRuleLetsIn() async throws {
        let service = try await Service()
        let (run, worker, assignment) = try await service.assigned()
        let client = try #require(
            (try await service.call("GET", "/v1/clients", token: service.admin).json["items"] as? [[String: Any]])?
                .first?["id"] as? String
        )
        let enrollment = try #require(
            try await service.post("/v1/populations/p/enrollment-tokens", #"{"max_uses": 9}"#).json["token"] as? String
        )
        var tokens: [Caller: String] = [
            .worker: worker, .enrollee: enrollment, .admin: service.admin,
            .stranger: try #require(try await service.post("/v1/clients", token: enrollment).json["token"] as? String),
        ]
        for caller in [Caller.viewer, .operator] {
            let body = #"{"role": "\#(caller.rawValue)", "name": "n"}"#
            tokens[caller] = try #require(try await service.post("/v1/tokens", body).json["token"] as? String)
        }
        let named = [
            "run": run, "client": client, "assignment": try #require(assignment["id"] as? String), "population": "p",
            "round": "1", "version": "0", "token": "tok_x",
        ]
        for row in Endpoints.all {
            let segments = row.placeholders.map { named[$0] ?? "" }
            // A client is revoked by nobody here, or it could not be asked any more.
            let path = row.path(row.method == .delete && row.placeholders == ["client"] ? ["clt_x"] : segments)
            for caller in Caller.allCases {
                let status = try await service.call(
                    row.method.rawValue,
                    path,
                    token: tokens[caller],
                    // What changes something is refused after the caller was let in.
                    Array("[]".utf8),
                    // As a page: the stream of events would have no end.
                    ["Accept": "application/json, */*;q=0.5"]
                ).status
                let expected = caller.mayPass(row.access) ? nil : caller == .nobody ? 401 : 403
                let refusal = [401, 403].contains(status) ? status : nil
                #expect(refusal == expected, "\(caller): \(row.method.rawValue) \(path): \(status)")
            }
        }
        // Everybody may ask about the token that they came with.
        for (caller, token) in tokens {
            let path = Endpoints.token(.current).path
            #expect(try await service.call("GET", path, token: token).status == 200, "\(caller)")
        }
    }

    /// Percent-encoded on the way and decoded again, a reference is what it was.
    @Test(arguments: ["p", "two words", "ü", "100 %", "a.b", "..."])
    func aPathLeadsBackToWhatItNames(_ text: String) throws {
        let target = Endpoints.model(RunReference(text), .latest)
        let request = try ServerRequest(
            method: "GET",
            rawTarget: target.target,
            headers: [:],
            body: MemoryBody([]),
            requestID: "r"
        )
        let (run, version) = try Endpoints.model.parameters(in: request.pathSegments)
        #expect(run.text == text && version == .latest)
    }
}
