import CKernels

/// The server's step of FedAvg: `w ← w + η Δ̄`.
///
/// Source: McMahan et al. 2017, arXiv:1602.05629; the server learning rate as in Reddi et al. 2021, arXiv:2003.00295.
public struct FedAvg: ServerOptimizer {
    /// η.
    public var learningRate: Double

    /// Creates the optimiser.
    public init(learningRate: Double = 1) {
        self.learningRate = learningRate
    }

    /// Empty: the rule has no state.
    public var moments: [OptimizerMoment] { [] }

    /// Takes one step, computed in `Double` and rounded once.
    public func step(
        _ parameters: UnsafeMutableBufferPointer<Float>,
        aggregate: UnsafePointer<Double>,
        moments: [UnsafeMutablePointer<Float>]
    ) {
        guard let values = parameters.baseAddress else { return }
        martlet_step(values, aggregate, parameters.count, learningRate)
    }
}
