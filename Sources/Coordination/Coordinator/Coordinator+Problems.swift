import Foundation
import Logging
import WireFormat

extension Coordinator {
    /// What needs somebody's attention, the worst first.
    func problems(populations: [PopulationView]) -> [ProblemView] {
        var found = budgets.trust.problems(at: now) + diskProblems() + storageProblems() + modelFileProblems()
        for id in failedRuns.suffix(Self.failureLimit) + openRuns { found += runs[id].map(problems) ?? [] }
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
        if !clients.ahead.isEmpty {
            found.append(
                ProblemView(
                    code: "clients_ahead",
                    severity: "warning",
                    count: clients.ahead.count,
                    detail:
                        "\(clients.ahead.count) clients know of assignments that this database does not: it was restored or rolled "
                        + "back, or they lie. Where it was not restored with martlet restore, put the newest database back."
                )
            )
        }
        let order = ["error", "warning", "notice"]
        return found.enumerated().sorted {
            let (left, right) = (order.firstIndex(of: $0.1.severity) ?? 3, order.firstIndex(of: $1.1.severity) ?? 3)
            return (left, $0.0) < (right, $1.0)
        }.map(\.1)
    }

    /// Of so many runs it is said that they failed; their list has the others.
    private static let failureLimit = 20

    private func problems(of run: RunState) -> [ProblemView] {
        let state = run.record.state
        guard state == .running || state == .paused || state == .failed else { return [] }
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
        if state == .failed {
            add("run_failed", "error", nil, "The run failed: \(run.record.reason ?? "no reason was recorded").")
        }
        if let needed = run.updateByteCount, needed > configuration.modelByteLimit, state != .failed {
            add(
                "updates_too_large",
                "error",
                needed,
                "An update of this run may have \(needed) bytes, and limits.model_bytes lets in "
                    + "\(configuration.modelByteLimit): every client is refused (413). Raise it and start the server again."
            )
        }
        let rate = SettingsCheck.requestsPerSecond(run.specification)
        if let limit = configuration.clientRequestsPerSecond, limit < rate, state != .failed {
            add(
                "signs_of_life_limited",
                "error",
                nil,
                "A client of this run sends \(Self.rounded(rate)) requests a second, because of its lease_s, and "
                    + "rate.client_per_s lets in \(Self.rounded(limit)): clients at work are replaced. Raise it and start the "
                    + "server again."
            )
        }
        if let stall = stalls[run.record.id], run.round?.phase == .aggregating {
            let seconds = max(0, Int(now.timeIntervalSince(stall.since)))
            let advice = stall.failure?.advice.map { " To do: \($0)." } ?? ""
            add(
                stall.failure == nil ? "round_stalled" : "round_waits_for_disk",
                "error",
                nil,
                "A closed round has waited for \(seconds) s, because \(stall.reason). Its updates are kept, and it is tried "
                    + "again by itself.\(advice)"
            )
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
        let ordered = codes.sorted {
            run.specification.privacy.hasSecretDraw ? $0.key < $1.key : ($1.value, $0.key) < ($0.value, $1.key)
        }
        for (code, count) in ordered {
            // Of a secret draw not how many.
            let isSecret = run.specification.privacy.hasSecretDraw
            let who = isSecret ? "Clients" : "\(count) clients"
            add("updates_refused:\(code)", "warning", isSecret ? nil : count, "\(who) did not deliver: \(code).")
        }
        if state == .running, let round = run.round, round.phase == .selecting, round.assigned == 0,
            now.timeIntervalSince(round.openedAt) > 20
        {
            add("nobody_checks_in", "warning", nil, "No client has asked for work since round \(round.number) opened.")
        }
        return found
    }

    private static func rounded(_ value: Double) -> String { "\((value * 100).rounded() / 100)" }

    /// Holds the settings against an open run: limits that are lower than they were when it was made stop it.
    func checkSettings(run id: String) {
        guard let run = runs[id], !run.isOver, run.specification.analytics == nil, let layout = try? layout(of: id)
        else { return }
        let needed = SettingsCheck.updateByteCount(run.specification, layout: layout)
        runs[id]?.updateByteCount = needed
        guard needed > configuration.modelByteLimit else { return }
        logger.warning(
            "limits.model_bytes is less than an update of an open run: all its clients will be refused",
            metadata: ["run.id": "\(id)", "needed": "\(needed)", "limit": "\(configuration.modelByteLimit)"]
        )
    }

    private func budgetProblems(_ population: PopulationView) -> [ProblemView] {
        guard let budget = population.budget else { return [] }
        var found: [ProblemView] = []
        for id in openRuns {
            guard let run = runs[id], let fitting = budget.roundsThatFit[id], let fitting,
                run.record.state == .running || run.record.state == .paused
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

    /// What the disk refuses now.
    private func storageProblems() -> [ProblemView] {
        storage.current.map { trouble in
            let advice = trouble.failure.advice.map { " To do: \($0)." } ?? ""
            return ProblemView(
                code: trouble.failure.problemCode,
                severity: "error",
                count: trouble.count,
                detail: "\(trouble.failure.sentence.prefix(1).uppercased() + trouble.failure.sentence.dropFirst()): "
                    + "\(trouble.count) times since \(trouble.since.wireTimestamp).\(advice)"
            )
        }
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
