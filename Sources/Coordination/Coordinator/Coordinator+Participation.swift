import Foundation
import Logging
import Tensors
package import WireFormat

/// What clients ask: for work, to be told that it is still wanted, and to be rid of what they have made.
extension Coordinator {
    // MARK: - Check-in

    /// Gives a client work, or waits for some, at most until `wait` has passed.
    ///
    /// A wait that is cancelled, as that of a client which has hung up, gets none: the work would wait for its lease in vain. A client
    /// has one wait; a newer one ends the older.
    ///
    /// - Parameters:
    ///   - client: Who asks.
    ///   - request: What it says.
    ///   - wait: How long it waits.
    ///   - isAllowed: Is asked in each step that may give work: a wait may outlive the caller's token. What it throws is thrown.
    ///   - mayChange: Is asked before what the client says of itself becomes a transaction; what it throws is thrown.
    /// - Returns: Work, or when to come again.
    /// - Throws: ``CoordinationError``.
    package func checkIn(
        client: String,
        _ request: CheckInRequest,
        wait: Duration,
        isAllowed: @Sendable (isolated Coordinator) throws -> Void = { _ in },
        mayChange: @Sendable () throws -> Void = {}
    ) async throws -> CheckInResponse {
        let deadline = ContinuousClock.now + wait
        while true {
            try isAllowed(self)
            let answer = try checkInNow(client: client, request, mayChange)
            if answer.hasAssignment || ContinuousClock.now >= deadline || answer.retryWindow == nil {
                return answer
            }
            guard placement.waiters.count < configuration.waiterLimit, !isStopping else { return answer }
            let maySearch = await waitForWork(client: client, until: deadline)
            if Task.isCancelled || !maySearch { return answer }
        }
    }

