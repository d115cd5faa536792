import FoundationEssentials
import WireFormat

/// A run's history as curves whose size does not depend on how long the run is.
package struct CurvesView: Codable, Equatable, Sendable {
    package var run: String
    /// The last committed round that the curves contain; 0 before the first.
    package var throughRound: Int
    package var series: [CurveView]
    /// The best version by each measurement that says what is better, the one that counts first.
    package var best: [BestView]
    /// All attempts of the rounds up to `throughRound`.
    package var totals: CurveTotals
    /// Half of the committed rounds took no longer; `null` before the first.
    package var medianSeconds: Double?
}

/// One value by round.
package struct CurveView: Codable, Equatable, Sendable {
    /// `epsilon`, `bytes_up`, `bytes_down`, `seconds`, or what was measured, such as `accuracy`.
    package var name: String
    /// Who measured, where it is a measurement.
    package var source: String?
    /// `[round, value]`; version 0 is round 0.
    package var points: [[Double]]
}

/// The version that did best by one measurement.
package struct BestView: Codable, Equatable, Sendable {
    package var name: String
    package var source: String
    package var version: Int
    package var value: Double
}

/// Sums over a run.
package struct CurveTotals: Codable, Equatable, Sendable {
    package var bytesUp: Int
    package var bytesDown: Int
    package var attempts: Int
    package var abandoned: Int
}

extension Coordinator {
    /// Most curves in one answer: who measures may invent names.
    private static let curveLimit = 64

    /// A run's curves, at most `points` points each.
    ///
    /// - Complexity: O(rounds × measurements); the answer is O(`points`).
    package func curves(run id: String, points limit: Int) throws -> CurvesView {
        let run = try runState(id)
        let committed = run.rounds.filter { $0.phase == .committed && !$0.isEvaluation }
        let through = committed.last?.number ?? 0
        func curve(_ name: String, _ value: (RoundRecord) -> Double?) -> CurveView? {
            let points = committed.compactMap { round in value(round).map { (x: round.number, y: $0) } }
            return points.isEmpty ? nil : CurveView(name: name, source: nil, points: Self.thinned(points, to: limit))
        }
        var series = [
            curve("epsilon", \.epsilon), curve("bytes_up") { Double($0.bytesUp) },
            curve("bytes_down") { $0.bytesDown.map(Double.init) },
            curve("seconds") { $0.closedAt?.timeIntervalSince($0.openedAt) },
        ].compactMap { $0 }
        var measured: [Measurement: [(x: Int, y: Double)]] = [:]
        for (version, sources) in run.metrics where version <= through {
            for (source, values) in sources {
                for (name, value) in values {
                    measured[Measurement(source: source, name: name), default: []].append((version, value))
                }
            }
        }
        for (measurement, points) in measured.sorted(by: { $0.key < $1.key }).prefix(Self.curveLimit) {
            let sorted = points.sorted { $0.x < $1.x }
            series.append(
                CurveView(
                    name: measurement.name,
                    source: measurement.source,
                    points: Self.thinned(sorted, to: limit)
                )
            )
        }
        let attempts = run.rounds.filter { !$0.isEvaluation && $0.number <= through }
        let seconds = committed.compactMap { $0.closedAt?.timeIntervalSince($0.openedAt) }.sorted()
        return CurvesView(
            run: id,
            throughRound: through,
            series: series,
            best: run.bests,
            totals: CurveTotals(
                bytesUp: attempts.reduce(0) { $0 + $1.bytesUp },
                bytesDown: attempts.reduce(0) { $0 + ($1.bytesDown ?? 0) },
                attempts: attempts.count,
                abandoned: attempts.count { $0.phase == .abandoned }
            ),
            medianSeconds: seconds.isEmpty ? nil : seconds[seconds.count / 2]
        )
    }

    private static func thinned(_ points: [(x: Int, y: Double)], to limit: Int) -> [[Double]] {
        CurveThinning.thin(points, to: limit).map { [Double($0.x), $0.y] }
    }

    /// The operator's measurements before the clients'.
    private struct Measurement: Hashable, Comparable {
        var source: String
        var name: String

        static func < (left: Self, right: Self) -> Bool {
            (left.source == "held-out" ? "" : left.source, left.name)
                < (right.source == "held-out" ? "" : right.source, right.name)
        }
    }
}

extension RunState {
    /// Measurements that say which of two models is better, and whether larger is.
    private static let judged = [
        ("accuracy", true), ("top1", true), ("loss", false), ("nll", false), ("perplexity", false),
    ]

    /// The best version by each measurement that was taken: the operator's first, then the clients', accuracy before loss.
    var bests: [BestView] {
        var bests: [BestView] = []
        for source in ["held-out", "federated", "training"] {
            for (name, prefersLarger) in Self.judged {
                var best: BestView?
                for (version, sources) in metrics {
                    guard let value = sources[source]?[name], value.isFinite else { continue }
                    // The first of equals, so that a version keeps its mark.
                    if let known = best {
                        let isBetter = prefersLarger ? value > known.value : value < known.value
                        guard isBetter || (value == known.value && version < known.version) else { continue }
                    }
                    best = BestView(name: name, source: source, version: version, value: value)
                }
                if let best { bests.append(best) }
            }
        }
        return bests
    }
}
