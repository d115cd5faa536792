import Aggregation
import DifferentialPrivacy
import Foundation
import Logging
import Tensors
import WireFormat

extension Coordinator {
    /// Ends what has waited long enough; called a few times a second, and by tests.
    package func tick() throws {
        try publishPending()
        for (id, time) in aggregationRetries where time <= now {
            aggregationRetries[id] = nil
            startAggregation(run: id)
        }
        for id in runOrder {
            takeNextStep(run: id)
            guard let run = runs[id], run.record.state == "running" || run.record.state == "paused",
                let round = run.round, round.phase.isCollecting
            else { continue }
            try expireAssignments(run: id)
            guard round.deadline <= now else { continue }
            if round.phase == .selecting && round.assigned < run.specification.cohort.minimum {
                try abandonAndRetry(
                    run: id,
                    reason: "too few clients: \(round.assigned) checked in before the selection deadline"
                )
            } else if round.phase == .selecting {
                try beginReporting(run: id, cause: "the selection deadline passed")
            } else if round.accepted >= run.specification.cohort.minimum {
                try beginAggregation(run: id, cause: "the report deadline passed with enough updates")
            } else {
                try abandonAndRetry(
                    run: id,
                    reason: "too few updates: \(round.accepted) came before the report deadline"
                )
            }
        }
    }

    /// Takes the step that is due, where a stop or a failed transaction left it between two transactions.
    func takeNextStep(run id: String) {
        guard let run = runs[id], run.record.state == "running" else { return }
        do {
            if run.round?.phase.isFinal ?? true {
                try openRound(run: id)
            } else {
                try closeIfComplete(run: id)
            }
        } catch {
            logger.error("A run could not take its next step", metadata: ["run.id": "\(id)", "error": "\(error)"])
        }
    }

    private func expireAssignments(run id: String) throws {
        guard let run = runs[id], var round = run.round else { return }
        var changes: [StoreChange] = []
        for assignmentID in run.assignmentIDs {
            guard var assignment = assignments[assignmentID], assignment.state.isLive, assignment.deadline < now else {
                continue
            }
            assignment.state = .expired
            round.expired += 1
            changes.append(.assignment(assignment))
        }
        guard !changes.isEmpty else { return }
        try commit(changes + [.round(round)])
        wakeAll()
    }

    // MARK: - Opening

    /// Opens the next round, or the next attempt; with privacy its cost is reserved in the same transaction.
    func openRound(run id: String) throws {
        let run = try runState(id)
        let number = run.versions.count
        guard number <= run.specification.rounds else {
            try changeState(of: id, from: ["running", "paused"], to: "completed", cause: "all rounds are committed")
            return
        }
        let attempt = run.round.map { $0.number == number ? $0.attempt + 1 : 1 } ?? 1
        let round = RoundRecord(
            runId: id,
            number: number,
            attempt: attempt,
            phase: .selecting,
            openedAt: now,
            deadline: now.addingTimeInterval(run.specification.cohort.selectionTimeoutS)
        )
        var changes: [StoreChange] = [
            .round(round), history(id, round: number, attempt: attempt, state: "selecting", cause: "opened"),
        ]
        let ledgerCount = ledger.rows.count
        if run.specification.privacy.mode != "none" {
            do {
                changes.append(.ledger(try reserve(run: id, round: number, attempt: attempt)))
            } catch let error as CoordinationError where error.code == "budget_exhausted" {
                try changeState(
                    of: id,
                    from: ["running", "paused"],
                    to: "failed",
                    cause: error.message,
                    reason: error.code
                )
                throw error
            }
        }
        try commit(changes, ledgerCount: ledgerCount)
        wakeAll()
    }

    private func beginReporting(run id: String, cause: String) throws {
        guard let run = runs[id], var round = run.round else { return }
        round.phase = .reporting
        round.deadline = now.addingTimeInterval(run.specification.cohort.reportTimeoutS)
        try commit([
            .round(round), history(id, round: round.number, attempt: round.attempt, state: "reporting", cause: cause),
        ])
    }

    // MARK: - Abandoning

    /// Ends an attempt without a result; nothing that depends on client data was released, so its cost is given back.
    func abandon(run id: String, reason: String) throws {
        guard let run = runs[id], var round = run.round, !round.phase.isFinal else { return }
        round.phase = .abandoned
        round.reason = reason
        round.closedAt = now
        let ledgerCount = ledger.rows.count
        var changes: [StoreChange] =
            supersede(run: run) + [
                .round(round),
                history(id, round: round.number, attempt: round.attempt, state: "abandoned", cause: reason),
            ]
        if run.specification.privacy.mode == "central"
            || (run.specification.privacy.mode == "local" && round.accepted == 0)
        {
            changes.append(.ledger(settle(run: id, round: round, state: "released")))
        } else if run.specification.privacy.mode == "local" {
            changes.append(.ledger(settle(run: id, round: round, state: "committed")))
        }
        let spooled = run.assignmentIDs.filter { assignments[$0]?.state == .accepted }
        try commit(changes, ledgerCount: ledgerCount)
        forget(run: id, spooled: spooled)
    }

