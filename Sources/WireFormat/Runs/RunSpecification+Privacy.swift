import StrictJSON

extension RunSpecification {
    /// The privacy terms.
    package struct Privacy: Equatable, Sendable {
        /// How updates are bounded.
        package struct Clipping: Equatable, Sendable {
            /// C; with policy `adaptive` the first round's.
            package var norm: Double
            package var policy: Policy
        }

        /// What the noise is calibrated for when the run is created.
        package struct Target: Codable, Equatable, Sendable {
            /// ε of all rounds of the run.
            package var epsilon: Double
            /// The population's δ where absent.
            package var delta: Double?
            /// Whether `noiseMultiplier` is the answer.
            package var calibrated: Bool
        }

        package var mode: PrivacyMode
        package var mechanism: Mechanism
        package var clipping: Clipping
        /// Scale of the noise over the sensitivity (C for central, 2C for local); 0 until a target is calibrated.
        package var noiseMultiplier: Double
        package var amplification: Amplification
        package var target: Target?
    }
}

extension RunSpecification.Privacy {
    /// What noise is added, with what it needs to know.
    package enum Mechanism: Equatable, Sendable {
        case gaussian, laplace
        /// The standard deviation in units of its grid.
        case discreteGaussian(scale: Int)
        /// So many coefficients; absent until the run is read, which has at least those that its cohort's separation allows.
        case bandedMatrix(band: Int?)
        /// The noised count from which on a prefix is published; absent until the run is created.
        case gaussianSparseHistogram(threshold: Double?)
        case sampleAndThreshold

        package var name: MechanismWord {
            switch self {
            case .gaussian: .gaussian
            case .laplace: .laplace
            case .discreteGaussian: .discreteGaussian
            case .bandedMatrix: .bandedMatrix
            case .gaussianSparseHistogram: .gaussianSparseHistogram
            case .sampleAndThreshold: .sampleAndThreshold
            }
        }
    }

    /// Whether the cost counts on a secret Poisson sample.
    package var isAmplified: Bool { amplification == .poisson }
    /// Whether the claim needs that nobody learns who was drawn, or how many: then nothing may show it, by number, size or time.
    package var hasSecretDraw: Bool { isAmplified || mechanism == .sampleAndThreshold }
    /// Whether the clipping norm follows a quantile.
    package var isAdaptive: Bool { clipping.policy.name == .adaptive }
    /// Whether updates are votes, which are neither clipped nor noised one by one.
    package var areVotes: Bool { mechanism.name.isForVotes }
    /// Whether updates are clipped and noised, as all are but votes.
    package var addsNoise: Bool { mode != .none && !areVotes }
    /// Coefficients of mechanism `banded_matrix`.
    package var band: Int? { if case .bandedMatrix(let band) = mechanism { band } else { nil } }
    /// Whether noise is correlated between rounds.
    package var isBanded: Bool { mechanism.name == .bandedMatrix }
    /// The noised count from which on votes are published.
    package var threshold: Double? {
        if case .gaussianSparseHistogram(let threshold) = mechanism { threshold } else { nil }
    }
}

extension RunSpecification.Privacy.Clipping {
    /// How the norm is applied, and where it comes from.
    package enum Policy: Equatable, Sendable {
        case flat, perLayer, l1
        case adaptive(Quantile)

        package var name: ClippingPolicy {
            switch self {
            case .flat: .flat
            case .perLayer: .perLayer
            case .l1: .l1
            case .adaptive: .adaptive
            }
        }
    }

    /// The norm that policy `adaptive` follows.
    package struct Quantile: Equatable, Sendable {
        /// γ: the share of updates that the norm shall leave as they are.
        package var target: Double
        /// η.
        package var learningRate: Double
        /// σ_b: standard deviation of the noise on the count of updates within the norm; absent: by the cohort's size.
        package var countNoise: Double?

        package init(target: Double, learningRate: Double, countNoise: Double?) {
            (self.target, self.learningRate, self.countNoise) = (target, learningRate, countNoise)
        }
    }
}

