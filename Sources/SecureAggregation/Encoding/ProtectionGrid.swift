import DifferentialPrivacy

/// The numbers of a session that follow from the terms of a run: server and device both compute them, and neither copies them.
package struct ProtectionGrid: Equatable, Sendable {
    /// What a run says about bounds and noise.
    package enum Terms: Equatable, Sendable {
        /// Without noise: coordinates are cut to ±`valueBound`, and the whole update to K grid units if `norm` gives one.
        case plain(valueBound: Double, norm: UInt64?)
        /// Gaussian noise of z·C at each party; `scale` is Σ* of the exact sampler, and absent for the one of any size.
        case gaussian(clippingNorm: Double, noiseMultiplier: Double, scale: Int?)
    }

    package let terms: Terms
    /// b.
    package let width: RingWidth
    /// d.
    package let coordinateCount: Int
    /// n_max.
    package let maximum: UInt32
    /// γ, in parameter units.
    package let step: Double
    /// B, grid units.
    package let coordinateBound: UInt64
    /// K, grid units.
    package let norm: UInt64
    /// Σ*, grid units; 0 without noise.
    package let noiseDeviation: Double
    package let noise: SessionDocument.Noise
    package var measure: SessionDocument.Measure { .l2 }

    /// The largest B without noise: a finer grid than that says nothing more about a `Float`.
    private static let plainCoordinateLimit: UInt64 = 1 << 40
    /// The largest K: sessions are asked for in JSON, whose whole numbers are exact below 2⁵³.
    private static let normLimit: UInt64 = (1 << 53) - 1

    private let grid: NoiseGrid

    /// - Parameters:
    ///   - terms: Bounds and noise.
    ///   - width: b.
    ///   - coordinateCount: d.
    ///   - maximum: n_max.
    /// - Throws: ``SecureAggregationError`` `out_of_range` if no grid has room for `maximum` updates, or a number is out of range.
    package init(
        _ terms: Terms,
        width: RingWidth,
        coordinateCount: Int,
        maximum: UInt32
    ) throws(SecureAggregationError) {
        guard coordinateCount > 0, coordinateCount <= 1 << 40, maximum > 0 else {
            throw SecureAggregationError(.outOfRange, "a sum has 1 to 2⁴⁰ coordinates and at least one update")
        }
        (self.terms, self.width, self.coordinateCount, self.maximum) = (terms, width, coordinateCount, maximum)
        switch terms {
        case .plain(let valueBound, let norm):
            guard valueBound > 0, valueBound.isFinite, norm.map({ (1...1 << 48).contains($0) }) ?? true else {
                throw SecureAggregationError(.outOfRange, "the bound of a coordinate is positive, and K is under 2⁴⁸")
            }
            (noise, noiseDeviation) = (.none, 0)
            let root = Self.ceilingRoot(UInt64(coordinateCount))
            let most = norm ?? min(Self.plainCoordinateLimit, Self.normLimit / root)
            coordinateBound = SessionDocument.largestCoordinateBound(
                width: width,
                norm: most,
                noise: .none,
                noiseDeviation: 0,
                maximum: maximum
            )
            step = coordinateBound > 0 ? valueBound / Double(coordinateBound) : 0
            self.norm = norm ?? coordinateBound * root
            grid = NoiseGrid(step: step, boundWithoutNoise: self.norm)
        case .gaussian(let clippingNorm, let noiseMultiplier, let scale):
            do throws(PrivacyError) {
                grid = try NoiseGrid(
                    clippingNorm: clippingNorm,
                    noiseMultiplier: noiseMultiplier,
                    parameterCount: coordinateCount,
                    distribution: scale.map { .discreteGaussian(scale: $0) } ?? .gaussian
                )
            } catch {
                throw SecureAggregationError(.outOfRange, "\(error)")
            }
            noise = .gaussian
            noiseDeviation = scale.map { Double($0) } ?? IntegerGaussianSampler.standardDeviation
            (step, norm) = (grid.step, grid.norm)
            coordinateBound = SessionDocument.largestCoordinateBound(
                width: width,
                norm: grid.norm,
                noise: .gaussian,
                noiseDeviation: noiseDeviation,
                maximum: maximum
            )
        }
        guard coordinateBound > 0, step > 0, step.isFinite else {
            throw SecureAggregationError(
                .outOfRange,
                "a ring of \(width.rawValue) bits has no room for \(maximum) updates with noise: take more bits, or fewer clients"
            )
        }
    }

    /// The integers of a device's update, within all bounds.
    ///
    /// - Parameter values: Shape `[coordinateCount]`, parameter units.
    /// - Returns: Shape `[coordinateCount]`, grid units.
    /// - Throws: ``SecureAggregationError`` `out_of_range` if a value is not finite or their number is another.
    package func encode(_ values: [Float]) throws(SecureAggregationError) -> [Int64] {
        guard values.count == coordinateCount else {
            throw SecureAggregationError(
                .outOfRange,
                "the update has \(values.count) of \(coordinateCount) coordinates"
            )
        }
        var values = values
        if case .plain(let bound, _) = terms {
            // What is not finite passes, and the encoder refuses it.
            for index in values.indices where values[index].isFinite && values[index].magnitude > Float(bound) {
                values[index] = values[index] < 0 ? -Float(bound) : Float(bound)
            }
        }
        return try ContributionEncoder(grid: grid, coordinateBound: coordinateBound).encode([.init(values)])
    }

    /// The document's fields whose values do not follow from these terms; none if the document fits.
    package func differences(in document: SessionDocument) -> [String] {
        let found: [(String, Bool)] = [
            ("b", document.width == width), ("d", document.coordinateCount == UInt64(coordinateCount)),
            ("n_max", document.maximum == maximum), ("step", document.step.bitPattern == step.bitPattern),
            ("B", document.coordinateBound == coordinateBound), ("K", document.norm == norm),
            ("Σ*", document.noiseDeviation.bitPattern == noiseDeviation.bitPattern),
            ("measure", document.measure == measure), ("noise", document.noise == noise),
        ]
        return found.filter { !$0.1 }.map(\.0)
    }

    /// z that each party's ledger charges: Σ*/K.
    package var noiseMultiplier: Double { noiseDeviation / Double(norm) }

    /// B·step, the largest coordinate of an update in parameter units.
    package var largestValue: Double { Double(coordinateBound) * step }

    /// The least whole number whose square is at least `value`.
    private static func ceilingRoot(_ value: UInt64) -> UInt64 {
        var root = UInt64(Double(value).squareRoot())
        while root * root < value { root += 1 }
        while root > 1, (root - 1) * (root - 1) >= value { root -= 1 }
        return root
    }
}
