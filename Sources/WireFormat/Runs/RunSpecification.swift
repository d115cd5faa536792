package import StrictJSON
import Tensors
import UpdateCompression

/// What a run trains, with whom, how, and under which privacy terms; immutable once the run is created.
package struct RunSpecification: Codable, Equatable, Sendable {
    /// The model and how its first version comes to be.
    package struct Model: Codable, Equatable, Sendable {
        package struct Initialization: Codable, Equatable, Sendable {
            package var seed: String
        }
        /// A published version of another run: the frozen model of adapters, or a table's statistics.
        package struct Base: Codable, Equatable, Sendable {
            package var run: String
            /// The latest one when the run is created, where none is given.
            package var version: Int?
        }
        /// A built-in one, or `external`: tensors come with the uploaded weights.
        package var architecture: String
        /// A JSON object that the architecture reads.
        package var config: JSONValue?
        package var initialization: Initialization?
        package var base: Base?

        package static let architectures = ["cifg-lstm", "decoder", "tabular", "tabular-statistics", "external"]
    }

    /// Who takes part in a round, and how long it waits.
    package struct Cohort: Codable, Equatable, Sendable {
        package var goal: Int
        package var minimum: Int
        package var overSelection: Double
        package var policy: String
        package var selectionTimeoutS: Double
        package var reportTimeoutS: Double
        /// Per client in this run; 0 is without limit.
        package var maxParticipations: Int
        /// Rounds between two participations of one client, at least; 0 and 1 are without limit.
        package var minSeparationRounds: Int
        /// Chance of each client in each round, for the policy `poisson`.
        package var samplingRate: Double?
        /// An ``EligibilityExpression`` over capabilities and labels.
        package var requirements: String?
        /// Dotted numbers.
        package var minimumClientVersion: String?
        /// Seconds between two signs of life of a client at work.
        ///
        /// Where it is absent, a lease of 60 s begins with the first
        /// heartbeat, and a client that sends none has until the deadline.
        package var leaseS: Double?
        /// Groups by measured speed that share each round's places alike; 1 is no grouping.
        package var tiers: Int
        /// Seconds of training that steps are given for, by the client's measured speed; 0 is off.
        package var targetSeconds: Double
        /// Examples that an update must stand for to count.
        package var minExamples: Int
        /// Attempts at one round before the run fails; 0 is without limit.
        package var maxAttempts: Int
        /// Before the second attempt; doubles with each further one, to 15 minutes at most.
        package var retryBackoffS: Double
    }

    /// What the client is told about local training.
    package struct Training: Codable, Equatable, Sendable {
        package struct Local: Codable, Equatable, Sendable {
            package var optimizer: String
            package var learningRate: Double
            package var batchSize: Int
            package var epochs: Int
            package var clip: Double
            /// For `momentum`: its memory.
            package var momentum: Double?
            /// For `adam` and `adamw`: the memory of gradients and of their squares, and what keeps the root from zero.
            package var beta1: Double?
            package var beta2: Double?
            package var epsilon: Double?
            package var weightDecay: Double?
            /// FedProx's μ: pulls each step towards the global model.
            package var proximalMu: Double?
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
        /// `delta`, `weights` or `gradient`.
        package var submit: String
        /// An encoding of updates by name: `f32`, `int8`, `topk` and so on.
        package var encoding: String
        /// How clients are told to fetch the model: `f32`, `f16` or `int8`; absent: `f32`.
        package var modelEncoding: String?
        /// `fedavg` or `scaffold`; absent: `fedavg`.
        package var algorithm: String?
    }

    package var name: String
    package var kind: String
    package var population: String
    package var model: Model
    package var rounds: Int
    package var cohort: Cohort
    package var training: Training
    package var aggregation: Aggregation
    package var privacy: Privacy
    package var evaluation: Evaluation
    package var stop: Stop?
    /// Of kind `analytics`: what is counted.
    package var analytics: Analytics?
}

extension RunSpecification {
    /// Reads a run specification, with defaults for everything but `population`, `model`, `rounds` and `cohort.goal`.
    ///
    /// - Throws: ``DocumentError`` naming every bad field with the values allowed.
    package static func read(_ document: JSONValue) throws(DocumentError) -> RunSpecification {
        try FieldReader.read(document) { RunSpecification(reading: $0) }
    }

    private init(reading fields: FieldReader) {
        name = fields.string("name", default: "run")
        kind = fields.choice("kind", of: ["training", "analytics"], default: "training")
        population = fields.string("population")
        let plan = Self.readAnalytics(fields, kind: kind)
        let analytics = plan?.analytics
        self.analytics = analytics
        rounds = fields.integer("rounds", default: analytics.map { $0.isTrie ? 10 : 1 }, in: 1...1_000_000)
        let rounds = rounds
        model = plan.map { Model($0, levels: rounds, in: fields) } ?? fields.object("model") { Model(reading: $0) }
        let privacy = fields.object("privacy") { fields in
            analytics.map { Privacy($0, reading: fields) } ?? Privacy(reading: fields)
        }
        self.privacy = privacy
        model.setAdapterDefault(isPrivate: privacy.mode != "none")
        cohort = fields.object("cohort") { cohort in
            Cohort(reading: cohort, privacy: privacy, analytics: analytics, rounds: rounds)
        }
        let training = fields.object("training") { Training(reading: $0, privacyMode: privacy.mode) }
        self.training = training
        let cohort = self.cohort
        let goal = cohort.goal
        aggregation = fields.object("aggregation") {
            Aggregation(
                reading: $0,
                privacyMode: privacy.mode,
                cohort: cohort,
                training: training,
                isAnalytics: analytics != nil
            )
        }
        evaluation = fields.object("evaluation") { Evaluation(reading: $0, goal: goal, privacy: privacy) }
        let stops = fields.has("stop")
        let stop = fields.object("stop") { stops ? Stop(reading: $0) : nil }
        self.stop = stop
        checkScheduling(fields)
        checkPrivacy(fields)
        if self.privacy.mechanism == "banded_matrix" { self.privacy.band = noiseBand }
        settleAnalytics(fields)
    }
}

extension RunSpecification.Model {
    fileprivate init(reading fields: FieldReader) {
        architecture = fields.choice("architecture", of: Self.architectures, default: "cifg-lstm")
        if !fields.has("architecture") {
            fields.report("architecture", "is required: \(Self.architectures.joined(separator: ", "))")
        }
        config = fields.rawObject("config")
        if architecture != "external" {
            // What it must hold, the architecture says when the run is created.
            if config == nil { config = .object([:]) }
            initialization = fields.object("initialization") { initialization in
                let seed = initialization.string("seed", default: "42", lengthLimit: 20)
                if UInt64(seed) == nil { initialization.report("seed", "must be a 64-bit number as a string") }
                return Initialization(seed: seed)
            }
        }
        if fields.has("base") {
            base = fields.object("base") { base in
                Base(
                    run: base.string("run"),
                    version: base.has("version") ? base.integer("version", in: 0...1_000_000) : nil
                )
            }
        }
    }

    /// Adapters are trained by B alone under privacy, where the mean is exact and the noise stays linear; else both.
    package mutating func setAdapterDefault(isPrivate: Bool) {
        guard case .object(var fields)? = config, case .object(var lora)? = fields["lora"], lora["train"] == nil else {
            return
        }
        lora["train"] = .string(isPrivate ? "b" : "both")
        fields["lora"] = .object(lora)
        config = .object(fields)
    }
}

extension RunSpecification.Cohort {
    fileprivate init(
        reading fields: FieldReader,
        privacy: RunSpecification.Privacy,
        analytics: RunSpecification.Analytics?,
        rounds: Int
    ) {
        let isAmplified = privacy.isAmplified
        let isTrie = analytics?.isTrie ?? false
        // Where the cost counts on a secret draw, an attempt must not be thrown away for how many came.
        let mayBeEmpty = isAmplified || isTrie
        let capRequired = privacy.addsNoise && !isAmplified
        goal = fields.integer("goal", default: isTrie ? analytics?.threshold : nil, in: 1...1_000_000)
        minimum = fields.integer("minimum", default: mayBeEmpty ? 0 : max(1, goal * 4 / 5), in: 0...1_000_000)
        if minimum > goal { fields.report("minimum", "\(minimum) is more than the goal of \(goal)") }
        if (minimum == 0) != mayBeEmpty {
            fields.report(
                "minimum",
                mayBeEmpty
                    ? "must be 0 or left out with privacy.amplification poisson or triehh: an attempt that is thrown away for having few "
                        + "updates tells who was drawn" : "must be 1 or more"
            )
        }
        overSelection = fields.number("over_selection", default: 1.2, in: 1...10)
        policy = fields.choice(
            "policy",
            of: ["first_come", "uniform", "poisson", "all"],
            default: isTrie ? "poisson" : "first_come"
        )
        selectionTimeoutS = fields.number("selection_timeout_s", default: 60, in: 0.1...604_800)
        reportTimeoutS = fields.number("report_timeout_s", default: 300, in: 0.1...604_800)
        maxParticipations = fields.integer(
            "max_participations",
            default: capRequired || analytics?.isTrie == false ? 1 : 0,
            in: 0...1_000_000
        )
        if capRequired && maxParticipations == 0 {
            fields.report("max_participations", "must be at least 1 with differential privacy: the cost grows with it")
        }
        if isAmplified && maxParticipations > 0 {
            fields.report(
                "max_participations",
                "must be 0 or left out with privacy.amplification poisson: every round draws from everyone"
            )
        }
        minSeparationRounds = fields.integer("min_separation_rounds", default: 0, in: 0...1_000_000)
        samplingRate = fields.optionalNumber("sampling_rate", in: 0...1, excludingLower: true)
        if let analytics, let threshold = analytics.threshold, let epsilon = analytics.epsilon, isTrie {
            let rate = RunSpecification.Analytics.samplingRate(epsilon: epsilon, levels: rounds, threshold: threshold)
            if let samplingRate, abs(samplingRate - rate) > 1e-9 * rate {
                fields.report(
                    "sampling_rate",
                    "is \(rate) with this epsilon, threshold and number of rounds; leave it out"
                )
            }
            samplingRate = rate
        }
        if policy == "poisson" && samplingRate == nil {
            fields.report("sampling_rate", "is required by policy poisson")
        }
        requirements = fields.optionalString("requirements", lengthLimit: 8000)
        if let requirements {
            do {
                _ = try EligibilityExpression(requirements)
            } catch {
                fields.report("requirements", "at character \(error.position): \(error.message)")
            }
        }
        minimumClientVersion = fields.optionalString("minimum_client_version")
        if let minimumClientVersion, DottedVersion(minimumClientVersion) == nil {
            fields.report("minimum_client_version", "must be dotted numbers, such as 1.4.2")
        }
        leaseS = fields.optionalNumber("lease_s", in: 1...86_400)
        tiers = fields.integer("tiers", default: 1, in: 1...16)
        targetSeconds = fields.number("target_seconds", default: 0, in: 0...86_400)
        minExamples = fields.integer("min_examples", default: 1, in: 1...1_000_000_000)
        maxAttempts = fields.integer("max_attempts", default: 0, in: 0...1_000_000)
        retryBackoffS = fields.number("retry_backoff_s", default: 1, in: 0...900)
    }
}

extension RunSpecification.Training {
    /// What a run file that says nothing of training means.
    static let defaults = try? FieldReader.read(.object([:])) { Self(reading: $0, privacyMode: "none") }

    fileprivate init(reading fields: FieldReader, privacyMode: String) {
        local = fields.object("local") { local in
            let optimizer = local.choice("optimizer", of: ["sgd", "momentum", "adam", "adamw"], default: "sgd")
            if local.has("momentum") && optimizer != "momentum" {
                local.report("momentum", "has no meaning with optimizer \(optimizer)")
            }
            for name in ["beta1", "beta2", "epsilon"] where local.has(name) && !optimizer.hasPrefix("adam") {
                local.report(name, "has no meaning with optimizer \(optimizer); it belongs to adam and adamw")
            }
            func optional(_ name: String, in range: ClosedRange<Double>) -> Double? {
                local.has(name) ? local.number(name, in: range) : nil
            }
            return Local(
                optimizer: optimizer,
                learningRate: local.number(
                    "learning_rate",
                    default: optimizer.hasPrefix("adam") ? 0.001 : 1,
                    in: 0...1000,
                    excludingLower: true
                ),
                batchSize: local.integer("batch_size", default: 4, in: 1...100_000),
                epochs: local.integer("epochs", default: 1, in: 1...10_000),
                clip: local.number("clip", default: 1, in: 0...1e9, excludingLower: true),
                momentum: optional("momentum", in: 0...0.999_999),
                beta1: optional("beta1", in: 0...0.999_999),
                beta2: optional("beta2", in: 0...0.999_999),
                epsilon: optional("epsilon", in: 1e-16...1),
                weightDecay: optional("weight_decay", in: 0...1e3),
                proximalMu: optional("proximal_mu", in: 0...1e6)
            )
        }
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
        submit = fields.choice("submit", of: ["delta", "weights", "gradient"], default: "delta")
        algorithm = fields.choice("algorithm", of: ["fedavg", "scaffold"], default: "fedavg")
        encoding = fields.choice("encoding", of: UpdateEncoding.allCases.map(\.rawValue), default: "f32")
        if encoding != "f32" && (submit != "delta" || algorithm != "fedavg") {
            fields.report("encoding", "must be f32 here: only plain deltas may be compressed")
        }
        modelEncoding = fields.choice("model_encoding", of: ["f32", "f16", "int8"], default: "f32")
        if modelEncoding != "f32" && submit == "weights" {
            fields.report(
                "model_encoding",
                "must be f32 with submit weights: what the model lost on its way would look like training"
            )
        }
        refuseWhatDoesNotGoTogether(fields, privacyMode: privacyMode)
    }
}
