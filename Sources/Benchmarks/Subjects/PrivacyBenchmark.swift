import ArgumentParser
import BenchmarkHarness
import Coordination
import Crypto
import CryptoExtras
import DifferentialPrivacy
import Foundation
import WireFormat

/// Noise, accounting and the ledger: what they take next to what they may take.
struct PrivacyBenchmark: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "privacy",
        abstract: "Noise a second, epsilon by loss distributions, admission to a long ledger."
    )
    @Option(help: "Coordinates of the noise case.") var parameters = 25_000_000
    @Option(help: "Repeats of each case.") var repeats = 5

    func run() throws {
        try noise()
        try lossDistributions()
        try ledger()
    }

    private func seconds(_ body: () throws -> Void) rethrows -> Double {
        let start = ContinuousClock.now
        try body()
        return (ContinuousClock.now - start) / .seconds(1)
    }

    private func noise() throws {
        var sums = [Int64](repeating: 0, count: parameters)
        // The limit: the cipher alone on as many bytes, on one core; the noise uses all.
        let key = SymmetricKey(size: .bits256)
        let block = Data(count: 1 << 20)
        let cipher = try seconds {
            for _ in 0..<256 { _ = try AES._CTR.encrypt(block, using: key, nonce: AES._CTR.Nonce()) }
        }
        let cipherRate = 256 * Double(1 << 20) / cipher / 64
        var rates: [Double] = []
        var times: [Double] = []
        for _ in 0..<repeats {
            let time = try seconds { try IntegerGaussianSampler().addNoise(to: &sums) }
            times.append(time)
            rates.append(Double(parameters) / time)
        }
        MeasuredCase(
            benchmark: "privacy",
            name: "gaussian noise n=\(parameters)",
            unit: "samples/s",
            values: rates,
            limit: cipherRate,
            limitName: "AES-256-CTR of 64 bytes a sample, 1 thread",
            extra: ["seconds": times.sorted()[times.count / 2], "seconds_allowed": 1.5]
        ).report()
    }

    private func lossDistributions() throws {
        for (steps, allowed) in [(1000, 0.2), (100_000, 2.0)] {
            var times: [Double] = []
            var epsilon = 0.0
            for _ in 0..<repeats {
                times.append(
                    try seconds {
                        var accountant = LossDistributionAccountant()
                        try accountant.add(.poissonGaussian(samplingRate: 0.01, noiseMultiplier: 1), count: steps)
                        epsilon = try accountant.epsilon(delta: 1e-5)
                    }
                )
            }
            MeasuredCase(
                benchmark: "privacy",
                name: "pld epsilon q=0.01 z=1 steps=\(steps)",
                unit: "s",
                values: times,
                limit: allowed,
                limitName: "allowed",
                extra: ["epsilon": epsilon]
            ).report()
        }
    }

    private func ledger() throws {
        var ledger = PrivacyLedger()
        let charge = PrivacyCharge(
            mode: .central,
            noiseMultiplier: 50,
            participationCap: 1_000_000,
            parameterCount: 1_000_000
        )
        func append(_ run: String, _ round: Int, _ state: ChargeState) throws {
            _ = try ledger.append(
                population: "p",
                run: run,
                round: round,
                attempt: 1,
                state: state,
                event: charge.canonical,
                epsilonAfter: 0,
                at: Date(timeIntervalSince1970: 0)
            )
        }
        for round in 1...10_000 {
            try append("run\(round % 20)", round, .reserved)
            try append("run\(round % 20)", round, .committed)
        }
        var times: [Double] = []
        for repeatIndex in 0..<(repeats * 4) {
            times.append(
                try seconds {
                    let releases = try ledger.releases(population: "p", run: "run1", charge: charge)
                    _ = try BudgetArithmetic.epsilon(of: releases, delta: 1e-6, accountant: .gaussian)
                    try append("run1", 20_000 + repeatIndex, .reserved)
                }
            )
        }
        MeasuredCase(
            benchmark: "privacy",
            name: "ledger admission charges=10000",
            unit: "s",
            values: times,
            limit: 0.01,
            limitName: "allowed, transaction not included"
        ).report()
        let rows = ledger.rows
        let start = try seconds { _ = try PrivacyLedger(verifying: rows) }
        MeasuredCase(benchmark: "privacy", name: "ledger verification rows=\(rows.count)", unit: "s", values: [start])
            .report()
    }
}
