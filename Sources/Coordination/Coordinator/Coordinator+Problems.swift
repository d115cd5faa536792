import Foundation
import WireFormat

extension Coordinator {
    /// What needs somebody's attention, the worst first.
    func problems(populations: [PopulationView]) -> [ProblemView] {
        var found = diskProblems() + runOrder.flatMap { id in runs[id].map(problems) ?? [] }
        for population in populations { found += budgetProblems(population) }
        if let count = countClients().byState["quarantined"] {
            found.append(
                ProblemView(
                    code: "clients_quarantined",
                    severity: "warning",
                    count: count,
                    detail:
                        "\(count) clients are quarantined, because their updates stood out: look at them, then release or "
                        + "revoke them."
                )
            )
        }
        let order = ["error", "warning", "notice"]
        return found.enumerated().sorted {
            let (left, right) = (order.firstIndex(of: $0.1.severity) ?? 3, order.firstIndex(of: $1.1.severity) ?? 3)
            return (left, $0.0) < (right, $1.0)
        }.map(\.1)
    }

    private func problems(of run: RunState) -> [ProblemView] {
        let state = run.record.state
        guard state == "running" || state == "paused" || state == "failed" else { return [] }
        var found: [ProblemView] = []
        func add(_ code: String, _ severity: String, _ count: Int?, _ detail: String) {
            found.append(
                ProblemView(
                    code: code,
                    severity: severity,
                    run: run.record.id,
                    runName: run.record.name,
                    count: count,
                    detail: detail
                )
            )
        }
        if state == "failed" {
            add("run_failed", "error", nil, "The run failed: \(run.record.reason ?? "no reason was recorded").")
        }
        let abandoned = run.rounds.suffix(50).filter { $0.phase == .abandoned }
        if let last = abandoned.last {
            add(
                "attempts_abandoned",
                run.round?.attempt ?? 1 >= 3 ? "error" : "warning",
                abandoned.count,
                "\(abandoned.count) of the last \(min(50, run.rounds.count)) attempts ended without a model; "
                    + "the last one: \(last.reason ?? "no reason was recorded")."
            )
        }
        var codes: [String: Int] = [:]
        for round in Set(run.rounds.suffix(50).map(\.number)) {
            codes.merge(run.refusals[round] ?? [:]) { $0 + $1 }
        }
        for (code, count) in codes.sorted(by: { ($1.value, $0.key) < ($0.value, $1.key) }) {
            add("updates_refused:\(code)", "warning", count, "\(count) clients did not deliver: \(code).")
        }
        if state == "running", let round = run.round, round.phase == .selecting, round.assigned == 0,
            now.timeIntervalSince(round.openedAt) > 20
        {
            add("nobody_checks_in", "warning", nil, "No client has asked for work since round \(round.number) opened.")
        }
        return found
    }

    private func budgetProblems(_ population: PopulationView) -> [ProblemView] {
        guard let budget = population.budget else { return [] }
        var found: [ProblemView] = []
        for id in runOrder {
            guard let run = runs[id], let fitting = budget.roundsThatFit[id], let fitting,
                run.record.state == "running" || run.record.state == "paused"
            else { continue }
            // The open round is reserved already.
            let open = run.round.map { !$0.phase.isFinal } ?? false
            let wanted = run.specification.rounds - max(0, run.versions.count - 1) - (open ? 1 : 0)
            guard fitting < wanted else { continue }
            found.append(
                ProblemView(
                    code: "budget_too_small",
                    severity: fitting == 0 ? "error" : "warning",
                    run: id,
                    runName: run.record.name,
                    population: population.name,
                    count: fitting,
                    detail: "The budget of '\(population.name)' admits \(fitting) more rounds of this run, which wants "
                        + "\(wanted)."
                )
            )
        }
        if found.isEmpty, budget.epsilon > 0, budget.remainingEpsilon < budget.epsilon / 10 {
            let share = Int((budget.remainingEpsilon / budget.epsilon * 100).rounded())
            found.append(
                ProblemView(
                    code: "budget_nearly_spent",
                    severity: "notice",
                    population: population.name,
                    count: share,
                    detail: "\(share)% of the privacy budget of '\(population.name)' is left."
                )
            )
        }
        return found
    }

    private func diskProblems() -> [ProblemView] {
        guard let disk = disk(), disk.totalBytes > 0 else { return [] }
        let share = Int(Double(disk.freeBytes) / Double(disk.totalBytes) * 100)
        guard share < 10 || disk.freeBytes < 1 << 30 else { return [] }
        return [
            ProblemView(
                code: "disk_nearly_full",
                severity: disk.freeBytes < 256 << 20 ? "error" : "warning",
                count: share,
                detail: "\(disk.freeBytes / (1 << 20)) MiB (\(share)%) are free where the data directory lies."
            )
        ]
    }
}
