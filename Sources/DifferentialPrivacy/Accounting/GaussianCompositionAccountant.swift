/// Exact composition of Gaussian mechanisms: `1/z² = Σ 1/zᵢ²`, then Balle and Wang 2018, Theorem 8.
///
/// The sum is also a filter: stopping before it passes the budget's own 1/z² gives the budget's (ε, δ) however the zᵢ
/// were chosen (Smith and Thakurta 2022, arXiv:2210.17520).
public struct GaussianCompositionAccountant: PrivacyAccountant {
    /// The accountant's name in documents.
    public static let name = "gaussian"
    /// Whether the bound holds for events that are chosen adaptively.
    public static let isFilter = true
    private var inverseSquare = 0.0

    /// An accountant without events.
    public init() {}

    /// Adds `count` releases of an event.
    public mutating func add(_ event: PrivacyEvent, count: Int) throws(PrivacyError) {
        try event.validate()
        guard let share = event.gaussianInverseSquare else { throw unsupported(event) }
        inverseSquare += Double(count) * share
    }

    /// z of the one mechanism that equals all events together; `nil` without events.
    public var noiseMultiplier: Double? { inverseSquare > 0 ? (1 / inverseSquare).squareRoot() : nil }

    /// The smallest ε shown for δ.
    public func epsilon(delta: Double) throws(PrivacyError) -> Double {
        try Require.delta(delta)
        return noiseMultiplier.map { GaussianAccountant.epsilon(delta: delta, noiseMultiplier: $0) } ?? 0
    }

    /// The smallest δ shown for ε.
    public func delta(epsilon: Double) throws(PrivacyError) -> Double {
        noiseMultiplier.map { GaussianAccountant.delta(epsilon: epsilon, noiseMultiplier: $0) } ?? 0
    }
}
