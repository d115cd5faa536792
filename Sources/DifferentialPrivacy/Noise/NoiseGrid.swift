package import Crypto

/// The distribution of noise.
public enum NoiseDistribution: Hashable, Sendable {
    /// ``IntegerGaussianSampler``: Σ* ≈ 1.2586·10⁷ grid units, for vectors of any size.
    case gaussian
    /// Discrete Laplace with a scale of 2³² grid units: pure differential privacy, for small vectors.
    case laplace
    /// The exact discrete Gaussian with a scale of 1 to 1000 grid units, for small vectors on a coarse grid.
    case discreteGaussian(scale: Int)

    /// The norm in which a contribution is bounded.
    public var norm: ContributionNorm {
        if case .laplace = self { .l1 } else { .l2 }
    }

    /// The scale in grid units: the standard deviation of the Gaussian ones, t of the Laplace one.
    var scale: Double {
        switch self {
        case .gaussian: IntegerGaussianSampler.standardDeviation
        case .laplace: Double(Self.laplaceScale)
        case .discreteGaussian(let scale): Double(scale)
        }
    }

    static let laplaceScale: UInt64 = 1 << 32
    /// The most coordinates for the exact samplers, which make a few hundred thousand draws a second.
    static let exactParameterLimit = 1 << 20
}

/// The norm that bounds a contribution.
public enum ContributionNorm: Hashable, Sendable {
    /// The sum of magnitudes.
    case l1
    /// The root of the sum of squares.
    case l2
}

/// The integer grid on which clipped updates are summed and noised.
///
/// The step is γ = z·S/Σ, with Σ the noise's scale in grid units and S the sensitivity: C when a client's contribution may
/// be replaced by nothing (`central`), 2C when it may be replaced by any other (`local`). On the grid a contribution's norm
/// is at most K, checked exactly in integers, so that floating-point rounding cannot break the bound.
public struct NoiseGrid: Equatable, Sendable {
    /// γ, in parameter units.
    public let step: Double
    /// K, in grid units.
    public let norm: UInt64
    /// z: scale of the noise over sensitivity.
    public let noiseMultiplier: Double
    /// The noise's distribution.
    public let distribution: NoiseDistribution

    /// Makes the grid.
    ///
    /// - Parameters:
    ///   - clippingNorm: C, in parameter units; an L1 norm for Laplace noise.
    ///   - noiseMultiplier: z, from 0.1 to 10,000.
    ///   - parameterCount: The number of noised coordinates d of one release.
    ///   - isLocal: Whether the sensitivity is 2C.
    ///   - distribution: The noise's distribution.
    /// - Throws: ``PrivacyError/invalidParameter(name:value:allowed:)``,
    ///   ``PrivacyError/dimensionTooLarge(parameterCount:limit:)`` unless K ≥ 8√d (8d in L1). Otherwise rounding to the grid would use
    ///   up much of the bound.
    public init(
        clippingNorm: Double,
        noiseMultiplier: Double,
        parameterCount: Int,
        isLocal: Bool = false,
        distribution: NoiseDistribution = .gaussian
    ) throws(PrivacyError) {
        guard clippingNorm > 0, clippingNorm.isFinite else {
            throw .invalidParameter(name: "clippingNorm", value: clippingNorm, allowed: "more than 0")
        }
        guard (0.1...10_000).contains(noiseMultiplier) else {
            throw .invalidParameter(name: "noiseMultiplier", value: noiseMultiplier, allowed: "0.1 to 10000")
        }
        if case .discreteGaussian(let scale) = distribution, !(1...1000).contains(scale) {
            throw .invalidParameter(name: "noise_scale", value: Double(scale), allowed: "1 to 1000")
        }
        let factor = isLocal ? 2.0 : 1.0
        let scale = distribution.scale
        step = noiseMultiplier * factor * clippingNorm / scale
        norm = UInt64(scale / (factor * noiseMultiplier))
        self.noiseMultiplier = noiseMultiplier
        self.distribution = distribution
        try checkDimension(parameterCount)
    }

    /// A grid with a bound on the L2 norm and without noise: it promises no privacy.
    ///
    /// - Parameters:
    ///   - step: γ, in parameter units.
    ///   - bound: K, in grid units.
    package init(step: Double, boundWithoutNoise bound: UInt64) {
        self.init(step: step, norm: bound, noiseMultiplier: 0, distribution: .gaussian)
    }

    private init(step: Double, norm: UInt64, noiseMultiplier: Double, distribution: NoiseDistribution) {
        self.step = step
        self.norm = norm
        self.noiseMultiplier = noiseMultiplier
        self.distribution = distribution
    }

    private func checkDimension(_ count: Int) throws(PrivacyError) {
        let ratio = Double(norm) / 8
        var limit = Int(min(0x1p62, distribution.norm == .l1 ? ratio : ratio * ratio))
        if distribution != .gaussian { limit = min(limit, NoiseDistribution.exactParameterLimit) }
        guard count <= limit else { throw .dimensionTooLarge(parameterCount: count, limit: limit) }
    }

