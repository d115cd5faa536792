import Synchronization

/// Counters, gauges and histograms in Prometheus' text format.
///
/// Labels come from closed sets: routes, methods, outcomes, populations. Nothing is labelled by client, and nothing that
/// was computed from clients' data (losses, norms, example counts) is a metric at all.
package final class MetricsRegistry: Sendable {
    /// One metric's name, kind and meaning.
    package struct Definition: Sendable {
        package enum Kind: Sendable {
            case counter, gauge
            /// With the upper bounds of its buckets, ascending.
            case histogram([Double])
        }

        package var name: String
        package var kind: Kind
        package var help: String
        /// The label sets that are there with 0 before anything was counted: a rate sees a series' first event only where
        /// the series was there before it.
        package var initial: [KeyValuePairs<String, String>]

        package init(
            _ name: String,
            _ kind: Kind,
            _ help: String,
            initial: [KeyValuePairs<String, String>] = []
        ) {
            self.name = name
            self.kind = kind
            self.help = help
            self.initial = initial
        }
    }

    /// Bounds for the time of a request or a transaction, seconds.
    package static let latencyBounds = [
        0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60,
    ]
    /// Bounds for the time of a round or an aggregation, seconds.
    package static let durationBounds = [0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 600, 1800, 3600, 14_400, 86_400]

    private struct Series {
        var labels: String
        var value = 0.0
        var counts: [Int] = []
        var sum = 0.0
    }

    private struct Family {
        var definition: Definition
        var series: [String: Series] = [:]
    }

    /// No family grows beyond this, whatever labels are asked for.
    private static let seriesLimit = 2000

    private let families: Mutex<[String: Family]>
    private let order: [String]

    package init(_ definitions: [Definition]) {
        order = definitions.map(\.name)
        families = Mutex(
            Dictionary(definitions.map { ($0.name, Family(definition: $0)) }, uniquingKeysWith: { first, _ in first })
        )
        for definition in definitions {
            for labels in definition.initial {
                update(definition.name, labels) { series, definition in
                    guard case .histogram(let bounds) = definition.kind else { return }
                    series.counts = Array(repeating: 0, count: bounds.count + 1)
                }
            }
        }
    }

    /// Adds to a counter or a gauge.
    package func add(_ name: String, _ amount: Double = 1, _ labels: KeyValuePairs<String, String> = [:]) {
        update(name, labels) { series, _ in series.value += amount }
    }

    /// Sets a gauge, or a counter that is counted elsewhere.
    package func set(_ name: String, _ value: Double, _ labels: KeyValuePairs<String, String> = [:]) {
        update(name, labels) { series, _ in series.value = value }
    }

    /// Forgets a gauge's series, before those that still exist are set anew.
    package func reset(_ name: String) {
        families.withLock { $0[name]?.series = [:] }
    }

    /// Adds a value to a histogram.
    package func observe(_ name: String, _ value: Double, _ labels: KeyValuePairs<String, String> = [:]) {
        update(name, labels) { series, definition in
            guard case .histogram(let bounds) = definition.kind else { return }
            if series.counts.isEmpty { series.counts = Array(repeating: 0, count: bounds.count + 1) }
            series.counts[bounds.firstIndex { value <= $0 } ?? bounds.count] += 1
            series.sum += value
        }
    }

    /// A counter's or gauge's value; `nil` where nothing was counted yet.
    package func value(_ name: String, _ labels: KeyValuePairs<String, String> = [:]) -> Double? {
        families.withLock { $0[name]?.series[Self.text(labels)]?.value }
    }

    /// Everything in the text exposition format, version 0.0.4.
    package func exposition() -> String {
        let families = families.withLock { $0 }
        var text = ""
        for name in order {
            guard let family = families[name] else { continue }
            text +=
                "# HELP \(name) \(family.definition.help)\n# TYPE \(name) \(Self.typeName(family.definition.kind))\n"
            for series in family.series.values.sorted(by: { $0.labels < $1.labels }) {
                guard case .histogram(let bounds) = family.definition.kind else {
                    text += "\(name)\(Self.braced(series.labels)) \(Self.number(series.value))\n"
                    continue
                }
                var total = 0
                let separator = series.labels.isEmpty ? "" : ","
                for (index, count) in series.counts.enumerated() {
                    total += count
                    let bound = index < bounds.count ? Self.number(bounds[index]) : "+Inf"
                    text += "\(name)_bucket{\(series.labels)\(separator)le=\"\(bound)\"} \(total)\n"
                }
                text += "\(name)_sum\(Self.braced(series.labels)) \(Self.number(series.sum))\n"
                text += "\(name)_count\(Self.braced(series.labels)) \(total)\n"
            }
        }
        return text
    }

    // MARK: -

    private func update(
        _ name: String,
        _ labels: KeyValuePairs<String, String>,
        _ body: (inout Series, Definition) -> Void
    ) {
        let text = Self.text(labels)
        families.withLock { families in
            guard let family = families[name] else {
                preconditionFailure("the metric \(name) is not defined")
            }
            guard family.series[text] != nil || family.series.count < Self.seriesLimit else { return }
            body(&families[name, default: family].series[text, default: Series(labels: text)], family.definition)
        }
    }

    private static func text(_ labels: KeyValuePairs<String, String>) -> String {
        var text = ""
        for (name, value) in labels {
            if !text.isEmpty { text += "," }
            text += "\(name)=\"\(escaped(value))\""
        }
        return text
    }

    private static func escaped(_ value: String) -> String {
        guard value.utf8.contains(where: { $0 == 34 || $0 == 92 || $0 == 10 }) else { return value }
        return value.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"").replacing("\n", with: "\\n")
    }

    private static func braced(_ labels: String) -> String { labels.isEmpty ? "" : "{\(labels)}" }

    private static func number(_ value: Double) -> String {
        if value == value.rounded(), abs(value) < 1e15 { return String(Int(value)) }
        if value.isNaN { return "NaN" }
        if value.isInfinite { return value < 0 ? "-Inf" : "+Inf" }
        return "\(value)"
    }

    private static func typeName(_ kind: Definition.Kind) -> String {
        switch kind {
        case .counter: "counter"
        case .gauge: "gauge"
        case .histogram: "histogram"
        }
    }
}
