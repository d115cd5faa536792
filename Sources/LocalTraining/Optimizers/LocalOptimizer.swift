import Tensors

/// Which rule turns gradients into steps on the device, with its constants.
public struct LocalOptimizerSettings: Equatable, Sendable {
    /// The rule.
    public enum Rule: String, Sendable, CaseIterable {
        /// `w -= lr * g`.
        case sgd
        /// `v = momentum * v + g; w -= lr * v`.
        case momentum
        /// Adam with the decay added to the gradient. Source: Kingma and Ba 2015, arXiv:1412.6980, Algorithm 1.
        case adam
        /// Adam with the decay taken off the weights. Source: Loshchilov and Hutter 2019, arXiv:1711.05101, Algorithm 2.
        case adamw
    }

    /// The rule.
    public var rule: Rule
    /// The step size.
    public var learningRate: Double
    /// Momentum's memory, in `[0, 1)`.
    public var momentum: Double
    /// Adam's memory of gradients, in `[0, 1)`.
    public var beta1: Double
    /// Adam's memory of squares, in `[0, 1)`.
    public var beta2: Double
    /// Added to Adam's root, so that it never divides by zero.
    public var epsilon: Double
    /// The L2 term: added to the gradient as `decay * w`, or with `adamw` taken off as `lr * decay * w`.
    public var weightDecay: Double

    /// Creates settings; the constants are PyTorch's defaults but for the decay, which is 0.
    public init(
        rule: Rule = .sgd,
        learningRate: Double,
        momentum: Double = 0.9,
        beta1: Double = 0.9,
        beta2: Double = 0.999,
        epsilon: Double = 1e-8,
        weightDecay: Double = 0
    ) {
        self.rule = rule
        self.learningRate = learningRate
        self.momentum = momentum
        self.beta1 = beta1
        self.beta2 = beta2
        self.epsilon = epsilon
        self.weightDecay = weightDecay
    }
}

/// An optimiser at work: its settings, and the moments that it keeps for one training.
///
/// The moments are thrown away when the training ends, as is usual in federated learning.
package struct LocalOptimizer {
    private let settings: LocalOptimizerSettings
    private var first: [Float] = []
    private var second: [Float] = []
    private var stepCount = 0

    package init(_ settings: LocalOptimizerSettings, parameterCount: Int) {
        self.settings = settings
        switch settings.rule {
        case .sgd: break
        case .momentum: first = [Float](repeating: 0, count: parameterCount)
        case .adam, .adamw:
            first = [Float](repeating: 0, count: parameterCount)
            second = [Float](repeating: 0, count: parameterCount)
        }
    }

    /// Takes one step; the gradient may be changed on the way.
    package mutating func step(_ parameters: inout [Float], gradient: inout [Float]) {
        precondition(parameters.count == gradient.count, "counts differ")
        stepCount += 1
        let rate = Float(settings.learningRate)
        let decay = Float(settings.weightDecay)
        if decay != 0 {
            if settings.rule == .adamw {
                VectorKernels.scale(&parameters, by: 1 - rate * decay)
            } else {
                VectorKernels.axpy(decay, parameters, into: &gradient)
            }
        }
        switch settings.rule {
        case .sgd: VectorKernels.axpy(-rate, gradient, into: &parameters)
        case .momentum:
            let memory = Float(settings.momentum)
            for index in first.indices { first[index] = memory * first[index] + gradient[index] }
            VectorKernels.axpy(-rate, first, into: &parameters)
        case .adam, .adamw: adamStep(&parameters, gradient)
        }
    }

    private mutating func adamStep(_ parameters: inout [Float], _ gradient: [Float]) {
        let (beta1, beta2) = (Float(settings.beta1), Float(settings.beta2))
        let correction1 = 1 - Self.power(settings.beta1, stepCount)
        let correction2 = 1 - Self.power(settings.beta2, stepCount)
        let rate = Float(settings.learningRate / correction1)
        let root = Float(1 / correction2.squareRoot())
        let epsilon = Float(settings.epsilon)
        for index in parameters.indices {
            let slope = gradient[index]
            first[index] = beta1 * first[index] + (1 - beta1) * slope
            second[index] = beta2 * second[index] + (1 - beta2) * slope * slope
            parameters[index] -= rate * first[index] / (second[index].squareRoot() * root + epsilon)
        }
    }

    private static func power(_ base: Double, _ exponent: Int) -> Double {
        var (result, square, rest) = (1.0, base, exponent)
        while rest > 0 {
            if rest & 1 == 1 { result *= square }
            square *= square
            rest >>= 1
        }
        return result
    }
}
