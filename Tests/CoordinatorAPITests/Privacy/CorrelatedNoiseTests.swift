import Coordination
import DifferentialPrivacy
import Foundation
import Tensors
import TestSupport
import Testing
import WireFormat

/// Runs with the banded matrix mechanism, through the routes and through restarts.
@Suite(.timeLimit(.minutes(2)))
struct CorrelatedNoiseTests {
    private static let privacy = #"{"mode": "central", "mechanism": "banded_matrix", "noise_multiplier": 1}"#
    private static let cohort = """
        {"goal": 1, "minimum": 1, "over_selection": 1, "min_separation_rounds": 3, "max_participations": 2}
        """
    private static let zeros = [Float](repeating: 0, count: 10_000)

    private static func bench(rounds: Int = 6) async throws -> PrivateBench {
        let bench = try await PrivateBench(tensors: [.init(name: "w", shape: [100, 100])])
        try await bench.begin(privacy: privacy, cohort: cohort, rounds: rounds, clients: 3, epsilon: 50)
        return bench
    }

    private static func covariance(_ left: [Float], _ right: [Float]) -> Double {
        zip(left, right).reduce(0) { $0 + Double($1.0) * Double($1.1) } / Double(left.count)
    }

    @Test func noiseIsCorrelatedAcrossRoundsAndRestarts() async throws {
        let bench = try await Self.bench()
        var models = [Self.zeros]
        for round in 0..<6 {
            if round == 2 || round == 4 { try await bench.restart() }
            models.append(try await bench.play([round % 3], Self.zeros))
        }
        let releases = (1...6).map { zip(models[$0], models[$0 - 1]).map { $0 - $1 } }
        // c = 1, 1/2, 3/8: y_t = Σ c_j s_{t−j} is the fresh noise of each round: white, of deviation z·C.
        let band = BandedReleases.coefficients(band: 3).map(Float.init)
        let fresh = (0..<6).map { t in
            (0..<10_000).map { i in (0...min(t, 2)).reduce(Float(0)) { $0 + band[$1] * releases[t - $1][i] } }
        }
        for t in 0..<6 {
            // 10,000 coordinates: 0.7 % a deviation, 1 % a correlation; eight of them.
            #expect(abs(rootMeanSquare(fresh[t]) - 1) < 0.06)
            for other in 0..<t { #expect(abs(Self.covariance(fresh[t], fresh[other])) < 0.08) }
        }
        #expect(abs(Self.covariance(releases[0], releases[1]) + 0.5) < 0.1)
        // Prefix sums have less noise than six rounds of fresh noise would: that is what the mechanism is for.
        #expect(rootMeanSquare(models[6]) < 0.85 * 6.0.squareRoot())
        let mechanism = try BandedMatrixMechanism(
            coefficients: BandedReleases.coefficients(band: 3),
            roundCount: 6,
            minSeparation: 3,
            maxParticipations: 2
        )
        let z = 1 / mechanism.sensitivitySquared.squareRoot()
        #expect(abs(try await bench.spent() - GaussianAccountant.epsilon(delta: 1e-5, noiseMultiplier: z)) < 1e-3)
        let charge = try #require(try await bench.charges().first)
        #expect(charge["kind"] as? String == "banded_matrix" && charge["minSeparation"] as? Int == 3)
    }

    @Test func aClientComesBackAfterTheSeparationOnly() async throws {
        let bench = try await Self.bench()
        try await bench.play([0], Self.zeros)
        #expect(try await bench.checkIn(0)["reason"] as? String == "too_soon")
        try await bench.play([1], Self.zeros)
        #expect(try await bench.checkIn(0)["reason"] as? String == "too_soon")
        try await bench.play([2], Self.zeros)
        try await bench.play([0], Self.zeros)
        #expect(try await bench.checkIn(0)["assignment"] == nil)
    }

    @Test func theStateIsSealedAndOneOfItsKind() async throws {
        let bench = try await Self.bench()
        // A sum that would be easy to find: every coordinate the same.
        try await bench.play([0], [Float](repeating: 0.01, count: 10_000))
        let noise = bench.directory.path + "/noise"
        #expect(try FileManager.default.contentsOfDirectory(atPath: noise) == ["\(bench.run)-1.state"])
        let state = try Data(contentsOf: URL(fileURLWithPath: noise + "/\(bench.run)-1.state"))
        let repeats = stride(from: 20, to: state.count - 16, by: 8).count {
            state[$0..<($0 + 8)] == state[($0 + 8)..<($0 + 16)]
        }
        #expect(state.count > 160_000 && repeats == 0)
        let key = try FileManager.default.attributesOfItem(atPath: bench.directory.path + "/noise.key")
        #expect(key[.posixPermissions] as? Int == 0o600)
        try await bench.play([1], Self.zeros)
        #expect(try FileManager.default.contentsOfDirectory(atPath: noise) == ["\(bench.run)-2.state"])
        // Nothing of a round stays in the spool.
        #expect(bench.coordinator.blobs.spoolNames().isEmpty)
    }

    @Test(arguments: ["removed", "edited", "old", "other key"])
    func withoutItsStateTheRunEnds(_ damage: String) async throws {
        let bench = try await Self.bench()
        try await bench.play([0], Self.zeros)
        func path(_ version: Int) -> String { bench.directory.path + "/noise/\(bench.run)-\(version).state" }
        let old = try Data(contentsOf: URL(fileURLWithPath: path(1)))
        try await bench.play([1], Self.zeros)
        switch damage {
        case "removed": try FileManager.default.removeItem(atPath: path(2))
        case "old": try old.write(to: URL(fileURLWithPath: path(2)))
        case "other key":
            try Data(repeating: 1, count: 32).write(to: URL(fileURLWithPath: bench.directory.path + "/noise.key"))
        default:
            var bytes = try Data(contentsOf: URL(fileURLWithPath: path(2)))
            bytes[bytes.count / 2] ^= 1
            try bytes.write(to: URL(fileURLWithPath: path(2)))
        }
        let spent = try await bench.spent()
        let answer = try await bench.checkIn(2)
        if let assignment = answer["assignment"] as? [String: Any] {
            _ = try await bench.upload(2, assignment, Self.zeros)
            _ = try await bench.settled()
        }
        try await bench.coordinator.tick()
        var view = try await bench.coordinator.run(bench.run)
        if view.state == "running" {
            // The round that was open when the state went is abandoned; the next one cannot open.
            bench.clock.advance(by: 1000)
            try await bench.coordinator.tick()
            view = try await bench.coordinator.run(bench.run)
        }
        #expect(view.state == "failed" && view.reason == "noise_state_lost")
        #expect(view.committedRounds == 2)
        #expect(try await bench.spent() == spent)
    }
}
