import StrictJSON

extension RunSpecification {
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

extension RunSpecification.Stop {
    init(reading fields: FieldReader) {
        metric = fields.string("metric", lengthLimit: 64)
        atLeast = fields.optionalNumber("at_least", in: -1e300...1e300)
        atMost = fields.optionalNumber("at_most", in: -1e300...1e300)
        patience = fields.optionalInteger("patience", in: 1...1_000_000)
    }

    var contradictions: [Contradiction] {
        var found: [Contradiction] = []
        if atLeast != nil && atMost != nil { found.add("at_most", "is not possible together with at_least") }
        if atLeast == nil && atMost == nil && patience == nil {
            found.add("metric", "needs at_least, at_most or patience beside it")
        }
        return found
    }
}

extension RunSpecification.Buffered {
    static let fields: Set<String> = ["concurrency", "buffer", "max_staleness"]

    init(reading fields: FieldReader, goal: Int) {
        concurrency = fields.integer("concurrency", default: min(goal * 2, 1_000_000), in: 1...1_000_000)
        buffer = fields.integer("buffer", default: goal, in: 1...1_000_000)
        maxStaleness = fields.integer("max_staleness", default: 20, in: 0...1_000_000)
    }
}
