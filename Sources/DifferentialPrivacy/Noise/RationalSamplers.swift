package import Crypto
import Tensors

/// Exact samplers that use whole numbers and uniform bits only.
///
/// Source: Canonne, Kamath and Steinke 2020, arXiv:2004.00010, Algorithms 1 to 3. No floating point is involved, so the
/// distributions are exactly those of the proofs. The running time depends on the drawn values, so noise is not made while a peer
/// waits for an answer.
extension RandomStream {
    /// True with probability e^{−a/b}, for any a ≥ 0 and b > 0: Algorithm 1.
    mutating func bernoulliExponential(_ a: UInt128, _ b: UInt128) throws(PrivacyError) -> Bool {
        var rest = a
        while rest > b {
            guard try bernoulliExponentialUnit(1, 1) else { return false }
            rest -= b
        }
        return try bernoulliExponentialUnit(rest, b)
    }

    /// The alternating series for a ≤ b: true if the first k with a failed Bernoulli(a/(kb)) is odd.
    private mutating func bernoulliExponentialUnit(_ a: UInt128, _ b: UInt128) throws(PrivacyError) -> Bool {
        var k: UInt128 = 1
        while try bernoulli(a, b * k) { k += 1 }
        return k % 2 == 1
    }

    /// True with probability a/b, for a ≤ b < 2¹²⁷.
    private mutating func bernoulli(_ a: UInt128, _ b: UInt128) throws(PrivacyError) -> Bool {
        if b <= UInt128(UInt64.max) { return UInt128(try below(UInt64(b))) < a }
        // Uniform on the power of two above b, by rejection.
        let mask = b == 0 ? 0 : UInt128.max >> UInt128(b.leadingZeroBitCount)
        while true {
            let value = (UInt128(try next()) << 64 | UInt128(try next())) & mask
            if value < b { return value < a }
        }
    }

    /// The discrete Laplace `P(k) ∝ e^{−|k|/t}` for a whole t ≥ 1: Algorithm 2.
    mutating func discreteLaplace(scale t: UInt64) throws(PrivacyError) -> Int64 {
        while true {
            let remainder = try below(t)
            guard try bernoulliExponential(UInt128(remainder), UInt128(t)) else { continue }
            var quotient: UInt64 = 0
            while try bernoulliExponentialUnit(1, 1) { quotient += 1 }
            let magnitude = Int64(remainder + t * quotient)
            let isNegative = try next() & 1 == 1
            if isNegative && magnitude == 0 { continue }
            return isNegative ? -magnitude : magnitude
        }
    }

    /// The discrete Gaussian with `σ² = numerator/denominator`: Algorithm 3.
    mutating func discreteGaussian(
        varianceNumerator n: UInt64,
        denominator d: UInt64,
        laplaceScale t: UInt64
    ) throws(PrivacyError) -> Int64 {
        while true {
            let value = try discreteLaplace(scale: t)
            // Accept with exp(−(|y| − σ²/t)²/(2σ²)) = exp(−(|y|·d·t − n)²/(2·n·d·t²)).
            let left = UInt128(value.magnitude) * UInt128(d) * UInt128(t)
            let gap = left > UInt128(n) ? left - UInt128(n) : UInt128(n) - left
            let scale = 2 * UInt128(n) * UInt128(d) * UInt128(t) * UInt128(t)
            if try bernoulliExponential(gap * gap, scale) { return value }
        }
    }
}

/// Exact integer noise for small vectors and small scales: discrete Laplace and discrete Gaussian.
///
/// Every block of 256 coordinates has its own stream, so chunks and threads do not change the result.
public struct ExactIntegerSampler: Sendable {
    /// The distribution of the integers.
    public enum Distribution: Hashable, Sendable {
        /// `P(k) ∝ e^{−|k|/t}`.
        case laplace(scale: UInt64)
        /// `P(k) ∝ e^{−k²/(2σ²)}` with σ² a fraction.
        case gaussian(varianceNumerator: UInt64, denominator: UInt64)
    }

    private let key: SymmetricKey
    private let distribution: Distribution
    private static let blockLength = 256

    /// A sampler with a fresh key, for one release.
    ///
    /// - Throws: ``PrivacyError/invalidParameter(name:value:allowed:)`` unless 1 ≤ t ≤ 2⁴⁰, and 0 < σ² ≤ 2²⁰ with a numerator of at most
    ///   2³⁰ and a denominator of at most 2²⁰.
    public init(_ distribution: Distribution) throws(PrivacyError) {
        try self.init(distribution, testKey: SymmetricKey(size: .bits256))
    }

    /// A sampler with a known key: for tests only.
    package init(_ distribution: Distribution, testKey: SymmetricKey) throws(PrivacyError) {
        try self.init(distribution, releaseKey: testKey)
    }

    /// A sampler with the key of one release, derived from its ``NoiseKey``.
    package init(_ distribution: Distribution, releaseKey: SymmetricKey) throws(PrivacyError) {
        switch distribution {
        case .laplace(let t):
            guard (1...(1 << 40)).contains(t) else {
                throw .invalidParameter(name: "scale", value: Double(t), allowed: "1 to 2^40")
            }
        case .gaussian(let n, let d):
            // The largest product in the sampler must fit 128 bits, also for improbably large values.
            guard n > 0, d > 0, n <= 1 << 30, d <= 1 << 20, n / d <= 1 << 20 else {
                throw .invalidParameter(
                    name: "variance",
                    value: Double(n) / Double(d),
                    allowed: "more than 0 and at most 2^20, as a fraction under 2^30 over 2^20"
                )
            }
        }
        self.distribution = distribution
        key = releaseKey
    }

    /// Adds one noise integer to each element; element `i` is coordinate `firstCoordinate + i`.
    ///
    /// - Parameters:
    ///   - sums: Integers in units of the grid step.
    ///   - firstCoordinate: The coordinate of the first element, a multiple of 256.
    /// - Throws: ``PrivacyError/randomSourceFailed``.
    public func addNoise(to sums: inout [Int64], firstCoordinate: Int = 0) throws(PrivacyError) {
        precondition(firstCoordinate.isMultiple(of: Self.blockLength), "blocks begin at multiples of 256")
        let laplaceScale = Self.laplaceScale(of: distribution)
        try sums.withUnsafeMutableBufferPointer { (buffer) throws(PrivacyError) in
            try Parallel.blocks(of: buffer, size: Self.blockLength) { (block, part) throws(PrivacyError) in
                let stream = UInt64((firstCoordinate + block.lowerBound) / Self.blockLength)
                try addBlock(to: part, stream: stream, laplaceScale)
            }
        }
    }

    private func addBlock(
        to sums: UnsafeMutableBufferPointer<Int64>,
        stream number: UInt64,
        _ laplaceScale: UInt64
    ) throws(PrivacyError) {
        var stream = RandomStream(key: key, stream: number)
        defer { stream.wipe() }
        for index in sums.indices {
            switch distribution {
            case .laplace(let t): sums[index] += try stream.discreteLaplace(scale: t)
            case .gaussian(let n, let d):
                sums[index] += try stream.discreteGaussian(
                    varianceNumerator: n,
                    denominator: d,
                    laplaceScale: laplaceScale
                )
            }
        }
    }

    /// `⌊σ⌋ + 1`, without floating point.
    private static func laplaceScale(of distribution: Distribution) -> UInt64 {
        guard case .gaussian(let n, let d) = distribution else { return 1 }
        var root: UInt64 = 0
        while (root + 1) * (root + 1) * d <= n { root += 1 }
        return root + 1
    }
}
