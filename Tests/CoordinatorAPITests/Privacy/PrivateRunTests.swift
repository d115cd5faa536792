import Coordination
import DifferentialPrivacy
import Foundation
import Tensors
import TestSupport
import Testing
import WireFormat

/// Private runs of every mechanism, through the routes: what is published, what is charged, what is refused.
///
/// Noise is real, so bounds are eight standard deviations of what is measured: a false alarm in 1e-15 of all runs each.
@Suite(.timeLimit(.minutes(10)))
struct PrivateRunTests {
    private static let layers = [
        TensorSpecification(name: "a", shape: [100, 50]), TensorSpecification(name: "b", shape: [100, 50]),
    ]
    private static let cohort = #"{"goal": 20, "minimum": 10, "over_selection": 1, "max_participations": 9}"#
    /// Norm `length` over the first layer, nothing in the second.
    private static func lopsided(_ length: Double) -> [Float] {
        [Float](repeating: Float(length / 5000.0.squareRoot()), count: 5000) + [Float](repeating: 0, count: 5000)
    }

    private static func project(_ model: [Float], on values: [Float]) -> Double {
        let norm = rootMeanSquare(values) * Double(values.count).squareRoot()
        return zip(model, values).reduce(0) { $0 + Double($1.0) * Double($1.1) } / norm
    }

    @Test(arguments: [("flat", 1.0), ("per_layer", 0.5.squareRoot())])
    func theServerBoundsEachLayerWhereTheRunSaysSo(_ policy: String, _ expected: Double) async throws {
        let bench = try await PrivateBench(tensors: Self.layers)
        try await bench.begin(
            privacy: #"{"mode": "central", "noise_multiplier": 0.1, "clipping": {"policy": "\#(policy)"}}"#,
            cohort: Self.cohort,
            clients: 20
        )
        // Every client ignores the bound; the sum's noise of 0.1·C is 0.005 of the mean in any direction.
        let update = Self.lopsided(50)
        let model = try await bench.play(0..<20, update)
        #expect(abs(Self.project(model, on: update) - expected) < 0.04)
        #expect(abs(rootMeanSquare(model.suffix(5000)) / 0.005 - 1) < 0.08)
        let charge = try #require(try await bench.charges().first)
        #expect(charge["kind"] as? String == "gaussian" && charge["noiseMultiplier"] as? Double == 0.1)
    }

    @Test func laplaceNoiseIsForL1NormsAndCostsPureEpsilon() async throws {
        let bench = try await PrivateBench(tensors: Self.layers)
        try await bench.begin(
            privacy: #"{"mode": "central", "mechanism": "laplace", "noise_multiplier": 2, "clipping": {"norm": 3}}"#,
            cohort: Self.cohort,
            clients: 20
        )
        let update = [Float](repeating: 1, count: 10_000)
        let model = try await bench.play(0..<20, update).map(Double.init)
        // An L1 norm of 10,000 comes down to 3: a mean of 0.0003 a coordinate under Laplace noise of scale 0.3.
        let scale = 2.0 * 3 / 20
        let mean = model.reduce(0, +) / 10_000
        #expect(abs(mean - 3.0 / 10_000) < 8 * scale * 2.0.squareRoot() / 100)
        let magnitude = model.reduce(0) { $0 + abs($1) } / 10_000
        #expect(abs(magnitude / scale - 1) < 0.08)
        // E|x| over the standard deviation is 0.707 for Laplace and 0.798 for Gaussian noise.
        let deviation = (model.reduce(0) { $0 + $1 * $1 } / 10_000).squareRoot()
        #expect(abs(magnitude / deviation - 0.5.squareRoot()) < 0.05)
        #expect(try await bench.charges().first?["kind"] as? String == "laplace")
        let spent = try await bench.spent()
        #expect(spent <= 0.5 && spent > 0.49)
    }

    @Test func theDiscreteGaussianOfAFewUnitsIsOnItsGrid() async throws {
        let bench = try await PrivateBench(tensors: Self.layers)
        try await bench.begin(
            privacy:
                #"{"mode": "central", "mechanism": "discrete_gaussian", "noise_multiplier": 0.5, "noise_scale": 500}"#,
            cohort: Self.cohort,
            clients: 20
        )
        let update = Self.lopsided(50)
        let model = try await bench.play(0..<20, update)
        // γ = z·C/σ = 0.001, a twentieth of it in the mean.
        #expect(model.allSatisfy { abs(Double($0) / 5e-5 - (Double($0) / 5e-5).rounded()) < 0.02 })
        #expect(abs(rootMeanSquare(model.suffix(5000)) / 0.025 - 1) < 0.08)
        #expect(abs(Self.project(model, on: update) - 1) < 0.2)
        #expect(try await bench.charges().first?["kind"] as? String == "discrete_gaussian")
        var accountant = RenyiAccountant()
        try accountant.add(.gaussian(noiseMultiplier: 0.5))
        #expect(abs(try await bench.spent() - (try accountant.epsilon(delta: 1e-5))) < 1e-9)
    }