// MARK: - Reading

extension RunSpecification.Privacy {
    private static let fields: Set<String> = ["noise_scale", "band", "threshold"]

    /// The terms of a run that trains, or counts.
    ///
    /// - Parameters:
    ///   - fields: The section.
    ///   - defaultNorm: C where the section does not say.
    ///   - modes: Those that may be asked for; the first of them stands for a section without one.
    ///   - mechanisms: Likewise.
    init(
        reading fields: FieldReader,
        defaultNorm: Double = 1,
        modes: [PrivacyMode] = PrivacyMode.allCases,
        mechanisms: [MechanismWord] = [.gaussian, .laplace, .discreteGaussian, .bandedMatrix]
    ) {
        mode = fields.choice("mode", among: modes, default: modes[0])
        let word = fields.choice("mechanism", among: mechanisms, default: mechanisms[0])
        fields.isAlternative("mechanism \(word)", fields: Self.fields)
        switch word {
        case .gaussian: mechanism = .gaussian
        case .laplace: mechanism = .laplace
        case .discreteGaussian:
            mechanism = .discreteGaussian(scale: fields.integer("noise_scale", default: 1000, in: 1...1000))
        case .bandedMatrix: mechanism = .bandedMatrix(band: fields.optionalInteger("band", in: 1...64))
        case .gaussianSparseHistogram:
            mechanism = .gaussianSparseHistogram(threshold: fields.optionalNumber("threshold", in: 1...1e9))
        case .sampleAndThreshold: mechanism = .sampleAndThreshold
        }
        clipping = fields.object("clipping") {
            Clipping(reading: $0, defaultPolicy: word == .laplace ? .l1 : .flat, defaultNorm: defaultNorm)
        }
        let hasTarget = fields.has("target")
        target = fields.object("target") { hasTarget ? Target(reading: $0) : nil }
        let needsNumber = mode != .none && target?.calibrated ?? true
        noiseMultiplier = fields.number("noise_multiplier", default: needsNumber ? nil : 0, in: 0...10_000)
        amplification = fields.choice("amplification", default: .none)
    }

    /// The terms of an analytics run.
    init(_ analytics: RunSpecification.Analytics, reading fields: FieldReader) {
        switch analytics.method {
        case .histogram: self.init(reading: fields, defaultNorm: analytics.sensitivity)
        case .votes: self.init(votes: fields)
        case .triehh: self.init(sampledVotes: fields)
        }
    }

    /// The terms of votes, in a run file as in an assignment.
    init(votes fields: FieldReader) {
        self.init(reading: fields, modes: [.central], mechanisms: [.gaussianSparseHistogram])
    }

    /// The terms of votes that are sampled and not noised (TrieHH), which only stored runs have.
    init(sampledVotes fields: FieldReader) {
        mode = fields.choice("mode", among: [.central], default: .central)
        let word: MechanismWord = fields.choice("mechanism", among: [.sampleAndThreshold], default: .sampleAndThreshold)
        fields.isAlternative("mechanism \(word)", fields: Self.fields)
        mechanism = .sampleAndThreshold
        clipping = fields.object("clipping") { clipping in
            _ = clipping.choice("policy", among: [ClippingPolicy.flat], default: .flat)
            return Clipping(norm: clipping.number("norm", default: 1, in: 1...1), policy: .flat)
        }
        noiseMultiplier = fields.number("noise_multiplier", default: 0, in: 0...0)
        amplification = fields.choice("amplification", among: [.none], default: .none)
        target = nil
    }
}

extension RunSpecification.Privacy.Clipping {
    private static let fields: Set<String> = ["target_quantile", "learning_rate", "count_noise"]

