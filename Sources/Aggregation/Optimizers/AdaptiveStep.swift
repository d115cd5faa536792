/// What FedAdagrad, FedAdam and FedYogi share: they differ in how the second moment is updated, and in nothing else.
///
/// `m ← β₁ m + (1 − β₁) Δ̄`, then v, then `w ← w + η m / (√v + ε)`, without bias correction, and with v = ε² before the
/// first round. ε is the paper's τ, the degree of adaptivity: it decides more than either β does. Source: Reddi et al.
/// 2021, arXiv:2003.00295, Algorithm 2.
public protocol AdaptiveServerOptimizer: ServerOptimizer {
    /// η.
    var learningRate: Double { get }
    /// β₁.
    var beta1: Double { get }
    /// ε (τ in the paper).
    var epsilon: Double { get }

    /// The second moments of some coordinates after squares of Δ̄ have come.
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

    /// Takes one step.
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
