import Foundation
import StrictJSON
import Tensors
import TrainerInterface
import WireFormat

extension TrainingInstructions {
    /// The part of a private assignment's time that work on the data may take.
    static let privateShare = 0.4

    /// What an assignment asks for.
    ///
    /// - Parameters:
    ///   - assignment: The assignment.
    ///   - architecture: The assignment's, with its tokeniser in it.
    ///   - base: The assignment's base model, fetched.
    /// - Throws: `EncodingError`.
    init(_ assignment: Assignment, architecture: RunSpecification.Model, base: ParameterVector?) throws {
        let local = assignment.training.local
        // With privacy the work stops at a part of the time, whatever the data: who has many would be late in every round, and missing for
        // that. As much again is left for made-up records where the data give nothing, and the rest for the upload.
        let share = assignment.isPrivate ? Self.privateShare : 1
        let seconds = assignment.deadline.seconds * share
        self.init(
            optimizer: .init(local),
            batchSize: local.batchSize,
            epochs: local.epochs,
            gradientClip: local.clip,
            proximalMu: local.proximalMu ?? 0,
            maxSteps: assignment.training.limits.maxSteps,
            // What is not done when the server stops waiting is not wanted.
            maxSeconds: min(assignment.training.limits.maxSeconds ?? .infinity, seconds),
            maxExamples: assignment.training.limits.maxExamples,
            seed: assignment.seed,
            model: try architecture.description,
            base: base,
            data: .init(assignment)
        )
        cancellation = TrainingCancellation()
        context = TrainingContext(
            run: assignment.run.text,
            round: assignment.round,
            deadline: .now + assignment.deadline.duration * share,
            configuration: try architecture.config.map { try WireCoding.encode($0) }
        )
    }
}

extension LocalOptimizerSettings {
    /// The rule, with its own constants where the run says none.
    init(_ local: RunSpecification.Training.Local) {
        let rule: Rule
        var memory: Double?
        var moments = RunSpecification.Training.LocalOptimizer.Moments()
        switch local.optimizer {
        case .sgd: rule = .sgd
        case .momentum(let given): (rule, memory) = (.momentum, given)
        case .adam(let given): (rule, moments) = (.adam, given)
        case .adamw(let given): (rule, moments) = (.adamw, given)
        }
        self.init(
            rule: rule,
            learningRate: local.learningRate,
            momentum: memory ?? 0.9,
            beta1: moments.beta1 ?? 0.9,
            beta2: moments.beta2 ?? 0.999,
            epsilon: moments.epsilon ?? 1e-8,
            weightDecay: local.weightDecay ?? 0
        )
    }
}

extension RunSpecification.Model {
    /// The model as the architecture registry takes it; `nil` for one that is not built in.
    var description: ModelDescription? {
        get throws {
            guard !isExternal, let config else { return nil }
            return ModelDescription(
                architecture: architecture,
                config: String(decoding: try WireCoding.encode(config), as: UTF8.self)
            )
        }
    }
}

extension DataRules {
    /// What an assignment asks of the data: documents of a stream are taken as they are.
    fileprivate init(_ assignment: Assignment) {
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
    var failureCode: FailureCode {
        switch self {
        case .noData, .unusableData: .noData
        case .numeric, .modelMismatch: .trainingFailed
        // This client will never do it: another one may.
        case .unsupported, .tooLarge: .notEligible
        case .cancelled: .cancelled
        }
    }
}

extension TrainingMetrics {
    /// The sums as the wire names them, without those that were not measured.
    var sums: [String: Double] {
        var sums = [
            "nll": nll, "loss_tokens": Double(lossTokens), "tokens": Double(tokens), "hit1": Double(hit1),
            "hit3": Double(hit3),
        ]
        for name in unmeasured { sums[name.rawValue] = nil }
        // A trainer that does not count the three largest leaves a 0.
        sums = MetricSums.counted(sums)
        let own = custom.filter { MetricSums.mayBeCustom($0.key) && MetricSums.admits($0.key, $0.value) }
        for (name, value) in own.sorted(by: { $0.key < $1.key }).prefix(MetricSums.customLimit) { sums[name] = value }
        return sums
    }
}