    @Test func theClippingNormFollowsItsQuantileAndIsChargedOnce() async throws {
        let bench = try await PrivateBench(tensors: Self.layers)
        try await bench.begin(
            privacy: """
                {"mode": "central", "noise_multiplier": 0.5, "clipping": {"policy": "adaptive", "norm": 2}}
                """,
            cohort: Self.cohort,
            rounds: 3,
            clients: 20
        )
        let zeros = [Float](repeating: 0, count: 10_000)
        let first = try #require(try await bench.checkIn(0)["assignment"] as? [String: Any])
        let missing = try await bench.upload(0, first, zeros)
        #expect(missing.status == 422 && missing.json["code"] as? String == "metadata_invalid")
        // That client's place is free again for another one; it comes back in the next round.
        let members = Array(1..<20)
        try await bench.begun(members, zeros, ["within_norm": "0"])
        func norm(_ version: Int) async throws -> Double {
            let view = try await bench.call("GET", "/v1/runs/\(bench.run)/models/\(version)").json
            return try #require(view["clipping_norm"] as? Double)
        }
        // 19 bits of 0: the share is ½ − 19/40 = 0.025 and C grows by e^{0.2 (0.5 − 0.025)}; σ_b = 1 is 0.05 of the share.
        let second = try await norm(1)
        #expect(abs(log(second / 2) - 0.2 * 0.475) < 8 * 0.2 * 0.05)
        #expect(second != 2)
        // The count is noised: without its noise this would be exactly the rule's norm. So near it comes by chance with 8e-11.
        #expect(abs(log(second / 2) - 0.2 * 0.475) > 1e-12)
        try await bench.restart()
        let assignment = try #require(try await bench.checkIn(0)["assignment"] as? [String: Any])
        let clipping = try #require((assignment["privacy"] as? [String: Any])?["clipping"] as? [String: Any])
        #expect(clipping["norm"] as? Double == second && clipping["policy"] as? String == "adaptive")
        // The noise of the second round is for the new norm: z_Δ·C/M with z_Δ = (z⁻² − (2σ_b)⁻²)^(−1/2).
        let before = try await bench.settled()
        let after = try await bench.play(0..<20, zeros, metadata: ["within_norm": "1"])
        let split = 1 / (4.0 - 0.25).squareRoot()
        let noise = rootMeanSquare(zip(after, before).map { $0 - $1 })
        #expect(abs(noise / (split * second / 20) - 1) < 0.06)
        #expect(try await norm(2) < second)
        let charges = try await bench.charges()
        #expect(charges.count == 2 && charges.allSatisfy { $0["noiseMultiplier"] as? Double == 0.5 })
        #expect(charges.allSatisfy { $0["isAdaptive"] as? Bool == true && $0["parameterCount"] as? Int == 10_001 })
        #expect(try #require(try await bench.coordinator.population("p").budget).isAdaptive)
    }

    @Test func countsOfExamplesWeighWhereTheRunSaysSoAndAreNeverKept() async throws {
        for (extra, count, weight) in [
            ("", 2, 1.0), (#", "aggregation": {"weighting": "examples", "example_cap": 4}"#, 2, 0.5),
            (#", "aggregation": {"weighting": "examples", "example_cap": 4}"#, 0, 0),
        ] {
            let bench = try await PrivateBench(tensors: Self.layers)
            try await bench.begin(
                privacy: #"{"mode": "central", "noise_multiplier": 0.1}"#,
                cohort: Self.cohort,
                extra: extra,
                clients: 20
            )
            let update = Self.lopsided(0.999)
            let model = try await bench.play(0..<20, update, metadata: ["num_examples": String(count)])
            // With a cap of 4 two examples weigh a half, and none nothing; the divisor stays the planned 20.
            #expect(abs(Self.project(model, on: update) - weight) < 0.04)
            #expect(try bench.store.load().assignments.allSatisfy { $0.exampleCount == nil })
        }
    }

    @Test func aTargetBecomesTheLeastNoiseThatMeetsIt() async throws {
        let bench = try await PrivateBench()
        try await bench.begin(
            privacy: #"{"mode": "central", "target": {"epsilon": 4}}"#,
            cohort: #"{"goal": 2, "minimum": 1, "max_participations": 2}"#,
            rounds: 5,
            clients: 2
        )
        let view = try await bench.call("GET", "/v1/runs/\(bench.run)").json
        let privacy = try #require((view["specification"] as? [String: Any])?["privacy"] as? [String: Any])
        let z = try #require(privacy["noise_multiplier"] as? Double)
        let exact = try GaussianAccountant.noiseMultiplier(epsilon: 4, delta: 1e-5) * 2.0.squareRoot()
        #expect(z >= exact * (1 - 1e-6) && z < exact * 1.0002)
        // Stored as it was found: a restart does not search again.
        try await bench.restart()
        #expect(try await bench.coordinator.run(bench.run).specification.privacy.noiseMultiplier == z)
        let other = try await bench.post(
            "/v1/runs",
            RunFile.sample {
                $0.cohort.goal = 2
                $0.privacy.mode = "central"
                $0.privacy.target += ["epsilon": 4, "delta": 1e-3]
            }.text
        )
        #expect(other.status == 422 && other.json["code"] as? String == "privacy_invalid")
    }
}

extension PrivateBench {
    /// Takes part with fewer than are wanted: the round closes at its deadline.
    func begun(_ members: [Int], _ values: [Float], _ metadata: [String: String]) async throws {
        for client in members {
            let answer = try await checkIn(client)
            let assignment = try #require(answer["assignment"] as? [String: Any], "\(answer)")
            try #require(try await upload(client, assignment, values, metadata: metadata).status == 200)
        }
        clock.advance(by: 400)
        try await coordinator.tick()
        _ = try await settled()
        clock.advance(by: 400)
        try await coordinator.tick()
        _ = try await settled()
    }
}
