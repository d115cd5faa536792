import Foundation
import WireFormat

#if canImport(Glibc)
import Glibc
#endif

extension MetricsRegistry {
    /// Counts what a change ends.
    ///
    /// - Parameters:
    ///   - change: A change that is stored.
    ///   - runs: The runs as they were before it.
    ///   - time: When.
    ///   - plannedByteCount: The size that every update of a private run has.
    func count(_ change: StoreChange, before runs: RunTable, at time: Date, plannedByteCount: (_ run: String) -> Int) {
        switch change {
        case .assignment(let record):
            guard !record.state.isLive, runs.assignments[record.id]?.state.isLive ?? true else { return }
            add("martlet_updates_total", 1, ["outcome": record.state.rawValue])
            if record.state == .accepted {
                let bytes = record.updateBytes ?? runs.plannedBytes(of: record, plannedByteCount)
                add("martlet_update_bytes_total", Double(bytes))
            } else if let code = record.code, record.state == .rejected || record.state == .failed {
                add("martlet_update_refusals_total", 1, ["code": code])
            }
        case .round(let record):
            guard record.phase.isFinal, runs[record.runId]?.round?.phase.isFinal != true else { return }
            add("martlet_rounds_total", 1, ["outcome": record.phase.rawValue])
            for (bound, count) in [("weight", record.cappedWeights), ("length", record.cappedNorms)] {
                if let count, count > 0 { add("martlet_updates_capped_total", Double(count), ["bound": bound]) }
            }
            let end = record.closedAt ?? time
            observe("martlet_round_duration_seconds", max(0, end.timeIntervalSince(record.openedAt)))
        default: break
        }
    }

    /// Measures how much there is of everything, which is a state and not an event.
    func measure(
        _ populations: [(record: PopulationRecord, totals: (committed: Double, all: Double)?)],
        _ clients: ClientTable,
        _ runs: RunTable
    ) {
        for name in ["martlet_clients", "martlet_runs"] { reset(name) }
        for (population, totals) in populations {
            for (state, count) in clients.stateCounts[population.id] ?? [:] where count > 0 {
                set("martlet_clients", Double(count), ["population": population.name, "state": state.rawValue])
            }
            guard let limit = population.budgetEpsilon, let delta = population.budgetDelta, let totals else { continue }
            for (name, value) in [
                ("limit", limit), ("spent", totals.committed), ("reserved", totals.all - totals.committed),
                ("remaining", max(0, limit - totals.all)),
            ] {
                set("martlet_privacy_epsilon_\(name)", value, ["population": population.name])
            }
            set("martlet_privacy_delta", delta, ["population": population.name])
        }
        for (state, count) in runs.stateCounts where count > 0 {
            set("martlet_runs", Double(count), ["state": state.rawValue])
        }
        set("martlet_assignments_open", Double(runs.liveCount))
    }

    /// Measures the files of a data directory, and its disk.
    func measureStorage(_ directory: String) {
        func size(_ name: String) throws(CoordinationError) -> Double {
            Double(try DurableFiles.byteCount(directory + "/" + name) ?? 0)
        }
        // What the disk does not say is not 0: the last value stands.
        for (name, file) in [("martlet.sqlite", "database"), ("martlet.sqlite-wal", "wal")] {
            if let bytes = try? size(name) { set("martlet_sqlite_bytes", bytes, ["file": file]) }
        }
        if let spooled = try? DurableFiles.names(in: directory + "/spool") {
            set("martlet_spool_files", Double(spooled.count))
            if let bytes = try? spooled.reduce(0, { $0 + (try size("spool/" + $1)) }) {
                set("martlet_spool_bytes", bytes)
            }
        }
        var disk = statvfs()
        guard statvfs(directory, &disk) == 0 else { return }
        set("martlet_disk_free_bytes", Double(disk.f_bavail) * Double(disk.f_frsize))
        set("martlet_disk_size_bytes", Double(disk.f_blocks) * Double(disk.f_frsize))
    }
}

extension RunTable {
    /// What an accepted update adds to the sum of bytes with privacy: its planned size, and nothing if the number of updates is secret.
    fileprivate func plannedBytes(of record: AssignmentRecord, _ plannedByteCount: (_ run: String) -> Int) -> Int {
        guard let run = self[record.runId], run.specification.isPrivate,
            !RoundTerms(run.specification, isEvaluation: record.isEvaluation).isSecret
        else { return 0 }
        return record.isEvaluation ? EvaluationResult.privateByteCount : plannedByteCount(record.runId)
    }
}
