import Foundation
import Tensors
import WireFormat

/// What signs of life, uploads and time do to assignments.
extension RunTable {
    /// Notes that a request brings bytes for an assignment; until it ends the lease does not run out.
    ///
    /// - Returns: Whether the assignment is one of the client's that may still deliver; then ``endUpload(of:at:)`` is owed.
    mutating func beginUpload(of id: String, client: String) -> Bool {
        guard let record = assignments[id], record.clientId == client, record.state.isLive else { return false }
        openUploads[id, default: 0] += 1
        return true
    }

    /// Notes that such a request has ended: with the last one a new lease begins.
    mutating func endUpload(of id: String, at time: Date) {
        guard let count = openUploads[id] else { return }
        openUploads[id] = count > 1 ? count - 1 : nil
        guard count == 1, var record = assignments[id], record.state.isLive else { return }
        keepLease(of: &record, at: time)
        keep(record)
    }

    /// Takes a sign of life: the lease is whole again, and does not run out while bytes come.
    func keepLease(of record: inout AssignmentRecord, at time: Date) {
        guard record.leaseUntil != nil, let run = self[record.runId] else { return }
        record.leaseUntil =
            openUploads[record.id] != nil ? record.deadline : min(record.deadline, time.addingTimeInterval(run.lease))
    }

    /// Gives every client of a run its whole lease again: a restart has forgotten their last signs of life.
    mutating func renewLeases(run id: String, at time: Date) {
        guard let run = self[id] else { return }
        for assignment in run.live {
            guard var record = assignments[assignment], record.leaseUntil != nil else { continue }
            keepLease(of: &record, at: time)
            keep(record)
        }
    }

    /// Moves what may still deliver by as many seconds as were lost.
    func givingBack(_ seconds: Double, run: RunState) -> [StoreChange] {
        run.live.sorted().compactMap { id in
            guard var record = assignments[id] else { return nil }
            record.deadline += seconds
            record.leaseUntil = record.leaseUntil.map { $0 + seconds }
            return .assignment(record)
        }
    }

    /// Refuses what nobody waits for, with the reason.
    ///
    /// - Parameters:
    ///   - record: The assignment.
    ///   - now: The time.
    ///   - checkHalt: Refuses a run that the ledger's alarm stops: its time stands still.
    /// - Throws: ``CoordinationError``.
    func requireWanted(
        _ record: AssignmentRecord,
        at now: Date,
        checkHalt: (RunSpecification) throws -> Void
    ) throws {
        guard record.state.isLive else { throw RoundError.assignmentEnded(record.state, code: record.code).refusal }
        guard let run = self[record.runId], let round = run.round else { throw RoundError.deadlinePassed.refusal }
        try checkHalt(run.specification)
        guard record.deadline >= now else { throw RoundError.deadlinePassed.refusal }
        if run.isBuffered && !record.isEvaluation && !run.isOver {
            let staleness = run.versions.count - record.round
            let limit = run.specification.aggregation.buffered?.maxStaleness ?? 0
            guard staleness <= limit else {
                throw CoordinationError(
                    .gone,
                    "too_stale",
                    "the update started \(staleness) versions ago, more than max_staleness of \(limit)"
                )
            }
            return
        }
        guard round.phase.isCollecting, round.number == record.round, round.attempt == record.attempt else {
            throw RoundError.roundOver(round.phase).refusal
        }
    }

    /// Whether a client keeps to the update that it has begun to send in the open attempt, in however many turns: with privacy mode
    /// `local` the same bytes are the same release, and others would be a second one.
    ///
    /// The request's digest stands for the bytes, so that others are refused before one of them is read. A client that does not say it
    /// gets no further turn.
    mutating func holdsToRelease(_ record: AssignmentRecord, _ digest: [UInt8]?) -> Bool {
        // Not the run itself: a copy of it would copy its lists when they change.
        guard self[record.runId]?.specification.privacy.mode == .local, !record.isEvaluation else { return true }
        // Further work of a buffer may start from another version, whose update has other bytes. What an earlier attempt handed out is
        // paid for by that one.
        guard self[record.runId]?.isBuffered == false, let digest else {
            if self[record.runId]?.isOfOpenAttempt(record) == true { self[record.runId]?.members.bar(record.clientId) }
            return true
        }
        return self[record.runId]?.members.noteRelease(digest.hexadecimal, of: record.clientId) != false
    }

    /// The assignment with the note of what its client is about to send; `nil` if that is noted already, or need not be.
    ///
    /// It is durable before the first byte is read, so that a restart does not give the client a second release.
    func noting(release digest: [UInt8]?, of record: AssignmentRecord) -> AssignmentRecord? {
        guard let run = self[record.runId], run.specification.privacy.mode == .local, !record.isEvaluation else {
            return nil
        }
        let said = run.isBuffered ? nil : digest?.hexadecimal
        let known = record.releaseSha256?.prefix { $0 != "?" } ?? ""
        let isUnsaid = said == nil || record.releaseSha256?.hasSuffix("?") == true
        var noted = record
        noted.releaseSha256 = (known.isEmpty ? said ?? "" : String(known)) + (isUnsaid ? "?" : "")
        return noted == record ? nil : noted
    }

    /// Offers a client to the choice of a `uniform` round.
    func offer(_ client: String, run id: String) {
        var generator = SystemRandomNumberGenerator()
        self[id]?.reservoir?.offer(client, using: &generator)
    }

