package import StrictJSON
import Tensors

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
        /// The name of a built-in one, or ``external``: tensors come with the uploaded weights.
        package var architecture: String
        /// A JSON object that the architecture reads.
        package var config: JSONValue?
        package var initialization: Initialization?
        package var base: Base?

        /// The architecture that is nobody's but the run's: its first weights are uploaded.
        package static let external = "external"
        package var isExternal: Bool { architecture == Self.external }

        /// Reads a name; which ones there are, the module says that has the architectures.
        static func architecture(in fields: FieldReader) -> String {
            let name = fields.string("architecture", lengthLimit: 64)
            if !name.utf8.allSatisfy({ $0.isLetterOrDigit || $0 == 45 || $0 == 95 }) {
                fields.report("architecture", "must be a name of letters, digits, '-' and '_'")
            }
            return name
        }
    }

    /// Who takes part in a round, and how long it waits.
    package struct Cohort: Codable, Equatable, Sendable {
        package var goal: Int
        package var minimum: Int
        package var overSelection: Double
        package var policy: CohortPolicy
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

    package var name: String
    package var kind: RunKind
    package var population: String
    package var model: Model
    package var rounds: Int
    package var cohort: Cohort
    package var training: Training
    package var aggregation: Aggregation
    package var privacy: Privacy
    package var evaluation: Evaluation
    package var stop: Stop?
    /// Sums that clients may send with updates and evaluations beside the built-in ones; others are dropped.
    package var metrics: [String]?
    /// Of kind `analytics`: what is counted.
    package var analytics: Analytics?
    /// How single updates are kept from the server; absent: they are not.
    package var protection: Protection?
}

extension RunSpecification {
    /// Reads a run specification, with defaults for everything but `population`, `model`, `rounds` and `cohort.goal`.
    ///
    /// - Parameters:
    ///   - document: The run file.
    ///   - architectures: The names that a run that trains may give, as the module says that has them; absent: any.
    /// - Returns: The specification.
    /// - Throws: ``DocumentError`` naming every bad field with the values allowed.
    package static func read(
        _ document: JSONValue,
        architectures: [String]? = nil
    ) throws(DocumentError) -> RunSpecification {
        try FieldReader.read(document) { fields in
            let specification = RunSpecification(reading: fields)
            let name = specification.model.architecture
            if let architectures, specification.kind == .training, !name.isEmpty, !architectures.contains(name),
                AnalyticsMethod(rawValue: name) == nil
            {
                let names = architectures.joined(separator: ", ")
                fields.report(at: "model/architecture", "'\(name)' is not one of \(names)")
            }
            specification.leakContradictions.report(to: fields)
            return specification
        }
    }

    /// Reads the specification of a run that exists: what a new one may not ask for any more is taken, and does nothing.
    ///
    /// - Throws: ``DocumentError``.
    package static func readStored(_ document: JSONValue) throws(DocumentError) -> RunSpecification {
        try FieldReader.read(document) { RunSpecification(reading: $0) }
    }

    /// Reads the fields, gives those that are left out their values, and refuses what does not go together, in this order.
    private init(reading fields: FieldReader) {
        name = fields.string("name", default: "run")
        kind = fields.choice("kind", default: .training)
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
        let protection = fields.object("protection") { Protection(reading: $0, privacyMode: privacy.mode) }
        self.protection = protection
        model.setAdapterDefault(isPrivate: privacy.mode != .none)
        let cohort = fields.object("cohort") { cohort in
            Cohort(reading: cohort, privacy: privacy, analytics: analytics, rounds: rounds)
        }
        self.cohort = cohort
        let training = fields.object("training") { Training(reading: $0) }
        self.training = training
        aggregation = fields.object("aggregation") {
            Aggregation(
                reading: $0,
                privacyMode: privacy.mode,
                cohort: cohort,
                training: training,
                isAnalytics: analytics != nil,
                isProtected: protection != nil
            )
        }
        metrics = Self.readMetrics(fields)
        evaluation = fields.object("evaluation") {
            Evaluation(reading: $0, goal: cohort.goal, privacyMode: privacy.mode)
        }
        let stops = fields.has("stop")
        stop = fields.object("stop") { stops ? Stop(reading: $0) : nil }
        if privacy.isBanded { self.privacy.mechanism = .bandedMatrix(band: noiseBand) }
        contradictions(in: fields).report(to: fields)
        settleAnalytics()
    }

    /// What the sections say that cannot all be.
    private func contradictions(in fields: FieldReader) -> [Contradiction] {
        var found = privacy.contradictions(noiseIsGiven: fields.has(at: "privacy/noise_multiplier")).under("privacy")
        found += cohort.contradictions(privacy: privacy).under("cohort")
        found += training.contradictions(privacyMode: privacy.mode).under("training")
        found += aggregation.contradictions(
            privacyMode: privacy.mode,
            cohort: cohort,
            training: training,
            capIsGiven: fields.has(at: "aggregation/example_cap")
        ).under("aggregation")
        found += evaluation.contradictions(privacyMode: privacy.mode).under("evaluation")
        found += stop?.contradictions.under("stop") ?? []
        if aggregation.isBuffered && cohort.policy != .firstCome {
            found.add("cohort", "policy \(cohort.policy) has no meaning in mode buffered: clients come as they like")
        }
        found += releaseContradictions + privacyContradictions + protectionContradictions
        if let analytics { found += contradictions(with: analytics) }
        return found
    }

