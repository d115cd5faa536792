/// Adam on the server: `v ← β₂ v + (1 − β₂) Δ̄²`.
///
/// Source: Reddi et al. 2021, arXiv:2003.00295, Algorithm 2 (β₁ = 0.9, β₂ = 0.99 there).
public struct FedAdam: AdaptiveServerOptimizer {
    /// η.
    public var learningRate: Double
    /// β₁.
    public var beta1: Double
    /// β₂.
    public var beta2: Double
    /// ε.
    public var epsilon: Double

    /// Creates the optimiser; ε is more than 0.
    public init(learningRate: Double = 0.01, beta1: Double = 0.9, beta2: Double = 0.99, epsilon: Double = 1e-3) {
        self.learningRate = learningRate
        self.beta1 = beta1
        self.beta2 = beta2
        self.epsilon = epsilon
    }

    /// Moves the second moment towards the squares of Δ̄ by a share 1 − β₂.
    public func updateSecondMoment(_ moment: UnsafeMutableBufferPointer<Float>, aggregate: UnsafePointer<Double>) {
        for index in 0..<moment.count {
            moment[index] = Float(
                beta2 * Double(moment[index]) + (1 - beta2) * (aggregate[index] * aggregate[index])
            )
        }
    }
}
