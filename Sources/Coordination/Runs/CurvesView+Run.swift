import FoundationEssentials
import WireFormat

extension CurvesView {
    /// Most curves in one answer: an operator who measures may invent names.
    private static let curveLimit = 64

    /// What the curves need of an attempt to train.
    struct Attempt: Sendable {
        var number: Int
        var phase: RoundPhase
        var epsilon: Double?
        /// As they are shown.
        var bytesUp: Int?
        var bytesDown: Int?
        var seconds: Double?

        init(_ round: RoundRecord, bytesUp: Int?, bytesDown: Int?) {
            number = round.number
            phase = round.phase
            epsilon = round.epsilon
            self.bytesUp = bytesUp
            self.bytesDown = bytesDown
            seconds = round.closedAt?.timeIntervalSince(round.openedAt)
        }
    }

    /// The curves of a run.
    ///
    /// - Parameters:
    ///   - run: Its id.
    ///   - all: Its attempts to train, oldest first.
    ///   - metrics: What was measured of each version, by source and name.
    ///   - bests: The best version by each measurement.
    ///   - limit: Points of a curve.
    /// - Complexity: O(rounds × measurements); the result is O(`limit`).
    init(
        run: String,
        _ all: [Attempt],
        metrics: [Int: [String: [String: Double]]],
        bests: [BestView],
        points limit: Int
    ) {
        let committed = all.filter { $0.phase == .committed }
        let through = committed.last?.number ?? 0
        func curve(_ name: String, _ value: (Attempt) -> Double?) -> CurveView? {
            let points = committed.compactMap { round in value(round).map { (x: round.number, y: $0) } }
            return points.isEmpty ? nil : CurveView(name: name, source: nil, points: Self.thinned(points, to: limit))
        }
        var series = [
            curve("epsilon", \.epsilon), curve("bytes_up") { $0.bytesUp.map(Double.init) },
            curve("bytes_down") { $0.bytesDown.map(Double.init) },
            curve("seconds", \.seconds),
        ].compactMap { $0 }
        var measured: [Measurement: [(x: Int, y: Double)]] = [:]
        for (version, sources) in metrics where version <= through {
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
        let attempts = all.filter { $0.number <= through }
        let isSecret = attempts.contains { $0.bytesUp == nil }
        let seconds = committed.compactMap(\.seconds).sorted()
        self.init(
            run: run,
            throughRound: through,
            series: series,
            best: bests,
            totals: CurveTotals(
                bytesUp: isSecret ? nil : attempts.reduce(0) { $0 + ($1.bytesUp ?? 0) },
                bytesDown: isSecret ? nil : attempts.reduce(0) { $0 + ($1.bytesDown ?? 0) },
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
            (left.source == MetricsReport.heldOut ? "" : left.source, left.name)
                < (right.source == MetricsReport.heldOut ? "" : right.source, right.name)
        }
    }
}
