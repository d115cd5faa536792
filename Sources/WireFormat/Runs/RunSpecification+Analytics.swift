import Foundation
import StrictJSON
import UpdateCompression

extension RunSpecification {
    /// What a run of kind `analytics` finds out: a vocabulary, without collecting text.
    ///
    /// The candidates themselves are the model's vocabulary, `model.config.tokenizer`, and not kept here.
    package struct Analytics: Equatable, Sendable {
        package var method: Method
        package var tokens: CountedUnit

        /// How words are found, with what the method needs to know.
        package enum Method: Equatable, Sendable {
            /// - Parameters:
            ///   - wordsPerClient: Distinct words of one client that count, at most; the L2 sensitivity is its square root.
            ///   - minimumCount: Words with a lower count are not shown; absent: what the noise alone hardly reaches.
            case histogram(wordsPerClient: Int, minimumCount: Double?)
            /// - Parameter prefixLimit: Prefixes of one length that are kept, at most.
            case votes(prefixLimit: Int)
            /// TrieHH, whose claim does not hold against clients that work together.
            ///
            /// - Parameters:
            ///   - threshold: Votes that a prefix needs.
            ///   - epsilon: ε of all its rounds together, at the δ that comes with the threshold.
            case triehh(threshold: Int, epsilon: Double, prefixLimit: Int)

            package var name: AnalyticsMethod {
                switch self {
                case .histogram: .histogram
                case .votes: .votes
                case .triehh: .triehh
                }
            }
        }

        /// The most candidates that a histogram may have.
        package static let candidateLimit = 200_000

        /// Whether words are found letter by letter.
        package var isTrie: Bool { isVote || isSampled }
        /// Whether votes are noised.
        package var isVote: Bool { method.name == .votes }
        /// Whether votes were sampled: TrieHH.
        package var isSampled: Bool { method.name == .triehh }
        /// Distinct words of one client that count, at most.
        package var wordsPerClient: Int {
            switch method {
            case .histogram(let limit, _): limit
            case .votes, .triehh: 1
            }
        }
        /// Votes that a prefix needs, where they are not noised.
        package var voteThreshold: Int? { if case .triehh(let threshold, _, _) = method { threshold } else { nil } }
        /// The largest L2 norm of one client's counts.
        package var sensitivity: Double { Double(wordsPerClient).squareRoot() }

        /// Chance of each client to vote in a round: `q = (1 - e^(-ε/L)) / θ`.
        ///
        /// Source: Zhu, Kairouz, McMahan, Sun, Li 2020, arXiv:1902.08534, Corollary 1, where m/n is this rate.
        package static func samplingRate(epsilon: Double, levels: Int, threshold: Int) -> Double {
            -expm1(-epsilon / Double(max(1, levels))) / Double(max(1, threshold))
        }

        /// The rate that the method fixes; `nil` where it draws nobody.
        func samplingRate(levels: Int) -> Double? {
            guard case .triehh(let threshold, let epsilon, _) = method else { return nil }
            return Self.samplingRate(epsilon: epsilon, levels: levels, threshold: threshold)
        }
    }

    /// Reads what an analytics run asks, which decides many of the other sections.
    static func readAnalytics(_ fields: FieldReader, kind: RunKind) -> (analytics: Analytics, candidates: [String]?)? {
        switch kind {
        case .training:
            if fields.has("analytics") {
                fields.report("analytics", "has no meaning in a run of kind \(kind); set kind: \(RunKind.analytics)")
                _ = fields.rawObject("analytics")
            }
            return nil
        case .analytics: break
        }
        if !fields.has("analytics") {
            fields.report("analytics", "is required: what the run shall find out, such as {method: histogram, …}")
        }
        // A stored specification has `evaluation` with its defaults, which never evaluates.
        if fields.has("stop") { fields.report("stop", "has no meaning in a run of kind analytics") }
        return fields.object("analytics") { fields in
            let candidates = fields.stringList("candidates", countLimit: Analytics.candidateLimit)
            return (Analytics(reading: fields, hasCandidates: candidates != nil), candidates)
        }
    }
}

extension RunSpecification.Analytics {
    private static let fields: Set<String> = [
        "words_per_client", "minimum_count", "threshold", "epsilon", "prefix_limit",
    ]

