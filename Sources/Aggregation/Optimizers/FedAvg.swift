/// The server's step of FedAvg: `w ← w + η Δ̄` with Δ̄ the mean of local minus global.
///
/// Source: McMahan et al. 2017, arXiv:1602.05629; the server learning rate as in Reddi et al. 2021, arXiv:2003.00295.
public struct FedAvg: Sendable {
    /// η.
    public var learningRate: Double

    /// Creates the optimiser.
    public init(learningRate: Double) {
        self.learningRate = learningRate
    }

    /// The next parameters, computed in `Double` and rounded once.
    public func step(_ parameters: [Float], mean: [Double]) -> [Float] {
        precondition(parameters.count == mean.count, "counts differ")
        return zip(parameters, mean).map { Float(Double($0) + learningRate * $1) }
    }
}
