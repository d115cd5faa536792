extension RunSpecification {
    /// How updates become the next model.
    package struct Aggregation: Codable, Equatable, Sendable {
        /// The server's optimiser and its numbers; those that the optimiser does not have are absent.
        package struct Optimizer: Codable, Equatable, Sendable {
            /// `sgd` (FedAvg), `momentum` (FedAvgM), `adagrad`, `adam` or `yogi`.
            package var name: String
            package var learningRate: Double
            package var momentum: Double?
            package var beta1: Double?
            package var beta2: Double?
            package var epsilon: Double?
        }

        /// What makes an update stand out, and what happens then.
        package struct Anomalies: Codable, Equatable, Sendable {
            /// `report`, `exclude` (the update does not count) or `quarantine` (nor is its client asked again).
            package var action: String
            /// A norm of more than so many times the cohort's median norm.
            package var normRatio: Double
            /// A cosine to the aggregate below this; absent: any direction.
            package var minCosine: Double?
        }

        /// `mean`, `median`, `trimmed_mean`, `krum`, `multi_krum` or `geometric_median`.
        package var rule: String
        package var weighting: String
        package var optimizer: Optimizer
        /// Bound on the absolute value of one coordinate of an update.
        package var valueBound: Double
        /// Examples of one client that count, at most.
        package var exampleCap: Int
        /// The share of a cohort that the rule shall withstand: trimmed mean, Krum, multi-Krum.
        package var maliciousFraction: Double?
        /// How many updates multi-Krum averages; absent: all but the malicious ones and two.
        package var selectedCount: Int?
        /// Longer updates are scaled down to this L2 norm; no privacy clipping.
        package var normBound: Double?
        package var anomalies: Anomalies?
        /// `synchronous`, or `buffered`.
        package var mode: String
        package var buffered: Buffered?

        /// How many of `count` updates may be malicious, rounded up.
        package func maliciousCount(of count: Int) -> Int {
            // 0.1 * 30 is a little more than 3 in binary.
            Int(((maliciousFraction ?? 0) * Double(count) - 1e-9).rounded(.up))
        }
    }
}

extension RunSpecification.Aggregation {
    init(
        reading fields: FieldReader,
        privacyMode: String,
        cohort: RunSpecification.Cohort,
        training: RunSpecification.Training,
        isAnalytics: Bool = false
    ) {
        let mode = fields.choice("mode", of: ["synchronous", "buffered"], default: "synchronous")
        self.mode = mode
        rule = fields.choice(
            "rule",
            of: ["mean", "median", "trimmed_mean", "krum", "multi_krum", "geometric_median"],
            default: "mean"
        )
        let usesWeights = rule == "mean" || rule == "geometric_median"
        weighting = fields.choice(
            "weighting",
            of: ["uniform", "examples"],
            default: privacyMode == "none" && mode == "synchronous" && rule == "mean" && !training.usesControlVariates
                && !isAnalytics ? "examples" : "uniform"
        )
        if weighting == "examples" && mode == "buffered" {
            fields.report("weighting", "must be uniform in mode buffered: an update's weight is its staleness")
        }
        if weighting == "examples" && privacyMode == "local" {
            fields.report("weighting", "must be uniform with local privacy: the example count is not noised")
        }
        if weighting == "examples" && privacyMode == "central" && !fields.has("example_cap") {
            fields.report("example_cap", "is required to weight by examples under differential privacy")
        }
        if weighting == "examples" && !usesWeights {
            fields.report("weighting", "must be uniform with rule \(rule), which counts every client alike")
        }
        optimizer = fields.object("optimizer") { Optimizer(reading: $0) }
        valueBound = fields.number("value_bound", default: 64, in: 1e-6...(isAnalytics ? 2e6 : 1e6))
        exampleCap = fields.integer("example_cap", default: 1_000_000, in: 1...1_000_000)
        buffered = fields.object("buffered") {
            mode == "buffered" ? RunSpecification.Buffered(reading: $0, goal: cohort.goal) : nil
        }
        readRobustness(fields, minimum: cohort.minimum)
        refuseUnderPrivacy(fields, mode: privacyMode)
        if mode == "buffered" {
            if rule != "mean" { fields.report("rule", "must be mean in mode buffered, where updates differ in age") }
            if training.usesControlVariates || training.submit == "weights" {
                fields.report(
                    "mode",
                    "buffered goes with the deltas of fedavg: scaffold and whole weights belong to one version"
                )
            }
        }
        guard training.usesControlVariates else { return }
        if rule != "mean" { fields.report("rule", "must be mean with scaffold, whose control variates add up") }
        if weighting != "uniform" { fields.report("weighting", "must be uniform with scaffold") }
        if anomalies != nil || normBound != nil {
            fields.report(
                anomalies != nil ? "anomalies" : "norm_bound",
                "has no meaning with scaffold: an update holds a delta and a control variate, of different sizes"
            )
        }
    }

