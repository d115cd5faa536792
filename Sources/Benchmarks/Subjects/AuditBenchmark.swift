import ArgumentParser
import DifferentialPrivacy
import Foundation
import MartletClient
import Tensors

/// Lower bounds on ε against a server as users run it: every release goes through its HTTP intake, its aggregation and its
/// own noise, and is read back as a published model.
///
/// A lower bound over the claim is a fault of the mechanism. One under it proves nothing by itself: `Benchmarks audit` says
/// how near the attack came.
struct AuditBenchmark: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "audit",
        abstract: "Empirical lower bounds on epsilon beside what is claimed, through a running server."
    )
    @Option(help: "Releases of the many-run audit, half of them with the client's data.") var releases = 4000
    @Option(help: "Its noise multiplier.") var noiseMultiplier = 1.0
    @Option(help: "Rounds of the one-run audit, each an audit of its own, for each of three epsilons.") var rounds = 5
    @Option(help: "The seed of the coins.") var seed: UInt64 = 1

    private static let delta = 1e-5

    func run() async throws {
        guard releases >= 8, rounds >= 1, noiseMultiplier >= 0.1 else {
            throw ValidationError("--releases must be 8 or more, --rounds 1 or more, --noise-multiplier 0.1 or more")
        }
        let workspace = try Workspace()
        let process = try ServedProcess(dataDirectory: workspace.path + "/data", arguments: ["--log-level", "error"])
        let server = AuditedServer(
            api: ServedAPI(url: process.url, token: process.adminToken),
            directory: workspace.path
        )
        try await manyRuns(server)
        for (z, claim) in [(7.03, 0.5), (1.99, 2.0), (0.6, 8.0)] { try await oneRun(server, z, claim: claim) }
    }

    /// Specification 9.2: a client is in one release only, with nothing or with (C, 0, …, 0).
    private func manyRuns(_ server: AuditedServer) async throws {
        let dimension = 16
        let z = noiseMultiplier
        let run = try await server.begin(
            clients: releases,
            dimension: dimension,
            specification: """
                "rounds": \(releases), "cohort": {"goal": 1, "minimum": 1, "over_selection": 1, "max_participations": 1},
                "privacy": {"mode": "central", "noise_multiplier": \(z)}
                """
        )
        var generator = Xoshiro256StarStar(seed: seed)
        var firsts: [Bool: [Double]] = [:]
        var rest = 0.0
        var last = [Float](repeating: 0, count: dimension)
        for (index, client) in run.clients.enumerated() {
            let isIn = generator.next() & 1 == 1
            var update = [Float](repeating: 0, count: dimension)
            if isIn { update[0] = 1 }
            try await server.participate(client, update)
            let model = try await server.version(index + 1, of: run.id)
            firsts[isIn, default: []].append(Double(model[0] - last[0]))
            for place in 1..<dimension {
                rest += Double(model[place] - last[place]) * Double(model[place] - last[place])
            }
            last = model
        }
        let audit = ManyRunAudit(without: firsts[false] ?? [], with: firsts[true] ?? [])
        let claim = GaussianAccountant.epsilon(delta: Self.delta, noiseMultiplier: z)
        let noise = audit.noiseMultiplier
        let samples = Double(releases * (dimension - 1))
        let deviation = (rest / samples).squareRoot() / z
        Measurement(
            benchmark: "audit",
            name: "many runs: noise multiplier, R=\(releases)",
            unit: "z",
            values: [noise.value],
            limit: z,
            limitName: "as configured",
            extra: [
                "interval_lower": noise.lower, "interval_upper": noise.upper, "noise_over_configured": deviation,
                "noise_over_configured_error": 1.96 / (2 * samples).squareRoot(),
            ]
        ).report()
        let epsilon = audit.epsilon(delta: Self.delta)
        Measurement(
            benchmark: "audit",
            name: "many runs: epsilon at delta 1e-5, R=\(releases)",
            unit: "epsilon",
            values: [epsilon.value],
            limit: claim,
            limitName: "charged by the ledger",
            extra: [
                "interval_lower": epsilon.lower, "interval_upper": epsilon.upper,
                "lower_bound_without_assumptions": audit.epsilonLowerBound(delta: Self.delta),
                "spent_epsilon": try await server.spent(run),
            ]
        ).report()
    }

    /// Specification 9.1: a thousand canaries in one round, each in by a fair coin.
    private func oneRun(_ server: AuditedServer, _ z: Double, claim: Double) async throws {
        let (canaries, guesses, dimension) = (1000, 200, 10_000)
        let run = try await server.begin(
            clients: canaries,
            dimension: dimension,
            specification: """
                "rounds": \(rounds),
                "cohort": {"goal": \(canaries), "minimum": \(canaries), "over_selection": 1, "max_participations": \(rounds)},
                "privacy": {"mode": "central", "noise_multiplier": \(z)}
                """
        )
        var generator = Xoshiro256StarStar(seed: seed)
        var bounds: [Double] = []
        var last = [Float](repeating: 0, count: dimension)
        for round in 1...rounds {
            let coins = (0..<canaries).map { _ in generator.next() & 1 == 1 }
            try await withThrowingTaskGroup(of: Void.self) { group in
                for lane in 0..<8 {
                    group.addTask {
                        for index in stride(from: lane, to: canaries, by: 8) {
                            var update = [Float](repeating: 0, count: dimension)
                            if coins[index] { update[index] = 1 }
                            try await server.participate(run.clients[index], update)
                        }
                    }
                }
                try await group.waitForAll()
            }
            let model = try await server.version(round, of: run.id)
            let scores = (0..<canaries).map { Double(model[$0] - last[$0]) }
            last = model
            let audit = OneRunAudit(scores: scores, included: coins, guessCount: guesses)
            bounds.append(audit.epsilonLowerBound(delta: Self.delta))
        }
        Measurement(
            benchmark: "audit",
            name: "one run: lower bound on epsilon, z=\(z) m=\(canaries) r=\(guesses)",
            unit: "epsilon",
            values: bounds,
            limit: claim,
            limitName: "claimed for one round at delta 1e-5",
            extra: ["over_the_claim": bounds.count { $0 > claim }]
        ).report()
    }
}

