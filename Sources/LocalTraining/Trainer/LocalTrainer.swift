public import Tensors

/// What the server asks of one client's training.
public struct TrainingInstructions: Sendable {
    /// SGD's step.
    public var learningRate: Double
    /// Windows a step.
    public var batchSize: Int
    /// Passes over the data.
    public var epochs: Int
    /// Bound on the global L2 norm of one step's gradient, for stability only.
    public var gradientClip: Double
    /// Steps, at most.
    public var maxSteps: Int
    /// Windows used, at most.
    public var maxExamples: Int
    /// Seeds the shuffles; never privacy noise.
    public var seed: UInt64
    /// The run's alphabet, where its model is a character model.
    public var alphabet: String?

    /// Creates instructions.
    public init(
        learningRate: Double,
        batchSize: Int,
        epochs: Int,
        gradientClip: Double = 5,
        maxSteps: Int = .max,
        maxExamples: Int = .max,
        seed: UInt64,
        alphabet: String? = nil
    ) {
        self.learningRate = learningRate
        self.batchSize = batchSize
        self.epochs = epochs
        self.gradientClip = gradientClip
        self.maxSteps = maxSteps
        self.maxExamples = maxExamples
        self.seed = seed
        self.alphabet = alphabet
    }
}

/// Sums that add over clients; rates are made of them at the end.
public struct TrainingMetrics: Equatable, Sendable {
    /// Negative log likelihood, in nats.
    public var nll = 0.0
    /// Positions in the loss.
    public var lossTokens = 0
    /// Positions that are no padding.
    public var tokens = 0
    /// Targets with the strictly largest logit.
    public var hit1 = 0
    /// Targets among the three largest.
    public var hit3 = 0

    /// Zero.
    public init() {}

    /// Adds.
    public static func += (left: inout Self, right: Self) {
        left.nll += right.nll
        left.lossTokens += right.lossTokens
        left.tokens += right.tokens
        left.hit1 += right.hit1
        left.hit3 += right.hit3
    }

    /// Mean loss in nats.
    public var loss: Double { lossTokens > 0 ? nll / Double(lossTokens) : 0 }
    /// Top-1 recall.
    public var accuracy: Double { tokens > 0 ? Double(hit1) / Double(tokens) : 0 }
}

/// What training gives back.
public struct TrainingResult: Sendable {
    /// New parameters minus old ones.
    public var delta: ParameterVector
    /// Examples that were trained on.
    public var exampleCount: Int
    /// Sums over the training data.
    public var metrics: TrainingMetrics

    /// Creates a result.
    public init(delta: ParameterVector, exampleCount: Int, metrics: TrainingMetrics = .init()) {
        self.delta = delta
        self.exampleCount = exampleCount
        self.metrics = metrics
    }
}

/// Why a client could not train.
public enum LocalTrainingError: Error, Equatable, Sendable {
    /// The loss is no longer finite; the update is not sent.
    case numeric
    /// There is too little data.
    case noData
    /// The model is not one that this trainer knows.
    case modelMismatch(reason: String)
}

/// Trains a model on data that stays where it is.
///
/// Implement it to train your own model. The client, not the trainer, checks, clips, noises and sends what comes back.
public protocol LocalTrainer: Sendable {
    /// Trains from `model` on the device's data. Called away from any actor; may take long.
    func train(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingResult
}
