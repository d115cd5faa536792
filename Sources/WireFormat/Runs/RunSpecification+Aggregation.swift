import StrictJSON
import UpdateCompression

extension RunSpecification {
    /// How updates become the next model.
    package struct Aggregation: Equatable, Sendable {
        /// What makes an update stand out, and what happens then.
        package struct Anomalies: Codable, Equatable, Sendable {
            package var action: AnomalyAction
            /// A norm of more than so many times the cohort's median norm.
            package var normRatio: Double
            /// A cosine to the aggregate below this; absent: any direction.
            package var minCosine: Double?
        }

        package var rule: Rule
        package var weighting: Weighting
        package var optimizer: Optimizer
        /// Bound on the absolute value of one coordinate of an update.
        package var valueBound: Double
        /// What one client weighs at most, in ``weightUnit``.
        package var exampleCap: CohortBound
        package var weightUnit: WeightUnit
        /// Longer updates are scaled down to this L2 norm; absent is none.
        ///
        /// It is no privacy clipping.
        package var normBound: CohortBound?
        package var anomalies: Anomalies?
        package var mode: Mode

        /// The largest ``exampleCap``: weights up to it are summed exactly, however many there are.
        package static let exampleCapLimit = 1 << 40

        /// Whether longer updates are scaled down.
        package var limitsNorms: Bool { (normBound ?? .off) != .off }
        /// Whether updates are folded by one pass over their files, without a look at any of them.
        package var isPlainMean: Bool { rule == .mean && anomalies == nil }
        /// What mode `buffered` asks for.
        package var buffered: Buffered? { if case .buffered(let buffered) = mode { buffered } else { nil } }
        /// Whether updates of several versions meet.
        package var isBuffered: Bool { buffered != nil }
    }
}

extension RunSpecification.Aggregation {
    /// How updates are combined, with what the rule needs to know.
    package enum Rule: Equatable, Sendable {
        case mean, median
        /// The share of a cohort that the rule shall withstand.
        case trimmedMean(maliciousFraction: Double)
        case krum(maliciousFraction: Double)
        /// How many updates are averaged; absent: all but the malicious ones and two.
        case multiKrum(maliciousFraction: Double, selectedCount: Int?)
        case geometricMedian

        package var name: AggregationRule {
            switch self {
            case .mean: .mean
            case .median: .median
            case .trimmedMean: .trimmedMean
            case .krum: .krum
            case .multiKrum: .multiKrum
            case .geometricMedian: .geometricMedian
            }
        }

        fileprivate var maliciousFraction: Double? {
            switch self {
            case .trimmedMean(let fraction), .krum(let fraction), .multiKrum(let fraction, _): fraction
            case .mean, .median, .geometricMedian: nil
            }
        }

        fileprivate var selectedCount: Int? {
            if case .multiKrum(_, let selectedCount) = self { selectedCount } else { nil }
        }

        /// How many of `count` updates may be malicious, rounded up.
        package static func maliciousCount(_ fraction: Double, of count: Int) -> Int {
            // 0.1 * 30 is a little more than 3 in binary.
            Int((fraction * Double(count) - 1e-9).rounded(.up))
        }
    }

    /// When a version is made.
    package enum Mode: Equatable, Sendable {
        case synchronous
        case buffered(RunSpecification.Buffered)

        package var name: AggregationMode {
            switch self {
            case .synchronous: .synchronous
            case .buffered: .buffered
            }
        }
    }

