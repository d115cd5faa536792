import Crypto
import Foundation
import Testing

@testable import DifferentialPrivacy

/// Section 10 of the specification: statistics of the noise with fixed keys.
///
/// All thresholds reject a right sampler with a chance under 1e-6 each for a random key (5 standard deviations, or a χ² at
/// 6 of its own); with the fixed keys below the outcome is always the same. `MARTLET_SAMPLER_DRAWS=10000000` draws as many as
/// the specification asks for, which takes minutes without optimisation.
struct SamplerStatisticsTests {
    private static let key = SymmetricKey(data: (0..<32).map { UInt8(200 - $0) })
    private static let count =
        ProcessInfo.processInfo.environment["MARTLET_SAMPLER_DRAWS"].flatMap { Int($0) } ?? 400_000
    /// Draws of the slower exact samplers.
    private static let exactCount = count / 20 * 3

    private static let noise: [Int64] = {
        var noise = [Int64](repeating: 0, count: count)
        try? IntegerGaussianSampler(testKey: key).addNoise(to: &noise)
        return noise
    }()

    /// Σ (o − e)²/e is within 6 standard deviations of its degrees of freedom: a chance under 1e-7 at these counts.
    private func expectChiSquare(_ observed: [Int], _ expected: [Double], _ what: String) {
        var (statistic, freedom) = (0.0, -1.0)
        var (restObserved, restExpected) = (0.0, 0.0)
        for (o, e) in zip(observed, expected) {
            guard e >= 20 else {
                restObserved += Double(o)
                restExpected += e
                continue
            }
            statistic += (Double(o) - e) * (Double(o) - e) / e
            freedom += 1
        }
        if restExpected >= 20 {
            statistic += (restObserved - restExpected) * (restObserved - restExpected) / restExpected
            freedom += 1
        }
        #expect(statistic < freedom + 6 * (2 * freedom).squareRoot() + 20, "\(what): \(statistic) of \(freedom)")
    }

    @Test func theBaseSamplerHasItsDistribution() throws {
        // Four base draws a coordinate, from the stream itself.
        let draws = 4 * Self.count
        var stream = RandomStream(key: Self.key, stream: 7)
        var counts = [Int](repeating: 0, count: 2401)
        var bytes = [UInt8](repeating: 0, count: 16)
        for _ in 0..<draws {
            let (low, high) = (try stream.next(), try stream.next())
            withUnsafeBytes(of: (low.littleEndian, high.littleEndian)) { bytes.replaceSubrange(0..<16, with: $0) }
            let value = bytes.withUnsafeBytes { IntegerGaussianSampler.base($0, at: 0) }
            counts[Int(value) + 1200] += 1
        }
        let pmf = try DiscreteGaussian(scale: 128)
        expectChiSquare(counts, (-1200...1200).map { pmf.probability($0) * Double(draws) }, "base")
        // Zero is not drawn twice as often, for both signs of it.
        let zero = pmf.probability(0) * Double(draws)
        #expect(abs(Double(counts[1200]) - zero) < 5 * zero.squareRoot())
        let negative = Double(counts[..<1200].reduce(0, +))
        let positive = Double(counts[1201...].reduce(0, +))
        #expect(abs(negative - positive) < 5 * (negative + positive).squareRoot())
    }

    @Test func momentsAndTailsAreThoseOfAGaussian() throws {
        let n = Double(Self.count)
        let scaled = Self.noise.map { Double($0) / IntegerGaussianSampler.standardDeviation }
        let mean = scaled.reduce(0, +) / n
        let variance = scaled.reduce(0) { $0 + $1 * $1 } / n
        let fourth = scaled.reduce(0) { $0 + $1 * $1 * $1 * $1 } / n
        #expect(abs(mean) <= 5 / n.squareRoot())
        #expect(abs(variance - 1) <= 5 * (2 / n).squareRoot())
        #expect(abs(fourth - 3) <= 5 * (96 / n).squareRoot())
        for sigma in [3.0, 4.0, 5.0] {
            let share = erfc(sigma / 2.0.squareRoot())
            let beyond = Double(scaled.count { abs($0) > sigma })
            #expect(abs(beyond - n * share) <= 5 * (n * share).squareRoot() + 1, "beyond \(sigma)")
        }
        // Kolmogorov and Smirnov: a distance of 2.8/√n has a chance of 2e^{−2·2.8²} < 4e-7.
        let sorted = scaled.sorted()
        var distance = 0.0
        for (index, value) in sorted.enumerated() where index.isMultiple(of: 50) {
            distance = max(distance, abs(erfc(-value / 2.0.squareRoot()) / 2 - Double(index) / n))
        }
        #expect(distance < 2.8 / n.squareRoot())
    }