/// A served population whose clients send what an auditor wants.
private struct AuditedServer: Sendable {
    struct Run: Sendable {
        var id: String
        var population: String
        var clients: [String]
    }

    let api: ServedAPI
    let directory: String

    func begin(clients count: Int, dimension: Int, specification: String) async throws -> Run {
        let population = "audit-" + UUID().uuidString.prefix(8).lowercased()
        let budget = #"{"name": "\#(population)", "budget": {"epsilon": 1000, "delta": 1e-5}}"#
        try await api.call("POST", "/v1/populations", Data(budget.utf8))
        let uses = Data(#"{"max_uses": \#(count)}"#.utf8)
        let enrollment = try await api.call("POST", "/v1/populations/\(population)/enrollment-tokens", uses)["token"]
        var run = Run(id: "", population: population, clients: [])
        for _ in 0..<count {
            let client = try await send("POST", "/v1/clients", token: enrollment as? String ?? "")
            run.clients.append(client["token"] as? String ?? "")
        }
        let document = """
            {"population": "\(population)", "model": {"architecture": "external"}, \(specification)}
            """
        guard let id = try await api.call("POST", "/v1/runs", Data(document.utf8))["id"] as? String else {
            throw BenchmarkError("the run has no id")
        }
        run.id = id
        let zeros = [Float](repeating: 0, count: dimension)
        _ = try await send("PUT", "/v1/runs/\(id)/model", token: api.token, body: Self.file(zeros))
        try await api.call("POST", "/v1/runs/\(id)/start", Data())
        return run
    }

    /// One client's part in the open round.
    func participate(_ client: String, _ update: [Float]) async throws {
        for _ in 0..<2000 {
            let answer = try await send("POST", "/v1/checkins", token: client, body: Data("{}".utf8))
            guard let assignment = answer["assignment"] as? [String: Any], let url = assignment["update_url"] as? String
            else {
                // The round before is not published yet.
                try await Task.sleep(for: .milliseconds(2))
                continue
            }
            _ = try await send("PUT", url, token: client, body: Self.file(update))
            return
        }
        throw BenchmarkError("a client got no assignment")
    }

    /// A version's values, as soon as it is published.
    func version(_ number: Int, of run: String) async throws -> [Float] {
        for _ in 0..<30_000 {
            var request = api.request("GET", "/v1/runs/\(run)/models/\(number)/weights")
            request.destination = directory + "/version"
            let response = try await api.transport.send(request)
            if response.status == 200 { return try SafetensorsFile(path: directory + "/version").readAll().values }
            guard response.status == 404 else {
                throw BenchmarkError("version \(number): \(String(decoding: response.body, as: UTF8.self))")
            }
            try await Task.sleep(for: .milliseconds(2))
        }
        throw BenchmarkError("version \(number) was not published")
    }

    func spent(_ run: Run) async throws -> Double {
        let budget = try await api.call("GET", "/v1/populations/\(run.population)")["budget"] as? [String: Any]
        return budget?["spent_epsilon"] as? Double ?? .nan
    }

    private static func file(_ values: [Float]) -> Data {
        SafetensorsWriter.encode(
            ParameterVector(layout: ParameterLayout([.init(name: "w", shape: [values.count])]), values: values)
        )
    }

    private func send(
        _ method: String,
        _ path: String,
        token: String,
        body: Data = Data("{}".utf8)
    ) async throws -> [String: Any] {
        var request = api.request(method, path)
        request.headers["Authorization"] = "Bearer \(token)"
        request.headers["Content-Type"] = method == "PUT" ? "application/vnd.safetensors" : "application/json"
        request.body = .bytes(body)
        let response = try await api.transport.send(request)
        guard (200..<300).contains(response.status) else {
            throw BenchmarkError("\(method) \(path): \(String(decoding: response.body, as: UTF8.self))")
        }
        return (try? JSONSerialization.jsonObject(with: response.body)) as? [String: Any] ?? [:]
    }
}
