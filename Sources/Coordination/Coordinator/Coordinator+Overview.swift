import Foundation
package import WireFormat

#if canImport(Glibc)
import Glibc
#endif

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
