import Aggregation
import DifferentialPrivacy
import Foundation
import Logging
import Tensors
import WireFormat

extension Coordinator {
    /// Seconds until a result that could not be published is tried again.
    private static let aggregationPause = 5.0

    /// Tries later to make and publish the result of a run's round.
    func retryAggregation(run id: String) { aggregationRetries[id] = now.addingTimeInterval(Self.aggregationPause) }

    /// Whether a time has come that was set so many seconds ahead at most: one that is further away was set before the clock
    /// was put back.
    func isDue(_ time: Date, setAhead seconds: Double) -> Bool {
        !(0.001...seconds).contains(time.timeIntervalSince(now))
    }

    /// Ends what has waited long enough; called a few times a second, and by tests.
    package func tick() throws {
        try publishPending()
        for (id, time) in aggregationRetries where isDue(time, setAhead: Self.aggregationPause) {
            aggregationRetries[id] = nil
            startAggregation(run: id)
        }
        for id in runOrder { takeNextStep(run: id) }
        wakeForWork()
        removeAbandonedUploads()
    }

    /// Takes the step that is due: by time, or where a stop or a failed transaction left it between two transactions.
    func takeNextStep(run id: String) {
        do {
            if let run = runs[id], run.record.state == "running", run.round?.phase.isFinal ?? true,
                run.nextOpening(now: now) <= now
            {
                try openRound(run: id)
            }
            try advance(run: id)
        } catch {
            logger.error("A run could not take its next step", metadata: ["run.id": "\(id)", "error": "\(error)"])
        }
    }

    /// Lets time act on a run's open round and its assignments.
    private func advance(run id: String) throws {
        guard let run = runs[id], run.record.state == "running" || run.record.state == "paused",
            let round = run.round, round.phase.isCollecting
        else { return }
        var events: [RoundEvent] = []
        var changes: [StoreChange] = []
        let terms = run.terms(of: round)
        for assignment in run.live.sorted() {
            guard var record = assignments[assignment] else { continue }
            var effects: [AssignmentEffect] = []
            // Nothing may last longer than what begins now: else it was begun by a clock that has been put back since.
            // In mode `buffered` some may train still while others measure.
            let longest =
                record.isEvaluation
                ? run.specification.evaluation.reportTimeoutS : run.specification.cohort.reportTimeoutS
            if record.deadline.timeIntervalSince(now) > longest + 1 {
                effects += try apply(.clockWentBack(deadline: now.addingTimeInterval(longest)), to: &record)
            }
            if let end = record.leaseUntil, record.state != .uploading, end.timeIntervalSince(now) > run.lease + 1 {
                record.leaseUntil = min(record.deadline, now.addingTimeInterval(run.lease))
                assignments[assignment] = record
            }
            effects += try apply(.tick, to: &record)
            guard !effects.isEmpty else { continue }
            changes += self.changes(of: record, effects)
            if run.counts(record) { events += effects.roundEvents }
        }
        let timeout = round.phase == .selecting ? terms.selectionTimeoutS : terms.reportTimeoutS
        if round.openedAt.timeIntervalSince(now) > 1 || round.deadline.timeIntervalSince(now) > timeout + 1 {
            events.append(.clockWentBack)
        }
        if !changes.isEmpty || !events.isEmpty { try drive(run: id, events, with: changes) }
        try drive(run: id, [.tick(live: runs[id]?.atWork.count ?? 0)])
    }

    // MARK: - Driving the machines

    /// What events come to, before anything has happened.
    private struct Step {
        var effects: [RoundEffect] = []
        var changes: [StoreChange] = []
        /// How long the ledger was before what the step charges.
        var ledgerCount = 0
        /// Accepted assignments whose updates are given up.
        var accepted: [String] = []
    }

    /// Feeds events to a run's open round, stores what changed with `others` in one transaction, and does what follows.
    ///
    /// Nothing may hold a copy of the run meanwhile: its lists of clients would be copied too, for every assignment.
    func drive(run id: String, _ events: [RoundEvent], with others: [StoreChange] = []) throws {
        guard let step = try step(run: id, events, others) else { return }
        if !step.changes.isEmpty { try commit(step.changes, ledgerCount: step.ledgerCount) }
        for effect in step.effects {
            switch effect {
            case .aggregate: startAggregation(run: id)
            case .discard: forget(run: id, spooled: step.accepted)
            case .draw: try drawCohort(run: id)
            case .freed: wakeForWork()
            case .history: break
            }
        }
    }

