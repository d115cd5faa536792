import Tensors

/// An optimiser with its settings, and its moments for one training.
///
/// The moments end with the training, as is usual in federated learning.
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

    /// Takes one step; it may change the gradient.
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
