import Foundation
import HTTPServing
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

@testable import Coordination

/// What a request costs does not grow with clients, runs, rounds, versions, populations or charges.
@Suite(.timeLimit(.minutes(10)))
struct WorkOfEachEndpointTests {
    /// Rows whose work grows, each with the reason and with what holds it.
    private static let growing = [
        "GET /v1/overview": "shows runs and populations, 200 of each at most, and gathers them in parts",
        "GET /metrics": "has a series for each population",
        "GET /v1/runs/{run}/curves": "chooses its points among all attempts, which it gathers in parts",
    ]

    /// Records that a request may look at more in the large server: halving finds a place in ten times as many with four steps more.
    private static let tolerance = 40

    @Test func noRequestWalksWhatThereIs() async throws {
        let small = try await Self.work(30)
        let large = try await Self.work(300)
        for row in Endpoints.all {
            let key = Self.key(row)
            let (few, many) = (try #require(small[key]), try #require(large[key]))
            guard Self.growing[key] == nil else { continue }
            #expect(many.status == few.status, "\(key): \(few.status), \(many.status)")
            #expect(many.count <= few.count + Self.tolerance, "\(key): \(few.count) and \(many.count) records")
        }
    }

    private static func key(_ row: EndpointRow) -> String { "\(row.method.rawValue) \(row.template)" }

    /// How many records each endpoint looks at in a server with so many of everything.
    private static func work(_ size: Int) async throws -> [String: (status: Int, count: Int)] {
        let bench = try await LargeBench(size)
        var found: [String: (status: Int, count: Int)] = [:]
        // What ends the work comes after what is done with it.
        let rows = Endpoints.all.filter { $0.template != Endpoints.failure.template } + [Endpoints.failure.row]
        for row in rows {
            let body = RevokedCallerTests.bodies[key(row)] ?? []
            let fields = RevokedCallerTests.fields(row).merging(["Accept": "application/json, */*;q=0.5"]) { $1 }
            // What is read once and kept is no cost of a request.
            for _ in 0..<(row.method == .get ? 2 : 1) {
                let before = WorkCount.total
                let answer = try await bench.service.call(
                    row.method.rawValue,
                    bench.path(row) + (row.method == .get ? "?limit=1" : ""),
                    token: bench.token(row),
                    body,
                    fields
                )
                found[key(row)] = (answer.status, WorkCount.total - before)
            }
        }
        return found
    }
}

/// A server that starts with so many clients, runs, populations and tokens, and a run with so many rounds and versions.
private struct LargeBench {
    let service: Service
    private let run: String
    private let spare: String
    private let blank: String
    private let worker: String
    private let client: String
    private let assignment: String
    private let enrollment: String

    init(_ size: Int) async throws {
        let first = try await Service()
        let (run, worker, work) = try await first.assigned()
        (self.run, self.worker) = (run, worker)
        assignment = try #require(work["id"] as? String)
        let specification =
            #"{"population": "p", "rounds": 1, "model": {"architecture": "external"}, "cohort": {"goal": 1}}"#
        blank = try #require(try await first.post("/v1/runs", specification).json["id"] as? String)
        spare = try #require(try await first.post("/v1/runs", specification).json["id"] as? String)
        let model = Array(SafetensorsWriter.encode(ParameterVector(zeros: Service.layout)))
        #expect(try await first.call("PUT", "/v1/runs/\(spare)/model", token: first.admin, model).status == 201)
        let budget = #"{"name": "b", "budget": {"epsilon": 2, "delta": 0.00001}}"#
        #expect(try await first.post("/v1/populations", budget).status == 201)
        let made = try await first.post("/v1/populations/p/enrollment-tokens", #"{"max_uses": 9}"#)
        enrollment = try #require(made.json["token"] as? String)
        client = try #require(try first.store.load().clients.first?.id)
        try Self.grow(first, run, size)
        service = try await first.restarted()
    }

    private static func grow(_ service: Service, _ run: String, _ size: Int) throws {
        let state = try service.store.load()
        var changes: [StoreChange] = []
        let time = service.clock.now
        guard let client = state.clients.first, let record = state.runs.first(where: { $0.id == run }),
            var open = state.rounds.first(where: { $0.runId == run }), var work = state.assignments.first,
            let version = state.modelVersions.first(where: { $0.runId == run }),
            let population = state.populations.first(where: { $0.name == "b" })
        else { throw CoordinationError(.notFound, "not_found", "what is multiplied") }
        for number in 1...size {
            var otherClient = client
            (otherClient.id, otherClient.registrationKey, otherClient.state) = ("clt_\(number)", nil, .registered)
            var otherRun = record
            (otherRun.id, otherRun.name, otherRun.state) = ("run_\(number)", "run \(number)", .cancelled)
            var otherPopulation = population
            (otherPopulation.id, otherPopulation.name) = ("pop_\(number)", "population \(number)")
            (otherPopulation.budgetEpsilon, otherPopulation.budgetDelta) = (nil, nil)
            let id = "tok_\(number)"
            let token = TokenRecord(hash: "hash \(number)", id: id, role: .viewer, name: "n", createdAt: time)
            changes += [.client(otherClient), .run(otherRun), .population(otherPopulation), .token(token)]
            var round = open
            (round.number, round.phase, round.closedAt) = (number, .committed, time)
            (round.accepted, round.modelSha256) = (1, version.sha256)
            var next = version
            next.version = number
            changes += [.round(round), .modelVersion(next)]
        }
        (open.number, work.round) = (size + 1, size + 1)
        changes += [.round(open), .assignment(work)]
        // Charges of a run of another population.
        var budgets = PrivacyBudgets()
        var populations = PopulationTable()
        populations.set(population)
        try budgets.open(state.ledger, populations)
        let charge = PrivacyCharge(mode: .central, noiseMultiplier: 100, participationCap: 1, parameterCount: 4)
        for number in 1...size {
            let attempt = ChargedAttempt(run: "run_1", round: number, attempt: 1)
            let reserved = try budgets.reserve(charge, for: attempt, of: population, clientCount: 1, at: time)
            let settled = try budgets.settle(charge, for: attempt, of: population, as: .committed, at: time)
            changes += [.ledger(reserved), .ledger(settled)]
        }
        try service.store.commit(changes)
    }

    func token(_ row: EndpointRow) -> String {
        switch row.access {
        case .client: worker
        case .enrollment: enrollment
        default: service.admin
        }
    }

    func path(_ row: EndpointRow) -> String {
        let isSteered = ["start", "pause", "resume", "cancel"].contains { row.template.hasSuffix("/" + $0) }
        let isOfLedger = row.template.contains("/ledger") || row.template.hasSuffix("/budget")
        let named = [
            "run": isSteered ? spare : row.method == .put ? blank : run,
            "client": row.method == .delete ? "clt_1" : client, "assignment": assignment,
            "population": isOfLedger ? "b" : "p", "round": "1", "version": "1", "token": "tok_1",
        ]
        return row.path(row.placeholders.map { named[$0] ?? "" })
    }
}
