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
    /// What the trainer did not measure; it is not reported, rather than as 0.
    public var unmeasured: Set<Measure> = []
    /// Metrics of the app's own by name, as sums over the examples; the server makes means of those that the run file names.
    ///
    /// A name has 1 to 64 lower-case letters, digits and `_`, and is none of the protocol's own; a value has at most 2⁴⁰ either way.
    /// What is not like that is not sent, nor are more than 24. In private runs only what the run releases leaves the device.
    public var custom: [String: Double] = [:]

    /// A sum that a trainer may leave out, by its name on the wire.
    public enum Measure: String, Sendable, CaseIterable {
        /// The negative log likelihood.
        case nll
        /// Positions in the loss.
        case lossTokens = "loss_tokens"
        /// Targets with the largest logit.
        case hit1
        /// Targets among the three largest.
        case hit3
    }

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
        left.unmeasured.formUnion(right.unmeasured)
        left.custom.merge(right.custom, uniquingKeysWith: +)
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
    /// The data could not be read, or break a rule that the run sets.
    ///
    /// `reason` is for the device's owner and may name rows, counts and columns of the data; it stays on the device.
    /// `rule` is what a server may read: the schema's column and the rule, and nothing that was read from the data.
    case unusableData(reason: String, rule: String = "the data are not as the run needs them")
    /// The trainer does not do this.
    case unsupported(operation: String)
    /// The arithmetic would take more memory than the device's owner allows: ``TrainingInstructions/memoryLimit``.
    case tooLarge(byteCount: Double, limit: Int)
    /// Nobody waits for the result any more.
    case cancelled
}

extension LocalTrainingError {
    /// For the device's owner; it may say things about the data and stays on the device.
    public var ownerSentence: String {
        switch self {
        case .numeric: "the loss is no longer finite; a smaller learning rate helps"
        case .noData: "there is too little data"
        case .modelMismatch(let reason), .unusableData(let reason, _): reason
        case .cancelled: "nobody waits for the result any more"
        case .unsupported(let operation): "this trainer has no operation '\(operation)'"
        case .tooLarge(let byteCount, let limit):
            "batches of this size take about \(Self.mebibytes(byteCount)) MiB of memory, and this device allows "
                + "\(Self.mebibytes(Double(limit))) MiB (--max-training-bytes)"
        }
    }

    /// What a server may be told: rules and names that it has given itself, never anything that was read from the data.
    public var serverDetail: String? {
        switch self {
        case .numeric: "a loss or a parameter is no longer finite"
        case .noData: "there is nothing to train on"
        case .modelMismatch(let reason): reason
        case .unusableData(_, let detail): detail
        case .unsupported(let operation): "this client does not do this: \(operation)"
        case .tooLarge: "this model with batches of this size takes more memory than the device allows"
        case .cancelled: nil
        }
    }

    private static func mebibytes(_ byteCount: Double) -> Int { Int(min(1e15, (byteCount / 1_048_576).rounded(.up))) }
}

/// What a trainer may be asked for.
public enum TrainingTask: Sendable, CaseIterable {
    /// ``LocalTrainer/train(model:instructions:)``.
    case train
    /// ``LocalTrainer/gradient(model:instructions:)``.
    case gradient
    /// ``LocalTrainer/evaluate(model:instructions:)``.
    case evaluate
}

/// Trains a model on data that stays where it is.
///
/// Implement it to train your own model. The client, not the trainer, checks, clips, noises and sends what comes back.
public protocol LocalTrainer: Sendable {
    /// Trains from `model` on the device's data. Called away from any actor; may take long.
    ///
    /// An implementation may be synchronous. Look at ``TrainingInstructions/cancellation`` between steps, or at the task's own
    /// cancellation, so that work that nobody wants any more ends early.
    func train(model: ParameterVector, instructions: TrainingInstructions) async throws -> TrainingResult

    /// The gradient of the mean loss over all of the device's data at `model`, as the result's `delta`, for FedSGD.
    ///
    /// - Throws: ``LocalTrainingError/unsupported(operation:)`` unless the trainer implements it.
    func gradient(model: ParameterVector, instructions: TrainingInstructions) async throws -> TrainingResult

    /// Judges `model` on data of the device that no training uses; learning settings in the instructions are ignored.
    ///
    /// - Throws: ``LocalTrainingError/unsupported(operation:)`` unless the trainer implements it.
    func evaluate(model: ParameterVector, instructions: TrainingInstructions) async throws -> TrainingMetrics

    /// Refuses what the trainer cannot do on any data, without looking at the device's.
    ///
    /// With privacy this is the last refusal that a server hears: whatever happens after the data were opened looks to it
    /// like an update. A trainer that does not implement this sends zeros where it could have said no.
    ///
    /// - Throws: ``LocalTrainingError``.
    func check(_ task: TrainingTask, model: ParameterVector, instructions: TrainingInstructions) async throws

    /// Does a task's arithmetic on made-up records, and throws its result away.
    ///
    /// Called in place of an answer where the device's data gave none in a private run: a device that had nothing to train
    /// on must not be told by how soon it is done.
    ///
    /// - Throws: What the arithmetic throws; the device's owner is told.
    func rehearse(_ task: TrainingTask, model: ParameterVector, instructions: TrainingInstructions) async throws

    /// Whether ``rehearse(_:model:instructions:)`` does a task's arithmetic; otherwise the device refuses private runs before
    /// it looks at its data.
    var canRehearse: Bool { get }
}

extension LocalTrainer {
    /// Refuses nothing.
    public func check(_ task: TrainingTask, model: ParameterVector, instructions: TrainingInstructions) async throws {}

    /// No: private runs are refused.
    public var canRehearse: Bool { false }

    /// Does nothing.
    public func rehearse(_ task: TrainingTask, model: ParameterVector, instructions: TrainingInstructions) async throws
    {}

    /// Refuses.
    public func gradient(model: ParameterVector, instructions: TrainingInstructions) async throws -> TrainingResult {
        throw LocalTrainingError.unsupported(operation: "gradient")
    }

    /// Refuses.
    public func evaluate(model: ParameterVector, instructions: TrainingInstructions) async throws -> TrainingMetrics {
        throw LocalTrainingError.unsupported(operation: "evaluate")
    }
}
