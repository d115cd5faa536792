import DifferentialPrivacy
import Foundation
import StrictJSON
import TestSupport
import Testing
import WireFormat

@testable import Coordination

/// The arithmetic of one noised evaluation.
struct EvaluationReleaseTests {
    private static func evaluation(
        _ z: Double,
        metrics: [String] = ["loss", "top1", "words"]
    ) throws -> RunSpecification.Evaluation {
        try RunSpecification.sample {
            $0.rounds = 7
            $0.cohort.goal = 2
            $0.privacy += ["mode": "central", "noise_multiplier": 1]
            $0.evaluation += ["every": 3, "noise_multiplier": z, "metrics": metrics, "loss_bound": 4]
        }.evaluation
    }

    @Test func contributionsAreCutAndNeverLongerThanTheBound() throws {
        let release = try EvaluationRelease(Self.evaluation(0.7))
        let cases: [([String: Double], [Float])] = [
            (["nll": 20, "loss_tokens": 10, "tokens": 10, "hit1": 5, "words": 2], [1, 0.5, 0.5, 0.2]),
            (["nll": 0x1p40, "loss_tokens": 1, "tokens": 1, "hit1": 0x1p40, "words": 0x1p40], [1, 1, 1, 1]),
            (["nll": -0x1p40, "tokens": -3, "hit1": -1, "words": -9], [1, 0, 0, 0]),
            (["other": 3], [1, 0, 0, 0]),
        ]
        for (metrics, expected) in cases {
            let vector = release.contribution(EvaluationResult(numExamples: 10, metrics: metrics))
            #expect(zip(vector, expected).allSatisfy { abs($0 - $1) < 1e-6 }, "\(vector)")
            let integers = release.sum([vector])
            let square = integers.reduce(UInt128(0)) { $0 + UInt128($1.magnitude) * UInt128($1.magnitude) }
            #expect(square <= UInt128(release.grid.norm) * UInt128(release.grid.norm))
        }
    }

    @Test func withoutNoiseTheRatesAreTheClientsMeans() throws {
        let release = try EvaluationRelease(Self.evaluation(1))
        let clients = [(1.0, 0.25), (2.0, 0.5), (30.0, 0.75)].map { loss, top1 in
            release.contribution(
                EvaluationResult(
                    numExamples: 8,
                    metrics: ["nll": 8 * loss, "loss_tokens": 8, "tokens": 8, "hit1": 8 * top1, "words": 0]
                )
            )
        }
        let sums = release.sum(clients)
        #expect(sums == release.sum(clients.reversed()))
        let rates = release.outcome(sums).rates
        // The third client's loss was cut at 4.
        #expect(abs((rates["loss"] ?? 0) - 7.0 / 3) < 1e-4 && abs((rates["top1"] ?? 0) - 0.5) < 1e-5, "\(rates)")
        #expect(Set(rates.keys) == ["loss", "top1", "words"])
    }

    /// The noise has z·C on each coordinate: 8,000 draws, so that 5 % is 6.3 standard deviations; false alarms under 1e-9.
    @Test func theNoiseIsAsLargeAsTheChargeSays() throws {
        let z = 1.5
        let release = try EvaluationRelease(Self.evaluation(z))
        var squares = 0.0
        var first: Set<Int64> = []
        for _ in 0..<2000 {
            var sums = [Int64](repeating: 0, count: 4)
            try release.addNoise(to: &sums)
            first.insert(sums[0])
            squares += sums.reduce(0) { $0 + pow(Double($1) * release.grid.step, 2) }
        }
        let deviation = (squares / 8000).squareRoot()
        #expect(abs(deviation / (z * 2) - 1) < 0.05, "\(deviation)")
        #expect(first.count > 1900)
    }

    /// The release of files as a round makes it: 400 of them, so that 25 % is seven standard deviations of the deviation's
    /// estimate; false alarms under 1e-10.
    @Test(.slow) func theReleaseOfReportsIsNoised() throws {
        let directory = try TemporaryDirectory()
        let release = try EvaluationRelease(Self.evaluation(1, metrics: ["top1"]))
        let reports = try (0..<40).map { index in
            let data = try WireCoding.encode(EvaluationResult(numExamples: 8, metrics: ["tokens": 8, "hit1": 4]))
            let path = directory.path + "/\(index)"
            try data.write(to: URL(fileURLWithPath: path))
            let receipt = SpooledReceipt(sha256: Secrets.sha256(data), byteCount: data.count, exampleCount: 8)
            try receipt.write(to: path + ".receipt")
            return EvaluationRelease.Report(path: path, receiptPath: path + ".receipt")
        }
        var (squares, seen) = (0.0, Set<Double>())
        for _ in 0..<400 {
            let rate = try #require(try release.run(reports).rates["top1"])
            seen.insert(rate)
            squares += (rate - 0.5) * (rate - 0.5)
        }
        // (20 + a)/(40 + b) with a, b of deviation √2: √2·√1.25/40 of the rate.
        let expected = 2.0.squareRoot() * 1.25.squareRoot() / 40
        #expect(abs((squares / 400).squareRoot() / expected - 1) < 0.25 && seen.count > 390)
        var damaged = reports
        damaged[3].receiptPath = reports[4].receiptPath + "-lost"
        #expect(throws: CoordinationError.self) { try release.run(damaged) }
    }

    @Test func noiseThatLeavesNoClientPublishesNothing() throws {
        let release = try EvaluationRelease(Self.evaluation(1))
        #expect(release.outcome([-5, 1 << 40, 1 << 40, 1 << 40]).rates.isEmpty)
        let one = Int64((1 / release.grid.step).rounded(.up))
        // Whatever the noise, a rate stays in its range.
        let rates = release.outcome([one, 50 * one, -50 * one, one / 2]).rates
        #expect(rates["loss"] == 4 && rates["top1"] == 0)
        #expect(abs((rates["words"] ?? 0) - 0.5) < 1e-6)
    }

    @Test func theLastVersionIsCountedWhateverItsNumber() throws {
        let specification = try RunSpecification.sample {
            $0.rounds = 7
            $0.cohort.goal = 2
            $0.evaluation.every = 3
        }
        #expect((0...8).map { specification.evaluationCount(rounds: $0) } == [0, 0, 0, 1, 1, 1, 2, 3, 3])
    }
}
