/// The integer grid on which clipped updates are summed and noised.
///
/// The step is γ = z·S/Σ*, with S the sensitivity: C when a client's contribution may be replaced by nothing (`central`),
/// 2C when it may be replaced by any other (`local`). On the grid a contribution's L2 norm is at most K, checked exactly
/// in integers, so that rounding in floating point cannot void the bound.
public struct NoiseGrid: Equatable, Sendable {
    /// γ, in parameter units.
    public let step: Double
    /// K, in grid units.
    public let norm: UInt64
    /// z: noise standard deviation over sensitivity.
    public let noiseMultiplier: Double

    /// Makes the grid.
    ///
    /// - Parameters:
    ///   - clippingNorm: C, in parameter units.
    ///   - noiseMultiplier: z, from 0.1 to 10,000.
    ///   - parameterCount: The number of noised coordinates d of one release.
    ///   - isLocal: Whether the sensitivity is 2C.
    /// - Throws: ``PrivacyError/invalidParameter(name:value:allowed:)``,
    ///   ``PrivacyError/dimensionTooLarge(parameterCount:limit:)`` unless K ≥ 8√d.
    public init(
        clippingNorm: Double,
        noiseMultiplier: Double,
        parameterCount: Int,
        isLocal: Bool = false
    ) throws(PrivacyError) {
        guard clippingNorm > 0, clippingNorm.isFinite else {
            throw .invalidParameter(name: "clippingNorm", value: clippingNorm, allowed: "more than 0")
        }
        guard (0.1...10_000).contains(noiseMultiplier) else {
            throw .invalidParameter(name: "noiseMultiplier", value: noiseMultiplier, allowed: "0.1 to 10000")
        }
        let factor = isLocal ? 2.0 : 1.0
        let scale = IntegerGaussianSampler.standardDeviation
        step = noiseMultiplier * factor * clippingNorm / scale
        norm = UInt64(scale / (factor * noiseMultiplier))
        self.noiseMultiplier = noiseMultiplier
        let limit = Int((Double(norm) / 8) * (Double(norm) / 8))
        guard parameterCount <= limit else { throw .dimensionTooLarge(parameterCount: parameterCount, limit: limit) }
    }

    private init(step: Double, norm: UInt64, noiseMultiplier: Double) {
        self.step = step
        self.norm = norm
        self.noiseMultiplier = noiseMultiplier
    }

    /// The same bound on a grid with a step `factor` times as large.
    ///
    /// - Throws: ``PrivacyError/dimensionTooLarge(parameterCount:limit:)`` unless K ≥ 8√d there too.
    func coarsened(by factor: UInt64, parameterCount: Int) throws(PrivacyError) -> NoiseGrid {
        let coarse = NoiseGrid(step: step * Double(factor), norm: norm / factor, noiseMultiplier: noiseMultiplier)
        let limit = Int((Double(coarse.norm) / 8) * (Double(coarse.norm) / 8))
        guard parameterCount <= limit else { throw .dimensionTooLarge(parameterCount: parameterCount, limit: limit) }
        return coarse
    }

    /// The grid of one part of a vector whose clipping norm is `√share` of the whole.
    public func part(share: Double) -> NoiseGrid {
        NoiseGrid(step: step, norm: UInt64(Double(norm) * share.squareRoot()), noiseMultiplier: noiseMultiplier)
    }

    /// Rounds a value to the grid; values beyond the grid's reach are cut, as the norm check would cut them.
    public func quantize(_ value: Float, scale: Double = 1) -> Int64 {
        let scaled = (Double(value) * scale / step).rounded(.toNearestOrEven)
        let reach = Double(norm) * 2
        return Int64(max(-reach, min(reach, scaled)))
    }

    /// Rounds a block of values to the grid, each as ``quantize(_:scale:)`` does, in a loop without calls.
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
        // Adding 1.5 · 2⁵² rounds to the nearest even integer; the reach is whole, so cutting before is cutting after.
        let magic = 0x1.8p52
        let magicBits = Int64(bitPattern: magic.bitPattern)
        for index in 0..<values.count {
            let scaled = Double(values[index]) * scale / step
            let cut = max(-reach, min(reach, scaled))
            result[index] = Int64(bitPattern: (cut + magic).bitPattern) &- magicBits
        }
    }

    /// The factor that brings a contribution under the bound: 1 when the exact sum of squares is within it.
    public func shrinkFactor(squaredNorm: UInt128) -> Double {
        let bound = UInt128(norm) * UInt128(norm)
        guard squaredNorm > bound else { return 1 }
        return Double(norm) / Double(squaredNorm).squareRoot() * (1 - 0x1p-20)
    }

    /// Quantises a whole vector with the exact check.
    ///
    /// - Returns: Integers with an L2 norm of at most `norm`.
    public func quantize(_ values: [Float]) -> [Int64] {
        var integers = values.map { quantize($0) }
        let squared = integers.reduce(UInt128(0)) { $0 + UInt128($1.magnitude) * UInt128($1.magnitude) }
        let factor = shrinkFactor(squaredNorm: squared)
        if factor < 1 {
            // Truncation toward zero cannot raise the norm.
            for index in integers.indices { integers[index] = Int64(Double(integers[index]) * factor) }
        }
        return integers
    }
}
