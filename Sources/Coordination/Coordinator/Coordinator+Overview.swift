import Foundation
package import WireFormat

#if canImport(Glibc)
import Glibc
#endif

/// How many clients are in which state.
package struct ClientCounts: Codable, Equatable, Sendable {
    package var total = 0
    /// `active` (seen in the last quarter of an hour), `offline`, `registered` (never given work, but in secret draws), `quarantined`,
    /// `revoked`; while a run draws in secret the first three are one, `enrolled`.
    package var byState: [String: Int] = [:]
    /// By the value of the label `tier`, where clients carry it.
    package var byTier: [String: Int] = [:]
    /// Holding an assignment now; without those of secret draws.
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
    package var state: RunPhase
    package var reason: String?
    package var createdAt: String
    package var rounds: Int
    package var round: Int
    /// `training`, or `evaluation`: then `round` is the version that is measured.
    package var roundKind: RoundKind
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
    /// What the caller may do.
    package var role: StaffRole
    package var version: String
    package var startedAt: String
    package var now: String
    package var disk: DiskView?
    package var clients: ClientCounts
    package var populations: [PopulationView]
    /// The runs that have not ended, and the newest of the others, oldest first; 200 at most.
    package var runs: [RunSummary]
    /// Runs that are not among them.
    package var moreRuns: Int
    package var problems: [ProblemView]
    package var recent: [EventView]
}

extension Coordinator {
    /// The state of the whole server in one answer: no larger however much there is, and gathered in parts, between which
    /// others have their turn.
    package nonisolated func overview(role: StaffRole) async throws -> OverviewView {
        let shown = await runsOfOverview()
        var runs: [RunSummary] = []
        for start in stride(from: 0, to: shown.count, by: Self.partCount) {
            runs += await summaries(shown[start..<min(shown.count, start + Self.partCount)])
        }
        let recent = (try? store.recentHistory(limit: 40)) ?? []
        return try await overview(role: role, runs: runs, recent: recent)
    }

    /// Runs that the overview shows at most.
    static let overviewRunLimit = 200

    private func runsOfOverview() -> [String] {
        var ids = Array(openRuns.suffix(Self.overviewRunLimit))
        // Ended ones from the newest on, past those that have not ended.
        for id in runOrder.reversed().prefix(2 * Self.overviewRunLimit) where ids.count < Self.overviewRunLimit {
            if runs[id]?.isOver == true { ids.append(id) }
        }
        return ids.compactMap { id in runs[id].map { (createdAt: $0.record.createdAt, id: id) } }
            .sorted { ($0.createdAt, $0.id) < ($1.createdAt, $1.id) }.map(\.id)
    }

    private func summaries(_ ids: ArraySlice<String>) -> [RunSummary] {
        ids.compactMap { runs[$0].map(summary) }
    }

    private func overview(role: StaffRole, runs: [RunSummary], recent: [HistoryRow]) throws -> OverviewView {
        let populations = try listPopulations(limit: Self.overviewRunLimit).items
        return OverviewView(
            role: role,
            version: ProductVersion.current,
            startedAt: startedAt.wireTimestamp,
            now: now.wireTimestamp,
            disk: disk(),
            clients: countClients(),
            populations: populations,
            runs: runs,
            moreRuns: max(0, runOrder.count - runs.count),
            problems: problems(populations: populations),
            recent: recent.map {
                EventView(
                    run: $0.runId,
                    runName: self.runs[$0.runId]?.record.name,
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
            roundKind: run.round?.isEvaluation == true ? .evaluation : .training,
            committedRounds: max(0, run.versions.count - 1),
            epsilon: run.lastEpsilon,
            bestVersion: run.bestVersion,
            metrics: run.lastMeasured.flatMap { run.metrics[$0] },
            waitingFor: waitingFor(run)
        )
    }

    /// How many clients are in which state.
    func countClients() -> ClientCounts {
        let secret = openRuns.compactMap { runs[$0] }.filter { $0.specification.privacy.hasSecretDraw }
        let working = liveAssignmentByClient.count - secret.reduce(0) { $0 + $1.live.count }
        return clients.counts(working: working, isSecret: !secret.isEmpty, at: now)
    }

    /// How full the data directory's file system is.
    func disk() -> DiskView? {
        var status = statvfs()
        guard statvfs(configuration.dataDirectory, &status) == 0 else { return nil }
        let unit = Int(status.f_frsize)
        return DiskView(freeBytes: unit * Int(status.f_bavail), totalBytes: unit * Int(status.f_blocks))
    }
}
