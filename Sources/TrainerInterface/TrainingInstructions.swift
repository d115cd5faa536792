public import Tensors

/// What the server asks of one client's training.
public struct TrainingInstructions: Sendable {
    /// SGD, momentum, Adam or AdamW, and the constants.
    public var optimizer: LocalOptimizerSettings
    /// Examples (windows, rows) a step.
    public var batchSize: Int
    /// Passes over the data.
    public var epochs: Int
    /// Bound on the global L2 norm of one step's gradient, for stability only.
    public var gradientClip: Double
    /// FedProx's μ: each step's gradient gets `μ (w - w0)`; 0 for none.
    public var proximalMu: Double
    /// Added to each step's gradient, `[parameterCount]`: SCAFFOLD's `c - c_i`.
    public var gradientCorrection: [Float]?
    /// Steps, at most; training that stops here is partial, and is sent.
    public var maxSteps: Int
    /// Seconds, at most; as for steps.
    public var maxSeconds: Double
    /// Examples used, at most.
    public var maxExamples: Int
    /// Seeds the shuffles; never privacy noise.
    public var seed: UInt64
    /// What the model is; `nil` lets a trainer read it off the tensors.
    public var model: ModelDescription?
    /// Another model's parameters, where the description needs them: a frozen base, or a table's statistics.
    public var base: ParameterVector?
    /// What must be done to the data, and how much of it there must be.
    public var data: DataRules
    /// The run and round that the training belongs to.
    public var context: TrainingContext?
    /// Bytes of memory that the arithmetic may take, at most: the device's owner sets it, since a server chooses models and batches.
    public var memoryLimit: Int = .max
    /// Is set when the work is no longer wanted; looked at between steps.
    public var cancellation: TrainingCancellation?
    /// Takes how far the training is, from 0 to 1, whenever a trainer wants to say so; it stays on the device.
    public var onProgress: (@Sendable (Double) -> Void)?

    /// Creates instructions for an optimiser.
    public init(
        optimizer: LocalOptimizerSettings,
        batchSize: Int,
        epochs: Int,
        gradientClip: Double = 5,
        proximalMu: Double = 0,
        gradientCorrection: [Float]? = nil,
        maxSteps: Int = .max,
        maxSeconds: Double = .infinity,
        maxExamples: Int = .max,
        seed: UInt64,
        model: ModelDescription? = nil,
        base: ParameterVector? = nil,
        data: DataRules = .none
    ) {
        self.optimizer = optimizer
        self.batchSize = batchSize
        self.epochs = epochs
        self.gradientClip = gradientClip
        self.proximalMu = proximalMu
        self.gradientCorrection = gradientCorrection
        self.maxSteps = maxSteps
        self.maxSeconds = maxSeconds
        self.maxExamples = maxExamples
        self.seed = seed
        self.model = model
        self.base = base
        self.data = data
    }

    /// Creates instructions for plain SGD.
    public init(
        learningRate: Double,
        batchSize: Int,
        epochs: Int,
        gradientClip: Double = 5,
        maxSteps: Int = .max,
        maxExamples: Int = .max,
        seed: UInt64,
        model: ModelDescription? = nil
    ) {
        self.init(
            optimizer: .init(learningRate: learningRate),
            batchSize: batchSize,
            epochs: epochs,
            gradientClip: gradientClip,
            maxSteps: maxSteps,
            maxExamples: maxExamples,
            seed: seed,
            model: model
        )
    }
}