    fileprivate init(reading fields: FieldReader, defaultPolicy: ClippingPolicy, defaultNorm: Double) {
        norm = fields.number("norm", default: defaultNorm, in: 1e-9...1e9)
        let word = fields.choice("policy", default: defaultPolicy)
        fields.isAlternative("policy \(word)", fields: Self.fields)
        switch word {
        case .flat: policy = .flat
        case .perLayer: policy = .perLayer
        case .l1: policy = .l1
        case .adaptive:
            policy = .adaptive(
                Quantile(
                    target: fields.number("target_quantile", default: 0.5, in: 0.01...0.99),
                    learningRate: fields.number("learning_rate", default: 0.2, in: 1e-6...2),
                    countNoise: fields.optionalNumber("count_noise", in: 0.05...5000)
                )
            )
        }
    }
}

extension RunSpecification.Privacy.Target {
    fileprivate init(reading fields: FieldReader) {
        epsilon = fields.number("epsilon", in: 1e-3...1000)
        delta = fields.optionalNumber("delta", in: 1e-12...0.1)
        calibrated = fields.boolean("calibrated", default: false)
    }
}

// MARK: - Documents

extension RunSpecification.Privacy: Codable {
    /// As it is written: one object for whatever mechanism.
    private struct Fields: Codable {
        var mode: PrivacyMode
        var mechanism: MechanismWord
        var clipping: Clipping
        var noiseMultiplier: Double
        var noiseScale: Int?
        var band: Int?
        var amplification: Amplification?
        var target: Target?
        var threshold: Double?
    }

    package init(from decoder: any Decoder) throws {
        let fields = try Fields(from: decoder)
        let mechanism: Mechanism =
            switch fields.mechanism {
            case .gaussian: .gaussian
            case .laplace: .laplace
            case .discreteGaussian: .discreteGaussian(scale: fields.noiseScale ?? 1000)
            case .bandedMatrix: .bandedMatrix(band: fields.band)
            case .gaussianSparseHistogram: .gaussianSparseHistogram(threshold: fields.threshold)
            case .sampleAndThreshold: .sampleAndThreshold
            }
        self.init(
            mode: fields.mode,
            mechanism: mechanism,
            clipping: fields.clipping,
            noiseMultiplier: fields.noiseMultiplier,
            amplification: fields.amplification ?? .none,
            target: fields.target
        )
    }

    package func encode(to encoder: any Encoder) throws {
        var fields = Fields(
            mode: mode,
            mechanism: mechanism.name,
            clipping: clipping,
            noiseMultiplier: noiseMultiplier,
            amplification: amplification,
            target: target
        )
        switch mechanism {
        case .gaussian, .laplace, .sampleAndThreshold: break
        case .discreteGaussian(let scale): fields.noiseScale = scale
        case .bandedMatrix(let band): fields.band = band
        case .gaussianSparseHistogram(let threshold): fields.threshold = threshold
        }
        try fields.encode(to: encoder)
    }
}

extension RunSpecification.Privacy.Clipping: Codable {
    /// As it is written: one object for whatever policy.
    private struct Fields: Codable {
        var norm: Double
        var policy: ClippingPolicy
        var targetQuantile: Double?
        var learningRate: Double?
        var countNoise: Double?
    }

    package init(from decoder: any Decoder) throws {
        let fields = try Fields(from: decoder)
        let policy: Policy =
            switch fields.policy {
            case .flat: .flat
            case .perLayer: .perLayer
            case .l1: .l1
            case .adaptive:
                .adaptive(
                    Quantile(
                        target: fields.targetQuantile ?? 0.5,
                        learningRate: fields.learningRate ?? 0.2,
                        countNoise: fields.countNoise
                    )
                )
            }
        self.init(norm: fields.norm, policy: policy)
    }

    package func encode(to encoder: any Encoder) throws {
        var fields = Fields(norm: norm, policy: policy.name)
        if case .adaptive(let quantile) = policy {
            (fields.targetQuantile, fields.learningRate) = (quantile.target, quantile.learningRate)
            fields.countNoise = quantile.countNoise
        }
        try fields.encode(to: encoder)
    }
}

