import Foundation
import WireFormat

#if canImport(Glibc)
import Glibc
#endif

/// How many clients are in which state.
package struct ClientCounts: Codable, Equatable, Sendable {
    package var total = 0
    /// `active` (seen in the last quarter of an hour), `offline`, `registered` (never given work), `quarantined`, `revoked`.
    package var byState: [String: Int] = [:]
    /// By the value of the label `tier`, where clients carry it.
    package var byTier: [String: Int] = [:]
    /// Holding an assignment now.
    package var working = 0
}

/// Something that an operator should know, in words.
package struct ProblemView: Codable, Equatable, Sendable {
    /// Stable name, such as `attempts_abandoned`.
    package var code: String
    /// `error` stops work, `warning` will, `notice` explains.
    package var severity: String
    package var run: String?
    package var runName: String?
    package var population: String?
    package var count: Int?
    package var detail: String
}

/// A run in a list: what changes, without its specification.
package struct RunSummary: Codable, Equatable, Sendable {
    package var id: String
    package var name: String
    package var population: String
    package var state: String
    package var reason: String?
    package var createdAt: String
    package var rounds: Int
    package var round: Int
    /// `training`, or `evaluation`: then `round` is the version that is measured.
    package var roundKind: String
    package var committedRounds: Int
    package var epsilon: Double?
    /// See ``RunView/bestVersion``.
    package var bestVersion: Int?
    package var metrics: [String: [String: Double]]?
    package var waitingFor: String
}

/// The file system that holds the data directory.
package struct DiskView: Codable, Equatable, Sendable {
    package var freeBytes: Int
    package var totalBytes: Int
}

/// One state change of a run or a round, with the run it belongs to.
package struct EventView: Codable, Equatable, Sendable {
    package var run: String
    package var runName: String?
    /// 0 for a change of the run itself.
    package var round: Int
    package var attempt: Int
    package var at: String
    package var state: String
    package var cause: String
}

/// Everything that the first look at a server shows.
package struct OverviewView: Codable, Equatable, Sendable {
    /// What the caller may do: `viewer`, `operator` or `admin`.
    package var role: String
    package var version: String
    package var startedAt: String
    package var now: String
    package var disk: DiskView?
    package var clients: ClientCounts
    package var populations: [PopulationView]
    package var runs: [RunSummary]
    package var problems: [ProblemView]
    package var recent: [EventView]
}

extension Coordinator {
    /// The state of the whole server in one answer.
    package func overview(role: String) throws -> OverviewView {
        let populations = try listPopulations()
        return OverviewView(
            role: role,
            version: ProductVersion.current,
            startedAt: startedAt.wireTimestamp,
            now: now.wireTimestamp,
            disk: disk(),
            clients: countClients(),
            populations: populations,
            runs: try runOrder.map { summary(of: try runState($0)) },
            problems: problems(populations: populations),
            recent: try store.recentHistory(limit: 40).map {
                EventView(
                    run: $0.runId,
                    runName: runs[$0.runId]?.record.name,
                    round: $0.round,
                    attempt: $0.attempt,
                    at: $0.at.wireTimestamp,
                    state: $0.state,
                    cause: $0.cause
                )
            }
        )
    }

    private func summary(of run: RunState) -> RunSummary {
        RunSummary(
            id: run.record.id,
            name: run.record.name,
            population: run.record.populationId,
            state: run.record.state,
            reason: run.record.reason,
            createdAt: run.record.createdAt.wireTimestamp,
            rounds: run.specification.rounds,
            round: abs(run.round?.number ?? 0),
            roundKind: run.round?.isEvaluation == true ? "evaluation" : "training",
            committedRounds: max(0, run.versions.count - 1),
            epsilon: run.rounds.last(where: { $0.phase == .committed })?.epsilon,
            bestVersion: run.bestVersion,
            metrics: run.versions.last(where: { run.metrics[$0.version] != nil }).flatMap { run.metrics[$0.version] },
            waitingFor: waitingFor(run)
        )
    }

    /// How many clients are in which state; at most a second old, of very many clients a little more.
    func countClients() -> ClientCounts {
        if let known = clientCounts, known.counts.total == clients.count, now >= known.at,
            now.timeIntervalSince(known.at) < known.goodFor
        {
            var counts = known.counts
            counts.working = liveAssignmentByClient.count
            return counts
        }
        let start = ContinuousClock.now
        var counts = ClientCounts(total: clients.count, working: liveAssignmentByClient.count)
        let horizon = now.addingTimeInterval(-900)
        for record in clients.values {
            let state: String
            if record.state == "revoked" {
                state = "revoked"
            } else if record.quarantinedAt != nil {
                state = "quarantined"
            } else if let seen = presence.lastSeen(record.id), seen > horizon {
                state = record.state == "registered" ? "registered" : "active"
            } else {
                state = record.state == "registered" ? "registered" : "offline"
            }
            counts.byState[state, default: 0] += 1
            if record.state != "revoked", let tier = Self.tier(record.labels) {
                counts.byTier[tier, default: 0] += 1
            }
        }
        let seconds = (ContinuousClock.now - start) / .seconds(1)
        clientCounts = (now, clients.count > Self.manyClients ? max(1, 50 * seconds) : 1, counts)
        return counts
    }

    /// The label `tier` of a client, read without parsing the labels of clients that have none.
    private static func tier(_ labels: String) -> String? {
        guard labels.contains("\"tier\""),
            let object = try? JSONDecoder().decode([String: String].self, from: Data(labels.utf8))
        else { return nil }
        return object["tier"]
    }

    /// How full the data directory's file system is.
    func disk() -> DiskView? {
        var status = statvfs()
        guard statvfs(configuration.dataDirectory, &status) == 0 else { return nil }
        let unit = Int(status.f_frsize)
        return DiskView(freeBytes: unit * Int(status.f_bavail), totalBytes: unit * Int(status.f_blocks))
    }
}