    /// The server's optimiser with its numbers.
    package enum Optimizer: Equatable, Sendable {
        /// The numbers of Adam and Yogi.
        package struct Moments: Equatable, Sendable {
            package var beta1: Double
            package var beta2: Double
            package var epsilon: Double

            package init(beta1: Double, beta2: Double, epsilon: Double) {
                (self.beta1, self.beta2, self.epsilon) = (beta1, beta2, epsilon)
            }
        }

        /// FedAvg.
        case sgd(learningRate: Double)
        /// FedAvgM.
        case momentum(learningRate: Double, momentum: Double)
        case adagrad(learningRate: Double, beta1: Double, epsilon: Double)
        case adam(learningRate: Double, Moments)
        case yogi(learningRate: Double, Moments)

        package var name: ServerOptimizerName {
            switch self {
            case .sgd: .sgd
            case .momentum: .momentum
            case .adagrad: .adagrad
            case .adam: .adam
            case .yogi: .yogi
            }
        }

        package var learningRate: Double {
            switch self {
            case .sgd(let rate), .momentum(let rate, _), .adagrad(let rate, _, _), .adam(let rate, _),
                .yogi(let rate, _):
                rate
            }
        }
    }
}

// MARK: - Reading

extension RunSpecification.Aggregation {
    init(
        reading fields: FieldReader,
        privacyMode: PrivacyMode,
        cohort: RunSpecification.Cohort,
        training: RunSpecification.Training,
        isAnalytics: Bool,
        isProtected: Bool
    ) {
        let mode = Mode(reading: fields, goal: cohort.goal)
        let rule = Rule(reading: fields)
        self.mode = mode
        self.rule = rule
        // Where the bound of a sum counts on the cap, where updates of several rounds meet, and where none is seen, it is a number.
        let isRelative = privacyMode == .none && mode == .synchronous && !isProtected
        weighting = fields.choice(
            "weighting",
            default: isRelative && rule == .mean && !training.usesControlVariates && !isAnalytics
                ? .examples : .uniform
        )
        optimizer = fields.object("optimizer") { Optimizer(reading: $0) }
        valueBound = fields.number("value_bound", default: 64, in: 1e-6...(isAnalytics ? 2e6 : 1e6))
        exampleCap = .read(
            "example_cap",
            in: fields,
            range: 1...Double(Self.exampleCapLimit),
            isWhole: true,
            default: isRelative ? .timesMedian(CohortBound.defaultMultiple) : .value(1_000_000)
        )
        weightUnit = fields.choice("weight_unit", default: .examples)
        if fields.has("anomalies") {
            anomalies = fields.object("anomalies") { Anomalies(reading: $0) }
        } else {
            _ = fields.value("anomalies")
        }
        let bounds = isRelative && !training.usesControlVariates && !isAnalytics
        let normBound = CohortBound.read(
            "norm_bound",
            in: fields,
            range: 1e-9...1e9,
            default: bounds ? .timesMedian(CohortBound.defaultMultiple) : .off
        )
        // The norm of a central run is its clipping norm.
        self.normBound = privacyMode == .central && normBound == .off ? nil : normBound
    }
}

extension RunSpecification.Aggregation.Rule {
    private static let fields: Set<String> = ["malicious_fraction", "selected_count"]

    fileprivate init(reading fields: FieldReader) {
        let name: AggregationRule = fields.choice("rule", default: .mean)
        fields.isAlternative("rule \(name)", fields: Self.fields)
        func fraction() -> Double { fields.number("malicious_fraction", default: 0.2, in: 0...0.49) }
        switch name {
        case .mean: self = .mean
        case .median: self = .median
        case .geometricMedian: self = .geometricMedian
        case .trimmedMean: self = .trimmedMean(maliciousFraction: fraction())
        case .krum: self = .krum(maliciousFraction: fraction())
        case .multiKrum:
            self = .multiKrum(
                maliciousFraction: fraction(),
                selectedCount: fields.optionalInteger("selected_count", in: 1...1_000_000)
            )
        }
    }
}

extension RunSpecification.Aggregation.Mode {
    fileprivate init(reading fields: FieldReader, goal: Int) {
        let name: AggregationMode = fields.choice("mode", default: .synchronous)
        switch name {
        case .synchronous:
            self = .synchronous
            // An empty section says nothing, and is refused when it says something.
            fields.object("buffered") { $0.isAlternative("mode \(name)", fields: RunSpecification.Buffered.fields) }
        case .buffered: self = .buffered(fields.object("buffered") { .init(reading: $0, goal: goal) })
        }
    }
}

