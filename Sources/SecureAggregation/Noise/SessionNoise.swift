package import Crypto
package import DifferentialPrivacy

/// The noise that one party adds to a session's sum, as the document names it by its distribution and Σ*.
///
/// Each party draws it from a key of its own, at its full size, whoever drops out.
package enum SessionNoise: Equatable, Sendable {
    case none
    /// `IntegerGaussianSampler`, for sums of any size.
    case gaussian
    /// The exact discrete Gaussian with σ from 1 to 1000, for at most ``exactCoordinateLimit`` coordinates.
    case discreteGaussian(deviation: UInt64)
    /// The exact discrete Laplace with a scale of 2³², for at most ``exactCoordinateLimit`` coordinates.
    case laplace

    /// The exact samplers make a few hundred thousand draws a second.
    package static let exactCoordinateLimit: UInt64 = 1 << 20
    private static let laplaceScale: UInt64 = 1 << 32
    /// Σ* of Laplace noise in documents: √2 times its scale.
    package static let laplaceDeviation = 2.0.squareRoot() * 0x1p32

    /// The noise that a document asks for.
    ///
    /// - Throws: ``SecureAggregationError`` `noise_unknown` for noise that no sampler of this program makes.
    package init(of document: SessionDocument) throws(SecureAggregationError) {
        try self.init(
            document.noise,
            deviation: document.noiseDeviation,
            coordinateCount: document.coordinateCount
        )
    }

    /// The noise of a grid: what the server adds by itself.
    ///
    /// - Throws: ``SecureAggregationError`` `noise_unknown`.
    package init(of grid: ProtectionGrid) throws(SecureAggregationError) {
        try self.init(grid.noise, deviation: grid.noiseDeviation, coordinateCount: UInt64(grid.coordinateCount))
    }

    private init(
        _ noise: SessionDocument.Noise,
        deviation: Double,
        coordinateCount: UInt64
    ) throws(SecureAggregationError) {
        switch noise {
        case .none: self = .none
        case .gaussian where deviation == IntegerGaussianSampler.standardDeviation: self = .gaussian
        case .gaussian:
            guard let whole = UInt64(exactly: deviation), (1...1000).contains(whole),
                coordinateCount <= Self.exactCoordinateLimit
            else {
                throw SecureAggregationError(
                    .noiseUnknown,
                    "Gaussian noise has a deviation of \(IntegerGaussianSampler.standardDeviation), or a whole one from 1 to "
                        + "1000 for at most \(Self.exactCoordinateLimit) coordinates"
                )
            }
            self = .discreteGaussian(deviation: whole)
        case .laplace:
            guard deviation == Self.laplaceDeviation, coordinateCount <= Self.exactCoordinateLimit else {
                throw SecureAggregationError(
                    .noiseUnknown,
                    "Laplace noise has a deviation of \(Self.laplaceDeviation), for at most \(Self.exactCoordinateLimit) "
                        + "coordinates"
                )
            }
            self = .laplace
        }
    }

    /// Adds the noise of the coordinates from `first` on, which is a multiple of 256.
    ///
    /// - Parameters:
    ///   - values: Grid units.
    ///   - first: The coordinate of the first value.
    ///   - key: Of this release, and of no other.
    /// - Throws: `PrivacyError.randomSourceFailed`; then the values must not be used.
    package func add(to values: inout [Int64], first: Int, key: SymmetricKey) throws(PrivacyError) {
        switch self {
        case .none: break
        case .gaussian: try IntegerGaussianSampler(releaseKey: key).addNoise(to: &values, firstCoordinate: first)
        case .discreteGaussian(let deviation):
            try ExactIntegerSampler(
                .gaussian(varianceNumerator: deviation * deviation, denominator: 1),
                releaseKey: key
            ).addNoise(to: &values, firstCoordinate: first)
        case .laplace:
            try ExactIntegerSampler(.laplace(scale: Self.laplaceScale), releaseKey: key)
                .addNoise(to: &values, firstCoordinate: first)
        }
    }

    /// The charge's z for a norm of K: Σ*/K, for Laplace noise its scale over K.
    package func multiplier(norm: UInt64) -> Double {
        switch self {
        case .none: 0
        case .gaussian: IntegerGaussianSampler.standardDeviation / Double(norm)
        case .discreteGaussian(let deviation): Double(deviation) / Double(norm)
        case .laplace: Double(Self.laplaceScale) / Double(norm)
        }
    }
}
