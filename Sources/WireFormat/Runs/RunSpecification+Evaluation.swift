import StrictJSON

extension RunSpecification {
    /// Evaluation of published versions on the clients' held-out data.
    package struct Evaluation: Codable, Equatable, Sendable {
        /// Every so many versions; 0 is never.
        package var every: Int
        package var cohortGoal: Int
        package var minimum: Int
        package var reportTimeoutS: Double
        /// z of one evaluation's release; privacy mode `central` only, like all that follow.
        package var noiseMultiplier: Double?
        /// Evaluations of this run in which one client takes part, at most.
        package var maxParticipations: Int?
        /// The rates that are released: `loss`, `top1`, `top3`, or another sum's mean over a client's examples.
        package var metrics: [String]?
        /// What a client's loss is cut at, in nats a target; other rates are cut to 0…1.
        package var lossBound: Double?

        package static let metricLimit = 8
    }

    /// How many evaluations come with the first `rounds` versions, where none is left out.
    package func evaluationCount(rounds count: Int) -> Int {
        guard evaluation.every > 0, count > 0 else { return 0 }
        // The last version is measured whatever its number.
        return count / evaluation.every + (count >= rounds && rounds % evaluation.every != 0 ? 1 : 0)
    }

    /// Whether the run promises privacy: whatever depends on a client's data is then noised and charged, or is not kept.
    package var isPrivate: Bool { privacy.mode != .none }

    /// Whether evaluations are a release that is noised and charged.
    package var hasPrivateEvaluation: Bool { evaluation.every > 0 && privacy.mode == .central }
}

extension RunSpecification.Evaluation {
    init(reading fields: FieldReader, goal: Int, privacyMode: PrivacyMode) {
        every = fields.integer("every", default: 0, in: 0...1_000_000)
        cohortGoal = fields.integer("cohort_goal", default: goal, in: 1...1_000_000)
        minimum = fields.integer("minimum", default: max(1, cohortGoal / 2), in: 1...1_000_000)
        reportTimeoutS = fields.number("report_timeout_s", default: 300, in: 0.1...604_800)
        noiseMultiplier = fields.optionalNumber("noise_multiplier", in: 0.1...10_000)
        maxParticipations = fields.optionalInteger("max_participations", in: 1...1_000_000)
        metrics = fields.stringList("metrics", countLimit: Self.metricLimit)
        lossBound = fields.optionalNumber("loss_bound", in: 1e-3...1e6)
        guard every > 0 && privacyMode == .central else { return }
        maxParticipations = maxParticipations ?? 1
        lossBound = lossBound ?? 10
        metrics = metrics ?? ["loss", "top1", "top3"]
    }

    /// What this section says that it, or the privacy mode, rules out.
    func contradictions(privacyMode: PrivacyMode) -> [Contradiction] {
        var found: [Contradiction] = []
        if minimum > cohortGoal { found.add("minimum", "\(minimum) is more than the cohort_goal of \(cohortGoal)") }
        guard every > 0 && privacyMode == .central else {
            for (name, isGiven) in [
                ("noise_multiplier", noiseMultiplier != nil), ("max_participations", maxParticipations != nil),
                ("metrics", metrics != nil), ("loss_bound", lossBound != nil),
            ] where isGiven {
                found.add(name, "belongs to evaluation in privacy.mode central, with every above 0")
            }
            return found
        }
        if noiseMultiplier == nil {
            found.add(
                "noise_multiplier",
                "is required in mode central: what clients measure is a release of its own, charged to the budget"
            )
        }
        let names = metrics ?? []
        if names.isEmpty || Set(names).count < names.count {
            found.add("metrics", "must name 1 to \(Self.metricLimit) rates, each once")
        }
        for name in names where !MetricSums.isRate(name) {
            found.add("metrics", "'\(name)' is no rate: loss, top1, top3, or the name of another sum that clients send")
        }
        return found
    }
}

extension RunSpecification {
    /// Whether what the run does next depends on what it has published: an adaptive clipping norm, or a rule to stop by a
    /// measurement.
    ///
    /// Then only filters may enforce a budget.
    package var followsItsOutputs: Bool { privacy.isAdaptive || stop != nil }

    /// Evaluations and rules to stop that would release what nothing charges.
    var releaseContradictions: [Contradiction] {
        var found: [Contradiction] = []
        if evaluation.every > 0 && privacy.mode == .local {
            found.add(
                "evaluation",
                "has no meaning in mode local: the server, which this mode protects from, would see what clients measure. "
                    + "Leave it out, and measure versions on public data (POST …/models/{version}/metrics)"
            )
        }
        if evaluation.every > 0 && privacy.isAmplified {
            found.add(
                "evaluation",
                "has no place beside privacy.amplification: its cohort is whoever comes first, and no secret draw. Leave it "
                    + "out, and measure versions on public data (POST …/models/{version}/metrics)"
            )
        }
        if let stop, isPrivate, !(hasPrivateEvaluation && evaluation.metrics?.contains(stop.metric) == true) {
            found.add(
                "stop",
                "'\(stop.metric)' of private data is not published in mode \(privacy.mode)"
                    + (privacy.mode == .central
                        ? ": name it in evaluation.metrics, with evaluation.every and its noise_multiplier" : "")
            )
        }
        return found
    }
}