extension RunSpecification.Aggregation.Anomalies {
    fileprivate init(reading fields: FieldReader) {
        action = fields.choice("action", default: .exclude)
        normRatio = fields.number("norm_ratio", default: 10, in: 1...1e9)
        minCosine = fields.optionalNumber("min_cosine", in: -1...1)
    }
}

extension RunSpecification.Aggregation.Optimizer {
    /// The names that other systems and the papers use.
    private static let synonyms: KeyValuePairs<String, ServerOptimizerName> = [
        "fedadagrad": .adagrad, "fedadam": .adam, "fedavg": .sgd, "fedavgm": .momentum, "fedyogi": .yogi,
    ]
    private static let fields: Set<String> = ["momentum", "beta1", "beta2", "epsilon"]

    fileprivate init(reading fields: FieldReader) {
        let name = fields.choice("name", among: ServerOptimizerName.allCases, synonyms: Self.synonyms, default: .sgd)
        fields.isAlternative("optimizer \(name)", fields: Self.fields)
        func rate(_ usual: Double) -> Double {
            fields.number("learning_rate", default: usual, in: 0...1000, excludingLower: true)
        }
        func share(_ field: String, _ usual: Double) -> Double {
            fields.number(field, default: usual, in: 0...0.999_999)
        }
        func epsilon() -> Double { fields.number("epsilon", default: 1e-3, in: 1e-12...1e3) }
        func moments() -> Moments {
            Moments(beta1: share("beta1", 0.9), beta2: share("beta2", 0.99), epsilon: epsilon())
        }
        switch name {
        case .sgd: self = .sgd(learningRate: rate(1))
        case .momentum: self = .momentum(learningRate: rate(1), momentum: share("momentum", 0.9))
        case .adagrad: self = .adagrad(learningRate: rate(0.01), beta1: share("beta1", 0), epsilon: epsilon())
        case .adam: self = .adam(learningRate: rate(0.01), moments())
        case .yogi: self = .yogi(learningRate: rate(0.01), moments())
        }
    }
}

// MARK: - Documents

extension RunSpecification.Aggregation: Codable {
    /// As it is written: one object for whatever rule and mode.
    private struct Fields: Codable {
        var rule: AggregationRule
        var weighting: Weighting
        var optimizer: Optimizer
        var valueBound: Double
        var exampleCap: CohortBound
        var weightUnit: WeightUnit?
        var maliciousFraction: Double?
        var selectedCount: Int?
        var normBound: CohortBound?
        var anomalies: Anomalies?
        var mode: AggregationMode
        var buffered: RunSpecification.Buffered?
    }

    package init(from decoder: any Decoder) throws {
        let fields = try Fields(from: decoder)
        func missing(_ what: String) -> DecodingError {
            .dataCorrupted(.init(codingPath: decoder.codingPath, debugDescription: "\(what) is missing"))
        }
        func fraction() throws -> Double {
            guard let fraction = fields.maliciousFraction else { throw missing("malicious_fraction") }
            return fraction
        }
        let rule: Rule =
            switch fields.rule {
            case .mean: .mean
            case .median: .median
            case .geometricMedian: .geometricMedian
            case .trimmedMean: .trimmedMean(maliciousFraction: try fraction())
            case .krum: .krum(maliciousFraction: try fraction())
            case .multiKrum:
                .multiKrum(maliciousFraction: try fraction(), selectedCount: fields.selectedCount)
            }
        let mode: Mode
        switch fields.mode {
        case .synchronous: mode = .synchronous
        case .buffered:
            guard let buffered = fields.buffered else { throw missing("buffered") }
            mode = .buffered(buffered)
        }
        self.init(
            rule: rule,
            weighting: fields.weighting,
            optimizer: fields.optimizer,
            valueBound: fields.valueBound,
            exampleCap: fields.exampleCap,
            weightUnit: fields.weightUnit ?? .examples,
            normBound: fields.normBound,
            anomalies: fields.anomalies,
            mode: mode
        )
    }

