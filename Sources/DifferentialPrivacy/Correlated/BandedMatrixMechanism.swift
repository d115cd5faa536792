/// A banded Toeplitz matrix mechanism: correlated noise `C⁻¹z` on the sums of a fixed number of rounds.
///
/// C is lower triangular with `c₀ ≥ c₁ ≥ … ≥ 0` on its diagonals. The release of all rounds together is one Gaussian
/// mechanism of sensitivity `sens(C)`, also when later rounds depend on earlier outputs: Denisov et al. 2022,
/// arXiv:2202.08312; bands: Choquette-Choo et al. 2023, arXiv:2306.08153. What breaks it: a client that takes part twice
/// within `minSeparation` rounds, a row of noise that is used for two releases, or a row that is drawn again.
public struct BandedMatrixMechanism: Codable, Hashable, Sendable {
    /// `c₀, c₁, …`: the band, by the distance from the diagonal.
    public let coefficients: [Double]
    /// n: rounds of the plan.
    public let roundCount: Int
    /// b: any two rounds of one client are at least this far apart.
    public let minSeparation: Int
    /// k: the most rounds of one client.
    public let maxParticipations: Int
    /// The most rounds of one mechanism: its sensitivity is a sum over all of them.
    public static let roundLimit = 1 << 22
    /// The most coefficients of one mechanism.
    public static let bandLimit = 4096

    /// Creates a mechanism.
    ///
    /// - Throws: ``PrivacyError/invalidParameter(name:value:allowed:)`` unless the coefficients are finite, start above 0,
    ///   never rise and stay at 0 or more (the worst pattern is proven for those), and the counts are 1 or more and within
    ///   ``roundLimit`` and ``bandLimit``.
    public init(
        coefficients: [Double],
        roundCount: Int,
        minSeparation: Int,
        maxParticipations: Int? = nil
    ) throws(PrivacyError) {
        var last = Double.greatestFiniteMagnitude
        for value in coefficients {
            guard value >= 0, value <= last, value.isFinite else {
                throw .invalidParameter(name: "coefficients", value: value, allowed: "finite, not rising, 0 or more")
            }
            last = value
        }
        guard let first = coefficients.first, first > 0 else {
            throw .invalidParameter(name: "coefficients", value: 0, allowed: "a first one of more than 0")
        }
        guard (1...Self.roundLimit).contains(roundCount) else {
            throw .invalidParameter(
                name: "round_count",
                value: Double(roundCount),
                allowed: "1 to \(Self.roundLimit)"
            )
        }
        guard coefficients.count <= Self.bandLimit else {
            throw .invalidParameter(
                name: "coefficients",
                value: Double(coefficients.count),
                allowed: "a band of \(Self.bandLimit) at most"
            )
        }
        try Require.positive("min_separation", Double(minSeparation))
        let reachable = (roundCount - 1) / minSeparation + 1
        let participations = min(maxParticipations ?? reachable, reachable)
        try Require.positive("max_participations", Double(participations))
        self.coefficients = coefficients
        self.roundCount = roundCount
        self.minSeparation = minSeparation
        self.maxParticipations = participations
    }

    /// The coefficients of the square root of the prefix-sum workload, `c_j = Π_{i≤j} (2i − 1)/(2i)`, cut to a band.
    public static func squareRootCoefficients(band: Int) -> [Double] {
        var result = [1.0]
        for j in 1..<max(1, band) { result.append(result[j - 1] * Double(2 * j - 1) / Double(2 * j)) }
        return result
    }

    /// `sens(C)²`: the squared norm of C's columns summed over the worst pattern {0, b, 2b, …}.
    ///
    /// Source: arXiv:2405.13763, Theorem 2, for non-negative, non-increasing coefficients. With a band of at most b the
    /// columns are orthogonal and this is the sum of their squared norms.
    public var sensitivitySquared: Double {
        var column = [Double](repeating: 0, count: roundCount)
        for participation in 0..<maxParticipations {
            let start = participation * minSeparation
            for (distance, value) in coefficients.enumerated() where start + distance < roundCount {
                column[start + distance] += value
            }
        }
        return column.reduce(0) { $0 + $1 * $1 }
    }

    /// The first coefficients of C⁻¹.
    public func inverseCoefficients(count: Int) -> [Double] {
        var result: [Double] = []
        for t in 0..<count {
            var value = t == 0 ? 1.0 : 0
            for j in 1..<max(1, min(coefficients.count, t + 1)) { value -= coefficients[j] * result[t - j] }
            result.append(value / coefficients[0])
        }
        return result
    }
}

/// Prefix sums by a binary tree of noises.
///
/// Source: Kairouz et al. 2021, arXiv:2103.00039, Appendix D: one participation touches one node a level.
public enum TreeAggregation {
    /// `⌈log₂(n + 1)⌉`: the nodes that one step touches.
    public static func depth(stepCount: Int) -> Int {
        Int.bitWidth - stepCount.leadingZeroBitCount
    }
}