    private func step(run id: String, _ events: [RoundEvent], _ others: [StoreChange]) throws -> Step? {
        guard let run = runs[id], var round = run.round else { return nil }
        let before = round
        var step = Step(changes: others)
        do throws(RoundError) {
            for event in events { step.effects += try round.apply(event, at: now, terms: run.terms(of: round)) }
        } catch {
            throw error.refusal
        }
        if run.specification.cohort.tiers > 1 {
            for case .assignment(let record) in others {
                if assignments[record.id] == nil { round.count(tier: record.tier, accepted: false) }
                if record.state == .accepted { round.count(tier: record.tier, accepted: true) }
            }
        }
        if round != before { step.changes.append(.round(round)) }
        step.ledgerCount = ledger.rows.count
        for effect in step.effects {
            switch effect {
            case .history(let state, let cause):
                step.changes.append(
                    history(id, round: round.number, attempt: round.attempt, state: state.rawValue, cause: cause)
                )
            case .aggregate: step.changes += superseding(run, code: "round_full")
            case .discard:
                step.changes += superseding(run, code: "round_closed")
                step.changes += try settlement(of: run, round: round, from: before.phase)
                step.accepted = run.assignmentIDs.filter { assignments[$0]?.state == .accepted }
            case .draw, .freed: break
            }
        }
        return step
    }

    func apply(_ event: AssignmentEvent, to record: inout AssignmentRecord) throws -> [AssignmentEffect] {
        do {
            return try record.apply(event, at: now)
        } catch {
            throw error.refusal
        }
    }

    /// An assignment's change and its history, for one transaction.
    func changes(of record: AssignmentRecord, _ effects: [AssignmentEffect]) -> [StoreChange] {
        var changes: [StoreChange] = [.assignment(record)]
        for case .history(let state, let cause) in effects {
            changes.append(
                .history(
                    HistoryRow(
                        runId: record.runId,
                        round: record.round,
                        attempt: record.attempt,
                        at: now,
                        state: state.rawValue,
                        cause: cause,
                        assignmentId: record.id
                    )
                )
            )
        }
        return changes
    }

    /// Ends what is live; in mode `buffered` an update may be delivered to the next round, as long as there is one.
    private func superseding(_ run: RunState, code: String) -> [StoreChange] {
        let ended = run.isBuffered && !run.isOver ? run.measuring : run.live
        return ended.sorted().flatMap { id -> [StoreChange] in
            guard var record = assignments[id], let effects = try? apply(.superseded(code: code), to: &record) else {
                return []
            }
            return changes(of: record, effects)
        }
    }

    /// Feeds a run's own machine.
    func drive(run id: String, _ event: RunEvent) throws {
        let run = try runState(id)
        var record = run.record
        let effects: [RunEffect]
        do {
            effects = try record.apply(event)
        } catch {
            throw error.refusal
        }
        if event == .started { record.startedAt = now }
        var changes: [StoreChange] = [.run(record)]
        for case .history(let state, let cause) in effects { changes.append(history(id, state: state, cause: cause)) }
        var ended = run
        ended.record = record
        if ended.isOver { changes += superseding(ended, code: "run_ended") }
        try commit(changes)
        for effect in effects {
            switch effect {
            case .history: break
            case .openRound:
                if runs[id]?.round?.phase.isFinal ?? true, run.nextOpening(now: now) <= now { try openRound(run: id) }
                wakeForWork()
            case .abandonRound(let reason):
                // A round whose sum is being made is abandoned when the arithmetic has ended.
                if runs[id]?.round?.phase.isCollecting == true { try abandon(run: id, reason: reason) }
            }
        }
    }

    // MARK: - Opening

