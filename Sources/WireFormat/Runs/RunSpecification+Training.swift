import StrictJSON
package import UpdateCompression

extension RunSpecification {
    /// What the client is told about local training.
    package struct Training: Codable, Equatable, Sendable {
        package struct Local: Equatable, Sendable {
            package var optimizer: LocalOptimizer
            package var learningRate: Double
            package var batchSize: Int
            package var epochs: Int
            package var clip: Double
            package var weightDecay: Double?
            /// FedProx's μ: pulls each step towards the global model.
            package var proximalMu: Double?
        }

        /// A device's optimiser with what it is given; the rest are its own constants.
        package enum LocalOptimizer: Equatable, Sendable {
            /// What Adam may be given.
            package struct Moments: Equatable, Sendable {
                /// The memory of gradients.
                package var beta1: Double?
                /// The memory of their squares.
                package var beta2: Double?
                /// What keeps the root from zero.
                package var epsilon: Double?

                package init(beta1: Double? = nil, beta2: Double? = nil, epsilon: Double? = nil) {
                    (self.beta1, self.beta2, self.epsilon) = (beta1, beta2, epsilon)
                }
            }

            case sgd
            case momentum(memory: Double?)
            case adam(Moments)
            case adamw(Moments)

            package var name: LocalOptimizerName {
                switch self {
                case .sgd: .sgd
                case .momentum: .momentum
                case .adam: .adam
                case .adamw: .adamw
                }
            }
        }

        package struct Limits: Codable, Equatable, Sendable {
            package var maxSteps: Int
            package var maxExamples: Int
            /// Training that reaches it is partial, and is sent; `nil` without limit.
            package var maxSeconds: Double?
        }

        /// What clients do to their texts before training, and how much must be left.
        package struct DataRules: Codable, Equatable, Sendable {
            package var clean: Bool
            package var language: String?
            package var minimumRecords: Int
            package var minimumCharacters: Int
        }

        package var local: Local
        package var limits: Limits
        package var data: DataRules?
        package var submit: Submission
        /// How updates are written.
        package var encoding: UpdateEncoding
        /// How clients are told to fetch the model; absent in older documents: `f32`.
        package var modelEncoding: ModelEncoding?
        /// Absent in older documents: `fedavg`.
        package var algorithm: TrainingAlgorithm?

        /// Whether clients keep control variates and send what changed in them: SCAFFOLD.
        package var usesControlVariates: Bool { algorithm == .scaffold }
        /// Whether an update is the difference that training made, and is sent as such.
        package var sendsPlainDeltas: Bool { submit == .delta && !usesControlVariates }
    }
}

extension RunSpecification.Training {
    /// What a run file that says nothing of training means.
    static let defaults = try? FieldReader.read(.object([:])) { Self(reading: $0) }

    init(reading fields: FieldReader) {
        local = fields.object("local") { Local(reading: $0) }
        limits = fields.object("limits") { limits in
            Limits(
                maxSteps: limits.integer("max_steps", default: 1000, in: 1...100_000_000),
                maxExamples: limits.integer("max_examples", default: 100_000, in: 1...100_000_000),
                maxSeconds: limits.optionalNumber("max_seconds", in: 0.01...1e6)
            )
        }
        data = fields.object("data") { data in
            DataRules(
                clean: data.boolean("clean", default: true),
                language: data.optionalString("language", lengthLimit: 8),
                minimumRecords: data.integer("minimum_records", default: 1, in: 0...1_000_000_000),
                minimumCharacters: data.integer("minimum_characters", default: 0, in: 0...1_000_000_000)
            )
        }
        submit = fields.choice("submit", default: .delta)
        algorithm = fields.choice("algorithm", default: .fedavg)
        encoding = fields.choice("encoding", default: .f32)
        modelEncoding = fields.choice("model_encoding", default: .f32)
    }
}

extension RunSpecification.Training.Local {
    fileprivate init(reading fields: FieldReader) {
        optimizer = .init(reading: fields)
        let usualRate =
            switch optimizer {
            case .sgd, .momentum: 1.0
            case .adam, .adamw: 0.001
            }
        learningRate = fields.number("learning_rate", default: usualRate, in: 0...1000, excludingLower: true)
        batchSize = fields.integer("batch_size", default: 4, in: 1...100_000)
        epochs = fields.integer("epochs", default: 1, in: 1...10_000)
        clip = fields.number("clip", default: 1, in: 0...1e9, excludingLower: true)
        weightDecay = fields.optionalNumber("weight_decay", in: 0...1e3)
        proximalMu = fields.optionalNumber("proximal_mu", in: 0...1e6)
    }
}

