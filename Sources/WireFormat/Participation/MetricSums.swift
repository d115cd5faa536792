/// Sums of metrics over examples, added over clients exactly: each is rounded to the grid 2⁻²⁰ first, so that the total is
/// the same to the bit in whatever order clients report.
package struct MetricSums: Codable, Equatable, Sendable {
    package static let nameLimit = 32
    static let scale = 0x1p20
    static let valueLimit = 0x1p40

    /// Totals in grid units.
    package private(set) var units: [String: Int] = [:]
    package private(set) var exampleCount = 0
    package private(set) var clientCount = 0

    package init() {}

    /// Whether a sum can be taken: a short name, and a finite value of at most 2⁴⁰.
    package static func admits(_ name: String, _ value: Double) -> Bool {
        (1...64).contains(name.utf8.count)
            && name.utf8.allSatisfy { (97...122).contains($0) || (48...57).contains($0) || $0 == 95 }
            && value.isFinite && abs(value) <= valueLimit
    }

    /// Whether ``rates`` may have a rate of this name.
    package static func isRate(_ name: String) -> Bool {
        admits(name, 0) && !["tokens", "loss_tokens", "steps", "seconds", "nll", "hit1", "hit3"].contains(name)
    }

    /// Those of the sums that these rates are made of.
    package static func sums(_ metrics: [String: Double], for rates: [String]) -> [String: Double] {
        let needed = rates.flatMap { rate in
            switch rate {
            case "loss": ["nll", "loss_tokens", "tokens"]
            case "top1": ["hit1", "tokens"]
            case "top3": ["hit3", "tokens"]
            default: [rate]
            }
        }
        return metrics.filter { needed.contains($0.key) }
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

    /// Rates made of the totals: `loss` (nats a target), `top1`, `top3` where their sums are there, and for any other name
    /// its mean over examples.
    package var rates: [String: Double] {
        var result: [String: Double] = [:]
        let denominators = ["tokens", "loss_tokens", "steps", "seconds"]
        let tokens = total("tokens").flatMap { $0 > 0 ? $0 : nil } ?? Double(max(1, exampleCount))
        for name in units.keys where !denominators.contains(name) {
            guard let sum = total(name) else { continue }
            switch name {
            case "nll":
                let targets = total("loss_tokens").flatMap { $0 > 0 ? $0 : nil } ?? tokens
                result["loss"] = sum / targets
            case "hit1": result["top1"] = sum / tokens
            case "hit3": result["top3"] = sum / tokens
            default: result[name] = sum / Double(max(1, exampleCount))
            }
        }
        return result
    }
}
