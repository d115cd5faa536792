import Crypto
import Foundation
import Testing

@testable import DifferentialPrivacy

struct IntegerGaussianSamplerTests {
    private struct Reference: Decodable {
        struct Example: Decodable {
            var first16Samples: [Int64]
            var sumOfFirst200000Samples: Int64
            var sumOfSquaresOfFirst200000Samples: String
        }
        var example: Example
        var thresholdsSha256NewlineJoined: String
    }

    private static let key = SymmetricKey(data: (0..<32).map { UInt8($0) })

    private func reference() throws -> Reference {
        let url = try #require(
            Bundle.module.url(forResource: "sampler-table", withExtension: "json", subdirectory: "Fixtures")
        )
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        return try decoder.decode(Reference.self, from: Data(contentsOf: url))
    }

    @Test func tableHasThePublishedDigest() throws {
        let lines = DiscreteGaussianTable.halves.map { half in
            [half.high, half.low].map { word in
                let digits = String(word, radix: 16)
                return String(repeating: "0", count: 16 - digits.count) + digits
            }.joined()
        }
        let digest = SHA256.hash(data: Data(lines.joined(separator: "\n").utf8))
        #expect(
            digest.map { String(format: "%02x", $0) }.joined() == (try reference().thresholdsSha256NewlineJoined)
        )
    }

    @Test func knownAnswers() throws {
        let example = try reference().example
        var noise = [Int64](repeating: 0, count: 200_000)
        try IntegerGaussianSampler(testKey: Self.key).addNoise(to: &noise)
        #expect(Array(noise.prefix(16)) == example.first16Samples)
        #expect(noise.reduce(0, +) == example.sumOfFirst200000Samples)
        let squares = noise.reduce(UInt128(0)) { $0 + UInt128($1.magnitude) * UInt128($1.magnitude) }
        #expect(String(squares) == example.sumOfSquaresOfFirst200000Samples)
    }

    @Test func anyChunkingGivesTheSameNoise() throws {
        let sampler = IntegerGaussianSampler(testKey: Self.key)
        var whole = [Int64](repeating: 5, count: 20_000)
        try sampler.addNoise(to: &whole)
        var pieces: [Int64] = []
        for (start, end) in [(0, 1), (1, 8191), (8191, 8200), (8200, 20_000)] {
            var piece = [Int64](repeating: 5, count: end - start)
            try sampler.addNoise(to: &piece, firstCoordinate: start)
            pieces += piece
        }
        #expect(pieces == whole)
    }

    @Test func freshSamplersDiffer() throws {
        var first = [Int64](repeating: 0, count: 8)
        var second = first
        try IntegerGaussianSampler().addNoise(to: &first)
        try IntegerGaussianSampler().addNoise(to: &second)
        // Two draws of eight coordinates agree with a chance under 1e-50.
        #expect(first != second)
    }

    @Test func gridBoundsEveryContributionExactly() throws {
        let grid = try NoiseGrid(clippingNorm: 0.5, noiseMultiplier: 0.8, parameterCount: 1000)
        for scale in [0.001, 0.5, 0.50001, 3, 1e6, 1e30] as [Float] {
            let values = (0..<1000).map { scale * Float(sin(Double($0) * 1.7)) }
            let squared = grid.quantize(values).reduce(UInt128(0)) {
                $0 + UInt128($1.magnitude) * UInt128($1.magnitude)
            }
            #expect(squared <= UInt128(grid.norm) * UInt128(grid.norm), "scale \(scale)")
        }
        #expect(throws: PrivacyError.self) {
            try NoiseGrid(clippingNorm: 1, noiseMultiplier: 10_000, parameterCount: 1_000_000)
        }
    }

    @Test func localNoiseHasTwiceTheSensitivity() throws {
        // 20,000 coordinates: the sample variance is within 8 standard deviations (8 √(2/n) = 8 %) of the true one;
        // the key is fixed, and for a random key the false-alarm chance would be under 1e-14.
        var update = [Float](repeating: 0, count: 20_000)
        try LocalNoise.privatize(
            &update,
            clippingNorm: 0.5,
            noiseMultiplier: 3
        ) { sums, _ throws(PrivacyError) in try IntegerGaussianSampler(testKey: Self.key).addNoise(to: &sums) }
        let variance = update.reduce(0.0) { $0 + Double($1) * Double($1) } / 20_000
        #expect(abs(variance / 9 - 1) < 0.08)
        var bad: [Float] = [1, .nan]
        #expect(throws: PrivacyError.notFinite(index: 1)) {
            try LocalNoise.privatize(&bad, clippingNorm: 1, noiseMultiplier: 1)
        }
    }

    @Test func clippingKeepsShortVectorsAndScalesLongOnes() throws {
        var short: [Float] = [3, 4]
        #expect(try L2Clipping.clip(&short, norm: 5.5) == 5)
        #expect(short == [3, 4])
        var long: [Float] = [3, 4]
        try L2Clipping.clip(&long, norm: 1)
        #expect(abs(long[0] - 0.6) < 1e-6 && abs(long[1] - 0.8) < 1e-6)
    }
}