    private static func readMetrics(_ fields: FieldReader) -> [String]? {
        guard let names = fields.stringList("metrics", countLimit: MetricSums.nameLimit) else { return nil }
        if names.contains(where: { !MetricSums.admits($0, 0) }) {
            fields.report("metrics", "must hold names of lower-case letters, digits and _")
        }
        return names
    }

    /// Those of a client's sums that the run asks for: the built-in ones, and what the run file names.
    package func declared(_ sums: [String: Double]) -> [String: Double] {
        let named = (metrics ?? []) + (evaluation.metrics ?? []) + (stop.map { [$0.metric] } ?? [])
        return sums.filter { MetricSums.builtIn.contains($0.key) || named.contains($0.key) }
    }
}

extension RunSpecification.Model {
    fileprivate init(reading fields: FieldReader) {
        architecture = Self.architecture(in: fields)
        if AnalyticsMethod(rawValue: architecture) != nil {
            fields.report("architecture", "\(architecture) is what a run of kind analytics makes for itself")
        }
        config = fields.rawObject("config")
        if !isExternal {
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
        let isSampled = analytics?.isSampled ?? false
        // Where the cost counts on a secret draw, an attempt must not be thrown away for how many came.
        let mayBeEmpty = privacy.hasSecretDraw
        goal = fields.integer("goal", default: analytics?.voteThreshold, in: 1...1_000_000)
        minimum = fields.integer("minimum", default: mayBeEmpty ? 0 : max(1, goal * 4 / 5), in: 0...1_000_000)
        overSelection = fields.number("over_selection", default: 1.2, in: 1...10)
        policy = fields.choice("policy", default: isSampled ? .poisson : .firstCome)
        selectionTimeoutS = fields.number("selection_timeout_s", default: 60, in: 0.1...604_800)
        reportTimeoutS = fields.number("report_timeout_s", default: 300, in: 0.1...604_800)
        let usualParticipations: Int =
            switch analytics?.method {
            // Levels that a client votes in: all of them, where nothing else is said.
            case .votes: rounds
            case .histogram: 1
            case .triehh: 0
            case nil: Self.needsParticipationCap(privacy) ? 1 : 0
            }
        maxParticipations = fields.integer("max_participations", default: usualParticipations, in: 0...1_000_000)
        minSeparationRounds = fields.integer("min_separation_rounds", default: 0, in: 0...1_000_000)
        samplingRate = fields.optionalNumber("sampling_rate", in: 0...1, excludingLower: true)
        if let rate = analytics?.samplingRate(levels: rounds) {
            if let samplingRate, abs(samplingRate - rate) > 1e-9 * rate {
                fields.report(
                    "sampling_rate",
                    "is \(rate) with this epsilon, threshold and number of rounds; leave it out"
                )
            }
            samplingRate = rate
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
        minExamples = fields.integer("min_examples", default: 1, in: 1...UpdateMetadata.countLimit)
        maxAttempts = fields.integer("max_attempts", default: 0, in: 0...1_000_000)
        retryBackoffS = fields.number("retry_backoff_s", default: 1, in: 0...900)
    }

    /// Whether the cost grows with how often one client takes part.
    private static func needsParticipationCap(_ privacy: RunSpecification.Privacy) -> Bool {
        let isNoised = privacy.addsNoise || privacy.mechanism.name == .gaussianSparseHistogram
        return isNoised && !privacy.isAmplified
    }

    /// What this section says that it, or a section that it rests on, rules out.
    fileprivate func contradictions(privacy: RunSpecification.Privacy) -> [Contradiction] {
        var found: [Contradiction] = []
        if minimum > goal { found.add("minimum", "\(minimum) is more than the goal of \(goal)") }
        let mayBeEmpty = privacy.hasSecretDraw
        if (minimum == 0) != mayBeEmpty {
            found.add(
                "minimum",
                mayBeEmpty
                    ? "must be 0 or left out with privacy.amplification poisson or triehh: an attempt that is thrown away for "
                        + "having few updates tells who was drawn" : "must be 1 or more"
            )
        }
        if Self.needsParticipationCap(privacy) && maxParticipations == 0 {
            found.add("max_participations", "must be at least 1 with differential privacy: the cost grows with it")
        }
        if privacy.isAmplified && maxParticipations > 0 {
            found.add(
                "max_participations",
                "must be 0 or left out with privacy.amplification poisson: every round draws from everyone"
            )
        }
        if policy == .poisson && samplingRate == nil { found.add("sampling_rate", "is required by policy poisson") }
        return found
    }
}