    package func encode(to encoder: any Encoder) throws {
        try Fields(
            rule: rule.name,
            weighting: weighting,
            optimizer: optimizer,
            valueBound: valueBound,
            exampleCap: exampleCap,
            weightUnit: weightUnit,
            maliciousFraction: rule.maliciousFraction,
            selectedCount: rule.selectedCount,
            normBound: normBound,
            anomalies: anomalies,
            mode: mode.name,
            buffered: buffered
        ).encode(to: encoder)
    }
}

extension RunSpecification.Aggregation.Optimizer: Codable {
    /// As it is written: one object for whatever optimiser.
    private struct Fields: Codable {
        var name: ServerOptimizerName
        var learningRate: Double
        var momentum: Double?
        var beta1: Double?
        var beta2: Double?
        var epsilon: Double?
    }

    package init(from decoder: any Decoder) throws {
        let fields = try Fields(from: decoder)
        func number(_ value: Double?, _ name: String) throws -> Double {
            guard let value else {
                throw DecodingError.dataCorrupted(
                    .init(codingPath: decoder.codingPath, debugDescription: "\(name) is missing")
                )
            }
            return value
        }
        func moments() throws -> Moments {
            Moments(
                beta1: try number(fields.beta1, "beta1"),
                beta2: try number(fields.beta2, "beta2"),
                epsilon: try number(fields.epsilon, "epsilon")
            )
        }
        let rate = fields.learningRate
        switch fields.name {
        case .sgd: self = .sgd(learningRate: rate)
        case .momentum: self = .momentum(learningRate: rate, momentum: try number(fields.momentum, "momentum"))
        case .adagrad:
            self = .adagrad(
                learningRate: rate,
                beta1: try number(fields.beta1, "beta1"),
                epsilon: try number(fields.epsilon, "epsilon")
            )
        case .adam: self = .adam(learningRate: rate, try moments())
        case .yogi: self = .yogi(learningRate: rate, try moments())
        }
    }

    package func encode(to encoder: any Encoder) throws {
        var fields = Fields(name: name, learningRate: learningRate)
        switch self {
        case .sgd: break
        case .momentum(_, let momentum): fields.momentum = momentum
        case .adagrad(_, let beta1, let epsilon): (fields.beta1, fields.epsilon) = (beta1, epsilon)
        case .adam(_, let moments), .yogi(_, let moments):
            (fields.beta1, fields.beta2, fields.epsilon) = (moments.beta1, moments.beta2, moments.epsilon)
        }
        try fields.encode(to: encoder)
    }
}

// MARK: - What does not go together

extension RunSpecification.Aggregation {
    /// What this section says that it, or a section that it rests on, rules out.
    ///
    /// - Parameters:
    ///   - privacyMode: The run's.
    ///   - cohort: The run's.
    ///   - training: The run's.
    ///   - capIsGiven: Whether the run file says `example_cap`.
    /// - Returns: The contradictions, their paths from this section.
    func contradictions(
        privacyMode: PrivacyMode,
        cohort: RunSpecification.Cohort,
        training: RunSpecification.Training,
        capIsGiven: Bool
    ) -> [Contradiction] {
        var found: [Contradiction] = []
        if weighting == .examples {
            found += examplesContradictions(privacyMode: privacyMode, capIsGiven: capIsGiven)
        }
        if exampleCap == .off && privacyMode != .none {
            found.add(
                "example_cap",
                "must be a number in privacy mode \(privacyMode): the noise is for weights up to it"
            )
        }
        if training.encoding == .f16 && valueBound > 65_504 {
            found.add(
                "value_bound",
                "\(valueBound) is more than f16 holds, which cuts at 65504: lower it, or take another training.encoding"
            )
        }
        if let buffered, buffered.buffer != cohort.goal {
            found.add("buffered/buffer", "\(buffered.buffer) must be the cohort's goal, which is \(cohort.goal)")
        }
        found += robustnessContradictions(minimum: cohort.minimum)
        if privacyMode != .none || isBuffered {
            for (name, bound) in [("example_cap", exampleCap), ("norm_bound", normBound ?? .off)]
            where bound.isRelative {
                found.add(
                    name,
                    privacyMode == .none
                        ? "must be a number or none in mode buffered: a buffer's updates come from several rounds, whose medians differ"
                        : "must be a number in privacy mode \(privacyMode): what one client counts for may not depend on the others"
                )
            }
        }
        if privacyMode == .central { found += centralContradictions }
        if isBuffered {
            if rule != .mean { found.add("rule", "must be mean in mode buffered, where updates differ in age") }
            if training.usesControlVariates || training.submit == .weights {
                found.add(
                    "mode",
                    "buffered goes with the deltas of fedavg: scaffold and whole weights belong to one version"
                )
            }
        }
        if training.usesControlVariates { found += scaffoldContradictions }
        return found
    }