// MARK: - What does not go together

extension RunSpecification.Privacy {
    /// What this section says that it rules out itself.
    ///
    /// - Parameter noiseIsGiven: Whether the document says `noise_multiplier`.
    /// - Returns: The contradictions, their paths from this section.
    func contradictions(noiseIsGiven: Bool) -> [Contradiction] {
        if mechanism == .sampleAndThreshold { return [] }
        var found: [Contradiction] = []
        if mode != .none && noiseIsGiven && noiseMultiplier < 0.1 {
            found.add("noise_multiplier", "must be at least 0.1 in mode \(mode)")
        }
        if let target {
            if !target.calibrated && noiseIsGiven {
                found.add("noise_multiplier", "is what target finds: give one of the two")
            }
            if mode == .none { found.add("target", "has no meaning in mode none") }
        }
        if (clipping.policy == .l1) != (mechanism == .laplace) {
            found.add(
                "clipping/policy",
                "l1 and mechanism laplace belong together: Laplace noise is for L1 norms, others for L2"
            )
        }
        if case .gaussianSparseHistogram = mechanism,
            clipping.norm != 1 || clipping.policy != .flat || isAmplified
        {
            found.add("clipping", "a vote has weight 1, and counts on no amplification: leave both out")
        }
        if mode != .central { found += contradictionsOutsideCentral }
        if isAmplified && mechanism != .gaussian {
            found.add("amplification", "may be claimed for mechanism gaussian, not for \(mechanism.name)")
        }
        if isAdaptive && mechanism != .gaussian {
            found.add(
                "clipping",
                "policy adaptive splits the noise of mechanism gaussian between the update and the count, not of "
                    + "\(mechanism.name)"
            )
        }
        return found
    }

    private var contradictionsOutsideCentral: [Contradiction] {
        var found: [Contradiction] = []
        if isAmplified {
            found.add(
                "amplification",
                mode == .local
                    ? "the server, which mode local protects from, knows its own draw: no amplification may be claimed"
                    : "has no meaning in mode none"
            )
        }
        if isAdaptive {
            found.add("clipping", "policy adaptive needs mode central: the count of clipped updates is noised there")
        }
        if isBanded {
            found.add("mechanism", "banded_matrix correlates the noise of the server's sums: it needs mode central")
        }
        return found
    }
}

extension RunSpecification {
    /// What the privacy terms would promise beside these rounds and cohorts, and could not keep.
    var privacyContradictions: [Contradiction] {
        var found: [Contradiction] = []
        let isBuffered = aggregation.isBuffered
        if privacy.isAmplified && (cohort.policy != .poisson || cohort.tiers > 1 || cohort.minSeparationRounds > 0) {
            found.add(
                "privacy",
                "amplification poisson counts on cohort.policy poisson alone: the server's own coins for each client and "
                    + "round, without min_separation_rounds or tiers"
            )
        }
        if privacy.isAdaptive && isBuffered {
            found.add("privacy", "clipping.policy adaptive has one norm a round, and mode buffered mixes rounds")
        }
        guard privacy.isBanded else { return found }
        if isBuffered {
            found.add(
                "privacy",
                "banded_matrix counts the rounds between two updates of a client; mode buffered has none"
            )
        }
        if cohort.minSeparationRounds < 1 {
            found.add(
                "privacy",
                "banded_matrix needs cohort.min_separation_rounds: its cost counts on the rounds between two "
                    + "participations of one client"
            )
        } else if let band = privacy.band, band > cohort.minSeparationRounds {
            found.add(
                "privacy",
                "band \(band) is more than cohort.min_separation_rounds of \(cohort.minSeparationRounds): the noise of "
                    + "two participations of one client would be correlated"
            )
        }
        return found
    }

    /// b̂ of `banded_matrix`: as given, or the separation, 64 at most.
    package var noiseBand: Int { privacy.band ?? max(1, min(64, cohort.minSeparationRounds)) }
}