extension RunSpecification.Training.LocalOptimizer {
    private static let fields: Set<String> = ["momentum", "beta1", "beta2", "epsilon"]

    fileprivate init(reading fields: FieldReader) {
        let name: LocalOptimizerName = fields.choice("optimizer", default: .sgd)
        fields.isAlternative("optimizer \(name)", fields: Self.fields)
        switch name {
        case .sgd: self = .sgd
        case .momentum: self = .momentum(memory: fields.optionalNumber("momentum", in: 0...0.999_999))
        case .adam: self = .adam(Moments(reading: fields))
        case .adamw: self = .adamw(Moments(reading: fields))
        }
    }
}

extension RunSpecification.Training.LocalOptimizer.Moments {
    fileprivate init(reading fields: FieldReader) {
        beta1 = fields.optionalNumber("beta1", in: 0...0.999_999)
        beta2 = fields.optionalNumber("beta2", in: 0...0.999_999)
        epsilon = fields.optionalNumber("epsilon", in: 1e-16...1)
    }
}

extension RunSpecification.Training.Local: Codable {
    /// As it is written: one object for whatever optimiser.
    private struct Fields: Codable {
        var optimizer: LocalOptimizerName
        var learningRate: Double
        var batchSize: Int
        var epochs: Int
        var clip: Double
        var momentum: Double?
        var beta1: Double?
        var beta2: Double?
        var epsilon: Double?
        var weightDecay: Double?
        var proximalMu: Double?
    }

    package init(from decoder: any Decoder) throws {
        let fields = try Fields(from: decoder)
        let moments = RunSpecification.Training.LocalOptimizer.Moments(
            beta1: fields.beta1,
            beta2: fields.beta2,
            epsilon: fields.epsilon
        )
        let optimizer: RunSpecification.Training.LocalOptimizer =
            switch fields.optimizer {
            case .sgd: .sgd
            case .momentum: .momentum(memory: fields.momentum)
            case .adam: .adam(moments)
            case .adamw: .adamw(moments)
            }
        self.init(
            optimizer: optimizer,
            learningRate: fields.learningRate,
            batchSize: fields.batchSize,
            epochs: fields.epochs,
            clip: fields.clip,
            weightDecay: fields.weightDecay,
            proximalMu: fields.proximalMu
        )
    }

    package func encode(to encoder: any Encoder) throws {
        var fields = Fields(
            optimizer: optimizer.name,
            learningRate: learningRate,
            batchSize: batchSize,
            epochs: epochs,
            clip: clip,
            weightDecay: weightDecay,
            proximalMu: proximalMu
        )
        switch optimizer {
        case .sgd: break
        case .momentum(let memory): fields.momentum = memory
        case .adam(let moments), .adamw(let moments):
            (fields.beta1, fields.beta2, fields.epsilon) = (moments.beta1, moments.beta2, moments.epsilon)
        }
        try fields.encode(to: encoder)
    }
}

extension RunSpecification.Training {
    /// What one algorithm asks that another part of this section, or the privacy mode, cannot give.
    func contradictions(privacyMode: PrivacyMode) -> [Contradiction] {
        var found: [Contradiction] = []
        if encoding != .f32 && !sendsPlainDeltas {
            found.add("encoding", "must be f32 here: only plain deltas may be compressed")
        }
        if modelEncoding ?? .f32 != .f32 && submit == .weights {
            found.add(
                "model_encoding",
                "must be f32 with submit weights: what the model lost on its way would look like training"
            )
        }
        if submit == .weights && privacyMode != .none {
            found.add(
                "submit",
                "weights cannot be clipped in mode \(privacyMode): the bound is on what a client changes; submit delta"
            )
        }
        if submit == .gradient {
            if (local.proximalMu ?? 0) > 0 {
                found.add("submit", "gradient is taken at the global model, where local.proximal_mu has no effect")
            }
            if local.optimizer != .sgd {
                found.add(
                    "submit",
                    "gradient takes no local step; local.optimizer \(local.optimizer.name) has no effect"
                )
            }
        }
        if encoding == .topk {
            if submit == .weights || usesControlVariates {
                found.add(
                    "encoding",
                    "topk sends the largest changes: it goes with submit delta or gradient, without scaffold"
                )
            }
            if privacyMode == .local {
                found.add("encoding", "topk would send noise: in mode local every value is mostly noise")
            }
        }
        guard usesControlVariates else { return found }
        if submit != .delta {
            found.add("algorithm", "scaffold corrects local steps and submits their delta, not \(submit)")
        }
        if local.optimizer != .sgd {
            found.add(
                "algorithm",
                "scaffold reads the mean gradient off the local steps, which is possible with local.optimizer sgd only"
            )
        }
        return found
    }
}
