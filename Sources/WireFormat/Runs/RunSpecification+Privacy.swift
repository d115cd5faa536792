extension RunSpecification {
    /// The privacy terms.
    package struct Privacy: Codable, Equatable, Sendable {
        /// How updates are bounded.
        package struct Clipping: Codable, Equatable, Sendable {
            /// C; with policy `adaptive` the first round's.
            package var norm: Double
            /// `flat`, `per_layer`, `l1` or `adaptive`.
            package var policy: String
            /// γ of `adaptive`: the share of updates that the norm shall leave as they are.
            package var targetQuantile: Double?
            /// η of `adaptive`.
            package var learningRate: Double?
            /// σ_b of `adaptive`: standard deviation of the noise on the count of updates within the norm.
            package var countNoise: Double?
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

        package var mode: String
        /// `gaussian`, `laplace`, `discrete_gaussian`, `banded_matrix`, or TrieHH's `sample_and_threshold`.
        package var mechanism: String
        package var clipping: Clipping
        /// Scale of the noise over the sensitivity (C for central, 2C for local); 0 until a target is calibrated.
        package var noiseMultiplier: Double
        /// Standard deviation of `discrete_gaussian` in units of its grid.
        package var noiseScale: Int?
        /// Coefficients of `banded_matrix`.
        package var band: Int?
        /// `none`, or `poisson`: the cost counts on the server's own secret coins.
        package var amplification: String?
        package var target: Target?

        /// Whether the cost counts on a secret Poisson sample.
        package var isAmplified: Bool { amplification == "poisson" }
        /// Whether the clipping norm follows a quantile.
        package var isAdaptive: Bool { clipping.policy == "adaptive" }
    }
}

extension RunSpecification.Privacy {
    init(reading fields: FieldReader, defaultNorm: Double = 1) {
        mode = fields.choice("mode", of: ["none", "central", "local"], default: "none")
        let mechanism = fields.choice(
            "mechanism",
            of: ["gaussian", "laplace", "discrete_gaussian", "banded_matrix"],
            default: "gaussian"
        )
        self.mechanism = mechanism
        clipping = fields.object("clipping") { Clipping(reading: $0, mechanism: mechanism, defaultNorm: defaultNorm) }
        let isPrivate = mode != "none"
        let hasTarget = fields.has("target")
        let target = fields.object("target") { hasTarget ? Target(reading: $0) : nil }
        self.target = target
        let isOpen = target.map { !$0.calibrated } ?? false
        noiseMultiplier = fields.number("noise_multiplier", default: isPrivate && !isOpen ? nil : 0, in: 0...10_000)
        if isPrivate && fields.has("noise_multiplier") && noiseMultiplier < 0.1 {
            fields.report("noise_multiplier", "must be at least 0.1 in mode \(mode)")
        }
        if isOpen && fields.has("noise_multiplier") {
            fields.report("noise_multiplier", "is what target finds: give one of the two")
        }
        if hasTarget && !isPrivate { fields.report("target", "has no meaning in mode none") }
        amplification = fields.choice("amplification", of: ["none", "poisson"], default: "none")
        noiseScale = fields.optionalInteger("noise_scale", in: 1...1000)
        band = fields.optionalInteger("band", in: 1...64)
        if noiseScale != nil && mechanism != "discrete_gaussian" {
            fields.report("noise_scale", "has no meaning with mechanism \(mechanism); it belongs to discrete_gaussian")
        }
        if mechanism == "discrete_gaussian" { noiseScale = noiseScale ?? 1000 }
        if band != nil && mechanism != "banded_matrix" {
            fields.report("band", "has no meaning with mechanism \(mechanism); it belongs to banded_matrix")
        }
        refuseCombinations(fields)
    }

    private func refuseCombinations(_ fields: FieldReader) {
        if mode != "central" {
            if isAmplified {
                fields.report(
                    "amplification",
                    mode == "local"
                        ? "the server, which mode local protects from, knows its own draw: no amplification may be claimed"
                        : "has no meaning in mode none"
                )
            }
            if isAdaptive {
                fields.report(
                    "clipping",
                    "policy adaptive needs mode central: the count of clipped updates is noised there"
                )
            }
            if mechanism == "banded_matrix" {
                fields.report(
                    "mechanism",
                    "banded_matrix correlates the noise of the server's sums: it needs mode central"
                )
            }
        }
        if isAmplified && mechanism != "gaussian" {
            fields.report("amplification", "may be claimed for mechanism gaussian, not for \(mechanism)")
        }
        if isAdaptive && mechanism != "gaussian" {
            fields.report(
                "clipping",
                "policy adaptive splits the noise of mechanism gaussian between the update and the count, not of \(mechanism)"
            )
        }
    }
}

extension RunSpecification.Privacy.Clipping {
    fileprivate init(reading fields: FieldReader, mechanism: String, defaultNorm: Double) {
        norm = fields.number("norm", default: defaultNorm, in: 1e-9...1e9)
        policy = fields.choice(
            "policy",
            of: ["flat", "per_layer", "l1", "adaptive"],
            default: mechanism == "laplace" ? "l1" : "flat"
        )
        if (policy == "l1") != (mechanism == "laplace") {
            fields.report(
                "policy",
                "l1 and mechanism laplace belong together: Laplace noise is for L1 norms, others for L2"
            )
        }
        targetQuantile = fields.optionalNumber("target_quantile", in: 0.01...0.99)
        learningRate = fields.optionalNumber("learning_rate", in: 1e-6...2)
        countNoise = fields.optionalNumber("count_noise", in: 0.05...5000)
        guard policy != "adaptive" else {
            targetQuantile = targetQuantile ?? 0.5
            learningRate = learningRate ?? 0.2
            return
        }
        for (name, value) in [
            ("target_quantile", targetQuantile), ("learning_rate", learningRate), ("count_noise", countNoise),
        ] where value != nil {
            fields.report(name, "belongs to policy adaptive")
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

extension RunSpecification {
    /// Refuses what the privacy terms would promise beside these rounds and cohorts, and could not keep.
    func checkPrivacy(_ fields: FieldReader) {
        let isBuffered = aggregation.mode == "buffered"
        if privacy.isAmplified && (cohort.policy != "poisson" || cohort.tiers > 1 || cohort.minSeparationRounds > 0) {
            fields.report(
                "privacy",
                "amplification poisson counts on cohort.policy poisson alone: the server's own coins for each client and "
                    + "round, without min_separation_rounds or tiers"
            )
        }
        if privacy.isAdaptive && isBuffered {
            fields.report("privacy", "clipping.policy adaptive has one norm a round, and mode buffered mixes rounds")
        }
        if privacy.mode != "none" && cohort.minExamples > 1 && aggregation.weighting != "examples" {
            fields.report(
                "cohort",
                "min_examples is judged by a count that does not leave the device in mode \(privacy.mode); "
                    + "training.data.minimum_records is judged on the device"
            )
        }
        guard privacy.mechanism == "banded_matrix" else { return }
        if isBuffered {
            fields.report(
                "privacy",
                "banded_matrix counts the rounds between two updates of a client; mode buffered has none"
            )
        }
        if cohort.minSeparationRounds < 1 {
            fields.report(
                "privacy",
                "banded_matrix needs cohort.min_separation_rounds: its cost counts on the rounds between two "
                    + "participations of one client"
            )
        } else if let band = privacy.band, band > cohort.minSeparationRounds {
            fields.report(
                "privacy",
                "band \(band) is more than cohort.min_separation_rounds of \(cohort.minSeparationRounds): the noise of two "
                    + "participations of one client would be correlated"
            )
        }
    }

    /// b̂ of `banded_matrix`: as given, or the separation, 64 at most.
    package var noiseBand: Int { privacy.band ?? max(1, min(64, cohort.minSeparationRounds)) }
}