    fileprivate init(reading fields: FieldReader, hasCandidates: Bool) {
        let name: AnalyticsMethod = fields.choice("method", default: .histogram)
        if !fields.has("method") {
            let methods = AnalyticsMethod.allCases.map(\.rawValue).joined(separator: ", ")
            fields.report("method", "is required: \(methods)")
        }
        fields.isAlternative("method \(name)", fields: Self.fields)
        tokens = fields.choice("tokens", default: .word)
        func prefixLimit() -> Int { fields.integer("prefix_limit", default: 1000, in: 1...100_000) }
        switch name {
        case .histogram:
            method = .histogram(
                wordsPerClient: fields.integer("words_per_client", default: 20, in: 1...100_000),
                minimumCount: fields.optionalNumber("minimum_count", in: 0...1e12)
            )
        case .votes: method = .votes(prefixLimit: prefixLimit())
        case .triehh:
            method = .triehh(
                threshold: fields.integer("threshold", default: 15, in: 5...10_000),
                epsilon: fields.number("epsilon", in: 0...100, excludingLower: true),
                prefixLimit: prefixLimit()
            )
        }
        if isTrie && hasCandidates {
            fields.report("candidates", "has no meaning with method \(name), which finds words that nobody listed")
        }
    }
}

extension RunSpecification.Analytics: Codable {
    /// As it is written: one object for whatever method.
    private struct Fields: Codable {
        var method: AnalyticsMethod
        var tokens: CountedUnit
        var wordsPerClient: Int?
        var minimumCount: Double?
        var threshold: Int?
        var epsilon: Double?
        var prefixLimit: Int?
    }

    package init(from decoder: any Decoder) throws {
        let fields = try Fields(from: decoder)
        func number<Number>(_ value: Number?, _ name: String) throws -> Number {
            guard let value else {
                throw DecodingError.dataCorrupted(
                    .init(codingPath: decoder.codingPath, debugDescription: "\(name) is missing")
                )
            }
            return value
        }
        let method: Method =
            switch fields.method {
            case .histogram:
                .histogram(
                    wordsPerClient: try number(fields.wordsPerClient, "words_per_client"),
                    minimumCount: fields.minimumCount
                )
            case .votes: .votes(prefixLimit: try number(fields.prefixLimit, "prefix_limit"))
            case .triehh:
                .triehh(
                    threshold: try number(fields.threshold, "threshold"),
                    epsilon: try number(fields.epsilon, "epsilon"),
                    prefixLimit: try number(fields.prefixLimit, "prefix_limit")
                )
            }
        self.init(method: method, tokens: fields.tokens)
    }

    package func encode(to encoder: any Encoder) throws {
        var fields = Fields(method: method.name, tokens: tokens)
        switch method {
        case .histogram(let wordsPerClient, let minimumCount):
            (fields.wordsPerClient, fields.minimumCount) = (wordsPerClient, minimumCount)
        case .votes(let prefixLimit): fields.prefixLimit = prefixLimit
        case .triehh(let threshold, let epsilon, let prefixLimit):
            (fields.threshold, fields.epsilon, fields.prefixLimit) = (threshold, epsilon, prefixLimit)
        }
        try fields.encode(to: encoder)
    }
}

extension RunSpecification.Model {
    /// The model of an analytics run: the counts of its candidates, or the trie of prefixes.
    init(_ plan: (analytics: RunSpecification.Analytics, candidates: [String]?), levels: Int, in fields: FieldReader) {
        let analytics = plan.analytics
        architecture = analytics.method.name.rawValue
        var stored: [String: JSONValue] = [:]
        if fields.has("model") {
            // As it is stored, or with candidates in the form of a training run's vocabulary.
            let method = analytics.method.name
            fields.object("model") { model in
                _ = model.choice("architecture", among: [method], default: method)
                if case .object(let config)? = model.rawObject("config") { stored = config }
                let known = ["tokenizer", "tokens", "words_per_client", "levels", "prefix_limit"]
                for name in stored.keys.sorted() where !known.contains(name) {
                    model.report("config", "'\(name)' is not a known field; say what is counted in /analytics")
                }
                _ = model.rawObject("initialization")
            }
        }
        var config: [String: JSONValue] = ["tokens": .string(analytics.tokens.rawValue)]
        switch analytics.method {
        case .votes(let prefixLimit), .triehh(_, _, let prefixLimit):
            config["levels"] = .integer(levels)
            config["prefix_limit"] = .integer(prefixLimit)
            if stored["tokenizer"] != nil {
                fields.report(
                    "model",
                    "has a vocabulary, and method \(analytics.method.name) finds words that nobody listed"
                )
            }
        case .histogram(let wordsPerClient, _):
            config["words_per_client"] = .integer(wordsPerClient)
            if let candidates = plan.candidates {
                config["tokenizer"] = .object([
                    "type": .string("word"), "vocabulary": .array(candidates.map { .string($0) }),
                ])
            } else {
                config["tokenizer"] = stored["tokenizer"]
            }
            if config["tokenizer"] == nil {
                fields.report(
                    "analytics",
                    "candidates: is required: the words that are counted; method votes finds words without a list"
                )
            }
        }
        self.config = .object(config)
        initialization = .init(seed: "0")
    }