    /// The same bound on a grid with a step `factor` times as large.
    ///
    /// - Throws: ``PrivacyError/dimensionTooLarge(parameterCount:limit:)`` unless K ≥ 8√d there too.
    func coarsened(by factor: UInt64, parameterCount: Int) throws(PrivacyError) -> NoiseGrid {
        let coarse = NoiseGrid(
            step: step * Double(factor),
            norm: norm / factor,
            noiseMultiplier: noiseMultiplier,
            distribution: distribution
        )
        try coarse.checkDimension(parameterCount)
        return coarse
    }

    /// The grid of one part of a vector whose clipping norm is `√share` of the whole.
    public func part(share: Double) -> NoiseGrid {
        NoiseGrid(
            step: step,
            norm: UInt64(Double(norm) * share.squareRoot()),
            noiseMultiplier: noiseMultiplier,
            distribution: distribution
        )
    }

    /// Adds the noise of one release, with a fresh key that is not kept.
    ///
    /// - Throws: ``PrivacyError/randomSourceFailed``.
    public func addNoise(to sums: inout [Int64]) throws(PrivacyError) {
        try addNoise(to: &sums, releaseKey: SymmetricKey(size: .bits256))
    }

    /// Adds the noise of one release with a given key, which must serve no other release.
    ///
    /// - Throws: ``PrivacyError/randomSourceFailed``.
    package func addNoise(to sums: inout [Int64], releaseKey key: SymmetricKey) throws(PrivacyError) {
        switch distribution {
        case .gaussian: try IntegerGaussianSampler(releaseKey: key).addNoise(to: &sums)
        case .laplace:
            try ExactIntegerSampler(.laplace(scale: NoiseDistribution.laplaceScale), releaseKey: key)
                .addNoise(to: &sums)
        case .discreteGaussian(let scale):
            try ExactIntegerSampler(
                .gaussian(varianceNumerator: UInt64(scale * scale), denominator: 1),
                releaseKey: key
            ).addNoise(to: &sums)
        }
    }

    /// Rounds a value to the grid.
    ///
    /// A magnitude over 2K becomes 2K, and the check of the norm then shrinks it.
    public func quantize(_ value: Float, scale: Double = 1) -> Int64 {
        let scaled = (Double(value) * scale / step).rounded(.toNearestOrEven)
        let reach = Double(norm) * 2
        return Int64(max(-reach, min(reach, scaled)))
    }

    /// Rounds a block of values to the grid as ``quantize(_:scale:)`` does, in a loop that vectorises.
    public func quantize(
        _ values: UnsafeBufferPointer<Float>,
        scale: Double,
        into result: UnsafeMutablePointer<Int64>
    ) {
        let reach = Double(norm) * 2
        guard reach < 0x1p51 else {
            for index in 0..<values.count { result[index] = quantize(values[index], scale: scale) }
            return
        }
        // Adding 1.5 · 2⁵² rounds to the nearest even integer. The reach is a whole number, so clamping before rounding gives the same.
        let magic = 0x1.8p52
        let magicBits = Int64(bitPattern: magic.bitPattern)
        for index in 0..<values.count {
            let scaled = Double(values[index]) * scale / step
            let cut = max(-reach, min(reach, scaled))
            result[index] = Int64(bitPattern: (cut + magic).bitPattern) &- magicBits
        }
    }

    /// The factor that brings a contribution under the bound; 1 for a contribution within it.
    ///
    /// - Parameter measure: The exact sum of squares, or of magnitudes for a bound on the L1 norm.
    /// - Returns: From 0 to 1.
    public func shrinkFactor(measure: UInt128) -> Double {
        switch distribution.norm {
        case .l1: measure <= UInt128(norm) ? 1 : Double(norm) / Double(measure) * (1 - 0x1p-20)
        case .l2:
            measure <= UInt128(norm) * UInt128(norm)
                ? 1 : Double(norm) / Double(measure).squareRoot() * (1 - 0x1p-20)
        }
    }

    /// Quantises a whole vector with the exact check.
    ///
    /// - Returns: Integers with a norm of at most `norm`.
    public func quantize(_ values: [Float]) -> [Int64] {
        var integers = values.map { quantize($0) }
        let isL1 = distribution.norm == .l1
        let measure = integers.reduce(UInt128(0)) { sum, value in
            let magnitude = UInt128(value.magnitude)
            return sum + (isL1 ? magnitude : magnitude * magnitude)
        }
        let factor = shrinkFactor(measure: measure)
        if factor < 1 {
            // Truncation toward zero cannot raise the norm.
            for index in integers.indices { integers[index] = Int64(Double(integers[index]) * factor) }
        }
        return integers
    }
}