    private func abandonAndRetry(run id: String, reason: String) throws {
        try abandon(run: id, reason: reason)
        if runs[id]?.record.state == "running" { try openRound(run: id) }
    }

    private func supersede(run: RunState) -> [StoreChange] {
        run.assignmentIDs.compactMap { id in
            guard var assignment = assignments[id], assignment.state.isLive else { return nil }
            assignment.state = .superseded
            return .assignment(assignment)
        }
    }

    /// Drops the closed attempt's assignments from memory and its updates from the spool.
    private func forget(run id: String, spooled: [String]) {
        for assignment in runs[id]?.assignmentIDs ?? [] { assignments[assignment] = nil }
        runs[id]?.assignmentIDs = []
        for assignment in spooled {
            try? FileManager.default.removeItem(atPath: blobs.spoolPath(assignment + ".update"))
        }
    }

    // MARK: - Aggregating

    func closeIfComplete(run id: String) throws {
        guard let run = runs[id], let round = run.round, round.phase.isCollecting else { return }
        if round.accepted >= run.specification.cohort.goal {
            try beginAggregation(run: id, cause: "the report goal was reached")
        } else if round.phase == .selecting && round.assigned >= run.specification.cohort.goal {
            try beginReporting(run: id, cause: "enough clients were assigned")
        }
    }

    private func beginAggregation(run id: String, cause: String) throws {
        guard let run = runs[id], var round = run.round else { return }
        round.phase = .aggregating
        try commit(
            supersede(run: run) + [
                .round(round),
                history(id, round: round.number, attempt: round.attempt, state: "aggregating", cause: cause),
            ]
        )
        startAggregation(run: id)
    }

    /// Starts the arithmetic of a round that has closed, away from the actor.
    func startAggregation(run id: String) {
        guard let run = runs[id], let round = run.round, let base = run.versions.last else { return }
        let accepted = run.assignmentIDs.compactMap { assignments[$0] }.filter { $0.state == .accepted }
        let metrics = metrics
        var job = AggregationJob(
            specification: run.specification,
            updates: accepted.map { (path: blobs.spoolPath($0.id + ".update"), exampleCount: $0.exampleCount ?? 1) },
            basePath: blobs.path(sha256: base.sha256),
            resultPath: blobs.spoolPath("\(id)-\(round.number)-\(round.attempt).result")
        )
        job.report = { phase, seconds in metrics.observe("martlet_aggregation_seconds", seconds, ["phase": phase]) }
        DispatchQueue.global(qos: .utility).async { [job] in
            metrics.add("martlet_aggregations_running")
            let result = Result { try job.timed("total") { try job.run() } }
            metrics.add("martlet_aggregations_running", -1)
            Task { await self.finishAggregation(run: id, round: round.number, attempt: round.attempt, result) }
        }
    }

    private func finishAggregation(
        run id: String,
        round number: Int,
        attempt: Int,
        _ result: Result<AggregationJob.Outcome, any Error>
    ) {
        do {
            guard let run = runs[id], var round = run.round, round.phase == .aggregating, round.number == number,
                round.attempt == attempt
            else { return }
            switch result {
            case .failure(let error):
                logger.error("An aggregation failed", metadata: ["run.id": "\(id)", "error": "\(error)"])
                try abandonAndRetry(run: id, reason: "the aggregation failed: \(error)")
            case .success(let outcome):
                try blobs.link(spoolFile: outcome.path, sha256: outcome.sha256)
                let version = ModelVersionRecord(
                    runId: id,
                    version: number,
                    sha256: outcome.sha256,
                    bytes: outcome.byteCount,
                    createdAt: now
                )
                round.phase = .committed
                round.closedAt = now
                round.modelSha256 = outcome.sha256
                let ledgerCount = ledger.rows.count
                var changes: [StoreChange] = [
                    .modelVersion(version),
                    history(
                        id,
                        round: number,
                        attempt: attempt,
                        state: "committed",
                        cause: "model version \(number) was published"
                    ),
                ]
                if run.specification.privacy.mode != "none" {
                    let row = settle(run: id, round: round, state: "committed")
                    round.epsilon = row.epsilonAfter
                    changes.append(.ledger(row))
                }
                let spooled = run.assignmentIDs.filter { assignments[$0]?.state == .accepted }
                try commit(changes + [.round(round)], ledgerCount: ledgerCount)
                forget(run: id, spooled: spooled)
                try? FileManager.default.removeItem(atPath: outcome.path)
                logger.info(
                    "A round was committed",
                    metadata: ["run.id": "\(id)", "round.id": "\(number)", "round.updates": "\(round.accepted)"]
                )
                if runs[id]?.record.state == "running" { try openRound(run: id) }
            }
        } catch {
            // The result is a file by now: the next try publishes that one, and draws no second noise.
            logger.error("A round could not be closed", metadata: ["run.id": "\(id)", "error": "\(error)"])
            if runs[id]?.round?.phase == .aggregating { aggregationRetries[id] = now.addingTimeInterval(5) }
        }
    }
}
