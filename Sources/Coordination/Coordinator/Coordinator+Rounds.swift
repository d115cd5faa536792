import DifferentialPrivacy
import Foundation
import Logging
import Tensors
import WireFormat

/// The life of rounds: time, events, openings, and what becomes of the sum.
extension Coordinator {
    // MARK: - Time

    /// Ends what has waited long enough; called a few times a second, and by tests.
    package func tick() throws {
        try resolveDoubt()
        noteAlive()
        try publishPending()
        if let trouble = budgets.trust.trouble, trouble.until.isDue(at: now, setAhead: trouble.pause) {
            ledgerRecord.write(&budgets, at: now)
        }
        settleRestore()
        noiseStates.retry(runs, isWhole: !budgets.trust.isInQuestion)
        readMissingLayouts()
        endOwedSessions()
        updateHolds()
        for id in publication.takeDue(at: now, runs) { startAggregation(run: id) }
        for id in runs.open { takeNextStep(run: id) }
        wakeForWork()
        if nextUploadSweep.isDue(at: now, setAhead: 60) {
            nextUploadSweep = now.addingTimeInterval(60)
            sweepUploads()
            blobs.retryRemovals { [storage] in storage.note($0) }
        }
        removeExpiredTokens()
    }

    /// Removes parts of uploads that nobody will finish.
    private func sweepUploads() {
        do throws(CoordinationError) {
            try updates.sweep(isWanted: mayDeliver)
        } catch {
            // The next sweep tries again.
            if let failure = error.storage { storage.note(failure) }
        }
    }

