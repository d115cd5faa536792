import DifferentialPrivacy
import Foundation
import Testing

/// Reference values of an independent 40-digit computation; the file carries its provenance.
private struct VectorFile: Decodable {
    struct Case: Decodable {
        var id: String
        var kind: String
        var params: [String: Value]
        var expect: [String: Double]
        var tolerance: [String: Double]
    }
    enum Value: Decodable {
        case number(Double)
        case text(String)
        init(from decoder: any Decoder) throws {
            let container = try decoder.singleValueContainer()
            if let number = try? container.decode(Double.self) {
                self = .number(number)
            } else {
                self = .text(try container.decode(String.self))
            }
        }
        var number: Double { if case .number(let value) = self { value } else { .nan } }
    }
    var cases: [Case]

    static func load() throws -> VectorFile {
        let url = try #require(
            Bundle.module.url(forResource: "gaussian", withExtension: "json", subdirectory: "Fixtures")
        )
        return try JSONDecoder().decode(VectorFile.self, from: Data(contentsOf: url))
    }
}

struct GaussianAccountantTests {
    @Test func everyReferenceCaseIsMet() throws {
        let cases = try VectorFile.load().cases
        #expect(cases.count == 10)
        for item in cases {
            func parameter(_ name: String) -> Double { item.params[name]?.number ?? .nan }
            func expectClose(_ value: Double, _ name: String) throws {
                let expected = try #require(item.expect[name])
                let tolerance = (item.tolerance["rel"] ?? 0) * abs(expected) + (item.tolerance["abs"] ?? 0)
                #expect(abs(value - expected) <= tolerance, "\(item.id): \(name) is \(value), not \(expected)")
            }
            switch item.kind {
            case "gaussian_epsilon":
                let z = parameter("sigma") / parameter("sensitivity")
                try expectClose(GaussianAccountant.epsilon(delta: parameter("delta"), noiseMultiplier: z), "epsilon")
            case "gaussian_delta":
                let z = parameter("sigma") / parameter("sensitivity")
                try expectClose(GaussianAccountant.delta(epsilon: parameter("epsilon"), noiseMultiplier: z), "delta")
            case "gaussian_sigma":
                let (epsilon, delta) = (parameter("epsilon"), parameter("delta"))
                let z = try GaussianAccountant.noiseMultiplier(epsilon: epsilon, delta: delta)
                try expectClose(z * parameter("sensitivity"), "sigma_analytic")
                if epsilon < 1 {
                    let classical = try GaussianAccountant.classicalNoiseMultiplier(epsilon: epsilon, delta: delta)
                    try expectClose(classical, "sigma_classical")
                } else {
                    #expect(throws: PrivacyError.self) {
                        try GaussianAccountant.classicalNoiseMultiplier(epsilon: epsilon, delta: delta)
                    }
                }
            case "local_dp_gaussian":
                let z = try GaussianAccountant.noiseMultiplier(epsilon: parameter("epsilon"), delta: parameter("delta"))
                let grid = try NoiseGrid(
                    clippingNorm: parameter("clip"),
                    noiseMultiplier: z,
                    parameterCount: 10,
                    isLocal: true
                )
                let deviation = grid.step * IntegerGaussianSampler.standardDeviation
                try expectClose(deviation, "client_noise_std")
                try expectClose(deviation / parameter("clients").squareRoot(), "mean_noise_std")
            default: Issue.record("unknown kind \(item.kind)")
            }
        }
    }

    @Test func costGrowsWithTheCapAndNotWithTheRounds() {
        func epsilon(rounds: Int, cap: Int) -> Double {
            ParticipationCappedAccountant.epsilon(
                of: [.init(noiseMultiplier: 1, participationCap: cap, roundCount: rounds, parameterCount: 10_000)],
                delta: 1e-5
            )
        }
        #expect(epsilon(rounds: 0, cap: 1) == 0)
        #expect(abs(epsilon(rounds: 1, cap: 1) - 4.37717809568) < 1e-3)
        #expect(abs(epsilon(rounds: 50, cap: 1) - epsilon(rounds: 1, cap: 1)) < 1e-3)
        // Four releases at z = 1 are one at z = 1/2; one run's cost and another's add in 1/z².
        #expect(abs(epsilon(rounds: 50, cap: 4) - GaussianAccountant.epsilon(delta: 1e-5, noiseMultiplier: 0.5)) < 1e-2)
        let twoRuns = ParticipationCappedAccountant.epsilon(
            of: [
                .init(noiseMultiplier: 1, participationCap: 1, roundCount: 9, parameterCount: 10),
                .init(noiseMultiplier: 2, participationCap: 2, roundCount: 9, parameterCount: 10),
            ],
            delta: 1e-5
        )
        #expect(abs(twoRuns - GaussianAccountant.epsilon(delta: 1e-5, noiseMultiplier: (1 / 1.5).squareRoot())) < 1e-3)
    }

    @Test func theSamplersErrorIsTakenOffDelta() {
        let charge = { (dimension: Int) in
            ParticipationCappedAccountant.epsilon(
                of: [.init(noiseMultiplier: 1, participationCap: 1, roundCount: 1, parameterCount: dimension)],
                delta: 1e-8
            )
        }
        #expect(charge(1 << 40) > charge(1))
        #expect(charge(1 << 60) == .infinity)
    }
}
