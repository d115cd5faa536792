import MartletOperator
import WireFormat

/// A run with the rounds it has had, as the tools of this command line read it.
struct RunCurves {
    var run: RunView
    var rounds: [RoundView]
    /// What was measured of the model before the first round.
    var initialMetrics: [String: [String: Double]]?

    /// Reads a run; of one that is `known` from an earlier reading, only the latest rounds.
    static func read(_ id: String, _ access: ServerAccess, knowing known: RunCurves? = nil) async throws -> RunCurves {
        do { return try await decode(id, access, known) } catch is DecodingError {
            throw Failure("the server's answer cannot be read: server and program are of different versions")
        }
    }

    /// Attempts that are read again: what clients measure of a version arrives after its round.
    private static let recentAttempts = 50

    private static func decode(_ id: String, _ access: ServerAccess, _ known: RunCurves?) async throws -> RunCurves {
        try await access.ask { client in
            let run = try await client.run(id)
            var initialMetrics = known?.initialMetrics
            if initialMetrics == nil, run.modelVersion != nil {
                initialMetrics = try await client.model(0, of: id).metrics
            }
            if let known, let all = known.joined(with: try await client.latestRounds(recentAttempts, of: id)) {
                return RunCurves(run: run, rounds: all, initialMetrics: initialMetrics)
            }
            return RunCurves(run: run, rounds: try await client.rounds(of: id), initialMetrics: initialMetrics)
        }
    }

    /// The rounds with the latest ones in the place of what was known of them; `nil` where rounds between are missing.
    func joined(with latest: [RoundView]) -> [RoundView]? {
        guard let first = latest.first else { return nil }
        let place = (first.number, first.attempt)
        guard let last = rounds.last, (last.number, last.attempt) >= place else { return nil }
        return rounds.filter { ($0.number, $0.attempt) < place } + latest
    }

    var committed: [RoundView] { rounds.filter { $0.state == .committed } }

    /// Measurements of one kind by round, all from one source: what clients say of their training is another thing than what was
    /// judged.
    struct Curve {
        /// Who measured: `held-out`, `federated` or `training`.
        var source: String
        var points: [(round: Int, value: Double)]

        /// What to say behind a figure: nothing for the operator's, else who measured.
        var note: String {
            switch source {
            case MetricsReport.heldOut: ""
            case "federated": " (judged by clients)"
            case "training": " (clients' training)"
            default: " (\(Terminal.printable(source)))"
            }
        }
    }

    /// The curve of the best source that has any of these measurements, under the first of the names that it has.
    func curve(_ names: [String]) -> Curve? {
        let measured = [(0, initialMetrics ?? [:])] + committed.map { ($0.number, $0.metrics ?? [:]) }
        let order = ["held-out": 0, "federated": 1, "training": 3]
        let sources = Set(measured.flatMap { $0.1.keys }).sorted { (order[$0] ?? 2, $0) < (order[$1] ?? 2, $1) }
        for source in sources {
            for name in names {
                let points = measured.compactMap { number, metrics in
                    metrics[source]?[name].map { (round: number, value: $0) }
                }
                if !points.isEmpty { return Curve(source: source, points: points) }
            }
        }
        return nil
    }

    static let accuracyNames = ["accuracy", "top1"]
    static let lossNames = ["loss", "nll", "perplexity"]
}