    /// The rules that withstand malicious clients, and what they need.
    private mutating func readRobustness(_ fields: FieldReader, minimum: Int) {
        if ["trimmed_mean", "krum", "multi_krum"].contains(rule) {
            maliciousFraction = fields.number("malicious_fraction", default: 0.2, in: 0...0.49)
            let malicious = maliciousCount(of: minimum)
            let needed = rule == "trimmed_mean" ? 2 * malicious + 1 : 2 * malicious + 3
            if minimum < needed {
                fields.report(
                    "malicious_fraction",
                    "\(malicious) malicious of the cohort's minimum of \(minimum) are too many for \(rule), which then "
                        + "needs \(needed) updates: raise cohort.minimum or lower this"
                )
            }
            if rule == "multi_krum" && fields.has("selected_count") {
                selectedCount = fields.integer("selected_count", in: 1...1_000_000)
                let limit = max(1, minimum - malicious - 2)
                if let selectedCount, selectedCount > limit {
                    fields.report(
                        "selected_count",
                        "\(selectedCount) is more than \(limit), the cohort's minimum less the malicious ones and two"
                    )
                }
            }
        }
        for name in ["malicious_fraction", "selected_count"] where fields.has(name) {
            let isUsed = name == "malicious_fraction" ? maliciousFraction != nil : rule == "multi_krum"
            if !isUsed {
                fields.report(name, "has no meaning with rule \(rule)")
                _ = fields.number(name, in: -1e300...1e300)
            }
        }
        if fields.has("norm_bound") { normBound = fields.number("norm_bound", in: 1e-9...1e9) }
        guard fields.has("anomalies") else { return }
        anomalies = fields.object("anomalies") { anomalies in
            Anomalies(
                action: anomalies.choice("action", of: ["report", "exclude", "quarantine"], default: "exclude"),
                normRatio: anomalies.number("norm_ratio", default: 10, in: 1...1e9),
                minCosine: anomalies.has("min_cosine") ? anomalies.number("min_cosine", in: -1...1) : nil
            )
        }
    }

    /// Refuses what privacy for a sum does not cover.
    ///
    /// Under `local` each update is private by itself, so any rule is post-processing.
    private func refuseUnderPrivacy(_ fields: FieldReader, mode: String) {
        guard mode != "none" && mode != "local" else { return }
        if rule != "mean" {
            fields.report(
                "rule",
                "\(rule) cannot be private in mode \(mode): the noise is for a sum of clipped updates, and one client can "
                    + "change a \(rule) by more than its clipped update; use mean, whose clipping bounds each client, or "
                    + "privacy mode local"
            )
        }
        if normBound != nil {
            fields.report(
                "norm_bound",
                "is privacy.clipping.norm in mode \(mode), where each update is clipped already"
            )
        }
        if anomalies != nil {
            fields.report(
                "anomalies",
                "norms and cosines of single clients are a release of their own, not covered by privacy mode \(mode)"
            )
        }
    }
}

extension RunSpecification.Aggregation.Optimizer {
    /// The names that other systems and the papers use.
    private static let synonyms = [
        "fedavg": "sgd", "fedavgm": "momentum", "fedadagrad": "adagrad", "fedadam": "adam", "fedyogi": "yogi",
    ]

    fileprivate init(reading fields: FieldReader) {
        let names = ["sgd", "momentum", "adagrad", "adam", "yogi"]
        let given = fields.choice("name", of: names + Self.synonyms.keys.sorted(), default: "sgd")
        let name = Self.synonyms[given] ?? given
        self.name = name
        let isAdaptive = ["adagrad", "adam", "yogi"].contains(name)
        learningRate = fields.number(
            "learning_rate",
            default: isAdaptive ? 0.01 : 1,
            in: 0...1000,
            excludingLower: true
        )
        func number(
            _ field: String,
            _ fallback: Double,
            for owners: [String],
            in range: ClosedRange<Double> = 0...0.999_999
        ) -> Double? {
            guard owners.contains(name) else {
                if fields.has(field) {
                    fields.report(field, "has no meaning with \(name); it belongs to \(owners.joined(separator: ", "))")
                    _ = fields.number(field, in: -1e300...1e300)
                }
                return nil
            }
            return fields.number(field, default: fallback, in: range)
        }
        momentum = number("momentum", 0.9, for: ["momentum"])
        beta1 = number("beta1", name == "adagrad" ? 0 : 0.9, for: ["adagrad", "adam", "yogi"])
        beta2 = number("beta2", 0.99, for: ["adam", "yogi"])
        epsilon = number("epsilon", 1e-3, for: ["adagrad", "adam", "yogi"], in: 1e-12...1e3)
    }
}
