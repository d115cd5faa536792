import Coordination
import DifferentialPrivacy
import Foundation
import Tensors
import TestSupport
import Testing
import WireFormat

/// Runs with the banded matrix mechanism, through the routes and through restarts.
@Suite(.timeLimit(.minutes(10)))
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

    private static func keyPath(_ bench: PrivateBench) -> String { bench.directory.path + "/noise.key.\(bench.run)" }

    /// What of exact sums and of their keys lies in the data directory.
    private static func remains(_ bench: PrivateBench) throws -> [String] {
        let manager = FileManager.default
        let keys = try manager.contentsOfDirectory(atPath: bench.directory.path).filter { $0.hasPrefix("noise.key") }
        return try manager.contentsOfDirectory(atPath: bench.directory.path + "/noise") + keys
            + bench.coordinator.blobs.spoolNames()
    }

    /// A state holds exact sums: with goal 1 those of one client.
    ///
    /// They and their key go with the run, however it ends.
    @Test(arguments: [RunPhase.completed, .cancelled, .failed])
    func nothingOfTheSumsStaysAfterTheRun(_ ending: RunPhase) async throws {
        let bench = try await Self.bench(rounds: ending == .completed ? 2 : 6)
        for client in 0..<2 { try await bench.play([client], [Float](repeating: 0.01, count: 10_000)) }
        if ending != .completed {
            #expect(try Self.remains(bench).sorted() == ["noise.key.\(bench.run)", "\(bench.run)-2.state"])
        }
        switch ending {
        case .cancelled: _ = try await bench.coordinator.cancelRun(bench.run)
        case .failed:
            // Another version's state in the place of the one that is needed.
            try FileManager.default.moveItem(
                atPath: bench.directory.path + "/noise/\(bench.run)-2.state",
                toPath: bench.directory.path + "/noise/\(bench.run)-9.state"
            )
            for _ in 0..<3 {
                bench.clock.advance(by: 1000)
                try await bench.coordinator.tick()
            }
        default: break
        }
        #expect(try await bench.coordinator.run(bench.run).state == ending)
        #expect(try Self.remains(bench).isEmpty)
        // What a stop left, or an earlier version, goes at the next start.
        for name in [
            "noise/\(bench.run)-2.state", "noise/run_forgotten-1.state", "noise.key.\(bench.run)", "noise.key",
        ] {
            try Data(repeating: 1, count: 32).write(to: URL(fileURLWithPath: bench.directory.path + "/" + name))
        }
        try await bench.restart()
        #expect(try Self.remains(bench).isEmpty)
    }

    /// A place that takes no deletion: it is tried until it does.
    @Test func whatTheDiskDoesNotDeleteIsTriedAgain() async throws {
        let bench = try await Self.bench()
        try await bench.play([0], Self.zeros)
        let path = Self.keyPath(bench)
        try FileManager.default.moveItem(atPath: path, toPath: path + ".away")
        // A directory is no file that can be unlinked.
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
        _ = try await bench.coordinator.cancelRun(bench.run)
        #expect(try Self.remains(bench).contains("\(bench.run)-1.state"))
        try FileManager.default.removeItem(atPath: path)
        try FileManager.default.moveItem(atPath: path + ".away", toPath: path)
        try await bench.coordinator.tick()
        #expect(try Self.remains(bench).isEmpty)
    }

    /// A key whose disk is away says nothing of the state: the round waits, and no key is made in its place.
    @Test func aMissingKeyIsWaitedForAndNeverMadeAnew() async throws {
        let bench = try await Self.bench()
        try await bench.play([0], Self.zeros)
        let path = Self.keyPath(bench)
        try FileManager.default.moveItem(atPath: path, toPath: path + ".away")
        let work = try #require(try await bench.checkIn(1)["assignment"] as? [String: Any])
        #expect(try await bench.upload(1, work, Self.zeros).status == 200)
        for _ in 0..<3 {
            bench.clock.advance(by: 61)
            try await bench.coordinator.tick()
        }
        let view = try await bench.coordinator.run(bench.run)
        #expect(view.state == .running && view.committedRounds == 1)
        #expect(view.waitingFor.contains("noise.key.\(bench.run)"), "\(view.waitingFor)")
        #expect(!FileManager.default.fileExists(atPath: path))
        try FileManager.default.moveItem(atPath: path + ".away", toPath: path)
        bench.clock.advance(by: 61)
        try await bench.coordinator.tick()
        _ = try await bench.settled()
        #expect(try await bench.coordinator.run(bench.run).committedRounds == 2)
    }

    /// A run that began with the key of all runs goes on with one of its own, and the shared one goes.
    @Test func aStateOfAnEarlierVersionIsRead() async throws {
        let bench = try await Self.bench()
        try await bench.play([0], Self.zeros)
        let shared = bench.directory.path + "/noise.key"
        try FileManager.default.moveItem(atPath: Self.keyPath(bench), toPath: shared)
        let state = bench.directory.path + "/noise/\(bench.run)-1.state"
        var bytes = try Data(contentsOf: URL(fileURLWithPath: state))
        #expect(bytes.prefix(16) == Data("MARTLET-NOISE-2\n".utf8))
        bytes[14] = UInt8(ascii: "1")
        try bytes.write(to: URL(fileURLWithPath: state))
        try await bench.restart()
        #expect(FileManager.default.fileExists(atPath: shared))
        try await bench.play([1], Self.zeros)
        #expect(try await bench.coordinator.run(bench.run).committedRounds == 2)
        #expect(try Self.remains(bench).sorted() == ["noise.key.\(bench.run)", "\(bench.run)-2.state"])
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
        let key = try FileManager.default.attributesOfItem(atPath: Self.keyPath(bench))
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
            try Data(repeating: 1, count: 32).write(to: URL(fileURLWithPath: Self.keyPath(bench)))
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
        if view.state == .running {
            // The round that was open when the state went is abandoned; the next one cannot open.
            bench.clock.advance(by: 1000)
            try await bench.coordinator.tick()
            view = try await bench.coordinator.run(bench.run)
        }
        #expect(view.state == .failed && view.reason == "noise_state_lost")
        #expect(view.committedRounds == 2)
        // An attempt that is given up after its aggregation began keeps its charge.
        #expect(try await bench.spent() > spent)
    }
}