    @Test func lowBitsAreUniformSoNoFloatingPointTookPart() {
        var counts = [Int](repeating: 0, count: 256)
        for value in Self.noise { counts[Int(value & 255)] += 1 }
        expectChiSquare(counts, [Double](repeating: Double(Self.count) / 256, count: 256), "low bits")
    }

    @Test func coordinatesAndReleasesAreUncorrelated() throws {
        let n = Double(Self.count)
        let scaled = Self.noise.map { Double($0) / IntegerGaussianSampler.standardDeviation }
        for lag in [1, 4, 16, 1024] {
            var sum = 0.0
            for index in lag..<scaled.count { sum += scaled[index] * scaled[index - lag] }
            #expect(abs(sum / n) <= 5 / n.squareRoot(), "lag \(lag)")
        }
        var other = [Int64](repeating: 0, count: 100_000)
        try IntegerGaussianSampler().addNoise(to: &other)
        var sum = 0.0
        for (left, right) in zip(other, Self.noise) { sum += Double(left) * Double(right) }
        #expect(abs(sum / Double(IntegerGaussianSampler.variance) / 1e5) <= 6 / 1e5.squareRoot())
    }

    @Test(arguments: [(9, 25), (1, 1), (16, 1), (625, 4)] as [(UInt64, UInt64)])
    func smallDiscreteGaussiansAreExact(_ n: UInt64, _ d: UInt64) throws {
        let draws = Self.exactCount
        var values = [Int64](repeating: 0, count: draws)
        try ExactIntegerSampler(.gaussian(varianceNumerator: n, denominator: d), testKey: Self.key).addNoise(
            to: &values
        )
        let pmf = try DiscreteGaussian(scale: (Double(n) / Double(d)).squareRoot())
        let reach = 200
        var counts = [Int](repeating: 0, count: 2 * reach + 1)
        for value in values { counts[Int(value) + reach] += 1 }
        expectChiSquare(counts, (-reach...reach).map { pmf.probability($0) * Double(draws) }, "σ² = \(n)/\(d)")
        let variance = values.reduce(0.0) { $0 + Double($1) * Double($1) } / Double(draws)
        #expect(abs(variance / pmf.variance - 1) < 6 * (2 / Double(draws)).squareRoot() + 0.01)
    }

    @Test(arguments: [1, 3, 40] as [UInt64])
    func discreteLaplaceIsExact(_ t: UInt64) throws {
        let draws = Self.exactCount
        var values = [Int64](repeating: 0, count: draws)
        try ExactIntegerSampler(.laplace(scale: t), testKey: Self.key).addNoise(to: &values)
        let ratio = exp(-1 / Double(t))
        let reach = 2000
        var counts = [Int](repeating: 0, count: 2 * reach + 1)
        for value in values { counts[Int(value) + reach] += 1 }
        let expected = (-reach...reach).map { (1 - ratio) / (1 + ratio) * pow(ratio, Double(abs($0))) * Double(draws) }
        expectChiSquare(counts, expected, "t = \(t)")
    }

    @Test func exactSamplersDoNotDependOnChunksAndRefuseWhatTheyCannotDraw() throws {
        let sampler = try ExactIntegerSampler(.gaussian(varianceNumerator: 16, denominator: 1), testKey: Self.key)
        var whole = [Int64](repeating: 0, count: 1000)
        try sampler.addNoise(to: &whole)
        var head = [Int64](repeating: 0, count: 512)
        var tail = [Int64](repeating: 0, count: 488)
        try sampler.addNoise(to: &head)
        try sampler.addNoise(to: &tail, firstCoordinate: 512)
        #expect(head + tail == whole)
        #expect(throws: PrivacyError.self) { try ExactIntegerSampler(.laplace(scale: 0)) }
        #expect(throws: PrivacyError.self) {
            try ExactIntegerSampler(.gaussian(varianceNumerator: 0, denominator: 1))
        }
        #expect(throws: PrivacyError.self) {
            try ExactIntegerSampler(.gaussian(varianceNumerator: 1, denominator: 0))
        }
    }
}
