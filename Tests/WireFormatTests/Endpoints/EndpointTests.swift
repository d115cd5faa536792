import Testing
import WireFormat

struct EndpointTests {
    @Test func aTemplateBecomesAPath() {
        #expect(Endpoints.runs().path == "/v1/runs")
        #expect(Endpoints.dashboard().path == "/")
        #expect(Endpoints.round("run_1", RoundReference(7)).path == "/v1/runs/run_1/rounds/7")
        #expect(Endpoints.weights("run_1", VersionReference(3)).path == "/v1/runs/run_1/models/3/weights")
        #expect(Endpoints.token(.current).path == "/v1/tokens/current")
    }

    @Test func segmentsCannotLeaveTheirPlace() {
        #expect(Endpoints.population("a/b?c").path == "/v1/populations/a%2Fb%3Fc")
        #expect(Endpoints.population("..").path == "/v1/populations/%2E%2E")
        #expect(Endpoints.population(".").path == "/v1/populations/%2E")
        #expect(Endpoints.population("ä\n").path == "/v1/populations/%C3%A4%0A")
    }

    @Test func aQueryHasWhatIsGiven() {
        let target = Endpoints.audit().with("limit", 50).with("actor", String?.none).with(
            "since",
            "2026-01-31T08:00:00Z"
        )
        #expect(target.target == "/v1/audit?limit=50&since=2026-01-31T08%3A00%3A00Z")
        #expect(target.path == "/v1/audit" && target.method == .get)
        #expect(Endpoints.runs().target == "/v1/runs")
    }

    @Test func parametersAreReadInOrder() throws {
        let (run, round) = try Endpoints.round.parameters(in: ["v1", "runs", "r", "rounds", "12"])
        #expect(run == "r" && round.number == 12)
        let row = Endpoints.round.row
        #expect(try row.parameter(RunReference.self, in: ["v1", "runs", "r", "rounds", "12"]) == "r")
        #expect(throws: PathParameterError.self) {
            try row.parameter(TokenReference.self, in: ["v1", "runs", "r", "rounds", "12"])
        }
        #expect(throws: PathParameterError.self) { try Endpoints.round.parameters(in: ["v1", "runs", "r"]) }
    }

    @Test(arguments: ["", "x", "-1", "1.5", "99999999999999999999"])
    func whatIsNoNumberNamesNoRound(_ text: String) {
        #expect(throws: PathParameterError.self) { try RoundReference(segment: text) }
    }
}