    /// What time does to the assignments of a run that are due.
    ///
    /// - Parameters:
    ///   - id: A run that has an open round.
    ///   - now: The time.
    /// - Returns: What becomes of them, and what the open round is told of that.
    /// - Throws: ``CoordinationError`` if an assignment does not take what time does.
    mutating func passTime(run id: String, now: Date) throws -> (events: [RoundEvent], changes: [StoreChange]) {
        guard let run = self[id], let round = run.round else { return ([], []) }
        var events: [RoundEvent] = []
        var changes: [StoreChange] = []
        let terms = run.terms(of: round)
        // Each has an entry in the queue. After the clock was put back, which moves times to be earlier, all are looked at.
        let isBack = run.expiries.lastAsked.map { now < $0 } ?? true
        let due = run.expiries.due(at: now)
        for assignment in (isBack ? Array(run.live) : due).sorted() {
            // If what is changed here cannot be stored, it is due at the next tick again.
            defer { if let record = assignments[assignment] { run.noteExpiry(of: record) } }
            guard var record = assignments[assignment] else { continue }
            var effects: [AssignmentEffect] = []
            // Nothing may last longer than what begins now: else it was begun by a clock that has been put back since.
            // In mode `buffered` some may train still while others measure.
            let longest =
                record.isEvaluation
                ? run.specification.evaluation.reportTimeoutS : run.specification.cohort.reportTimeoutS
            if record.deadline.timeIntervalSince(now) > longest + 1 {
                effects += try record.taking(.clockWentBack(deadline: now.addingTimeInterval(longest)), at: now)
            }
            if let end = record.leaseUntil, openUploads[assignment] == nil, end.timeIntervalSince(now) > run.lease + 1 {
                record.leaseUntil = min(record.deadline, now.addingTimeInterval(run.lease))
                keep(record)
            }
            effects += try record.taking(.tick, at: now)
            guard !effects.isEmpty else { continue }
            changes += record.changes(effects, at: now)
            if run.counts(record) { events += effects.roundEvents }
        }
        let timeout = round.phase == .selecting ? terms.selectionTimeoutS : terms.reportTimeoutS
        if round.openedAt.timeIntervalSince(now) > 1 || round.deadline.timeIntervalSince(now) > timeout + 1 {
            events.append(.clockWentBack)
        }
        return (events, changes)
    }
}

extension AssignmentRecord {
    /// Takes an event, and says in words why it cannot.
    mutating func taking(_ event: AssignmentEvent, at time: Date) throws -> [AssignmentEffect] {
        do {
            return try apply(event, at: time)
        } catch {
            throw error.refusal
        }
    }
}

extension AssignmentRecord {
    /// New work for a client.
    ///
    /// - Parameters:
    ///   - client: Its id.
    ///   - known: What is known of it.
    ///   - run: The run.
    ///   - round: The run's open round.
    ///   - now: The time.
    init(for client: String, _ known: ClientRecord?, in run: RunState, _ round: RoundRecord, at now: Date) {
        let cohort = run.specification.cohort
        let terms = run.terms(of: round)
        let limit = now.addingTimeInterval(terms.reportTimeoutS)
        self.init(
            id: Secrets.identifier("asg"),
            of: round,
            client: client,
            at: now,
            deadline: round.phase == .reporting && !terms.isBuffered ? min(limit, round.deadline) : limit,
            turn: run.members.nextTurn(of: client)
        )
        leaseUntil = cohort.leaseS.map { min(deadline, now.addingTimeInterval($0)) }
        guard let known else { return }
        tier = run.tier(of: known)
        if cohort.targetSeconds > 0, let speed = known.stepsPerSecond {
            let steps = max(1, (speed * cohort.targetSeconds).rounded(.down))
            maxSteps = Int(min(steps, Double(run.specification.training.limits.maxSteps)))
        }
    }

    /// Takes an update that was checked and is on disk.
    ///
    /// - Parameters:
    ///   - update: What came.
    ///   - specification: The run's; with privacy nothing about the update's bytes is kept in the row.
    ///   - round: The run's open round.
    ///   - now: The time.
    /// - Returns: What must be done.
    /// - Throws: ``CoordinationError`` if the assignment takes none.
    mutating func accept(
        _ update: ReceivedUpdate,
        _ specification: RunSpecification,
        _ round: RoundRecord,
        at now: Date
    ) throws -> [AssignmentEffect] {
        if !specification.isPrivate {
            let declared = specification.declared(update.metrics)
            if !declared.isEmpty { metrics = StoredDocument.text(declared) }
        }
        if RoundTerms(specification, isEvaluation: round.isEvaluation).isBuffered {
            (countedRound, countedAttempt) = (round.number, round.attempt)
        }
        return try taking(
            specification.isPrivate
                ? .accepted(sha256: nil, bytes: nil, examples: nil)
                : .accepted(sha256: update.sha256, bytes: update.byteCount, examples: update.exampleCount),
            at: now
        )
    }
}

extension ClientRecord {
    /// The client with what its work says of its speed, if the run measures that.
    func noting(
        _ update: ReceivedUpdate,
        _ work: AssignmentRecord,
        _ specification: RunSpecification,
        at now: Date
    ) -> ClientRecord {
        let cohort = specification.cohort
        // How long the work took, and how fast, depends on the client's data.
        guard !specification.isPrivate, cohort.tiers > 1 || cohort.targetSeconds > 0 else { return self }
        var client = self
        client.noteWork(seconds: now.timeIntervalSince(work.createdAt), update.metrics)
        return client
    }
}

extension RunState {
    /// The open round with the note that a client with local privacy has begun to send; `nil` if there is nothing to note.
    ///
    /// It is durable before the first byte is read: each byte is a release, which its attempt pays for whatever becomes of the update.
    func receiving(_ record: AssignmentRecord) -> RoundRecord? {
        guard specification.privacy.mode == .local, !record.isEvaluation, var round, !round.phase.isFinal,
            !round.hasReceived, isBuffered || isOfOpenAttempt(record)
        else { return nil }
        round.hasReceived = true
        return round
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
