import Foundation

/// The releases of a banded matrix mechanism, round by round, exact up to the noise's own distribution.
///
/// The data's grid is 256 times coarser than the noise's, and coefficients are whole multiples of 1/256. So `y = Cx + z` is a sum of
/// integers, exactly the Gaussian mechanism on the integer grid. The release is `s = C⁻¹y`, computed by `s_t = y_t − Σ c_j s_{t−j}`
/// from released values only, which is post-processing whatever it rounds. The caller keeps the last rows of x, which are secret,
/// and of s.
public struct BandedReleases: Sendable {
    /// `256·c_j`, with `c_0 = 1`.
    public let integerCoefficients: [Int64]
    /// The grid of the data.
    public let dataGrid: NoiseGrid
    /// γ, the noise's step, in parameter units.
    public let noiseStep: Double

    static let denominatorBits = 8
    static let guardBits = 16

    /// One released row.
    public struct Row: Equatable, Sendable {
        /// Secret: the exact sum, in units of the data's grid.
        public var sums: [Int64]
        /// The release, in units of the noise's grid times 2⁻¹⁶.
        public var released: [Int64]

        /// Creates a row.
        public init(sums: [Int64], released: [Int64]) {
            self.sums = sums
            self.released = released
        }
    }

    /// Creates a mechanism.
    ///
    /// - Parameters:
    ///   - band: b̂, from 1 to 64: the number of coefficients.
    ///   - clippingNorm: C of one client in one round.
    ///   - noiseMultiplier: Standard deviation of one row of z over C.
    ///   - parameterCount: d.
    /// - Throws: ``PrivacyError``.
    public init(band: Int, clippingNorm: Double, noiseMultiplier: Double, parameterCount: Int) throws(PrivacyError) {
        guard (1...64).contains(band) else {
            throw .invalidParameter(name: "band", value: Double(band), allowed: "1 to 64")
        }
        let fine = try NoiseGrid(
            clippingNorm: clippingNorm,
            noiseMultiplier: noiseMultiplier,
            parameterCount: parameterCount
        )
        noiseStep = fine.step
        dataGrid = try fine.coarsened(by: 1 << UInt64(Self.denominatorBits), parameterCount: parameterCount)
        integerCoefficients = BandedMatrixMechanism.squareRootCoefficients(band: band).map {
            Int64(($0 * Double(1 << Self.denominatorBits)).rounded())
        }
    }

    /// The coefficients in use: rounded to multiples of 1/256.
    public static func coefficients(band: Int) -> [Double] {
        let unit = Double(1 << denominatorBits)
        return BandedMatrixMechanism.squareRootCoefficients(band: band).map { ($0 * unit).rounded() / unit }
    }

    /// Releases the next row.
    ///
    /// - Parameters:
    ///   - sums: x_t: shape `[d]`, units of the data's grid; every contribution within its norm.
    ///   - earlier: The rows before, newest first; band − 1 of them, fewer at the start.
    ///   - noise: z_t: shape `[d]`, from ``IntegerGaussianSampler``, drawn for this row only.
    /// - Returns: The row: its release is published, and both parts are kept for the rows that follow.
    public func release(_ sums: [Int64], earlier: [Row], noise: [Int64]) -> Row {
        precondition(sums.count == noise.count, "one noise integer per coordinate")
        var released = [Int64](repeating: 0, count: sums.count)
        let used = min(earlier.count, integerCoefficients.count - 1)
        for index in sums.indices {
            var y = Int128(integerCoefficients[0]) * Int128(sums[index]) + Int128(noise[index])
            var feedback: Int128 = 0
            for distance in 0..<used {
                let coefficient = Int128(integerCoefficients[distance + 1])
                y += coefficient * Int128(earlier[distance].sums[index])
                feedback += coefficient * Int128(earlier[distance].released[index])
            }
            let half: Int128 = 1 << Int128(Self.denominatorBits - 1)
            let value = (y << Int128(Self.guardBits)) - ((feedback + half) >> Int128(Self.denominatorBits))
            released[index] = Int64(clamping: value)
        }
        return Row(sums: sums, released: released)
    }

    /// A release in parameter units, shape `[d]`.
    public func values(of row: Row) -> [Double] {
        let unit = noiseStep / Double(1 << Self.guardBits)
        return row.released.map { Double($0) * unit }
    }
}