    /// Takes the step that is due: by time, or because a stop or a failed transaction left it between two transactions.
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
        guard mayAdvance(run: id) else { return }
        let (events, changes) = try runs.passTime(run: id, now: now)
        if !changes.isEmpty || !events.isEmpty { try drive(run: id, events, with: changes) }
        try closeIfComplete(run: id)
        if isNobodyLeft(run: id) { try drive(run: id, [.nobodyLeft]) }
    }

    private func mayAdvance(run id: String) -> Bool {
        guard let run = runs[id], run.record.state == .running || run.record.state == .paused else { return false }
        return run.round?.phase.isCollecting == true && !lostTime.isHeld(id) && holdReason(run) == nil
    }

    private func isNobodyLeft(run id: String) -> Bool {
        runs[id].map { placement.isNobodyLeft(for: $0, clients) } ?? false
    }

    // MARK: - Lost time

    /// What a run waits for that hands out no work and whose clock stands still; `nil` if it waits for nothing of that kind.
    func holdReason(_ run: RunState) -> String? {
        if let damage = modelFiles.damage(of: run) { return "the disk: " + damage.sentence }
        if let checking = modelFiles.checking(of: run) { return checking }
        return run.specification.isPrivate ? budgets.trust.holdReason : nil
    }

    /// Starts and ends holds, and gives their time back.
    private func updateHolds() {
        if modelFiles.hasDamage, abs(now.timeIntervalSince(modelsCheckedAt)) >= 1 {
            modelsCheckedAt = now
            modelFiles.recheck()
        }
        guard modelFiles.hasDamage || modelFiles.isChecking || budgets.trust.isInQuestion || !lostTime.holds.isEmpty
        else { return }
        for id in runs.open {
            guard let isHeld = runs[id].map({ holdReason($0) != nil }),
                let seconds = lostTime.note(id, isHeld: isHeld, at: now)
            else { continue }
            // What cannot be stored now is given back later.
            guard giveBack(seconds, run: id) else { continue }
            lostTime.noteGivenBack(id, isHeld: isHeld, at: now)
            if !isHeld { wakeForWork() }
        }
        lostTime.keep { runs[$0]?.isOver == false }
    }

    /// Gives back what holds have taken so far, so that a stop does not lose it.
    func settleHolds() {
        for (id, since) in lostTime.holds where giveBack(now.timeIntervalSince(since), run: id) {
            lostTime.noteGivenBack(id, at: now)
        }
    }

    /// Gives a run the time that was lost until now, before one of its deadlines is judged.
    ///
    /// - Throws: ``CoordinationError`` with code `storage_failed`: no work is refused because the disk does not take its new deadline.
    func settleTime(run id: String) throws {
        if lostTime.isAway(limit: configuration.awayAfterSeconds, at: now) { noteAlive() }
        guard let seconds = lostTime.owed(id, at: now) else { return }
        guard giveBack(seconds, run: id) else {
            throw CoordinationError(
                .unavailable,
                "storage_failed",
                "the new deadline cannot be stored now; send it again"
            )
        }
        lostTime.noteGivenBack(id, at: now)
    }

    /// Notes that the server is there, and gives back the time in which it was not.
    private func noteAlive() {
        if lostTime.isAway(limit: configuration.awayAfterSeconds, at: now), let last = lostTime.lastTick {
            let seconds = Int(now.timeIntervalSince(last))
            logger.notice("The server was away, or its clock jumped", metadata: ["seconds": "\(seconds)"])
            giveBackAll(since: last, cause: "the server was away, or its clock jumped")
        }
        lostTime.noteTick(at: now)
        if configuration.awayAfterSeconds != nil { signOfLife.mark(at: now) }
    }

    /// Gives back what passed between the last sign of life of an earlier process and this one's start.
    func noteStart() {
        guard configuration.awayAfterSeconds != nil else { return }
        if let last = signOfLife.last(), now.timeIntervalSince(last) > 1 {
            giveBackAll(since: last, cause: "the server was down")
        }
        lostTime.noteTick(at: now)
        signOfLife.mark(at: now)
    }

    private func giveBackAll(since last: Date, cause: String) {
        for id in runs.open where !lostTime.isHeld(id) {
            // What cannot be stored now is given back later.
            if !giveBack(now.timeIntervalSince(last), run: id, cause: cause) { lostTime.owe(id, since: last) }
        }
    }

    /// Moves a run's open round, its assignments and their leases by as many seconds as were lost.
    ///
    /// - Returns: Whether it is stored.
    private func giveBack(_ seconds: Double, run id: String, cause: String = "nothing could be handed out") -> Bool {
        guard seconds > 0, let run = runs[id], !run.isOver, run.round?.phase.isCollecting == true else { return true }
        let seconds = min(seconds, LostTime.longestPause)
        do {
            let changes = runs.givingBack(seconds, run: run)
            try drive(run: id, [.timeGivenBack(seconds: seconds, cause: cause)], with: changes)
            return true
        } catch {
            logger.error(
                "A run's deadline could not be moved",
                metadata: ["run.id": "\(id)", "reason": "\(ErrorSentence.text(of: error))"]
            )
            return false
        }
    }

    // MARK: - Driving the machines

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
        guard let step = try runs[id].flatMap({ try step(of: $0, events, others, cost: cost) }) else { return }
        if !step.changes.isEmpty { try commit(step.changes, ledgerCount: step.ledgerCount) }
        try perform(step, run: id)
    }

    /// What events come to for a run's open round, with the settlement of an attempt that they end.
    private func step(
        of run: RunState,
        _ events: [RoundEvent],
        _ others: [StoreChange],
        cost: AttemptCost = .judged,
        code: String = "round_closed"
    ) throws -> RoundStep? {
        guard let round = run.round else { return nil }
        var step = try RoundStep(of: run, round, runs, events, with: others, code: code, at: now)
        guard step.isDiscarded else { return step }
        let session = run.session(of: step.round)
        if var session {
            session.state = .abandoned
            step.add(.protectedSession(session))
        }
        let isElsewhere = budgets.trust.mayHaveGoneOnElsewhere(ChargedAttempt(round))
        let count = budgets.ledger.rows.count
        let isCharged = session?.state == .summing
        switch AttemptSettlement(
            run.specification,
            step,
            cost: cost,
            isElsewhere: isElsewhere,
            isCharged: isCharged
        ) {
        case .nothing: break
        case .apart:
            let rows = try budgets.settleApart(
                reservedCharge(of: run, step.round),
                for: ChargedAttempt(step.round),
                of: populations.record(run.record.populationId),
                at: now
            )
            step.settle(ledgerCount: count, rows.map { .ledger($0) })
        case .committed: step.settle(ledgerCount: count, [.ledger(try settle(run, step.round, as: .committed))])
        case .released: step.settle(ledgerCount: count, [.ledger(try settle(run, step.round, as: .released))])
        }
        return step
    }

    /// Does what follows from a step that is stored.
    private func perform(_ step: RoundStep, run id: String) throws {
        for effect in step.effects {
            switch effect {
            case .aggregate: startAggregation(run: id)
            case .discard:
                endAttempt(run: id)
                updates.discardResult(run: id, round: step.round.number, attempt: step.round.attempt)
                forget(run: id, accepted: step.accepted)
            case .draw: try drawCohort(run: id)
            case .freed: wakeForWork()
            case .history: break
            }
        }
    }

    /// Feeds a run's own machine.
    func drive(run id: String, _ event: RunEvent) throws {
        let run = try runs.run(id)
        var ended = run
        let effects: [RunEffect]
        do {
            effects = try ended.record.apply(event)
        } catch {
            throw error.refusal
        }
        if event == .started { ended.record.startedAt = now }
        var changes: [StoreChange] = [.run(ended.record)]
        var reason: String?
        for effect in effects {
            switch effect {
            case .history(let state, let cause): changes.append(.history(id, at: now, state: state, cause: cause))
            case .abandonRound(let cause): reason = cause
            case .openRound: break
            }
        }
        // A round whose sum is being made is abandoned when the arithmetic has ended; any other in the same transaction: nothing
        // would end it later.
        if let reason, run.round?.phase.isCollecting == true,
            let step = try step(of: ended, [.abandoned(reason: reason)], changes, code: "run_ended")
        {
            try commit(step.changes, ledgerCount: step.ledgerCount)
            try perform(step, run: id)
        } else {
            if ended.isOver { changes += runs.superseding(ended, code: "run_ended", at: now) }
            try commit(changes)
        }
        if ended.isOver { noiseStates.drop(run: id, runs, isWhole: !budgets.trust.isInQuestion) }
        guard effects.contains(.openRound) else { return }
        if runs[id]?.round?.phase.isFinal ?? true, run.nextOpening(now: now) <= now { try openNext(run: id) }
        wakeForWork()
    }

    /// Closes the round when it has what it wants.
    func closeIfComplete(run id: String) throws {
        try drive(run: id, [.tick(live: runs[id]?.atWork.count ?? 0)])
    }

    /// Ends an attempt without a result; see ``drive(run:_:with:cost:)``.
    func abandon(run id: String, reason: String, cost: AttemptCost = .judged) throws {
        guard let round = runs[id]?.round, !round.phase.isFinal else { return }
        try drive(run: id, [.abandoned(reason: reason)], cost: cost)
    }

    /// Ends the open attempts of private runs, each with the charge that it must keep.
    ///
    /// - Parameters:
    ///   - population: Of this one only; `nil` for all.
    ///   - reason: What is recorded.
    ///   - cost: What each costs.
    /// - Throws: ``CoordinationError`` if a transaction fails.
    func abandonPrivateAttempts(population: String? = nil, reason: String, cost: AttemptCost = .judged) throws {
        for id in runs.order {
            guard let run = runs[id], run.specification.isPrivate, run.round.map({ !$0.phase.isFinal }) ?? false,
                population.map({ $0 == run.record.populationId }) ?? true
            else { continue }
            let lost = budgets.trust.attemptsWithLostUpdates
            let hasLostUpdates = run.round.map { lost.contains(ChargedAttempt($0)) } ?? false
            try abandon(run: id, reason: reason, cost: hasLostUpdates ? .apart : cost)
        }
    }

    // MARK: - Opening

    /// Opens the next round of a running run, unless the disk holds it up; then a tick does it later.
    ///
    /// - Throws: ``CoordinationError``, such as `ledger_rolled_back` while the ledger's alarm stands: who starts a run is told.
    private func openNext(run id: String) throws {
        guard let run = runs[id], run.record.state == .running else { return }
        let hasAlarm = budgets.trust.alarm != nil && run.specification.isPrivate
        guard hasAlarm || holdReason(run) == nil else { return }
        try openRound(run: id)
    }

    /// Opens the next round, or the next attempt; with privacy its cost is reserved in the same transaction.
    private func openRound(run id: String) throws {
        let run = try runs.run(id)
        var round: RoundRecord
        switch run.nextRound(
            at: now,
            missingNoise: { noiseStates.missing(of: run, round: $0) },
            drawKey: PoissonDraw.makeKey
        ) {
        case .finished(let cause): return try drive(run: id, .finished(cause: cause))
        case .failed(let code, let cause): return try drive(run: id, .failed(code: code, cause: cause))
        case .opens(let next): round = next
        }
        var session: ProtectedSessionRecord?
        if run.specification.isProtected, !round.isEvaluation {
            round.attempt = protection.attempt(of: round)
            guard let granted = try sessionForOpening(round, of: run) else { return }
            session = granted
        }
        let terms = run.terms(of: round)
        round.drawn = run.drawnAtOnce(round, clients)
        var changes: [StoreChange] = [
            .round(round), round.history(at: now, state: round.phase, cause: "opened"),
        ]
        if let session { changes.append(.protectedSession(session)) }
        let ledgerCount = budgets.ledger.rows.count
        do {
            if let row = try reserve(run, round) { changes.append(.ledger(row)) }
        } catch let error as CoordinationError where error.is(.budgetExhausted) && round.isEvaluation {
            let refused = round.refused(by: error, at: now)
            let reason = refused.reason ?? ""
            logger.warning("A version is not measured", metadata: ["run.id": "\(id)", "reason": "\(reason)"])
            return try commit([.round(refused), refused.history(at: now, state: refused.phase, cause: reason)])
        } catch let error as CoordinationError where error.is(.budgetExhausted) {
            protection.withdraw(id)
            try drive(run: id, .failed(code: error.code, cause: error.message))
            throw error
        } catch let error as CoordinationError where error.is(.ledgerRolledBack) {
            // An administrator has to look first; the run goes on after that.
            if run.record.state == .running { try drive(run: id, .paused) }
            throw error
        }
        try commit(changes, ledgerCount: ledgerCount)
        if session != nil { protection.opened(id) }
        prepareSelection(run: id, terms: terms)
        if runs[id]?.updateByteCount == nil { checkSettings(run: id) }
        countDrawIfNeeded(run: id)
        wakeForWork()
    }

    // MARK: - Charges

    /// Reserves what an attempt costs; `nil` if it costs nothing.
    private func reserve(_ run: RunState, _ round: RoundRecord) throws -> LedgerRow? {
        let evaluation = round.isEvaluation ? PrivacyCharge.evaluation(of: run.specification) : nil
        guard run.specification.privacy.mode != .none, !round.isEvaluation || evaluation != nil else { return nil }
        return try budgets.reserve(
            evaluation ?? charge(of: run),
            for: ChargedAttempt(round),
            of: populations.record(run.record.populationId),
            clientCount: clients.presentCount(population: run.record.populationId),
            at: now
        )
    }

    /// What a run is charged with for each of its rounds.
    func charge(of run: RunState) throws -> PrivacyCharge {
        PrivacyCharge(of: run.specification, parameterCount: try uploadLayout(of: run.record.id).parameterCount)
    }

    /// What an attempt was reserved for.
    private func reservedCharge(of run: RunState, _ round: RoundRecord) throws -> PrivacyCharge {
        let evaluation = round.isEvaluation ? PrivacyCharge.evaluation(of: run.specification) : nil
        let population = try populations.record(run.record.populationId)
        return try budgets.reservation(for: ChargedAttempt(round), of: population, evaluation: evaluation)
            ?? charge(of: run)
    }

    /// Ends the reservation of an attempt.
    func settle(_ run: RunState, _ round: RoundRecord, as state: ChargeState) throws -> LedgerRow {
        try budgets.settle(
            reservedCharge(of: run, round),
            for: ChargedAttempt(round),
            of: populations.record(run.record.populationId),
            as: state,
            at: now
        )
    }

    // MARK: - The sum

    /// Starts the arithmetic of a round that has closed, away from the actor; or publishes what it has come to, if that failed.
    func startAggregation(run id: String) {
        guard let run = runs[id], let round = run.round, round.phase == .aggregating, let base = run.versions.last,
            !publication.isWorking(id)
        else { return }
        // Nothing is published while the ledger's alarm stands; its end abandons the attempt, or lets this go on. Nor while the second
        // record is behind: a server that is restored would not know of it.
        if let error = budgets.trust.publishingHalt(run.specification) { return stall(run: id, error) }
        if let known = publication.result(of: round) { return finish(round, .success(known)) }
        guard !round.isEvaluation || run.specification.hasPrivateEvaluation else {
            return finish(round, .success(.exactSums))
        }
        if let session = run.session(of: round) { return startProtectedSum(run, round, base, session) }
        let work: RoundArithmetic
        do {
            work = try arithmetic(of: run, round, base)
        } catch {
            return finish(round, .failure(error))
        }
        publication.begin(id)
        DispatchQueue.global(qos: .utility).async { [metrics] in
            let result = Result { try work.run(metrics) }
            Task { await self.takeResult(of: round, result) }
        }
    }

    /// What has to be computed of a closed round.
    private func arithmetic(
        of run: RunState,
        _ round: RoundRecord,
        _ base: ModelVersionRecord
    ) throws -> RoundArithmetic {
        let counted = runs.counted(run)
        // A sum over others than those that were acknowledged would be published as if it were theirs.
        guard counted.count == round.accepted else {
            throw Self.countDiffers(round, counted)
        }
        guard !round.isEvaluation else {
            return .measurements(run.specification.evaluation, updates.reports(counted), noiseKey(of: round))
        }
        return .model(try aggregationJob(of: run, round, base, counted))
    }

    static func countDiffers(_ round: RoundRecord, _ counted: [AssignmentRecord]) -> CoordinationError {
        CoordinationError(
            .conflict,
            "count_differs",
            "the attempt has \(round.accepted) updates, and \(counted.count) assignments count in it: the database was changed "
                + "from outside"
        )
    }

    /// The key of an attempt's noise, drawn once.
    private func noiseKey(of round: RoundRecord) -> NoiseKey {
        publication.noiseKey(of: round) { configuration.drawNoiseKey(round.runId, round.number) }
    }

    /// The arithmetic of these updates.
    func aggregationJob(
        of run: RunState,
        _ round: RoundRecord,
        _ base: ModelVersionRecord,
        _ counted: [AssignmentRecord]
    ) throws -> AggregationJob {
        var job = AggregationJob(run, round, base: base, updates.updates(counted, run, round, runs.squaredNorms), blobs)
        job.clientCount = clients.presentCount(population: run.record.populationId)
        job.noiseKey = noiseKey(of: round)
        if run.specification.privacy.isBanded {
            job.correlated = try noiseStates.release(
                run: run.record.id,
                version: round.number,
                resultPath: job.resultPath
            )
        }
        job.verify = modelFiles.verification(of: base)
        return job
    }

    func takeResult(of round: RoundRecord, _ result: Result<RoundResult, any Error>) {
        publication.end(round.runId)
        var result = result
        if isBeingSummed(round), case .success(let found) = result {
            result = .success(publication.keep(found, of: round))
        }
        finish(round, result)
        // Meanwhile another attempt may have come to its end.
        if publication.stalls[round.runId] == nil { startAggregation(run: round.runId) }
    }

    func isBeingSummed(_ round: RoundRecord) -> Bool {
        runs[round.runId]?.round.map {
            $0.phase == .aggregating && $0.number == round.number && $0.attempt == round.attempt
        } ?? false
    }

    /// Publishes what the arithmetic of a closed round has come to, or gives the attempt up.
    func finish(_ closed: RoundRecord, _ result: Result<RoundResult, any Error>) {
        let id = closed.runId
        do {
            guard isBeingSummed(closed), let run = runs[id], let round = run.round else {
                // The attempt was abandoned meanwhile; what the arithmetic has left goes, however it ended.
                return updates.discardResult(run: id, round: closed.number, attempt: closed.attempt)
            }
            // The result is a file by now, and is published or dropped when the alarm has ended, or the second record is kept again.
            if let error = budgets.trust.publishingHalt(run.specification) { return stall(run: id, error) }
            if run.record.state == .cancelled || run.record.state == .failed {
                try abandon(run: id, reason: "the run was \(run.record.state)")
                if case .success(.model(let outcome)) = result { blobs.discard(outcome.spoolPaths) }
                return
            }
            switch result {
            case .failure(let error) where RunPublication.mayPass(error): stall(run: id, error)
            case .failure(let error):
                logger.error(
                    round.isEvaluation ? "An evaluation failed" : "An aggregation failed",
                    metadata: ["run.id": "\(id)", "error": "\(error)"]
                )
                let name = round.isEvaluation ? "evaluation" : "aggregation"
                try abandon(run: id, reason: "the \(name) failed: \(ErrorSentence.text(of: error))")
                if let error = error as? CoordinationError, error.is(.noiseStateLost) {
                    try drive(run: id, .failed(code: error.code, cause: error.message))
                }
            case .success(.model(let outcome)): try publish(outcome, run, round)
            case .success(.measurements(let release)): try close(measured: release, run, round)
            case .success(.exactSums): try close(measured: nil, run, round)
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

    /// Gives a model's files their places, then publishes the version.
    private func publish(_ outcome: AggregationJob.Outcome, _ run: RunState, _ round: RoundRecord) throws {
        let id = round.runId
        let judged = judge(outcome.scores)
        guard let model = outcome.model else {
            try commit(judged)
            return try abandon(run: id, reason: outcome.shortfall ?? "there is no model")
        }
        for file in outcome.files { try blobs.link(spoolFile: file.path, sha256: file.sha256) }
        if let path = outcome.noiseStatePath { try noiseStates.keep(path, run: id, version: round.number) }
        let counted = runs.counted(run)
        let closing = try RoundClosing(
            published: outcome,
            model,
            run,
            round,
            counted: counted,
            judged: judged,
            at: now
        )
        try store(closing, run, round)
        for role in [StorageFailure.Role.result, .model, .noiseState] { storage.noteSuccess(role) }
        forget(run: id, accepted: counted.map(\.id))
        blobs.discard(outcome.spoolPaths)
        noiseStates.drop(run: id, runs, isWhole: !budgets.trust.isInQuestion)
        logger.info(
            "A round was committed",
            metadata: ["run.id": "\(id)", "round.id": "\(round.number)", "round.updates": "\(round.accepted)"]
        )
        try openNext(run: id)
    }

    /// Marks a version with what was measured of it.
    private func close(measured release: EvaluationRelease.Outcome?, _ run: RunState, _ round: RoundRecord) throws {
        let counted = runs.counted(run)
        try store(RoundClosing(measured: release, run, round, counted: counted, at: now), run, round)
        forget(run: round.runId, accepted: release == nil ? [] : counted.map(\.id))
        try openNext(run: round.runId)
    }

    /// Stores the end of a round with its charge, in one transaction.
    private func store(_ closing: RoundClosing, _ run: RunState, _ round: RoundRecord) throws {
        var closing = closing
        let ledgerCount = budgets.ledger.rows.count
        if closing.isCharged { closing.settle(try settle(run, round, as: .committed)) }
        try commit(closing.changes, ledgerCount: ledgerCount)
        endAttempt(run: round.runId)
    }

    /// The changes that a round's scores ask for: the scores themselves, and clients that are asked for no more work.
    private func judge(_ scores: [UpdateScoreRecord]) -> [StoreChange] {
        let quarantined = clients.quarantining(scores, at: now) { run in
            runs[run]?.specification.aggregation.anomalies?.action == .quarantine
        }
        for (score, client) in quarantined {
            logger.notice(
                "A client was quarantined",
                metadata: ["client.id": "\(client.id)", "run.id": "\(score.runId)", "round.id": "\(score.round)"]
            )
        }
        return scores.map { .updateScore($0) } + quarantined.map { .client($0.client) }
    }

    /// Tries a run's closed round later, each time after a longer pause.
    func stall(run id: String, _ error: any Error) {
        let (stall, isFirst) = publication.stall(id, error, at: now)
        if let failure = stall.failure { storage.note(failure) }
        logger.log(
            level: isFirst ? .error : .info,
            "A closed round waits and is tried again",
            metadata: [
                "run.id": "\(id)", "reason": "\(stall.reason)", "path": "\(stall.failure?.path ?? "")",
                "error": "\(stall.failure == nil ? "\(error)" : "")",
            ]
        )
    }

    // MARK: - Ends

    /// Forgets what the way to a version has gathered for an attempt that is over.
    private func endAttempt(run id: String) {
        guard let stall = publication.endAttempt(run: id) else { return }
        let waited = Int(now.timeIntervalSince(stall.since).rounded())
        logger.notice(
            "A round that had waited for the disk is over",
            metadata: ["run.id": "\(id)", "waited_s": "\(waited)"]
        )
    }

    /// Drops the closed attempt's assignments from memory and its updates from the spool.
    private func forget(run id: String, accepted: [String]) {
        guard let isPrivate = runs[id]?.specification.isPrivate else { return }
        let counted = Set((runs[id].map(runs.counted) ?? []).map(\.id))
        let ended = runs.endAttempt(run: id)
        placement.endAttempt(run: id)
        let refusal = RoundError.roundOver(runs[id]?.round?.phase ?? .abandoned).refusal
        // Of accepted ones a request may be bringing the same bytes once more.
        for id in ended { endUpload(of: id, counted.contains(id) ? UploadPermit.isAccepted : refusal) }
        updates.discard(accepted: accepted, ended: ended, isPrivate: isPrivate)
    }

    /// Drops exact sums that nothing needs any more.
    func dropUnneededNoise() { noiseStates.dropUnneeded(runs, isWhole: !budgets.trust.isInQuestion) }

    /// Whether an assignment may still be fulfilled, so that parts of its upload are kept.
    ///
    /// Its deadline does not say: time that a stop or a hold has taken may be given back yet. When it has really passed, time ends the
    /// assignment.
    func mayDeliver(_ assignment: String) -> Bool { runs.assignments[assignment]?.state.isLive == true }
}
