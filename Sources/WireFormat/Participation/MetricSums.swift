/// Sums of metrics over examples, added over clients exactly: each is rounded to the grid 2⁻²⁰ first, so that the total is
/// the same to the bit in whatever order clients report.
package struct MetricSums: Codable, Equatable, Sendable {
    /// The rate that is cut at a bound of its own; nats a target.
    package static let lossName = "loss"
    package static let nameLimit = 32
    static let scale = 0x1p20
    static let valueLimit = 0x1p40

    /// Totals in grid units.
    package private(set) var units: [String: Int] = [:]
    package private(set) var exampleCount = 0
    package private(set) var clientCount = 0

    /// Sums that every run takes: of tokens and losses, what rates are made of, and how long it took.
    package static let builtIn: Set<String> = [
        "tokens", "loss_tokens", "steps", "seconds", "nll", "hit1", "hit3", "loss", "top1", "top3", "accuracy",
    ]

    /// Names of metadata beside the sums, which no metric of an app's own may take.
    private static let taken: Set<String> = [
        "kind", "encoding", "rotation_seed", UpdateMetadata.base, UpdateMetadata.withinNorm,
        UpdateMetadata.exampleCount,
        UpdateMetadata.tokenCount,
    ]
    /// Metrics of an app's own that go with one update, at most: with the protocol's own they are ``nameLimit``.
    package static let customLimit = 24

    package init() {}

    /// Whether an app may give a metric of its own this name.
    package static func mayBeCustom(_ name: String) -> Bool {
        admits(name, 0) && !builtIn.contains(name) && !taken.contains(name)
    }

    /// Whether a sum can be taken: a short name, and a finite value of at most 2⁴⁰.
    package static func admits(_ name: String, _ value: Double) -> Bool {
        (1...64).contains(name.utf8.count)
            && name.utf8.allSatisfy { (97...122).contains($0) || (48...57).contains($0) || $0 == 95 }
            && value.isFinite && abs(value) <= valueLimit
    }

    /// The nearest value that can be taken; 0 for what is no number.
    package static func cut(_ value: Double) -> Double {
        value.isNaN ? 0 : max(-valueLimit, min(valueLimit, value))
    }

    /// What a device sends of its measurements in a private evaluation: the rates that are published, cut to 0 and their bounds, as
    /// sums over one example.
    ///
    /// Whatever was measured, every name is there and every value can be taken.
    ///
    /// - Parameters:
    ///   - metrics: What was measured, on the device.
    ///   - exampleCount: Over how many examples.
    ///   - names: The rates that the evaluation publishes.
    ///   - lossBound: What the loss is cut at; other rates are cut at 1.
    /// - Returns: Sums of one example.
    package static func released(
        _ metrics: [String: Double],
        exampleCount: Int,
        for names: [String],
        lossBound: Double
    ) -> [String: Double] {
        let measured = fractions(metrics, exampleCount: exampleCount)
        func rate(_ name: String, bound: Double) -> Double {
            guard let fraction = measured[name] else { return 0 }
            let rate = fraction.part / fraction.whole
            return rate.isNaN ? 0 : max(0, min(bound, rate))
        }
        var sums: [String: Double] = [:]
        for name in names {
            switch name {
            case lossName: (sums["nll"], sums["loss_tokens"]) = (rate(name, bound: lossBound), 1)
            case "top1": (sums["hit1"], sums["tokens"]) = (rate(name, bound: 1), 1)
            case "top3": (sums["hit3"], sums["tokens"]) = (rate(name, bound: 1), 1)
            default: sums[name] = rate(name, bound: 1)
            }
        }
        return sums
    }

    /// Whether ``rates`` may have a rate of this name.
    package static func isRate(_ name: String) -> Bool {
        admits(name, 0) && !["tokens", "loss_tokens", "steps", "seconds", "nll", "hit1", "hit3"].contains(name)
    }

    package static let rule = "must be a name of lower-case letters, digits and _, with a value of at most 2^40"

    /// Adds one client's sums.
    package mutating func add(_ metrics: [String: Double], exampleCount examples: Int) {
        exampleCount += examples
        clientCount += 1
        for (name, value) in metrics where Self.admits(name, value) {
            // At most 2^60 each; a total that would overflow stays at the end of the range.
            let (sum, overflow) = (units[name] ?? 0).addingReportingOverflow(
                Int((value * Self.scale).rounded(.toNearestOrEven))
            )
            units[name] = overflow ? (value < 0 ? Int.min : Int.max) : sum
        }
    }

    /// A total in its own unit.
    package func total(_ name: String) -> Double? { units[name].map { Double($0) / Self.scale } }

    /// Whether the name has a meaning of its own.
    package static func isKnown(_ name: String) -> Bool {
        denominators.contains(name) || ["nll", "hit1", "hit3"].contains(name)
    }

    /// Names that count what others are part of, and give no rate of their own.
    private static let denominators: Set<String> = ["tokens", "loss_tokens", "steps", "seconds"]

    /// Rates between 0 and 1.
    ///
    /// A client that sends one sends the sum of it over its examples, which is at most their number.
    package static let shares: Set<String> = ["top1", "top3", "accuracy"]

    /// Rates that are made of counts where a client sends those.
    private static let countedRates = ["hit1": "top1", "hit3": "top3", "nll": "loss"]

    /// One client's sums as rates: the part and what it is a part of, by the rate's name.
    ///
    /// `loss` (nats a target), `top1` and `top3` where their sums are there; any other sum is over the client's examples. A rate
    /// that is sent beside the sum it is made of counts for nothing.
    package static func fractions(
        _ metrics: [String: Double],
        exampleCount: Int
    ) -> [String: (part: Double, whole: Double)] {
        func positive(_ name: String) -> Double? { metrics[name].flatMap { $0 > 0 ? $0 : nil } }
        let tokens = positive("tokens") ?? Double(max(1, exampleCount))
        var result: [String: (part: Double, whole: Double)] = [:]
        for (name, value) in metrics where !denominators.contains(name) {
            switch name {
            case "nll": result[lossName] = (value, positive("loss_tokens") ?? tokens)
            case "hit1": result["top1"] = (value, tokens)
            case "hit3": result["top3"] = (value, tokens)
            case _ where Self.countedRates.contains { $0.value == name && metrics[$0.key] != nil }: continue
            default: result[name] = (value, Double(max(1, exampleCount)))
            }
        }
        return result
    }

    /// What no data can have measured, in words; `nil` where the sums may be true.
    ///
    /// Counts lie between 0 and what they are part of, a loss is not negative, and the sum of a share is at most the number of
    /// examples; no rate comes beside the sum that it is made of. A `hit3` of 0 beside a larger `hit1` was not
    /// counted, by clients that send a 0 for it: ``counted(_:)`` leaves it out.
    package static func implausible(_ metrics: [String: Double], exampleCount: Int) -> String? {
        for (name, value) in metrics.sorted(by: { $0.key < $1.key }) {
            guard value.isFinite else { return "\(name) is not finite" }
            if value < 0, isKnown(name) || shares.contains(name) || name.contains("loss") {
                return "\(name) is negative"
            }
            if shares.contains(name), value > Double(exampleCount) { return "\(name) is more than num_examples" }
        }
        for (part, rate) in countedRates.sorted(by: { $0.key < $1.key })
        where metrics[part] != nil && metrics[rate] != nil {
            return "\(rate) is sent beside \(part), which it is made of"
        }
        let metrics = counted(metrics)
        // A trainer that counts no tokens leaves a 0.
        let tokens = metrics["tokens"].flatMap { $0 > 0 ? $0 : nil }
        let whole = tokens ?? Double(exampleCount)
        let wholeName = tokens == nil ? "num_examples" : "tokens"
        for (part, limit, name) in [
            ("hit1", metrics["hit3"] ?? whole, metrics["hit3"] == nil ? wholeName : "hit3"), ("hit3", whole, wholeName),
        ] {
            if let value = metrics[part], value > limit { return "\(part) is more than \(name)" }
        }
        if let tokens, let scored = metrics["loss_tokens"], scored > tokens {
            return "loss_tokens is more than tokens"
        }
        return nil
    }

    /// The sums without a `hit3` that was not counted.
    package static func counted(_ metrics: [String: Double]) -> [String: Double] {
        guard metrics["hit3"] == 0, let hits = metrics["hit1"], hits > 0 else { return metrics }
        return metrics.filter { $0.key != "hit3" }
    }

    /// Rates made of the totals: `loss` (nats a target), `top1`, `top3` where their sums are there, and for any other name
    /// its mean over examples.
    package var rates: [String: Double] {
        var totals: [String: Double] = [:]
        for name in units.keys { totals[name] = total(name) }
        return Self.fractions(totals, exampleCount: exampleCount).mapValues { $0.part / $0.whole }
    }
}