    private func examplesContradictions(privacyMode: PrivacyMode, capIsGiven: Bool) -> [Contradiction] {
        var found: [Contradiction] = []
        if isBuffered {
            found.add("weighting", "must be uniform in mode buffered: an update's weight is its staleness")
        }
        switch privacyMode {
        case .none: break
        case .local:
            found.add("weighting", "must be uniform with local privacy: the example count is not noised")
        case .central where !capIsGiven:
            found.add("example_cap", "is required to weight by examples under differential privacy")
        case .central: break
        }
        if !rule.name.usesWeights {
            found.add("weighting", "must be uniform with rule \(rule.name), which counts every client alike")
        }
        return found
    }

    /// Rules that withstand malicious clients need enough honest ones.
    private func robustnessContradictions(minimum: Int) -> [Contradiction] {
        guard let fraction = rule.maliciousFraction else { return [] }
        var found: [Contradiction] = []
        let malicious = Rule.maliciousCount(fraction, of: minimum)
        let needed = rule.name == .trimmedMean ? 2 * malicious + 1 : 2 * malicious + 3
        if minimum < needed {
            found.add(
                "malicious_fraction",
                "\(malicious) malicious of the cohort's minimum of \(minimum) are too many for \(rule.name), which then "
                    + "needs \(needed) updates: raise cohort.minimum or lower this"
            )
        }
        let limit = max(1, minimum - malicious - 2)
        if let selectedCount = rule.selectedCount, selectedCount > limit {
            found.add(
                "selected_count",
                "\(selectedCount) is more than \(limit), the cohort's minimum less the malicious ones and two"
            )
        }
        return found
    }

    /// What privacy for a sum does not cover.
    ///
    /// Under `local` each update is private by itself, so any rule is post-processing.
    private var centralContradictions: [Contradiction] {
        var found: [Contradiction] = []
        if rule != .mean {
            found.add(
                "rule",
                "\(rule.name) cannot be private in mode central: the noise is for a sum of clipped updates, and one client "
                    + "can change a \(rule.name) by more than its clipped update; use mean, whose clipping bounds each "
                    + "client, or privacy mode local"
            )
        }
        if limitsNorms {
            found.add(
                "norm_bound",
                "is privacy.clipping.norm in mode central, where each update is clipped already"
            )
        }
        if anomalies != nil {
            found.add(
                "anomalies",
                "norms and cosines of single clients are a release of their own, not covered by privacy mode central"
            )
        }
        return found
    }

    private var scaffoldContradictions: [Contradiction] {
        var found: [Contradiction] = []
        if rule != .mean { found.add("rule", "must be mean with scaffold, whose control variates add up") }
        if weighting != .uniform { found.add("weighting", "must be uniform with scaffold") }
        if anomalies != nil || limitsNorms {
            found.add(
                anomalies != nil ? "anomalies" : "norm_bound",
                "has no meaning with scaffold: an update holds a delta and a control variate, of different sizes"
            )
        }
        return found
    }
}
