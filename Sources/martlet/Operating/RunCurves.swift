import Coordination
import Foundation
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
        let path = "/v1/runs/\(escaped(id))"
        let run = try WireCoding.decode(RunView.self, from: await access.call("GET", path))
        struct Page: Decodable {
            var items: [RoundView]
            var nextCursor: String?
        }
        func rounds(_ query: String) async throws -> [RoundView] {
            var rounds: [RoundView] = []
            var cursor: String?
            repeat {
                let query = query + (cursor.map { "&cursor=" + escaped($0) } ?? "")
                let page = try WireCoding.decode(Page.self, from: await access.call("GET", path + "/rounds?" + query))
                rounds += page.items
                cursor = page.nextCursor
            } while cursor != nil
            return rounds
        }
        var initialMetrics = known?.initialMetrics
        if initialMetrics == nil, run.modelVersion != nil {
            let first = try WireCoding.decode(ModelVersionView.self, from: await access.call("GET", path + "/models/0"))
            initialMetrics = first.metrics
        }
        if let known, let all = known.joined(with: try await rounds("last=\(recentAttempts)")) {
            return RunCurves(run: run, rounds: all, initialMetrics: initialMetrics)
        }
        return RunCurves(run: run, rounds: try await rounds("limit=10000"), initialMetrics: initialMetrics)
    }

    /// The rounds with the latest ones in the place of what was known of them; `nil` where rounds between are missing.
    func joined(with latest: [RoundView]) -> [RoundView]? {
        guard let first = latest.first else { return nil }
        let place = (first.number, first.attempt)
        guard let last = rounds.last, (last.number, last.attempt) >= place else { return nil }
        return rounds.filter { ($0.number, $0.attempt) < place } + latest
    }

    var committed: [RoundView] { rounds.filter { $0.state == "committed" } }

    /// One measurement by round, the operator's where there is one, else the clients'.
    func curve(_ names: [String]) -> [(round: Int, value: Double)] {
        let measured = [(0, initialMetrics)] + committed.map { ($0.number, $0.metrics) }
        return measured.compactMap { number, metrics in
            guard let metrics else { return nil }
            let sources = metrics.keys.sorted { ($0 == "held-out" ? 0 : 1, $0) < ($1 == "held-out" ? 0 : 1, $1) }
            for source in sources {
                for name in names { if let value = metrics[source]?[name] { return (number, value) } }
            }
            return nil
        }
    }

    static let accuracyNames = ["accuracy", "top1"]
    static let lossNames = ["loss", "nll", "perplexity"]
}