    /// Opens the next round, or the next attempt; with privacy its cost is reserved in the same transaction.
    func openRound(run id: String) throws {
        let run = try runState(id)
        let evaluated = run.evaluationDue
        if evaluated == nil, let reason = run.reasonToStop {
            return try drive(run: id, .finished(cause: "stopped early: \(reason)"))
        }
        let number = evaluated.map { -$0 } ?? run.versions.count
        guard number <= run.specification.rounds else {
            return try drive(run: id, .finished(cause: "all rounds are committed"))
        }
        if let cause = missingNoiseState(of: run, round: number) {
            return try drive(run: id, .failed(code: "noise_state_lost", cause: cause))
        }
        let attempt = (run.rounds.last { $0.number == number }?.attempt ?? 0) + 1
        let limit = run.specification.cohort.maxAttempts
        if number > 0, limit > 0, attempt > limit {
            let last = run.rounds.last { $0.number == number }?.reason ?? ""
            return try drive(
                run: id,
                .failed(code: "attempts_exhausted", cause: "round \(number) failed in \(limit) attempts: \(last)")
            )
        }
        let terms = RoundTerms(run.specification, isEvaluation: number < 0)
        var round = RoundRecord(
            runId: id,
            number: number,
            attempt: attempt,
            opening: terms.policy.isDrawn || terms.isBuffered ? .reporting : .selecting,
            at: now,
            deadline: now
        )
        let seconds = round.phase == .selecting ? terms.selectionTimeoutS : terms.reportTimeoutS
        round.deadline = now.addingTimeInterval(seconds)
        if terms.policy.isDrawn {
            let key = PoissonDraw.makeKey()
            round.drawKey = key
            round.drawn = drawnCount(run, key: key, policy: terms.policy)
        }
        var changes: [StoreChange] = [
            .round(round),
            history(id, round: number, attempt: attempt, state: round.phase.rawValue, cause: "opened"),
        ]
        let ledgerCount = ledger.rows.count
        let evaluation = number < 0 ? PrivacyCharge.evaluation(of: run.specification) : nil
        if run.specification.privacy.mode != "none" && (number > 0 || evaluation != nil) {
            do {
                let charge = try evaluation ?? charge(of: run)
                changes.append(.ledger(try reserve(run: id, round: abs(number), attempt: attempt, charge: charge)))
            } catch let error as CoordinationError where error.code == "budget_exhausted" && evaluation != nil {
                return try refuseEvaluation(round, error)
            } catch let error as CoordinationError where error.code == "budget_exhausted" {
                try drive(run: id, .failed(code: error.code, cause: error.message))
                throw error
            } catch let error as CoordinationError where error.code == "ledger_rolled_back" {
                // An administrator has to look first; the run goes on after that.
                if run.record.state == "running" { try drive(run: id, .paused) }
                throw error
            }
        }
        try commit(changes, ledgerCount: ledgerCount)
        prepareSelection(run: id, terms: terms)
        wakeForWork()
    }

    // MARK: - Abandoning

    /// Ends an attempt without a result.
    func abandon(run id: String, reason: String) throws {
        guard let round = runs[id]?.round, !round.phase.isFinal else { return }
        try drive(run: id, [.abandoned(reason: reason)])
    }

    /// Ends the reservation of an attempt that has no result.
    ///
    /// While it collects nothing that depends on client data was released, so its cost is given back; with local privacy what
    /// has arrived was released by the clients. Of an attempt that was cancelled while its sum was made, noise may have been
    /// drawn: its cost stays.
    private func settlement(of run: RunState, round: RoundRecord, from phase: RoundPhase) throws -> [StoreChange] {
        guard !round.isEvaluation || run.specification.hasPrivateEvaluation else { return [] }
        switch run.specification.privacy.mode {
        case "none": return []
        case "local" where round.accepted > 0:
            return [.ledger(try settle(run: run.record.id, round: round, state: "committed"))]
        default:
            let mayHaveNoise = phase == .aggregating && run.record.state == "cancelled"
            return [
                .ledger(try settle(run: run.record.id, round: round, state: mayHaveNoise ? "committed" : "released"))
            ]
        }
    }

    /// Drops the closed attempt's assignments from memory and its updates from the spool.
    func forget(run id: String, spooled: [String]) {
        guard let run = runs[id] else { return }
        let kept = run.assignmentIDs.filter { run.live.contains($0) }
        for assignment in run.assignmentIDs where !run.live.contains(assignment) { assignments[assignment] = nil }
        runs[id]?.assignmentIDs = kept
        runs[id]?.members = []
        blobs.discard(spooled.map { blobs.spoolPath($0 + ".update") })
    }

    // MARK: - Aggregating

    /// Closes the round when it has what it wants.
    func closeIfComplete(run id: String) throws {
        try drive(run: id, [.tick(live: runs[id]?.atWork.count ?? 0)])
    }

    /// The updates that go into the open round's result.
    func counted(_ run: RunState) -> [AssignmentRecord] {
        run.assignmentIDs.compactMap { assignments[$0] }.filter { $0.state == .accepted }
    }

