/// The step of FedAdagrad, FedAdam and FedYogi, which differ in the update of the second moment only.
///
/// `m ← β₁ m + (1 − β₁) Δ̄`, then v, then `w ← w + η m / (√v + ε)`, without bias correction, and with v = ε² before the
/// first round. ε is the paper's τ, the degree of adaptivity, and matters more than either β. Source: Reddi et al. 2021,
/// arXiv:2003.00295, Algorithm 2.
public protocol AdaptiveServerOptimizer: ServerOptimizer {
    /// η, the server's learning rate.
    var learningRate: Double { get }
    /// β₁, the decay of the first moment, from 0 to below 1.
    var beta1: Double { get }
    /// ε, more than 0 (τ in the paper).
    var epsilon: Double { get }

    /// Updates the second moments of some coordinates by the squares of Δ̄.
    func updateSecondMoment(_ moment: UnsafeMutableBufferPointer<Float>, aggregate: UnsafePointer<Double>)
}

extension AdaptiveServerOptimizer {
    /// m, from 0, and v, from ε².
    public var moments: [OptimizerMoment] {
        [
            .init(name: "first_moment", initialValue: 0),
            .init(name: "second_moment", initialValue: Float(epsilon * epsilon)),
        ]
    }

    /// Takes one step, with the first and the second moment in that order.
    public func step(
        _ parameters: UnsafeMutableBufferPointer<Float>,
        aggregate: UnsafePointer<Double>,
        moments: [UnsafeMutablePointer<Float>]
    ) {
        let (first, second) = (moments[0], moments[1])
        updateSecondMoment(UnsafeMutableBufferPointer(start: second, count: parameters.count), aggregate: aggregate)
        let (rate, beta, epsilon) = (learningRate, beta1, epsilon)
        for index in 0..<parameters.count {
            first[index] = Float(beta * Double(first[index]) + (1 - beta) * aggregate[index])
            let scale = Double(second[index]).squareRoot() + epsilon
            parameters[index] = Float(Double(parameters[index]) + rate * Double(first[index]) / scale)
        }
    }
}
