import Aggregation
import DifferentialPrivacy
import Foundation
import Logging
import Tensors
import WireFormat

extension Coordinator {
    /// Whether a time has come that was set so many seconds ahead at most: one that is further away was set before the clock
    /// was put back.
    func isDue(_ time: Date, setAhead seconds: Double) -> Bool {
        !(0.001...seconds).contains(time.timeIntervalSince(now))
    }

    /// Ends what has waited long enough; called a few times a second, and by tests.
    package func tick() throws {
        try resolveDoubt()
        noteAlive()
        try publishPending()
        retryLedgerRecord()
        consumeRestoredNote()
        retryDroppingNoise()
        updateHolds()
        resumeStalled()
        for id in openRuns { takeNextStep(run: id) }
        wakeForWork()
        removeAbandonedUploads()
        removeExpiredTokens()
    }

    /// Takes the step that is due: by time, or where a stop or a failed transaction left it between two transactions.
    func takeNextStep(run id: String) {
        // While the ledger's alarm stands, time does nothing to a private run: see ``LedgerTrust``.
        if let run = runs[id], budgets.trust.isHalted(run.specification) { return }
        do {
            if let run = runs[id], run.record.state == .running, run.round?.phase.isFinal ?? true,
                run.nextOpening(now: now) <= now, holdReason(run) == nil
            {
                try openRound(run: id)
            }
            // Earlier versions ended the run and its round in two transactions, and a stop could come between them.
            if let run = runs[id], run.isOver, run.round?.phase.isCollecting == true {
                try abandon(run: id, reason: "the run was \(run.record.state)", cost: .kept)
            }
            try advance(run: id)
        } catch {
            // A disk's refusal has its own line, once a minute; this is tried at every tick.
            guard StorageFailure(error) == nil else { return }
            logger.error("A run could not take its next step", metadata: ["run.id": "\(id)", "error": "\(error)"])
        }
    }

