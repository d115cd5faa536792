extension RunSpecification {
    /// Evaluation of published versions on the clients' held-out data.
    package struct Evaluation: Codable, Equatable, Sendable {
        /// Every so many versions; 0 is never.
        package var every: Int
        package var cohortGoal: Int
        package var minimum: Int
        package var reportTimeoutS: Double
    }

    /// When a run ends before its last round.
    package struct Stop: Codable, Equatable, Sendable {
        /// A rate of the evaluation rounds, or of training where there are none: `loss`, `top1`, `top3`, or another sum's mean.
        package var metric: String
        package var atLeast: Double?
        package var atMost: Double?
        /// Measurements in a row without a new best one.
        package var patience: Int?

        /// Whether larger values are better.
        package var prefersLarger: Bool { atLeast != nil || (atMost == nil && !metric.contains("loss")) }
    }

    /// Asynchronous aggregation: a version is made of every `buffer` updates, whatever version they started from.
    ///
    /// Source: Nguyen et al. 2022, arXiv:2106.06639 (FedBuff), with the staleness weight 1/√(1+s).
    package struct Buffered: Codable, Equatable, Sendable {
        /// Clients at work at the same time.
        package var concurrency: Int
        /// Updates a version; the cohort's goal.
        package var buffer: Int
        /// Versions that an update may be behind; an older one is refused as `too_stale`.
        package var maxStaleness: Int
    }
}

extension RunSpecification.Evaluation {
    init(reading fields: FieldReader, goal: Int) {
        every = fields.integer("every", default: 0, in: 0...1_000_000)
        cohortGoal = fields.integer("cohort_goal", default: goal, in: 1...1_000_000)
        minimum = fields.integer("minimum", default: max(1, cohortGoal / 2), in: 1...1_000_000)
        if minimum > cohortGoal { fields.report("minimum", "\(minimum) is more than the cohort_goal of \(cohortGoal)") }
        reportTimeoutS = fields.number("report_timeout_s", default: 300, in: 0.1...604_800)
    }
}

extension RunSpecification.Stop {
    init(reading fields: FieldReader) {
        metric = fields.string("metric", lengthLimit: 64)
        atLeast = fields.optionalNumber("at_least", in: -1e300...1e300)
        atMost = fields.optionalNumber("at_most", in: -1e300...1e300)
        patience = fields.optionalInteger("patience", in: 1...1_000_000)
        if atLeast != nil && atMost != nil { fields.report("at_most", "is not possible together with at_least") }
        if atLeast == nil && atMost == nil && patience == nil {
            fields.report("metric", "needs at_least, at_most or patience beside it")
        }
    }
}

extension RunSpecification.Buffered {
    init(reading fields: FieldReader, goal: Int) {
        concurrency = fields.integer("concurrency", default: min(goal * 2, 1_000_000), in: 1...1_000_000)
        buffer = fields.integer("buffer", default: goal, in: 1...1_000_000)
        if buffer != goal { fields.report("buffer", "\(buffer) must be the cohort's goal, which is \(goal)") }
        maxStaleness = fields.integer("max_staleness", default: 20, in: 0...1_000_000)
    }
}

extension RunSpecification {
    /// Refuses what the scheduling fields would promise and could not keep.
    func checkScheduling(_ fields: FieldReader) {
        let isBuffered = aggregation.mode == "buffered"
        if isBuffered && cohort.policy != "first_come" {
            fields.report(
                "cohort",
                "policy \(cohort.policy) has no meaning in mode buffered: clients come as they like"
            )
        }
        if evaluation.every > 0 && privacy.mode != "none" {
            fields.report(
                "evaluation",
                "sums over private data are a release of their own, which mode \(privacy.mode) does not charge: "
                    + "leave evaluation out, and measure versions on public data (POST …/models/{version}/metrics)"
            )
        }
        if stop != nil && privacy.mode != "none" {
            fields.report("stop", "takes a metric of private data, which mode \(privacy.mode) does not publish")
        }
    }
}
