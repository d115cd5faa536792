import Foundation
import WireFormat

extension RunState {
    /// What of a run needs somebody's attention.
    ///
    /// - Parameters:
    ///   - stall: How its closed round waits, if it does.
    ///   - modelByteLimit: The largest update that the server takes.
    ///   - clientRequestsPerSecond: Requests of one client that are answered in a second; `nil` for any number.
    ///   - now: The time.
    /// - Returns: The problems, those of the run before those of its rounds.
    func problems(
        _ stall: Stall?,
        modelByteLimit: Int,
        clientRequestsPerSecond: Double?,
        at now: Date
    ) -> [ProblemView] {
        let state = record.state
        guard state == .running || state == .paused || state == .failed else { return [] }
        var found: [ProblemView] = []
        func add(_ code: String, _ severity: String, _ count: Int?, _ detail: String) {
            found.append(
                ProblemView(
                    code: code,
                    severity: severity,
                    run: record.id,
                    runName: record.name,
                    count: count,
                    detail: detail
                )
            )
        }
        if state == .failed {
            add("run_failed", "error", nil, "The run failed: \(record.reason ?? "no reason was recorded").")
        }
        if let needed = updateByteCount, needed > modelByteLimit, state != .failed {
            add(
                "updates_too_large",
                "error",
                needed,
                "An update of this run may have \(needed) bytes, and limits.model_bytes lets in "
                    + "\(modelByteLimit): every client is refused (413). Raise it and start the server again."
            )
        }
        let rate = SettingsCheck.requestsPerSecond(specification)
        if let limit = clientRequestsPerSecond, limit < rate, state != .failed {
            add(
                "signs_of_life_limited",
                "error",
                nil,
                "A client of this run sends \(Self.rounded(rate)) requests a second, because of its lease_s, and "
                    + "rate.client_per_s lets in \(Self.rounded(limit)): clients at work are replaced. Raise it and start the "
                    + "server again."
            )
        }
        if let stall, round?.phase == .aggregating {
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
        let abandoned = rounds.suffix(50).filter { $0.phase == .abandoned }
        if let last = abandoned.last {
            add(
                "attempts_abandoned",
                round?.attempt ?? 1 >= 3 ? "error" : "warning",
                abandoned.count,
                "\(abandoned.count) of the last \(min(50, rounds.count)) attempts ended without a model; "
                    + "the last one: \(last.reason ?? "no reason was recorded")."
            )
        }
        var codes: [String: Int] = [:]
        for number in Set(rounds.suffix(50).map(\.number)) {
            codes.merge(refusals[number] ?? [:]) { $0 + $1 }
        }
        // Of a secret draw not even that some did not deliver: whoever knows a client that never does would learn whether it was drawn.
        for (code, count) in codes.sorted(by: { ($1.value, $0.key) < ($0.value, $1.key) })
        where !specification.privacy.hasSecretDraw {
            add("updates_refused:\(code)", "warning", count, "\(count) clients did not deliver: \(code).")
        }
        if state == .running, let round, round.phase == .selecting, round.assigned == 0,
            now.timeIntervalSince(round.openedAt) > 20
        {
            add("nobody_checks_in", "warning", nil, "No client has asked for work since round \(round.number) opened.")
        }
        return found
    }

    private static func rounded(_ value: Double) -> String { "\((value * 100).rounded() / 100)" }
}

extension PopulationView {
    /// What of the population's budget needs somebody's attention.
    func budgetProblems(_ runs: RunTable) -> [ProblemView] {
        guard let budget else { return [] }
        var found: [ProblemView] = []
        for id in runs.open {
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
                    population: name,
                    count: fitting,
                    detail: "The budget of '\(name)' admits \(fitting) more rounds of this run, which wants "
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
                    population: name,
                    count: share,
                    detail: "\(share)% of the privacy budget of '\(name)' is left."
                )
            )
        }
        return found
    }
}
