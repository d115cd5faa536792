import Foundation
import LocalTraining
import StrictJSON
import Tensors
import WireFormat

extension TrainingInstructions {
    /// What an assignment asks for.
    ///
    /// - Parameters:
    ///   - assignment: The assignment.
    ///   - architecture: The assignment's, with its tokeniser in it.
    ///   - base: The assignment's base model, fetched.
    /// - Throws: `EncodingError`.
    init(_ assignment: AssignmentBody, architecture: RunSpecification.Model, base: ParameterVector?) throws {
        let local = assignment.training.local
        self.init(
            optimizer: .init(
                rule: .init(rawValue: local.optimizer) ?? .sgd,
                learningRate: local.learningRate,
                momentum: local.momentum ?? 0.9,
                beta1: local.beta1 ?? 0.9,
                beta2: local.beta2 ?? 0.999,
                epsilon: local.epsilon ?? 1e-8,
                weightDecay: local.weightDecay ?? 0
            ),
            batchSize: local.batchSize,
            epochs: local.epochs,
            gradientClip: local.clip,
            proximalMu: local.proximalMu ?? 0,
            maxSteps: assignment.training.limits.maxSteps,
            maxSeconds: assignment.training.limits.maxSeconds ?? .infinity,
            maxExamples: assignment.training.limits.maxExamples,
            seed: UInt64(assignment.seed) ?? 0,
            model: try architecture.description,
            base: base,
            data: .init(assignment)
        )
        cancellation = TrainingCancellation()
        context = TrainingContext(
            run: assignment.run,
            round: assignment.round,
            deadline: .now + .seconds(assignment.deadlineInS),
            configuration: try architecture.config.map { try WireCoding.encode($0) }
        )
    }
}

extension RunSpecification.Model {
    /// The model as the architecture registry takes it; `nil` for one that is not built in.
    var description: ModelDescription? {
        get throws {
            guard architecture != "external", let config else { return nil }
            return ModelDescription(
                architecture: architecture,
                config: String(decoding: try WireCoding.encode(config), as: UTF8.self)
            )
        }
    }
}

extension DataRules {
    /// What an assignment asks of the data: documents of a stream are taken as they are.
    fileprivate init(_ assignment: AssignmentBody) {
        guard let rules = assignment.training.data else {
            self = .none
            return
        }
        var isStream = false
        if case .object(let fields)? = assignment.architecture.config { isStream = fields["stream"] == .boolean(true) }
        self.init(
            cleaning: rules.clean && !isStream ? CleaningOptions(language: rules.language) : nil,
            minimumRecords: rules.minimumRecords,
            minimumCharacters: rules.minimumCharacters
        )
    }
}

extension LocalTrainingError {
    /// How the server is told.
    var failureCode: String {
        switch self {
        case .noData, .unusableData: "no_data"
        case .numeric, .modelMismatch: "training_failed"
        // This client will never do it: another one may.
        case .unsupported: "not_eligible"
        case .cancelled: "cancelled"
        }
    }
}

extension LocalTrainingError {
    /// What the operator reads; what it says of the data leaves only where nothing is promised about them.
    func failureDetail(in privacyMode: String) -> String? {
        switch self {
        case .numeric: "a loss or a parameter is no longer finite"
        case .noData: "there is nothing to train on"
        case .modelMismatch(let reason): reason
        case .unusableData(let reason): privacyMode == "none" ? reason : nil
        case .unsupported(let operation): "this client does not do this: \(operation)"
        case .cancelled: nil
        }
    }
}

extension TrainingMetrics {
    /// The sums as the wire names them.
    var sums: [String: Double] {
        [
            "nll": nll, "loss_tokens": Double(lossTokens), "tokens": Double(tokens), "hit1": Double(hit1),
            "hit3": Double(hit3),
        ]
    }
}