    /// The words that a histogram counts, in the order of its counts.
    package var candidates: [String] {
        guard case .object(let config)? = config, case .object(let tokenizer)? = config["tokenizer"] else { return [] }
        switch tokenizer["vocabulary"] {
        case .array(let items)?:
            return items.compactMap { item in
                if case .string(let word) = item { return word }
                return nil
            }
        default: return []
        }
    }
}

extension RunSpecification {
    /// What an analytics run would not do, or what would void its claim.
    func contradictions(with analytics: Analytics) -> [Contradiction] {
        var found: [Contradiction] = []
        if !training.sendsPlainDeltas || training.encoding != .f32 {
            found.add("training", "counts and votes are sent as they are: leave submit, algorithm and encoding out")
        }
        // A stored specification has these sections with their defaults.
        let defaults = Training.defaults
        if training.local != defaults?.local || training.limits != defaults?.limits
            || training.modelEncoding != defaults?.modelEncoding
        {
            found.add(
                "training",
                "local, limits and model_encoding have no meaning here: nothing is trained; of this section only data applies"
            )
        }
        if evaluation.every > 0 { found.add("evaluation", "has no meaning in a run of kind analytics") }
        if !aggregation.isPlainMean || aggregation.weighting != .uniform || aggregation.isBuffered
            || aggregation.optimizer != .sgd(learningRate: 1) || aggregation.limitsNorms
        {
            found.add("aggregation", "counts are added up as they are: leave this section out")
        }
        if model.base != nil { found.add("model", "base has no meaning in a run of kind analytics") }
        switch analytics.method {
        case .histogram: found += histogramContradictions(analytics)
        case .votes:
            if cohort.maxParticipations > rounds {
                found.add("cohort", "max_participations is more than the rounds: a client votes once in each")
            }
        case .triehh: found += sampledContradictions
        }
        return found
    }

    private func histogramContradictions(_ analytics: Analytics) -> [Contradiction] {
        var found: [Contradiction] = []
        if privacy.mode != .none,
            abs(privacy.clipping.norm - analytics.sensitivity) > 1e-9 * analytics.sensitivity
        {
            found.add(
                "privacy/clipping",
                "norm is \(analytics.sensitivity) here, the square root of words_per_client; leave it out"
            )
        }
        let isPlain: Bool =
            switch privacy.mechanism {
            case .gaussian, .discreteGaussian: privacy.clipping.policy == .flat && !privacy.isAmplified
            case .laplace, .bandedMatrix, .gaussianSparseHistogram, .sampleAndThreshold: false
            }
        if !isPlain {
            found.add(
                "privacy/mechanism",
                "must be gaussian or discrete_gaussian with clipping policy flat and no amplification: a count is one "
                    + "release of L2 sensitivity \(analytics.sensitivity)"
            )
        }
        if cohort.maxParticipations != 1 {
            found.add("cohort", "max_participations must be 1: a client that counted twice would be two clients")
        }
        return found
    }

    private var sampledContradictions: [Contradiction] {
        var found: [Contradiction] = []
        if cohort.policy != .poisson || cohort.maxParticipations != 0 || cohort.minSeparationRounds > 1 {
            found.add(
                "cohort",
                "must have policy poisson without max_participations or min_separation_rounds: what triehh promises "
                    + "rests on a fresh draw of the server's own in every round, from all clients"
            )
        } else if cohort.requirements != nil || cohort.minimumClientVersion != nil {
            found.add("cohort", "requirements would take clients out of the draw on which triehh's promise rests")
        }
        return found
    }

    /// Sets what follows from the method.
    mutating func settleAnalytics() {
        guard let analytics else { return }
        if case .histogram = analytics.method { privacy.clipping.norm = analytics.sensitivity }
        aggregation.valueBound = valueBound(of: analytics)
    }

    /// The largest absolute value of one coordinate of an update.
    private func valueBound(of analytics: Analytics) -> Double {
        // A vote names a scalar of Unicode.
        if analytics.isTrie { return 0x11_0000 }
        guard privacy.mode == .local else { return 1 }
        // Noise of 2 z √k; 15 standard deviations are never reached.
        return min(1e6, max(64, 1 + 30 * privacy.noiseMultiplier * analytics.sensitivity))
    }
}
