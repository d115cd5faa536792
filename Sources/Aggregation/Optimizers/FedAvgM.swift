/// FedAvg with server momentum: `m ← β m + Δ̄`, `w ← w + η m`.
///
/// Source: Hsu, Qi, Brown 2019, arXiv:1909.06335, section 4.2.
public struct FedAvgM: ServerOptimizer {
    /// η.
    public var learningRate: Double
    /// β.
    public var momentum: Double

    /// Creates the optimiser.
    public init(learningRate: Double = 1, momentum: Double = 0.9) {
        self.learningRate = learningRate
        self.momentum = momentum
    }

    /// m, from 0.
    public var moments: [OptimizerMoment] { [.init(name: "first_moment", initialValue: 0)] }

    /// Takes one step.
    public func step(
        _ parameters: UnsafeMutableBufferPointer<Float>,
        aggregate: UnsafePointer<Double>,
        moments: [UnsafeMutablePointer<Float>]
    ) {
        let velocity = moments[0]
        for index in 0..<parameters.count {
            velocity[index] = Float(momentum * Double(velocity[index]) + aggregate[index])
            parameters[index] = Float(Double(parameters[index]) + learningRate * Double(velocity[index]))
        }
    }
}
