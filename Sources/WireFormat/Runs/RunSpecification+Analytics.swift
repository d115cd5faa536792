import Foundation
import StrictJSON

extension RunSpecification {
    /// What a run of kind `analytics` finds out: a vocabulary, without collecting text.
    ///
    /// The candidates themselves are the model's vocabulary, `model.config.tokenizer`, and not kept here.
    package struct Analytics: Codable, Equatable, Sendable {
        /// `histogram`: how many clients hold each word of a list; `triehh`: which words many clients hold.
        package var method: String
        /// What counts as one word of a text: `word`, `character`, or the whole `record`.
        package var tokens: String
        /// `histogram`: distinct words of one client that count, at most; the L2 sensitivity is its square root.
        package var wordsPerClient: Int?
        /// `histogram`: words with a lower count are not shown; absent: what the noise alone hardly reaches.
        package var minimumCount: Double?
        /// `triehh`: votes that a prefix needs.
        package var threshold: Int?
        /// `triehh`: ε of all its rounds together, at the δ that comes with the threshold.
        package var epsilon: Double?
        /// `triehh`: prefixes of one length that are kept, at most.
        package var prefixLimit: Int?

        package static let methods = ["histogram", "triehh"]
        /// The most candidates that a histogram may have.
        package static let candidateLimit = 200_000

        package var isTrie: Bool { method == "triehh" }
        /// The largest L2 norm of one client's counts.
        package var sensitivity: Double { Double(wordsPerClient ?? 1).squareRoot() }

        /// Chance of each client to vote in a round: `q = (1 - e^(-ε/L)) / θ`.
        ///
        /// Source: Zhu, Kairouz, McMahan, Sun, Li 2020, arXiv:1902.08534, Corollary 1, where m/n is this rate.
        package static func samplingRate(epsilon: Double, levels: Int, threshold: Int) -> Double {
            -expm1(-epsilon / Double(max(1, levels))) / Double(max(1, threshold))
        }
    }

    /// Reads what an analytics run asks, which decides many of the other sections.
    static func readAnalytics(_ fields: FieldReader, kind: String) -> (analytics: Analytics, candidates: [String]?)? {
        guard kind == "analytics" else {
            if fields.has("analytics") {
                fields.report("analytics", "has no meaning in a run of kind \(kind); set kind: analytics")
                _ = fields.rawObject("analytics")
            }
            return nil
        }
        if !fields.has("analytics") {
            fields.report("analytics", "is required: what the run shall find out, such as {method: histogram, …}")
        }
        for name in ["evaluation", "stop"] where fields.has(name) {
            // A stored specification has `evaluation` with its defaults, which never evaluates.
            if name == "stop" { fields.report(name, "has no meaning in a run of kind analytics") }
        }
        return fields.object("analytics") { fields in
            let candidates = fields.stringList("candidates", countLimit: Analytics.candidateLimit)
            return (Analytics(reading: fields, hasCandidates: candidates != nil), candidates)
        }
    }
}

extension RunSpecification.Analytics {
    fileprivate init(reading fields: FieldReader, hasCandidates: Bool) {
        let method = fields.choice("method", of: Self.methods, default: "histogram")
        if !fields.has("method") { fields.report("method", "is required: \(Self.methods.joined(separator: ", "))") }
        self.method = method
        tokens = fields.choice("tokens", of: ["word", "character", "record"], default: "word")
        func belongs(_ name: String, to owner: String) -> Bool {
            if method == owner { return true }
            if fields.has(name) {
                fields.report(name, "has no meaning with method \(method); it belongs to \(owner)")
                _ = fields.number(name, in: -1e300...1e300)
            }
            return false
        }
        if belongs("words_per_client", to: "histogram") {
            wordsPerClient = fields.integer("words_per_client", default: 20, in: 1...100_000)
        }
        if belongs("minimum_count", to: "histogram") {
            minimumCount = fields.optionalNumber("minimum_count", in: 0...1e12)
        }
        if belongs("threshold", to: "triehh") { threshold = fields.integer("threshold", default: 15, in: 5...10_000) }
        if belongs("epsilon", to: "triehh") {
            epsilon = fields.number("epsilon", in: 0...100, excludingLower: true)
        }
        if belongs("prefix_limit", to: "triehh") {
            prefixLimit = fields.integer("prefix_limit", default: 1000, in: 1...100_000)
        }
        if isTrie && hasCandidates {
            fields.report("candidates", "has no meaning with method triehh, which finds words that nobody listed")
        }
    }
}

