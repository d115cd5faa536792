public import Tensors

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
    /// Targets that the vocabulary has; over `tokens`, the ceiling of recall.
    public var inVocabulary = 0
    /// UTF-8 bytes of the targets, for bits per byte.
    public var bytes = 0

    /// Zero.
    public init() {}

    /// Adds.
    public static func += (left: inout Self, right: Self) {
        left.nll += right.nll
        left.lossTokens += right.lossTokens
        left.tokens += right.tokens
        left.hit1 += right.hit1
        left.hit3 += right.hit3
        left.inVocabulary += right.inVocabulary
        left.bytes += right.bytes
    }

    /// Mean loss in nats.
    public var loss: Double { lossTokens > 0 ? nll / Double(lossTokens) : 0 }
    /// Top-1 recall.
    public var accuracy: Double { tokens > 0 ? Double(hit1) / Double(tokens) : 0 }
    /// Top-3 recall.
    public var recallAt3: Double { tokens > 0 ? Double(hit3) / Double(tokens) : 0 }
    /// Loss in bits per UTF-8 byte: the one figure that is comparable between tokenisers.
    public var bitsPerByte: Double { bytes > 0 ? nll / (0.693_147_180_559_945_3 * Double(bytes)) : 0 }
}

/// What training gives back.
public struct TrainingResult: Sendable {
    /// New parameters minus old ones.
    public var delta: ParameterVector
    /// Examples that were trained on.
    public var exampleCount: Int
    /// Sums over the training data.
    public var metrics: TrainingMetrics
    /// Optimiser steps that were taken.
    public var stepCount: Int
    /// Whether a limit ended the training before its epochs did.
    public var isPartial: Bool

    /// Creates a result.
    public init(
        delta: ParameterVector,
        exampleCount: Int,
        metrics: TrainingMetrics = .init(),
        stepCount: Int = 0,
        isPartial: Bool = false
    ) {
        self.delta = delta
        self.exampleCount = exampleCount
        self.metrics = metrics
        self.stepCount = stepCount
        self.isPartial = isPartial
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
    /// The data could not be read, or breaks a rule that the run sets.
    case unusableData(reason: String)
    /// The trainer does not do this.
    case unsupported(operation: String)
    /// Nobody waits for the result any more.
    case cancelled
}

/// Trains a model on data that stays where it is.
///
/// Implement it to train your own model. The client, not the trainer, checks, clips, noises and sends what comes back.
public protocol LocalTrainer: Sendable {
    /// Trains from `model` on the device's data. Called away from any actor; may take long.
    ///
    /// Look at ``TrainingInstructions/cancellation`` between steps, so that work that nobody wants any more ends early.
    func train(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingResult

    /// The gradient of the mean loss over all of the device's data at `model`, as the result's `delta`, for FedSGD.
    ///
    /// - Throws: ``LocalTrainingError/unsupported(operation:)`` unless the trainer implements it.
    func gradient(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingResult

    /// Judges `model` on data of the device that no training uses; learning settings in the instructions are ignored.
    ///
    /// - Throws: ``LocalTrainingError/unsupported(operation:)`` unless the trainer implements it.
    func evaluate(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingMetrics
}

extension LocalTrainer {
    /// Refuses.
    public func gradient(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingResult {
        throw LocalTrainingError.unsupported(operation: "gradient")
    }

    /// Refuses.
    public func evaluate(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingMetrics {
        throw LocalTrainingError.unsupported(operation: "evaluate")
    }
}
