import Coordination
import Foundation
import Tensors
import TestSupport
import Testing
import WireFormat

/// What a model's card says of the models that it builds on.
@Suite(.timeLimit(.minutes(10)))
struct ModelCardTests {
    private static let layout = ParameterLayout([.init(name: "a", shape: [2, 2])])

    /// A run of one round, trained by one client of its own population.
    private func train(
        _ bench: PrivateBench,
        population: String,
        budget: String,
        privacy: RunFile,
        base: RunFile? = nil
    ) async throws -> String {
        _ = try await bench.post("/v1/populations", #"{"name": "\#(population)"\#(budget)}"#)
        let enrollment = try await bench.post(
            "/v1/populations/\(population)/enrollment-tokens",
            #"{"max_uses": 1}"#
        ).json["token"]
        let client = try await bench.post("/v1/clients", token: #require(enrollment as? String)).json["token"]
        let token = try #require(client as? String)
        let created = try await bench.post(
            "/v1/runs",
            RunFile.sample {
                $0 += ["population": population, "name": "of \(population)"]
                $0.privacy = privacy
                if let base { $0.model.base = base }
                $0.cohort += ["goal": 1, "minimum": 1, "over_selection": 1, "max_participations": 1]
            }.text
        )
        let run = try #require(created.json["id"] as? String, "\(created.json)")
        let zeros = ParameterVector(zeros: Self.layout)
        let model = Array(SafetensorsWriter.encode(zeros))
        try #require(try await bench.call("PUT", "/v1/runs/\(run)/model", model).status == 201)
        try #require(try await bench.post("/v1/runs/\(run)/start").status == 200)
        let work = try #require(try await bench.post("/v1/checkins", token: token).json["assignment"] as? [String: Any])
        let sha256 = try #require((work["model"] as? [String: Any])?["sha256"] as? String)
        let plain = SafetensorsWriter.encode(zeros, metadata: ["base": sha256, "num_examples": "1"])
        let update = Array(SafetensorsWriter.padded(plain, to: work["update_bytes"] as? Int ?? plain.count))
        let target = try #require(work["update_url"] as? String)
        let receipt = try await bench.call("PUT", target, token: token, update)
        try #require(receipt.status == 200, "\(receipt.json)")
        try await wait(for: "the round") { try await bench.coordinator.run(run).state == .completed }
        return run
    }

    @Test func aCardNamesTheBasesAndTheirClaims() async throws {
        let bench = try await PrivateBench()
        let budget = #", "budget": {"epsilon": 50, "delta": 1e-5}"#
        let central: RunFile = ["mode": "central", "noise_multiplier": 4]
        let bare = try await train(bench, population: "bare", budget: "", privacy: ["mode": "none"])
        let middle = try await train(
            bench,
            population: "middle",
            budget: budget,
            privacy: central,
            base: ["run": .value(bare)]
        )
        let top = try await train(
            bench,
            population: "top",
            budget: budget,
            privacy: central,
            base: ["run": .value(middle), "version": 1]
        )
        func card(_ run: String) async throws -> String {
            try await bench.text("/v1/runs/\(run)/models/1/archive")
        }
        let text = try await card(top)
        #expect(text.contains("Differentially private"))
        let claim = try #require(try await bench.coordinator.claim(run: middle, version: 1))
        #expect(text.contains("version 1 of run `\(middle)` (of middle), population \"middle\": (ε = \(claim.epsilon)"))
        #expect(text.contains("version 1 of run `\(bare)` (of bare), population \"bare\": **none**"), "\(text)")
        #expect(try await !card(bare).contains("builds on models of other runs"))
    }
}