extension RunSpecification.Model {
    /// The model of an analytics run: the counts of its candidates, or the trie of prefixes.
    init(_ plan: (analytics: RunSpecification.Analytics, candidates: [String]?), levels: Int, in fields: FieldReader) {
        let analytics = plan.analytics
        architecture = analytics.method
        var stored: [String: JSONValue] = [:]
        if fields.has("model") {
            // As it is stored, or with candidates in the form of a training run's vocabulary.
            let method = analytics.method
            let isBuiltIn = fields.object("model") { model -> Bool in
                let name = model.choice("architecture", of: [method], default: method)
                if case .object(let config)? = model.rawObject("config") { stored = config }
                let known = ["tokenizer", "tokens", "words_per_client", "levels", "prefix_limit"]
                for name in stored.keys.sorted() where !known.contains(name) {
                    model.report("config", "'\(name)' is not a known field; say what is counted in /analytics")
                }
                _ = model.rawObject("initialization")
                return name == method
            }
            if !isBuiltIn { fields.report("model", "may be left out: an analytics run makes its own") }
        }
        var config: [String: JSONValue] = ["tokens": .string(analytics.tokens)]
        if analytics.isTrie {
            config["levels"] = .integer(levels)
            config["prefix_limit"] = .integer(analytics.prefixLimit ?? 1)
            if stored["tokenizer"] != nil {
                fields.report("model", "has a vocabulary, and method triehh finds words that nobody listed")
            }
        } else {
            config["words_per_client"] = .integer(analytics.wordsPerClient ?? 1)
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
                    "candidates: is required: the words that are counted; method triehh finds words without a list"
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
    /// Refuses what an analytics run would not do, or what would void its claim, and sets what follows from its method.
    mutating func settleAnalytics(_ fields: FieldReader) {
        guard let analytics else { return }
        if training.submit != "delta" || training.algorithm != "fedavg" || training.encoding != "f32" {
            fields.report("training", "counts and votes are sent as they are: leave submit, algorithm and encoding out")
        }
        // A stored specification has these sections with their defaults.
        let defaults = Training.defaults
        if training.local != defaults?.local || training.limits != defaults?.limits
            || training.modelEncoding != defaults?.modelEncoding
        {
            fields.report(
                "training",
                "local, limits and model_encoding have no meaning here: nothing is trained; of this section only data applies"
            )
        }
        if evaluation.every > 0 { fields.report("evaluation", "has no meaning in a run of kind analytics") }
        if aggregation.rule != "mean" || aggregation.weighting != "uniform" || aggregation.mode != "synchronous"
            || aggregation.optimizer.name != "sgd" || aggregation.optimizer.learningRate != 1
            || aggregation.normBound != nil || aggregation.anomalies != nil
        {
            fields.report("aggregation", "counts are added up as they are: leave this section out")
        }
        if model.base != nil { fields.report("model", "base has no meaning in a run of kind analytics") }
        aggregation.valueBound = valueBound(of: analytics)
        if analytics.isTrie {
            guard cohort.policy == "poisson", cohort.maxParticipations == 0, cohort.minSeparationRounds <= 1 else {
                fields.report(
                    "cohort",
                    "must have policy poisson without max_participations or min_separation_rounds: what triehh promises "
                        + "rests on a fresh draw of the server's own in every round, from all clients"
                )
                return
            }
            if cohort.requirements != nil || cohort.minimumClientVersion != nil {
                fields.report(
                    "cohort",
                    "requirements would take clients out of the draw on which triehh's promise rests"
                )
            }
        } else if cohort.maxParticipations != 1 {
            fields.report("cohort", "max_participations must be 1: a client that counted twice would be two clients")
        }
    }

    /// The largest absolute value of one coordinate of an update.
    private func valueBound(of analytics: Analytics) -> Double {
        // A vote names a scalar of Unicode.
        if analytics.isTrie { return 0x11_0000 }
        guard privacy.mode == "local" else { return 1 }
        // Noise of 2 z √k; 15 standard deviations are never reached.
        return min(1e6, max(64, 1 + 30 * privacy.noiseMultiplier * analytics.sensitivity))
    }
}

extension RunSpecification.Privacy {
    /// The name of TrieHH's mechanism: no noise, a secret sample and a threshold.
    package static let sampleAndThreshold = "sample_and_threshold"

    /// The terms of an analytics run.
    init(_ analytics: RunSpecification.Analytics, reading fields: FieldReader) {
        guard analytics.isTrie else {
            self.init(reading: fields, defaultNorm: analytics.sensitivity)
            if mode != "none", abs(clipping.norm - analytics.sensitivity) > 1e-9 * analytics.sensitivity {
                fields.report(
                    "clipping",
                    "norm is \(analytics.sensitivity) here, the square root of words_per_client; leave it out"
                )
            }
            if mechanism != "gaussian" && mechanism != "discrete_gaussian" || clipping.policy != "flat" || isAmplified {
                fields.report(
                    "mechanism",
                    "must be gaussian or discrete_gaussian with clipping policy flat and no amplification: a count is one "
                        + "release of L2 sensitivity \(analytics.sensitivity)"
                )
            }
            clipping.norm = analytics.sensitivity
            return
        }
        self.init(
            mode: fields.choice("mode", of: ["central"], default: "central"),
            mechanism: fields.choice("mechanism", of: [Self.sampleAndThreshold], default: Self.sampleAndThreshold),
            clipping: fields.object("clipping") { clipping in
                Clipping(
                    norm: clipping.number("norm", default: 1, in: 1...1),
                    policy: clipping.choice("policy", of: ["flat"], default: "flat")
                )
            },
            noiseMultiplier: fields.number("noise_multiplier", default: 0, in: 0...0),
            amplification: fields.choice("amplification", of: ["none"], default: "none")
        )
    }

    /// Whether updates are clipped and noised, as all are but TrieHH's votes.
    package var addsNoise: Bool { mode != "none" && mechanism != Self.sampleAndThreshold }
}