    /// - Returns: Whether the client may look for work now; `false` if a newer poll of it waits instead.
    private func waitForWork(client: String, until deadline: ContinuousClock.Instant) async -> Bool {
        let id = placement.waiters.nextID()
        let alarm = Task {
            try? await Task.sleep(until: deadline, clock: .continuous)
            self.placement.wake(id)
        }
        defer { alarm.cancel() }
        return await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                guard !Task.isCancelled else { return continuation.resume(returning: false) }
                let population = clients[client]?.populationId ?? ""
                placement.waiters.add(id, client: client, population: population, continuation)
            }
        } onCancel: {
            alarm.cancel()
        }
    }

    /// Answers a check-in at once if that takes no waiting and changes nothing that is stored.
    ///
    /// May be called from any thread; borrows the coordinator for microseconds.
    ///
    /// - Parameters:
    ///   - token: The caller's, checked as ever.
    ///   - certificateKey: The key of the caller's certificate.
    ///   - request: What the client says.
    ///   - admit: Is told whose token it is before anything is decided; what it throws is thrown.
    /// - Returns: The answer without work; `nil` if only ``checkIn(client:_:wait:)`` can tell, or the coordinator is busy.
    package nonisolated func checkInAtOnce(
        token: String,
        certificateKey: String?,
        _ request: CheckInRequest,
        admit: (_ client: String) throws -> Void
    ) rethrows -> CheckInResponse? {
        let found = executor.runIfIdle {
            assumeIsolated { coordinator -> (client: String, answer: CheckInResponse)? in
                guard coordinator.tokens.isSettled(Secrets.hash(ofToken: token)),
                    case .client(let id)? = try? coordinator.principal(token: token, certificateKey: certificateKey),
                    request.capabilities == nil, coordinator.runs.liveByClient[id] == nil,
                    (try? coordinator.noteGeneration(of: id, request)) != nil,
                    case .away(let answer)? = try? coordinator.decide(client: id, request)
                else { return nil }
                return (id, answer)
            }
        }
        guard case (let client, let answer)?? = found else { return nil }
        try admit(client)
        return answer
    }

    private enum CheckInDecision {
        case away(CheckInResponse)
        case work(run: String, RoundRecord)
    }

    private func checkInNow(
        client id: String,
        _ request: CheckInRequest,
        _ mayChange: () throws -> Void
    ) throws -> CheckInResponse {
        try noteGeneration(of: id, request)
        if var client = clients[id], client.state != .revoked, let capabilities = request.capabilities {
            client.capabilities = StoredDocument.text(capabilities)
            if client != clients[id] {
                try mayChange()
                try commit([.client(client)])
            }
        }
        if let live = runs.liveByClient[id], let assignment = runs.assignments[live], clients[id]?.state != .revoked {
            clients.noteSeen(id, at: now)
            guard let run = runs[assignment.runId], !budgets.trust.isHalted(run.specification) else {
                return .away(Refusal.noSlot.rawValue, .init(minS: 30, maxS: 90))
            }
            return CheckInResponse(assignment: try body(of: assignment))
        }
        switch try decide(client: id, request) {
        case .away(let answer): return answer
        case .work(let run, let round):
            guard var client = clients[id] else { return .away(Refusal.noSlot.rawValue, .init(minS: 5, maxS: 30)) }
            let isSecret = runs[run]?.specification.privacy.hasSecretDraw == true
            // Whose turn it is tells other clients how often work was handed out.
            placement.noteHandedOut(isSecret: isSecret)
            let (assignment, changes) = try newAssignment(for: id, run: run, round)
            client = client.withNextGeneration ?? client
            // How many clients have had work is shown to everybody, and must not tell how many were drawn in secret.
            if !isSecret { client.state = .active }
            try drive(run: run, [.assigned], with: [.client(client)] + changes)
            return CheckInResponse(assignment: try body(of: assignment))
        }
    }

    /// Takes what a client says about the generation of its state; kept in memory until what its work came to, or its next assignment,
    /// is stored.
    ///
    /// - Throws: ``CoordinationError`` with code `state_cloned` for a copy of a state that has gone on elsewhere.
    private func noteGeneration(of id: String, _ request: CheckInRequest) throws {
        guard let stated = request.stateGeneration else { return }
        guard try clients.noteGeneration(of: id, stated: stated) else { return }
        logger.warning(
            "A client knows of an assignment that this database does not: it may have been rolled back",
            metadata: ["client.id": "\(id)"]
        )
    }

    /// Whether there is work for a client that has none, from memory and without changing what is stored.
    private func decide(client id: String, _ request: CheckInRequest) throws -> CheckInDecision {
        guard let client = clients[id], client.state != .revoked else {
            throw CoordinationError(.forbidden, "client_revoked", "this client has been revoked")
        }
        clients.noteSeen(id, at: now)
        guard client.quarantinedAt == nil else { return .away(.away("quarantined", .init(minS: 3600, maxS: 7200))) }
        let wanted = request.runs.map { Set($0) }
        let candidates = runs.open(population: client.populationId).filter { run in
            runs[run]?.record.state == .running && wanted?.contains(run) ?? true
        }
        let seen = clients.presence.count(population: client.populationId, at: now)
        guard !candidates.isEmpty else {
            return .away(.away("no_run", Refusal.noSlot.retryWindow(run: nil, seen: seen, at: now)))
        }
        // By their ids: a run that is held here would be copied by what changes it next.
        var refusals: [(refusal: Refusal, run: String)] = []
        defer { for refused in refusals where refused.refusal == .choosing { runs.offer(id, run: refused.run) } }
        for runID in placement.inFairOrder(candidates, runs) {
            guard let run = runs[runID], let round = run.round else { continue }
            guard let refusal = admission(run).refusal(of: client, clients, exampleCount: request.numExamples) else {
                return .work(run: runID, round)
            }
            refusals.append((refusal, runID))
        }
        return .away(Placement.answer(to: refusals, runs, seen: seen, at: now))
    }

    /// Who may have a place in a run's open round now.
    private func admission(_ run: RunState) -> Admission {
        Admission(
            run: run,
            isHalted: budgets.trust.isHalted(run.specification),
            isHeld: lostTime.isHeld(run.record.id) || holdReason(run) != nil,
            time: now
        )
    }

    /// Makes an assignment and what is stored with it.
    private func newAssignment(
        for client: String,
        run id: String,
        _ round: RoundRecord
    ) throws -> (record: AssignmentRecord, changes: [StoreChange]) {
        let record = AssignmentRecord(for: client, clients[client], in: try runs.run(id), round, at: now)
        let effects = [AssignmentEffect.history(state: .assigned, cause: "the client checked in")]
        return (record, record.changes(effects, at: now))
    }

    // MARK: - Cohorts

    /// Makes ready what a new round's selection needs.
    func prepareSelection(run id: String, terms: RoundTerms) {
        guard let run = runs[id] else { return }
        runs[id]?.reservoir = terms.policy == .uniform ? Reservoir(capacity: terms.wanted) : nil
        if run.specification.cohort.tiers > 1 {
            runs[id]?.tierBounds = clients.speeds(population: run.record.populationId)
                .bounds(tiers: run.specification.cohort.tiers)
        }
        countEligible(run: id)
    }

    /// Chooses the cohort of a `uniform` round from those who came, and gives them their work.
    func drawCohort(run id: String) throws {
        guard let run = runs[id], let round = run.round, round.phase == .selecting, round.drawn == nil else { return }
        let chosen = (run.reservoir?.chosen ?? []).filter {
            // Who was free when it came may not be now.
            clients[$0].map { $0.state != .revoked && $0.quarantinedAt == nil } ?? false
                && runs.liveByClient[$0] == nil
        }
        var changes: [StoreChange] = []
        for client in chosen {
            changes += try newAssignment(for: client, run: id, round).changes
            if let raised = clients[client]?.withNextGeneration { changes.append(.client(raised)) }
        }
        try drive(run: id, chosen.map { _ in .assigned } + [.drawn(chosen.count)], with: changes)
        try closeIfComplete(run: id)
        for client in chosen { placement.wake(client: client) }
    }

    /// Counts the drawn clients of an open attempt elsewhere, if they have not been counted.
    func countDrawIfNeeded(run id: String) {
        guard let count = runs[id]?.drawCount else { return }
        countAside(count) { coordinator, found in
            guard count.isWanted(coordinator.runs) else { return }
            do { try coordinator.drive(run: id, [.drawn(found)]) } catch {
                // The attempt then lasts until its deadline.
                coordinator.logger.error("A draw's count was not stored", metadata: ["error": "\(error)"])
            }
        }
    }

    /// Counts the clients that meet a run's requirements; their profiles are parsed elsewhere if they are many.
    private func countEligible(run id: String) {
        guard let run = runs[id], let count = run.eligibleCount(at: now) else { return }
        guard clients.count > Placement.countedAtOnce else {
            runs[id]?.eligible = (run.eligibleAtOnce(clients), now)
            return
        }
        // No second count begins while this one is under way; what was known stays good.
        runs[id]?.eligible = (run.eligible?.count ?? .max, now)
        countAside(count) { coordinator, found in coordinator.runs[id]?.eligible = (found, coordinator.now) }
    }

    /// Counts clients on another thread, some at a time, and then tells how many there were.
    ///
    /// It ends, and tells nothing, when nobody wants the count any more: attempts that open and end in a row cost little more than
    /// their openings.
    private nonisolated func countAside(
        _ question: ClientCount,
        then tell: @escaping @Sendable (isolated Coordinator, Int) -> Void
    ) {
        Task.detached(priority: .utility) {
            var (count, place) = (0, 0)
            while let part = await self.part(from: place, for: question) {
                guard !part.isEmpty else { return await self.tell(count, tell) }
                let start = ContinuousClock.now
                count += part.count(where: question.admits)
                place += part.count
                // A third of a processor is enough for it: those who check in meanwhile wait for the rest.
                try? await Task.sleep(for: (ContinuousClock.now - start) * 2)
            }
        }
    }

    private func part(from place: Int, for question: ClientCount) -> [ClientRecord]? {
        isStopping || !question.isWanted(runs) ? nil : clients.part(from: place, limit: Placement.countedAside)
    }

    private func tell(_ count: Int, _ body: @Sendable (isolated Coordinator, Int) -> Void) {
        if !isStopping { body(self, count) }
    }

    /// Clients that may join the open attempt by the limits on participation; `nil` if there are plainly enough, or the first count is
    /// under way: many are counted aside, and again after a minute.
    func newcomers(of run: RunState, present: Int) -> Int? {
        guard let round = run.round, run.asksForNewcomers(present: present) else { return nil }
        guard clients.count > Placement.countedAtOnce else {
            return clients.part(from: 0, limit: Placement.countedAtOnce).count(where: run.isNewcomer)
        }
        let (id, attempt) = (run.record.id, [round.number, round.attempt])
        let (known, begins) = placement.beginTally(of: id, attempt, at: now)
        guard begins else { return known }
        Task(priority: .utility) {
            var (count, place) = (0, 0)
            while let part = self.newcomers(run: id, from: place) {
                count += part
                place += Placement.countedAtOnce / 2
                await Task.yield()
            }
            placement.endTally(of: id, attempt, count: count, at: now)
        }
        return known
    }

    private func newcomers(run id: String, from place: Int) -> Int? {
        guard let run = runs[id], place < clients.count, !isStopping else { return nil }
        return clients.part(from: place, limit: Placement.countedAtOnce / 2).count(where: run.isNewcomer)
    }

    // MARK: - Waking

    /// Wakes as many long polls as there is work for, those who have waited longest first.
    ///
    /// Looks at no more of them than it needs to fill the open places, and at some at a time.
    func wakeForWork() {
        guard !placement.waiters.isEmpty else { return }
        var places: [String: [(admission: Admission, count: Int)]] = [:]
        for id in runs.open {
            guard let run = runs[id], run.record.state == .running, let round = run.round, round.phase.isCollecting
            else { continue }
            if run.terms(of: round).policy.isDrawn {
                tellDrawn(run, round)
                continue
            }
            // While a uniform cohort is chosen everyone takes part in the choice, and goes on waiting.
            let isChoosing = round.phase == .selecting && run.reservoir != nil
            let count = isChoosing ? Int.max : run.freeSlots
            if count > 0 { places[run.record.populationId, default: []].append((admission(run), count)) }
        }
        var isFinished = true
        for (population, open) in places {
            let found = placement.look(population: population, for: open, clients)
            for (client, run) in found.offered { runs.offer(client, run: run) }
            for id in found.woken { placement.wake(id) }
            isFinished = found.isFinished && isFinished
        }
        guard !isFinished, !isWaking else { return }
        isWaking = true
        Task {
            isWaking = false
            wakeForWork()
        }
    }

    /// Wakes those who wait and were drawn; the coins are tossed elsewhere if they are many.
    private func tellDrawn(_ run: RunState, _ round: RoundRecord) {
        let id = run.record.id
        guard let key = round.drawKey, placement.beginTelling(run: id, round) else { return }
        let rate = run.drawRate(run.terms(of: round).policy)
        let waiting = placement.waiters.clients(population: run.record.populationId)
        guard waiting.count > Placement.lookedAtOnce else {
            return wake(waiting.filter { PoissonDraw.includes($0, key: key, rate: rate) }[...], run: id)
        }
        Task.detached {
            let drawn = waiting.filter { PoissonDraw.includes($0, key: key, rate: rate) }
            for start in stride(from: 0, to: drawn.count, by: Placement.lookedAtOnce) {
                await self.wake(drawn[start..<min(drawn.count, start + Placement.lookedAtOnce)], run: id)
            }
        }
    }

    private func wake(_ drawn: ArraySlice<String>, run id: String) {
        guard let run = runs[id] else { return }
        let admission = admission(run)
        for name in drawn {
            guard let client = clients[name], admission.refusal(of: client, clients) == nil else { continue }
            placement.wake(client: name)
        }
    }

    /// Long polls that wait.
    package var waiterCount: Int { placement.waiters.count }

    /// Wakes every long poll.
    package func wakeAll() { placement.wakeAll() }

    // MARK: - Assignments

    /// The assignment, for its own client.
    package func assignment(_ id: String, client: String) throws -> AssignmentBody {
        try body(of: ownAssignment(id, client: client))
    }

    private func ownAssignment(_ id: String, client: String) throws -> AssignmentRecord {
        // Another client's assignment is answered as an unknown one, so that ids cannot be probed.
        guard let record = try runs.assignments[id] ?? store.assignment(id), record.clientId == client else {
            throw CoordinationError(.notFound, "not_found", "no assignment '\(id)' of this client")
        }
        // A client that knows its id has got it; kept in memory until something is stored, as what a check-in says.
        if runs.liveByClient[client] == id { clients.acknowledgeGeneration(of: client) }
        return record
    }

    private func body(of record: AssignmentRecord) throws -> AssignmentBody {
        let run = runs[record.runId]
        let session = run?.sessions.first { ($0.round, $0.attempt) == (record.round, record.attempt) }
        return try body(
            of: record,
            protection: session.flatMap { session in
                run?.specification.protection.map { AssignmentBody.Protection($0, session) }
            }
        )
    }

    /// An assignment as its client is told.
    func body(of record: AssignmentRecord, protection: AssignmentBody.Protection?) throws -> AssignmentBody {
        guard let run = runs[record.runId], record.baseVersion < run.versions.count else {
            throw CoordinationError(.unavailable, "model_missing", "the run has no model yet")
        }
        let (layout, upload) = (try layout(of: record.runId), try uploadLayout(of: record.runId))
        let control = run.versions[record.baseVersion].controlSha256
        let sources = AssignmentBody.Sources(
            layout: layout,
            updateLayout: upload == layout ? nil : upload,
            controlByteCount: try control.flatMap { try modelFiles.byteCount(sha256: $0) },
            base: runs.baseModel(of: run.specification),
            ledgerHead: budgets.ledger.populationHead(run.record.populationId),
            stateGeneration: clients[record.clientId]?.stateGeneration,
            plannedByteCount: plannedByteCount(of: record)
        )
        var body = try AssignmentBody(record, run, sources, at: now)
        body.protection = protection
        return body
    }

    /// Notes that a client is at work, and extends its lease inside the deadline.
    ///
    /// - Throws: ``CoordinationError`` of kind `gone` with the reason when the work is no longer wanted.
    package func heartbeat(
        assignment id: String,
        client: String,
        _ request: HeartbeatRequest
    ) throws -> HeartbeatResponse {
        var record = try ownAssignment(id, client: client)
        clients.noteSeen(client, at: now)
        guard record.state != .accepted else {
            return HeartbeatResponse(state: record.state, leaseS: 0, deadlineInS: 0)
        }
        record = try wanted(record)
        let lease = try runs.run(record.runId).lease
        let isPrivate = try runs.run(record.runId).specification.hidesData
        // How far a client is at which time depends on how much data it has: with privacy a sign of life is all it gives.
        let phase = isPrivate ? record.state : AssignmentState(request.phase ?? .training)
        let progress = isPrivate ? nil : request.progress
        let effects = try record.taking(.heartbeat(phase: phase, progress: progress, lease: lease), at: now)
        if effects.isEmpty {
            // A lease is not worth a transaction: after a restart every client has a fresh one.
            runs.keep(record)
        } else {
            try commit(record.changes(effects, at: now))
        }
        return HeartbeatResponse(
            state: record.state,
            leaseS: max(0, (record.leaseUntil ?? record.deadline).timeIntervalSince(now)),
            deadlineInS: max(0, record.deadline.timeIntervalSince(now))
        )
    }

    /// Refuses what nobody waits for, with the reason.
    ///
    /// - Returns: The assignment with the time that was lost given back.
    private func wanted(_ record: AssignmentRecord) throws -> AssignmentRecord {
        try settleTime(run: record.runId)
        let record = runs.assignments[record.id] ?? record
        try runs.requireWanted(record, at: now) { try budgets.trust.requireNotHalted($0) }
        return record
    }

    /// Notes that the client could not do the work.
    package func reportFailure(assignment id: String, client: String, _ report: FailureReport) throws {
        let record = try ownAssignment(id, client: client)
        guard runs[record.runId]?.specification.hidesData != true else {
            // Of what a device found in its data, which may be all that the words and the code tell, nothing is kept.
            return try end(assignment: id, client: client, .failed(code: report.privateCode.rawValue))
        }
        try end(assignment: id, client: client, .failed(code: report.code.rawValue, detail: report.detail))
    }

    private func end(assignment id: String, client: String, _ event: AssignmentEvent) throws {
        var record = try ownAssignment(id, client: client)
        switch event {
        case .rejected(let code) where record.state == .rejected && record.code == code: return
        case .failed(let code, _) where record.state == .failed && record.code == code: return
        default: break
        }
        let effects = try record.taking(event, at: now)
        var stored = record.changes(effects, at: now)
        // What it has reported says that it has the assignment's generation, also to a server that is started again.
        if let known = clients[client], known.generation != nil { stored.append(.client(known)) }
        if runs[record.runId]?.counts(record) ?? false {
            try drive(run: record.runId, effects.roundEvents, with: stored)
        } else {
            try commit(stored)
        }
    }

    // MARK: - Updates

    /// Notes that a request brings bytes for an assignment; until it ends the lease does not run out.
    ///
    /// - Returns: Whether the assignment is one of the client's that may still deliver; then ``endUploadRequest(assignment:)`` is
    ///   owed.
    package func beginUploadRequest(assignment id: String, client: String) -> Bool {
        runs.beginUpload(of: id, client: client)
    }

    /// Notes that such a request has ended: with the last one a new lease begins.
    package func endUploadRequest(assignment id: String) { runs.endUpload(of: id, at: now) }

    /// Whether an update may be sent now, and by what it is judged; refuses before the body is read.
    ///
    /// - Parameters:
    ///   - id: The assignment.
    ///   - client: Whose it must be.
    ///   - isReceiving: Whether bytes of the update are about to come, and not only a question about them.
    ///   - digest: SHA-256 of the whole update, if the request says it.
    /// - Returns: What the update is judged by.
    /// - Throws: ``CoordinationError`` saying why it is not wanted.
    package func beginUpdate(
        assignment id: String,
        client: String,
        isReceiving: Bool = true,
        digest: [UInt8]? = nil
    ) throws -> UploadTerms {
        var record = try ownAssignment(id, client: client)
        // Not the run itself yet: a copy of it would copy its lists when they change.
        guard runs[record.runId] != nil else {
            throw CoordinationError(.gone, "round_closed", "the round has ended")
        }
        if isReceiving, let round = runs[record.runId]?.receiving(record) { try commit([.round(round)]) }
        if record.state != .accepted {
            record = try wanted(record)
            if isReceiving {
                try holdToRelease(record, digest)
                if let noted = runs.noting(release: digest, of: record) {
                    try commit([.assignment(noted)])
                    record = noted
                }
            }
            // Shown, and not worth a transaction.
            record.state = .uploading
            runs.keepLease(of: &record, at: now)
            runs.keep(record)
        }
        var terms = UploadTerms(
            record,
            try runs.run(record.runId),
            // What was accepted is compared and not judged: a receipt waits for no file of a model.
            layout: record.state == .accepted ? nil : try uploadLayout(of: record.runId),
            plannedByteCount: record.state == .accepted ? nil : plannedByteCount(of: record),
            files: updates,
            modelByteLimit: configuration.modelByteLimit,
            accepted: record.state == .accepted
                ? try updates.acceptedReceipt(record, ledgerHead(of: record)) : nil,
            at: now
        )
        // What is not known any more was accepted, and is only compared.
        if runs.assignments[id] != nil { terms.permit = uploadPermits.permit(for: id) }
        return terms
    }

    /// Cuts the requests whose updates a transaction has ended that was read back, as its own step would have done.
    func endUnwantedUploads() {
        for id in uploadPermits.assignments {
            let known = runs.assignments[id]
            guard known == nil || known?.uploadRefusal != nil else { continue }
            let record = known ?? (try? store.assignment(id)) ?? nil
            let isCounted = record?.state == .accepted
            let refusal = record?.uploadRefusal ?? RoundError.roundOver(.abandoned).refusal
            endUpload(of: id, isCounted ? UploadPermit.isAccepted : refusal)
        }
    }

    /// Cuts the requests that bring an update which is not wanted any more, and removes what they have brought.
    func endUpload(of assignment: String, _ refusal: CoordinationError) {
        guard let files = uploadPermits.withdraw(assignment, refusal) else { return }
        updates.discardUpload(assignment, files)
    }

    /// Holds a client to the update that it has begun to send in the open attempt; see `RunTable`.
    ///
    /// - Throws: ``CoordinationError`` with code `update_differs`; the assignment has ended then.
    private func holdToRelease(_ record: AssignmentRecord, _ digest: [UInt8]?) throws {
        guard !runs.holdsToRelease(record, digest) else { return }
        try rejectUpdate(assignment: record.id, client: record.clientId, code: "update_differs")
        throw CoordinationError(
            .conflict,
            "update_differs",
            "this client has begun to send another update in this attempt, and with mode local a second one would be a second "
                + "release: further turns take the same bytes"
        )
    }

    /// Counts a checked update; the answer to the same bytes is the same however often they come.
    package func finishUpdate(assignment id: String, client: String, _ update: ReceivedUpdate) throws -> UpdateReceipt {
        // Files are moved before the transaction: it has to be known by then what an earlier one came to.
        try resolveDoubt()
        var record = try ownAssignment(id, client: client)
        if record.state == .accepted {
            return try repeatedReceipt(record, sha256: update.sha256, byteCount: update.byteCount)
        }
        record = try wanted(record)
        let pseudonym = try pseudonymToStore(update, record)
        // Not the run itself: a copy of it would copy its lists when they change.
        guard let specification = runs[record.runId]?.specification, let round = runs[record.runId]?.round,
            runs[record.runId]?.counts(record) == true
        else {
            // In mode `buffered`, between two versions or while one is measured: the next buffer opens after that.
            throw CoordinationError(.unavailable, "round_opening", "the next round is about to open; send it again")
        }
        let isPrivate = specification.isPrivate
        let isFile = !record.isEvaluation || specification.hasPrivateEvaluation
        let facts = SpooledReceipt(
            sha256: update.sha256,
            byteCount: update.byteCount,
            exampleCount: update.exampleCount
        )
        let known = clients[client]?.noting(update, record, specification, at: now)
        // Before the file is moved: all that may be refused after that gives it back.
        let effects = try record.accept(update, specification, round, at: now)
        if isFile { try updates.accept(update.path, of: id, receipt: isPrivate ? facts : nil) }
        if specification.aggregation.limitsNorms || specification.privacy.mode == .local {
            runs.noteSquaredNorm(update.squaredNorm, of: id)
        }
        var stored = record.changes(effects, at: now)
        if let pseudonym { stored.append(.pseudonym(pseudonym)) }
        if let known, known != clients[client] || known.generation != nil { stored.append(.client(known)) }
        do {
            try drive(run: record.runId, effects.roundEvents, with: stored)
        } catch {
            // Not counted: its bytes are the caller's again, unless the database may hold that they are.
            if isFile, writer.isInDoubt {
                writer.noteMoved(id)
            } else if isFile {
                updates.giveBack(update.path, of: id, hasReceipt: isPrivate)
            }
            throw error
        }
        storage.noteSuccess(.update)
        clients.noteSeen(client, at: now)
        do {
            try closeIfComplete(run: record.runId)
        } catch {
            // The update is on disk and counted; the next tick closes the round.
            logger.error("A round could not be closed", metadata: ["run.id": "\(record.runId)", "error": "\(error)"])
        }
        return UpdateReceipt(record, facts, ledgerHead(of: record))
    }

    /// Holds a client to its pseudonym at the run's domain, and every pseudonym to its client.
    ///
    /// - Returns: What the update's transaction adds; `nil` if it is known, or the run is not protected.
    /// - Throws: ``CoordinationError`` with code `pseudonym_differs`; the assignment has ended then.
    private func pseudonymToStore(_ update: ReceivedUpdate, _ record: AssignmentRecord) throws -> PseudonymRecord? {
        guard let domain = runs[record.runId]?.specification.protection?.domain, !record.isEvaluation else {
            return nil
        }
        guard let pseudonym = update.pseudonym else {
            throw CoordinationError(.unprocessable, "tensor_mismatch", "the update names no pseudonym")
        }
        let own = PseudonymRecord(clientId: record.clientId, domain: domain, pseudonym: pseudonym)
        let known = try store.pseudonyms(client: record.clientId, pseudonym: pseudonym, domain: domain)
        guard !known.isEmpty else { return own }
        if known == [own] { return nil }
        try rejectUpdate(assignment: record.id, client: record.clientId, code: "pseudonym_differs")
        throw CoordinationError(
            .conflict,
            "pseudonym_differs",
            "a device has one pseudonym for each helper and domain: this one is another client's, or this client has another"
        )
    }

    /// Notes that an update was refused for its contents; the slot is free again.
    package func rejectUpdate(assignment id: String, client: String, code: String) throws {
        try end(assignment: id, client: client, .rejected(code: code))
    }

    // MARK: - Receipts

    /// The answer to an update for an assignment that has one; see ``UpdateFiles/repeatedReceipt(_:sha256:byteCount:_:)``.
    package func repeatedReceipt(
        _ record: AssignmentRecord,
        sha256: String,
        byteCount: Int
    ) throws -> UpdateReceipt {
        try updates.repeatedReceipt(record, sha256: sha256, byteCount: byteCount, ledgerHead(of: record))
    }

    private func ledgerHead(of record: AssignmentRecord) -> PopulationLedgerHead? {
        runs[record.runId].flatMap { budgets.ledger.populationHead($0.record.populationId) }
    }
}
