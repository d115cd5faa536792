import Coordination
import Foundation
import WireFormat

/// A run with the rounds it has had, as the tools of this command line read it.
struct RunCurves {
    var run: RunView
    var rounds: [RoundView]
    /// What was measured of the model before the first round.
    var initialMetrics: [String: [String: Double]]?

    static func read(_ id: String, _ access: ServerAccess) async throws -> RunCurves {
        do { return try await decode(id, access) } catch is DecodingError {
            throw Failure("the server's answer cannot be read: server and program are of different versions")
        }
    }

    private static func decode(_ id: String, _ access: ServerAccess) async throws -> RunCurves {
        let path = "/v1/runs/\(escaped(id))"
        let run = try WireCoding.decode(RunView.self, from: await access.call("GET", path))
        struct Page: Decodable {
            var items: [RoundView]
            var nextCursor: String?
        }
        var rounds: [RoundView] = []
        var cursor: String?
        repeat {
            let query = "?limit=10000" + (cursor.map { "&cursor=" + escaped($0) } ?? "")
            let page = try WireCoding.decode(Page.self, from: await access.call("GET", path + "/rounds" + query))
            rounds += page.items
            cursor = page.nextCursor
        } while cursor != nil
        let first: ModelVersionView? =
            run.modelVersion == nil
            ? nil : try WireCoding.decode(ModelVersionView.self, from: await access.call("GET", path + "/models/0"))
        return RunCurves(run: run, rounds: rounds, initialMetrics: first?.metrics)
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