    /// Starts the arithmetic of a round that has closed, away from the actor.
    func startAggregation(run id: String) {
        guard let run = runs[id], let round = run.round, let base = run.versions.last else { return }
        guard !round.isEvaluation else { return startEvaluation(run: id) }
        let isBuffered = run.terms(of: round).isBuffered
        let metrics = metrics
        var job = AggregationJob(
            specification: run.specification,
            updates: counted(run).map { record in
                AggregationJob.Update(
                    assignment: record,
                    path: blobs.spoolPath(record.id + ".update"),
                    staleness: isBuffered ? max(0, round.number - record.round) : 0
                )
            },
            basePath: blobs.path(sha256: base.sha256),
            optimizerPath: base.optimizerSha256.map { blobs.path(sha256: $0) },
            controlPath: base.controlSha256.map { blobs.path(sha256: $0) },
            clientCount: presentCount(population: run.record.populationId),
            level: round.number,
            resultPath: blobs.spoolPath("\(id)-\(round.number)-\(round.attempt).result"),
            clippingNorm: base.clippingNorm
        )
        if run.specification.privacy.mechanism == "banded_matrix" {
            do {
                job.correlated = try correlatedRelease(run: id, version: round.number, resultPath: job.resultPath)
            } catch {
                logger.error("The noise key cannot be read", metadata: ["run.id": "\(id)", "error": "\(error)"])
                retryAggregation(run: id)
                return
            }
        }
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
            if run.record.state == "cancelled" || run.record.state == "failed" {
                try abandon(run: id, reason: "the run was \(run.record.state)")
                if case .success(let outcome) = result { blobs.discard(outcome.spoolPaths) }
                return
            }
            switch result {
            case .failure(let error):
                logger.error("An aggregation failed", metadata: ["run.id": "\(id)", "error": "\(error)"])
                try abandon(run: id, reason: "the aggregation failed: \(error)")
                if let error = error as? CoordinationError, error.code == "noise_state_lost" {
                    try drive(run: id, .failed(code: error.code, cause: error.message))
                }
            case .success(let outcome):
                let judged = judge(outcome.scores)
                guard let model = outcome.model else {
                    try commit(judged)
                    return try abandon(run: id, reason: outcome.shortfall ?? "there is no model")
                }
                for file in outcome.files { try blobs.link(spoolFile: file.path, sha256: file.sha256) }
                if let path = outcome.noiseStatePath { try keepNoiseState(path, run: id, version: number) }
                let version = ModelVersionRecord(
                    runId: id,
                    version: number,
                    sha256: model.sha256,
                    bytes: model.byteCount,
                    createdAt: now,
                    optimizerSha256: outcome.optimizer?.sha256,
                    controlSha256: outcome.control?.sha256,
                    clippingNorm: outcome.nextNorm
                )
                let effects = try round.apply(
                    .aggregated(sha256: model.sha256),
                    at: now,
                    terms: run.terms(of: round)
                )
                round.excluded = outcome.scores.count { !$0.counted }
                let ledgerCount = ledger.rows.count
                var changes: [StoreChange] = [.modelVersion(version)]
                for case .history(let state, let cause) in effects {
                    changes.append(history(id, round: number, attempt: attempt, state: state.rawValue, cause: cause))
                }
                if run.specification.privacy.mode != "none" {
                    let row = try settle(run: id, round: round, state: "committed")
                    round.epsilon = row.epsilonAfter
                    changes.append(.ledger(row))
                } else if let metrics = rates(of: counted(run), run: id, version: number, source: "training") {
                    changes.append(.modelMetrics(metrics))
                }
                let spooled = counted(run).map(\.id)
                try commit(changes + judged + [.round(round)], ledgerCount: ledgerCount)
                forget(run: id, spooled: spooled)
                blobs.discard(outcome.spoolPaths)
                dropNoiseStates(run: id, before: number)
                logger.info(
                    "A round was committed",
                    metadata: ["run.id": "\(id)", "round.id": "\(number)", "round.updates": "\(round.accepted)"]
                )
                if runs[id]?.record.state == "running" { try openRound(run: id) }
            }
        } catch {
            // The result is a file by now: the next try publishes that one, and draws no second noise.
            logger.error("A round could not be closed", metadata: ["run.id": "\(id)", "error": "\(error)"])
            if runs[id]?.round?.phase == .aggregating { retryAggregation(run: id) }
        }
    }
}

extension [AssignmentEffect] {
    /// What the round is told of an assignment's change.
    var roundEvents: [RoundEvent] {
        compactMap { effect in
            if case .round(let event) = effect { return event }
            return nil
        }
    }
}
