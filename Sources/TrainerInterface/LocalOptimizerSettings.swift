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
