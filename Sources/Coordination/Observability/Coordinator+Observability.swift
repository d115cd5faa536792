import Foundation
import WireFormat

#if canImport(Glibc)
import Glibc
#endif

extension Coordinator {
    /// Counts what a change ends; called before memory takes it, while the state before it is still known.
    func observe(_ change: StoreChange) {
        switch change {
        case .assignment(let record):
            guard !record.state.isLive, assignments[record.id]?.state.isLive ?? true else { return }
            metrics.add("martlet_updates_total", 1, ["outcome": record.state.rawValue])
            if record.state == .accepted {
                metrics.add("martlet_update_bytes_total", Double(countedBytes(of: record)))
            } else if let code = record.code, record.state == .rejected || record.state == .failed {
                metrics.add("martlet_update_refusals_total", 1, ["code": code])
            }
        case .round(let record):
            guard record.phase.isFinal, runs[record.runId]?.round?.phase.isFinal != true else { return }
            metrics.add("martlet_rounds_total", 1, ["outcome": record.phase.rawValue])
            for (bound, count) in [("weight", record.cappedWeights), ("length", record.cappedNorms)] {
                if let count, count > 0 { metrics.add("martlet_updates_capped_total", Double(count), ["bound": bound]) }
            }
            let end = record.closedAt ?? now
            metrics.observe("martlet_round_duration_seconds", max(0, end.timeIntervalSince(record.openedAt)))
        default: break
        }
    }

    /// What an accepted update adds to the sum of bytes: with privacy its planned size, and nothing where the number of
    /// updates is secret.
    private func countedBytes(of record: AssignmentRecord) -> Int {
        if let bytes = record.updateBytes { return bytes }
        guard let run = runs[record.runId], run.specification.isPrivate,
            !RoundTerms(run.specification, isEvaluation: record.isEvaluation).isSecret
        else { return 0 }
        return plannedByteCount(of: run, isEvaluation: record.isEvaluation)
    }

    /// Measures what is a state and not an event, and gives everything as Prometheus text.
    ///
    /// Files are looked at, and the text is made, beside the coordinator.
    package nonisolated func metricsExposition() async -> String {
        await measureState()
        measureStorage()
        ProcessMeasurements.measure(into: metrics)
        return metrics.exposition()
    }

    private func measureState() {
        for name in ["martlet_clients", "martlet_runs"] { metrics.reset(name) }
        for population in populations.all {
            for (state, count) in clients.stateCounts[population.id] ?? [:] where count > 0 {
                metrics.set("martlet_clients", Double(count), ["population": population.name, "state": state.rawValue])
            }
            guard let limit = population.budgetEpsilon, let delta = population.budgetDelta else { continue }
            let (spent, all) = budgets.totals(of: population)
            for (name, value) in [
                ("limit", limit), ("spent", spent), ("reserved", all - spent), ("remaining", max(0, limit - all)),
            ] {
                metrics.set("martlet_privacy_epsilon_\(name)", value, ["population": population.name])
            }
            metrics.set("martlet_privacy_delta", delta, ["population": population.name])
        }
        for (state, count) in runStateCounts where count > 0 {
            metrics.set("martlet_runs", Double(count), ["state": state.rawValue])
        }
        metrics.set("martlet_ledger_alarm", budgets.trust.alarm == nil ? 0 : 1)
        metrics.set("martlet_ledger_record_behind", budgets.trust.trouble == nil ? 0 : 1)
        metrics.set("martlet_rounds_stalled", Double(stalls.count))
        metrics.set("martlet_assignments_open", Double(liveAssignmentByClient.count))
        metrics.set("martlet_long_polls", Double(waiters.count))
    }

    private nonisolated func measureStorage() {
        let directory = configuration.dataDirectory
        func size(_ name: String) -> Double {
            var information = stat()
            return stat(directory + "/" + name, &information) == 0 ? Double(information.st_size) : 0
        }
        metrics.set("martlet_sqlite_bytes", size("martlet.sqlite"), ["file": "database"])
        metrics.set("martlet_sqlite_bytes", size("martlet.sqlite-wal"), ["file": "wal"])
        let spooled = (try? FileManager.default.contentsOfDirectory(atPath: directory + "/spool")) ?? []
        metrics.set("martlet_spool_files", Double(spooled.count))
        metrics.set("martlet_spool_bytes", spooled.reduce(0) { $0 + size("spool/" + $1) })
        var disk = statvfs()
        guard statvfs(directory, &disk) == 0 else { return }
        metrics.set("martlet_disk_free_bytes", Double(disk.f_bavail) * Double(disk.f_frsize))
        metrics.set("martlet_disk_size_bytes", Double(disk.f_blocks) * Double(disk.f_frsize))
    }
}

/// What the kernel says about this process.
enum ProcessMeasurements {
    private static let start = Date().timeIntervalSince1970

    static func measure(into metrics: MetricsRegistry) {
        if let text = try? String(contentsOfFile: "/proc/self/statm", encoding: .utf8),
            let pages = text.split(separator: " ").dropFirst().first.flatMap({ Double($0) })
        {
            metrics.set("process_resident_memory_bytes", pages * Double(sysconf(Int32(_SC_PAGESIZE))))
        }
        let open = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd"))?.count ?? 0
        metrics.set("process_open_fds", Double(open))
        var limit = rlimit()
        if getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 {
            metrics.set("process_max_fds", Double(limit.rlim_cur))
        }
        var usage = rusage()
        if getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage) == 0 {
            let seconds = usage.ru_utime.tv_sec + usage.ru_stime.tv_sec
            let microseconds = usage.ru_utime.tv_usec + usage.ru_stime.tv_usec
            metrics.set("process_cpu_seconds_total", Double(seconds) + Double(microseconds) / 1e6)
        }
        metrics.set("process_start_time_seconds", start)
    }
}
