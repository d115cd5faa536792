/// Adagrad on the server: `v ← v + Δ̄²`.
///
/// Source: Reddi et al. 2021, arXiv:2003.00295, Algorithm 2; its experiments use β₁ = 0, the default here.
public struct FedAdagrad: AdaptiveServerOptimizer {
    /// η.
    public var learningRate: Double
    /// β₁.
    public var beta1: Double
    /// ε.
    public var epsilon: Double

    /// Creates the optimiser; ε is more than 0.
    public init(learningRate: Double = 0.01, beta1: Double = 0, epsilon: Double = 1e-3) {
        self.learningRate = learningRate
        self.beta1 = beta1
        self.epsilon = epsilon
    }

    /// Adds the squares of Δ̄.
    public func updateSecondMoment(_ moment: UnsafeMutableBufferPointer<Float>, aggregate: UnsafePointer<Double>) {
        for index in 0..<moment.count {
            moment[index] = Float(Double(moment[index]) + aggregate[index] * aggregate[index])
        }
    }
}