    /// Lets time act on a run's open round and on those of its assignments that are due.
    private func advance(run id: String) throws {
        guard let run = runs[id], run.record.state == .running || run.record.state == .paused,
            let round = run.round, round.phase.isCollecting, holds[id] == nil, holdReason(run) == nil
        else { return }
        var events: [RoundEvent] = []
        var changes: [StoreChange] = []
        let terms = run.terms(of: round)
        // Each has an entry in the queue. After the clock was put back, which moves times to be earlier, all are looked at.
        let isBack = run.expiries.lastAsked.map { now < $0 } ?? true
        let due = run.expiries.due(at: now)
        for assignment in (isBack ? Array(run.live) : due).sorted() {
            // Should what is changed here not be stored, it is due at the next tick again.
            defer { if let record = assignments[assignment] { run.noteExpiry(of: record) } }
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
            if let end = record.leaseUntil, openUploads[assignment] == nil, end.timeIntervalSince(now) > run.lease + 1 {
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
        try endIfNobodyMayJoin(run: id)
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
    ///
    /// - Parameters:
    ///   - id: The run.
    ///   - events: What happened to its round.
    ///   - others: Changes of the same transaction.
    ///   - cost: What an attempt costs that ends without a result.
    /// - Throws: ``CoordinationError``; nothing has changed then.
    func drive(
        run id: String,
        _ events: [RoundEvent],
        with others: [StoreChange] = [],
        cost: AttemptCost = .judged
    ) throws {
        guard let step = try step(run: id, events, others, cost: cost) else { return }
        if !step.changes.isEmpty { try commit(step.changes, ledgerCount: step.ledgerCount) }
        try perform(step, run: id)
    }

    /// What events come to, with the copy of the run that this takes gone before anything changes.
    private func step(
        run id: String,
        _ events: [RoundEvent],
        _ others: [StoreChange],
        cost: AttemptCost
    ) throws -> Step? {
        try runs[id].flatMap { try step(of: $0, events, others, cost: cost) }
    }

    /// Does what follows from a step that is stored.
    private func perform(_ step: Step, run id: String) throws {
        for effect in step.effects {
            switch effect {
            case .aggregate: startAggregation(run: id)
            case .discard:
                endAttempt(run: id)
                if let round = runs[id]?.round { discardResult(run: id, round: round.number, attempt: round.attempt) }
                forget(run: id, spooled: step.accepted)
            case .draw: try drawCohort(run: id)
            case .freed: wakeForWork()
            case .history: break
            }
        }
    }

    // What events come to for a run's open round; `code` is what assignments that are live are ended with.
    private func step(
        of run: RunState,
        _ events: [RoundEvent],
        _ others: [StoreChange],
        cost: AttemptCost = .judged,
        code: String = "round_closed"
    ) throws -> Step? {
        guard var round = run.round else { return nil }
        let id = run.record.id
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
        step.ledgerCount = budgets.ledger.rows.count
        for effect in step.effects {
            switch effect {
            case .history(let state, let cause):
                step.changes.append(
                    history(id, round: round.number, attempt: round.attempt, state: state, cause: cause)
                )
            case .aggregate: step.changes += superseding(run, code: "round_full")
            case .discard:
                step.changes += superseding(run, code: code)
                step.changes += try settlement(of: run, round: round, from: before.phase, cost: cost)
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
        var reason: String?
        for case .abandonRound(let cause) in effects { reason = cause }
        // A round whose sum is being made is abandoned when the arithmetic has ended; any other in the same transaction: nothing
        // would end it later.
        let step = try reason.flatMap { reason in
            run.round?.phase.isCollecting == true
                ? try self.step(of: ended, [.abandoned(reason: reason)], changes, code: "run_ended") : nil
        }
        if let step {
            try commit(step.changes, ledgerCount: step.ledgerCount)
            try perform(step, run: id)
        } else {
            if ended.isOver { changes += superseding(ended, code: "run_ended") }
            try commit(changes)
        }
        if ended.isOver { dropNoiseStates(run: id) }
        guard effects.contains(.openRound) else { return }
        if runs[id]?.round?.phase.isFinal ?? true, run.nextOpening(now: now) <= now { try openNext(run: id) }
        wakeForWork()
    }

    // MARK: - Opening

    /// Opens the next round of a running run, unless the disk holds it up; then a tick does it later.
    ///
    /// - Throws: ``CoordinationError``, such as `ledger_rolled_back` while the ledger's alarm stands: who starts a run hears of it.
    func openNext(run id: String) throws {
        guard let run = runs[id], run.record.state == .running else { return }
        let hasAlarm = budgets.trust.alarm != nil && run.specification.isPrivate
        guard hasAlarm || holdReason(run) == nil else { return }
        try openRound(run: id)
    }

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
            round.drawn = drawnCountAtOnce(run, round, policy: terms.policy)
        }
        var changes: [StoreChange] = [
            .round(round),
            history(id, round: number, attempt: attempt, state: round.phase, cause: "opened"),
        ]
        let ledgerCount = budgets.ledger.rows.count
        let evaluation = number < 0 ? PrivacyCharge.evaluation(of: run.specification) : nil
        if run.specification.privacy.mode != .none && (number > 0 || evaluation != nil) {
            do {
                let row = try budgets.reserve(
                    evaluation ?? charge(of: run),
                    for: ChargedAttempt(round),
                    of: populations.record(run.record.populationId),
                    clientCount: clients.presentCount(population: run.record.populationId),
                    at: now
                )
                changes.append(.ledger(row))
            } catch let error as CoordinationError where error.is(.budgetExhausted) && evaluation != nil {
                return try refuseEvaluation(round, error)
            } catch let error as CoordinationError where error.is(.budgetExhausted) {
                try drive(run: id, .failed(code: error.code, cause: error.message))
                throw error
            } catch let error as CoordinationError where error.is(.ledgerRolledBack) {
                // An administrator has to look first; the run goes on after that.
                if run.record.state == .running { try drive(run: id, .paused) }
                throw error
            }
        }
        try commit(changes, ledgerCount: ledgerCount)
        prepareSelection(run: id, terms: terms)
        if runs[id]?.updateByteCount == nil { checkSettings(run: id) }
        countDrawIfNeeded(run: id)
        wakeForWork()
    }

    // MARK: - Abandoning

    /// Ends an attempt without a result; see ``drive(run:_:with:cost:)``.
    func abandon(run id: String, reason: String, cost: AttemptCost = .judged) throws {
        guard let round = runs[id]?.round, !round.phase.isFinal else { return }
        try drive(run: id, [.abandoned(reason: reason)], cost: cost)
    }

    /// Ends the reservation of an attempt that has no result.
    ///
    /// While it collects nothing that depends on client data was released, so its cost is given back. It stays where something
    /// may have been or may still be: with local privacy every byte of an update is a release by its client, also of one that is
    /// refused, cut off, or comes when nobody waits for it any more, so that work which was handed out is paid for unless its
    /// clients have given all of it back; and when the sum was being made noise may have been drawn, however the arithmetic ended.
    ///
    /// While it is not known whether this database is the newest one, another server may have handed out, taken and published what
    /// this one thinks open: then it is charged apart, whoever ends it and why.
    private func settlement(
        of run: RunState,
        round: RoundRecord,
        from phase: RoundPhase,
        cost: AttemptCost
    ) throws -> [StoreChange] {
        guard !round.isEvaluation || run.specification.hasPrivateEvaluation else { return [] }
        let mode = run.specification.privacy.mode
        guard mode != .none else { return [] }
        if cost == .apart || cost == .judged && budgets.trust.mayHaveGoneOnElsewhere(ChargedAttempt(round)) {
            return try budgets.settleApart(
                reservedCharge(of: run, round),
                for: ChargedAttempt(round),
                of: populations.record(run.record.populationId),
                at: now
            ).map { .ledger($0) }
        }
        let isSpent = cost == .kept || (mode == .local && round.mayReceive) || phase == .aggregating
        return [.ledger(try settle(run, round, as: isSpent ? .committed : .released))]
    }

    /// Drops what an attempt that was abandoned had made already.
    private func discardResult(run id: String, round: Int, attempt: Int) {
        let path = blobs.resultPath(run: id, round: round, attempt: attempt)
        blobs.discard(AggregationJob.resultSuffixes.map { path + $0 })
    }

    /// Drops the closed attempt's assignments from memory and its updates from the spool.
    func forget(run id: String, spooled: [String]) {
        guard let run = runs[id] else { return }
        let kept = run.assignmentIDs.filter { run.live.contains($0) }
        let ended = run.assignmentIDs.filter { !run.live.contains($0) }
        for assignment in ended {
            assignments[assignment] = nil
            squaredNorms[assignment] = nil
        }
        runs[id]?.assignmentIDs = kept
        runs[id]?.members = AttemptMembers()
        newcomerSearches[id] = nil
        guard run.specification.isPrivate else {
            return blobs.discard(spooled.map { blobs.updatePath(of: $0) })
        }
        // All that is known of anybody's update goes with the round and does not wait for the next sweep: what had arrived of others',
        // and what a failed transaction left of one that was not accepted.
        blobs.discard(
            Set(spooled + ended).flatMap {
                [
                    blobs.updatePath(of: $0), blobs.receiptPath(of: $0), blobs.spoolPath($0 + Self.partialSuffix),
                    blobs.spoolPath($0 + Self.judgedSuffix),
                ]
            }
        )
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

    /// Starts the arithmetic of a round that has closed, away from the actor; or publishes what it has come to, where that failed.
    func startAggregation(run id: String) {
        guard let run = runs[id], let round = run.round, round.phase == .aggregating, let base = run.versions.last,
            !aggregating.contains(id)
        else { return }
        // Nothing is published while the ledger's alarm stands; its end abandons the attempt, or lets this go on. Nor while the second
        // record is behind: a server that is restored would not know of it.
        if let error = budgets.trust.publishingHalt(run.specification) { return stall(run: id, error) }
        guard !round.isEvaluation else { return startEvaluation(run: id) }
        if let known = outcomes[id], known.round == round.number, known.attempt == round.attempt {
            return finishAggregation(run: id, round: round.number, attempt: round.attempt, .success(known.outcome))
        }
        let isPrivate = run.specification.isPrivate
        let isBuffered = run.terms(of: round).isBuffered
        let metrics = metrics
        var job = AggregationJob(
            specification: run.specification,
            updates: counted(run).map { record in
                AggregationJob.Update(
                    assignment: record,
                    path: blobs.updatePath(of: record.id),
                    staleness: isBuffered ? max(0, round.number - record.round) : 0,
                    squaredNorm: squaredNorms[record.id],
                    receiptPath: isPrivate ? blobs.receiptPath(of: record.id) : nil
                )
            },
            basePath: blobs.path(sha256: base.sha256),
            optimizerPath: base.optimizerSha256.map { blobs.path(sha256: $0) },
            controlPath: base.controlSha256.map { blobs.path(sha256: $0) },
            clientCount: presentCount(population: run.record.populationId),
            level: round.number,
            resultPath: blobs.resultPath(run: id, round: round.number, attempt: round.attempt),
            clippingNorm: base.clippingNorm,
            noiseKey: noiseKey(of: round)
        )
        if run.specification.privacy.isBanded {
            do {
                job.correlated = try correlatedRelease(run: id, version: round.number, resultPath: job.resultPath)
            } catch {
                return stall(run: id, error)
            }
        }
        job.verify = verification(of: base)
        job.report = { phase, seconds in metrics.observe("martlet_aggregation_seconds", seconds, ["phase": phase]) }
        aggregating.insert(id)
        DispatchQueue.global(qos: .utility).async { [job] in
            metrics.add("martlet_aggregations_running")
            let result = Result {
                var job = job
                try job.readReceipts()
                return try job.timed("total") { try job.run() }
            }
            metrics.add("martlet_aggregations_running", -1)
            Task {
                await self.takeOutcome(run: id, round: round.number, attempt: round.attempt, result)
            }
        }
    }

    private func takeOutcome(
        run id: String,
        round number: Int,
        attempt: Int,
        _ result: Result<AggregationJob.Outcome, any Error>
    ) {
        aggregating.remove(id)
        if case .success(let outcome) = result, let round = runs[id]?.round, round.phase == .aggregating,
            round.number == number, round.attempt == attempt
        {
            outcomes[id] = (number, attempt, outcome)
        }
        finishAggregation(run: id, round: number, attempt: attempt, result)
        // Meanwhile another attempt may have come to its end.
        if runs[id]?.round?.phase == .aggregating, stalls[id] == nil { startAggregation(run: id) }
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
            else {
                // The attempt was abandoned meanwhile; what the arithmetic has left goes, however it ended.
                return discardResult(run: id, round: number, attempt: attempt)
            }
            // The result is a file by now, and is published or dropped when the alarm has ended, or the second record is kept again.
            if let error = budgets.trust.publishingHalt(run.specification) { return stall(run: id, error) }
            if run.record.state == .cancelled || run.record.state == .failed {
                try abandon(run: id, reason: "the run was \(run.record.state)")
                if case .success(let outcome) = result { blobs.discard(outcome.spoolPaths) }
                return
            }
            switch result {
            case .failure(let error) where mayPass(error): stall(run: id, error)
            case .failure(let error):
                logger.error("An aggregation failed", metadata: ["run.id": "\(id)", "error": "\(error)"])
                try abandon(run: id, reason: "the aggregation failed: \(ErrorSentence.text(of: error))")
                if let error = error as? CoordinationError, error.is(.noiseStateLost) {
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
                if run.specification.privacy.mode == .none { round.note(outcome.cuts) }
                let ledgerCount = budgets.ledger.rows.count
                var changes: [StoreChange] = [.modelVersion(version)]
                for case .history(let state, let cause) in effects {
                    changes.append(history(id, round: number, attempt: attempt, state: state, cause: cause))
                }
                if run.specification.privacy.mode != .none {
                    let row = try settle(run, round, as: .committed)
                    round.epsilon = row.epsilonAfter
                    changes.append(.ledger(row))
                } else if let metrics = rates(of: counted(run), run: id, version: number, source: "training") {
                    changes.append(.modelMetrics(metrics))
                }
                let spooled = counted(run).map(\.id)
                try commit(changes + judged + [.round(round)], ledgerCount: ledgerCount)
                endAttempt(run: id)
                for role in [StorageFailure.Role.result, .model, .noiseState] { storage.noteSuccess(role) }
                forget(run: id, spooled: spooled)
                blobs.discard(outcome.spoolPaths)
                dropNoiseStates(run: id)
                logger.info(
                    "A round was committed",
                    metadata: ["run.id": "\(id)", "round.id": "\(number)", "round.updates": "\(round.accepted)"]
                )
                try openNext(run: id)
            }
        } catch {
            // What the arithmetic has come to is kept: the next try publishes that.
            if runs[id]?.round?.phase == .aggregating {
                stall(run: id, error)
            } else {
                logger.error("A round could not be opened", metadata: ["run.id": "\(id)", "error": "\(error)"])
            }
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
