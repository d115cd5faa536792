package import Foundation
import Logging
package import Tensors
package import UpdateCompression
package import WireFormat

#if canImport(Glibc)
import Glibc
#endif

/// What intake needs to check an upload by.
package struct UploadTerms: Sendable {
    package var assignmentID: String
    package var runID: String
    package var spoolPath: String
    /// Where an upload in parts gathers: one file for the assignment.
    package var partialPath: String
    /// Where it lies while it is judged.
    package var judgedPath: String
    package var byteLimit: Int
    /// With privacy the size that everybody's update has; `nil`: any up to the limit.
    package var plannedByteCount: Int?
    /// Until when its bytes may come.
    package var deadline: Date
    package var layout: ParameterLayout
    package var baseSHA256: String
    package var kind = Submission.delta
    package var valueBound: Double
    /// What the update's count is cut at before it is kept: a number where there is privacy; `nil`: nothing.
    package var exampleCap: Int?
    /// What the count is of.
    package var weightUnit = WeightUnit.examples
    /// Whether the count weighs the update.
    package var weighsByCount = false
    /// Whether the sums of metrics that come with it are judged: not in private runs, which drop them.
    package var judgesMetrics = false
    /// How the run wants updates to be written.
    package var encoding: UpdateEncoding
    /// Set when an update was accepted before: the same bytes get the same answer.
    ///
    /// Without hash and size once a private round has ended; then nothing can be compared.
    package var accepted: UpdateReceipt?
    /// The hash of the update that was accepted before, while it is known.
    package var acceptedSHA256: String? { accepted.flatMap { $0.compared == false ? nil : $0.sha256 } }
    /// Whether the upload is a JSON document of metric sums, and no update.
    package var isEvaluation = false
    /// Rates that an evaluation's sums must have: those that are released with noise.
    ///
    /// Then the sums are a file until their round ends, as updates are, and never in the database.
    package var releasedMetrics: [String] = []
    /// Fewer examples are not enough to count.
    package var minimumExamples = 1
    /// Whether the update says if its norm was within the bound before it was clipped.
    package var needsClippingBit = false
    /// What a count or a vote must be, in an analytics run.
    package var answer: AnalyticsAnswer?
}

/// What clients of an analytics run may send.
package enum AnalyticsAnswer: Equatable, Sendable {
    /// At most so many ones among zeros.
    case counts(limit: Int)
    /// A parent's place among so many, and a scalar.
    case vote(placeLimit: Int)
    /// Noised counts: any number.
    case noise
}

/// An update that passed intake: on disk, synced, its contents checked.
package struct ReceivedUpdate: Sendable {
    package var path: String
    package var sha256: String
    package var byteCount: Int
    package var exampleCount: Int
    /// Sums that came with it.
    package var metrics: [String: Double]
    /// The squared L2 norm of the decoded values, where intake measured it.
    package var squaredNorm: Double?

    package init(
        path: String,
        sha256: String,
        byteCount: Int,
        exampleCount: Int,
        metrics: [String: Double] = [:],
        squaredNorm: Double? = nil
    ) {
        self.metrics = metrics
        self.squaredNorm = squaredNorm
        self.path = path
        self.sha256 = sha256
        self.byteCount = byteCount
        self.exampleCount = exampleCount
    }
}

extension Coordinator {
    /// Gives a client work, or waits for some, at most until `wait` has passed.
    ///
    /// A wait that is cancelled, as that of a client which has hung up, gets none: the work would wait for its lease in vain. A client
    /// has one wait; a newer one ends the older.
    ///
    /// - Parameters:
    ///   - client: Who asks.
    ///   - request: What it says.
    ///   - wait: How long it waits.
    ///   - mayChange: Is asked before what the client says of itself becomes a transaction; what it throws is thrown.
    /// - Returns: Work, or when to come again.
    /// - Throws: ``CoordinationError``.
    package func checkIn(
        client: String,
        _ request: CheckInRequest,
        wait: Duration,
        mayChange: @Sendable () throws -> Void = {}
    ) async throws -> CheckInResponse {
        let deadline = ContinuousClock.now + wait
        while true {
            let answer = try checkInNow(client: client, request, mayChange)
            if answer.hasAssignment || ContinuousClock.now >= deadline || answer.retryWindow == nil {
                return answer
            }
            guard waiters.count < configuration.waiterLimit, !isStopping else { return answer }
            let maySearch = await waitForWork(client: client, until: deadline)
            if Task.isCancelled || !maySearch { return answer }
        }
    }

    /// - Returns: Whether the client may look for work now; `false` where a newer poll of it waits instead.
    private func waitForWork(client: String, until deadline: ContinuousClock.Instant) async -> Bool {
        let id = waiters.nextID()
        let alarm = Task {
            try? await Task.sleep(until: deadline, clock: .continuous)
            self.wake(id)
        }
        defer { alarm.cancel() }
        return await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                guard !Task.isCancelled else { return continuation.resume(returning: false) }
                waiters.add(id, client: client, population: clients[client]?.populationId ?? "", continuation)
            }
        } onCancel: {
            alarm.cancel()
        }
    }

    /// Answers a check-in at once where that takes no waiting and changes nothing that is stored.
    ///
    /// May be called from any thread; borrows the coordinator for microseconds.
    ///
    /// - Parameters:
    ///   - token: The caller's, checked as ever.
    ///   - certificateKey: The key of the caller's certificate.
    ///   - request: What the client says.
    ///   - admit: Is told whose token it is before anything is decided; what it throws is thrown.
    /// - Returns: The answer without work; `nil` where only ``checkIn(client:_:wait:)`` can tell, or the coordinator is busy.
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
                    request.capabilities == nil, coordinator.liveAssignmentByClient[id] == nil,
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
        if let live = liveAssignmentByClient[id], let assignment = assignments[live], clients[id]?.state != .revoked {
            clients.noteSeen(id, at: now)
            guard let run = runs[assignment.runId], !budgets.trust.isHalted(run.specification) else {
                return away("no_open_slot", .init(minS: 30, maxS: 90))
            }
            return CheckInResponse(assignment: try body(of: assignment))
        }
        switch try decide(client: id, request) {
        case .away(let answer): return answer
        case .work(let run, let round):
            guard var client = clients[id] else { return away("no_open_slot", .init(minS: 5, maxS: 30)) }
            let isSecret = runs[run]?.specification.privacy.hasSecretDraw == true
            // Whose turn it is tells other clients how often work was handed out.
            if !isSecret { nextRunTurn += 1 }
            let (assignment, changes) = try newAssignment(for: id, in: runState(run), round: round)
            client = client.withNextGeneration ?? client
            // How many clients have had work is shown to everybody, and must not tell how many were drawn in secret.
            if !isSecret { client.state = .active }
            try drive(run: run, [.assigned], with: [.client(client)] + changes)
            return CheckInResponse(assignment: try body(of: assignment))
        }
    }

    /// Takes what a client says about the generation of its state; kept in memory until what its work came to, or its next
    /// assignment, is stored.
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
        guard client.quarantinedAt == nil else { return .away(away("quarantined", .init(minS: 3600, maxS: 7200))) }
        let wanted = request.runs.map { Set($0) }
        let candidates = (openRunsByPopulation[client.populationId] ?? []).filter { run in
            runs[run]?.record.state == .running && wanted?.contains(run) ?? true
        }
        guard !candidates.isEmpty else {
            return .away(away("no_run", retryWindow(.noSlot, run: nil, population: client.populationId)))
        }
        var refusals: [(refusal: Refusal, run: RunState)] = []
        for runID in inFairOrder(candidates) {
            guard let run = runs[runID], let round = run.round else { continue }
            guard let refusal = refusal(of: client, run: run, exampleCount: request.numExamples) else {
                return .work(run: runID, round)
            }
            if refusal == .choosing { offer(id, run: runID) }
            refusals.append((refusal, run))
        }
        let order: [Refusal] = [.choosing, .noSlot, .backoff, .separation, .requirements, .version, .cap]
        guard let first = order.lazy.compactMap({ kind in refusals.first { $0.refusal == kind } }).first else {
            return .away(away("no_open_slot", retryWindow(.noSlot, run: nil, population: client.populationId)))
        }
        // Every run has had this client as often as it may: it need not come again.
        guard first.refusal != .cap else {
            return .away(CheckInResponse(assignment: nil, reason: first.refusal.rawValue))
        }
        return .away(
            away(first.refusal.rawValue, retryWindow(first.refusal, run: first.run, population: client.populationId))
        )
    }

    /// The run that has the smallest share of what it wants first; those alike take turns.
    ///
    /// Where the cost counts on a secret draw, how much of it is at work is secret too: such a run counts as one that has nothing
    /// yet, since the order of runs would tell other clients.
    private func inFairOrder(_ candidates: [String]) -> [String] {
        guard candidates.count > 1 else { return candidates }
        func load(_ id: String) -> Double {
            guard let run = runs[id], let round = run.round else { return 1 }
            guard !run.specification.privacy.hasSecretDraw else { return 0 }
            return Double(run.atWork.count + round.accepted) / Double(max(1, run.terms(of: round).wanted))
        }
        return candidates.indices.map { candidates[(nextRunTurn + $0) % candidates.count] }.enumerated()
            .map { (offset: $0.offset, id: $0.element, load: load($0.element)) }
            .sorted { ($0.load, $0.offset) < ($1.load, $1.offset) }.map(\.id)
    }

    /// Makes an assignment and what is stored with it.
    func newAssignment(
        for client: String,
        in run: RunState,
        round: RoundRecord
    ) throws -> (record: AssignmentRecord, changes: [StoreChange]) {
        let cohort = run.specification.cohort
        let terms = run.terms(of: round)
        let limit = now.addingTimeInterval(terms.reportTimeoutS)
        var record = AssignmentRecord(
            id: Secrets.identifier("asg"),
            of: round,
            client: client,
            at: now,
            deadline: round.phase == .reporting && !terms.isBuffered ? min(limit, round.deadline) : limit,
            turn: run.members.nextTurn(of: client)
        )
        record.leaseUntil = cohort.leaseS.map { min(record.deadline, now.addingTimeInterval($0)) }
        if let known = clients[client] {
            record.tier = tier(of: known, run: run)
            if cohort.targetSeconds > 0, let speed = known.stepsPerSecond {
                let steps = max(1, (speed * cohort.targetSeconds).rounded(.down))
                record.maxSteps = Int(min(steps, Double(run.specification.training.limits.maxSteps)))
            }
        }
        return (record, changes(of: record, [.history(state: .assigned, cause: "the client checked in")]))
    }

    private func away(_ reason: String, _ window: CheckInResponse.RetryWindow) -> CheckInResponse {
        CheckInResponse(assignment: nil, reason: reason, retryWindow: window)
    }

    /// The assignment, for its own client.
    package func assignment(_ id: String, client: String) throws -> AssignmentBody {
        try body(of: ownAssignment(id, client: client))
    }

    private func ownAssignment(_ id: String, client: String) throws -> AssignmentRecord {
        // Another client's assignment is answered as an unknown one, so that ids cannot be probed.
        guard let record = try assignments[id] ?? store.assignment(id), record.clientId == client else {
            throw CoordinationError(.notFound, "not_found", "no assignment '\(id)' of this client")
        }
        // Who knows its id has got it; kept in memory until something is stored, as what a check-in says.
        if liveAssignmentByClient[client] == id { clients.acknowledgeGeneration(of: client) }
        return record
    }

    private func body(of record: AssignmentRecord) throws -> AssignmentBody {
        guard let run = runs[record.runId], record.baseVersion < run.versions.count else {
            throw CoordinationError(.unavailable, "model_missing", "the run has no model yet")
        }
        let version = run.versions[record.baseVersion]
        var training = run.specification.training
        if let steps = record.maxSteps { training.limits.maxSteps = steps }
        // What is measured is the model itself.
        let encoding = record.isEvaluation ? nil : training.modelEncoding.flatMap { $0 == .f32 ? nil : $0 }
        var privacy = run.specification.privacy
        if let norm = version.clippingNorm { privacy.clipping.norm = norm }
        let target = run.specification.cohort.targetSeconds
        if target > 0 {
            // Steps come from the speed that was measured; time bounds them where there is none yet, or it has dropped.
            let seconds = max(0.01, record.maxSteps == nil ? target : 2 * target)
            training.limits.maxSeconds = min(training.limits.maxSeconds ?? seconds, seconds)
        }
        var body = AssignmentBody(
            id: record.id,
            run: record.runId,
            round: abs(record.round),
            attempt: record.attempt,
            state: record.state,
            model: .init(
                version: version.version,
                url: Endpoints.weights(RunReference(record.runId), VersionReference(version.version))
                    .with("encoding", encoding).target,
                sha256: version.sha256,
                bytes: version.bytes,
                encoding: encoding
            ),
            architecture: run.assignedModel,
            training: training,
            privacy: privacy,
            maxParticipations: run.specification.cohort.maxParticipations,
            tensors: try layout(of: record.runId),
            updateTensors: try differingUploadLayout(of: record.runId),
            control: version.controlSha256.map { sha256 in
                .init(
                    version: version.version,
                    url: Endpoints.controlVariate(RunReference(record.runId), VersionReference(version.version)).target,
                    sha256: sha256,
                    bytes: fileByteCount(sha256: sha256) ?? version.bytes
                )
            },
            updateUrl: Endpoints.putUpdate(AssignmentReference(record.id)).target,
            seed: String(Self.seed(of: record.id)),
            deadline: record.deadline.wireTimestamp,
            deadlineInS: max(0, record.deadline.timeIntervalSince(now)),
            kind: record.isEvaluation ? .evaluate : run.specification.analytics == nil ? .train : .analyze,
            leaseS: record.leaseUntil.map { max(0, $0.timeIntervalSince(now)) }
        )
        body.base = baseModel(of: run.specification)
        if run.specification.aggregation.weighting == .examples {
            body.weightUnit = run.specification.aggregation.weightUnit
            // A multiple of the cohort's median is nobody's business but the server's.
            body.exampleCap = run.specification.aggregation.exampleCap.number.map { Int($0) }
        }
        body.cohortMinimum =
            record.isEvaluation
            ? run.specification.evaluation.minimum : run.specification.cohort.minimum
        body.valueBound = run.specification.aggregation.valueBound
        if record.state == .accepted { body.roundCommitted = run.hasCommitted(record) }
        if record.isEvaluation { setRelease(&body, of: run.specification) }
        body.ledgerHead = budgets.ledger.populationHead(run.record.populationId)
        body.stateGeneration = clients[record.clientId]?.stateGeneration
        body.updateBytes = plannedUpdateByteCount(of: run, isEvaluation: record.isEvaluation)
        return body
    }

    /// Tells a client by what terms its measurements are published.
    private func setRelease(_ body: inout AssignmentBody, of specification: RunSpecification) {
        guard specification.hasPrivateEvaluation else { return }
        let evaluation = specification.evaluation
        body.privacy.mechanism = .gaussian
        if body.privacy.clipping.policy == .l1 { body.privacy.clipping.policy = .flat }
        body.privacy.noiseMultiplier = evaluation.noiseMultiplier ?? 0
        body.maxParticipations = evaluation.maxParticipations ?? 0
        body.release = .init(metrics: evaluation.metrics ?? [], lossBound: evaluation.lossBound ?? 0)
    }

    private static func seed(of id: String) -> UInt64 {
        UInt64(Secrets.sha256(Array(id.utf8)).prefix(16), radix: 16) ?? 0
    }

    /// The layout that the run's models have.
    package func layout(of runID: String) throws -> ParameterLayout {
        if let layout = runs[runID]?.layout { return layout }
        guard let version = runs[runID]?.versions.first else {
            throw CoordinationError(
                .conflict,
                "model_missing",
                "the run has no model yet: upload it, then start the run"
            )
        }
        let layout = try storedLayout(of: version)
        runs[runID]?.layout = layout
        return layout
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
        try settleTime(run: record.runId)
        record = assignments[id] ?? record
        try requireWanted(record)
        let run = try runState(record.runId)
        let lease = run.lease
        // How far a client is at which time depends on how much data it has: with privacy a sign of life is all it gives.
        let phase = run.specification.isPrivate ? record.state : AssignmentState(request.phase ?? .training)
        let progress = run.specification.isPrivate ? nil : request.progress
        let effects = try apply(.heartbeat(phase: phase, progress: progress, lease: lease), to: &record)
        if effects.isEmpty {
            // A lease is not worth a transaction: after a restart every client has a fresh one.
            keep(record)
        } else {
            try commit(changes(of: record, effects))
        }
        return HeartbeatResponse(
            state: record.state,
            leaseS: max(0, (record.leaseUntil ?? record.deadline).timeIntervalSince(now)),
            deadlineInS: max(0, record.deadline.timeIntervalSince(now))
        )
    }

    /// The update's tensors where they are not the model's.
    private func differingUploadLayout(of runID: String) throws -> ParameterLayout? {
        let upload = try uploadLayout(of: runID)
        return try upload == layout(of: runID) ? nil : upload
    }

    /// The tensors of an update: the model's, with SCAFFOLD their control variates too, or one vote.
    package func uploadLayout(of runID: String) throws -> ParameterLayout {
        if runs[runID]?.specification.analytics?.isTrie == true { return PrefixTrie.voteLayout }
        let layout = try layout(of: runID)
        guard runs[runID]?.specification.training.usesControlVariates == true else { return layout }
        return ControlVariates.jointLayout(layout)
    }

    /// Whether an update may be sent now, and by what it is judged; refuses before the body is read.
    ///
    /// - Parameters:
    ///   - id: The assignment.
    ///   - client: Whose it must be.
    ///   - isReceiving: Whether bytes of the update are about to come, and not only a question about them.
    ///   - digest: SHA-256 of the whole update, where the request says it.
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
        if isReceiving { try noteReceived(record) }
        if record.state != .accepted {
            try settleTime(run: record.runId)
            record = assignments[id] ?? record
            try requireWanted(record)
            if isReceiving { try holdToRelease(record, digest) }
            // Shown, and not worth a transaction.
            record.state = .uploading
            keepLease(of: &record)
            keep(record)
        }
        let run = try runState(record.runId)
        let layout = try uploadLayout(of: record.runId)
        let encoding = run.specification.training.encoding
        return UploadTerms(
            assignmentID: id,
            runID: record.runId,
            spoolPath: blobs.spoolPath("\(id)-\(Secrets.identifier("up")).part"),
            partialPath: blobs.spoolPath(id + Self.partialSuffix),
            judgedPath: blobs.spoolPath(id + Self.judgedSuffix),
            byteLimit: min(
                configuration.modelByteLimit,
                encoding.byteLimit(parameterCount: layout.parameterCount, tensorCount: layout.tensors.count)
                    + (64 << 10) + SafetensorsHeader.headerByteLimit
            ),
            plannedByteCount: plannedUpdateByteCount(of: run, isEvaluation: record.isEvaluation),
            // Who repeats what was accepted hears so after the deadline as well, and has an hour to say it.
            deadline: record.state == .accepted ? now.addingTimeInterval(3600) : record.deadline,
            layout: layout,
            baseSHA256: run.versions[record.baseVersion].sha256,
            kind: run.specification.training.submit,
            valueBound: run.specification.aggregation.valueBound,
            exampleCap: run.specification.privacy.mode == .none
                ? nil : run.specification.aggregation.exampleCap.number.map { Int($0) },
            weightUnit: run.specification.aggregation.weightUnit,
            weighsByCount: run.specification.aggregation.weighting == .examples,
            judgesMetrics: run.specification.privacy.mode == .none,
            encoding: encoding,
            accepted: record.state == .accepted ? try acceptedReceipt(record) : nil,
            isEvaluation: record.isEvaluation,
            releasedMetrics: record.isEvaluation && run.specification.hasPrivateEvaluation
                ? run.specification.evaluation.metrics ?? [] : [],
            // A device whose data gave nothing says 0 where something is promised about them.
            minimumExamples: run.specification.isPrivate
                ? 0 : record.isEvaluation ? 1 : run.specification.cohort.minExamples,
            needsClippingBit: run.specification.privacy.isAdaptive && !record.isEvaluation,
            answer: run.specification.analyticsAnswer
        )
    }

    /// Refuses what nobody waits for, with the reason.
    private func requireWanted(_ record: AssignmentRecord) throws {
        guard record.state.isLive else { throw RoundError.assignmentEnded(record.state, code: record.code).refusal }
        guard let run = runs[record.runId], let round = run.round else { throw RoundError.deadlinePassed.refusal }
        // Its time stands still.
        try budgets.trust.requireNotHalted(run.specification)
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

    /// Counts a checked update; the answer to the same bytes is the same however often they come.
    package func finishUpdate(assignment id: String, client: String, _ update: ReceivedUpdate) throws -> UpdateReceipt {
        // Files are moved before the transaction: it has to be known by then what an earlier one came to.
        try resolveDoubt()
        var record = try ownAssignment(id, client: client)
        if record.state == .accepted {
            return try repeatedReceipt(record, sha256: update.sha256, byteCount: update.byteCount)
        }
        try settleTime(run: record.runId)
        record = assignments[id] ?? record
        try requireWanted(record)
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
        // Its name is durable with the update's, by the same sync of the directory.
        if isFile && isPrivate { try facts.write(to: blobs.receiptPath(of: id)) }
        if isFile {
            do {
                try BlobStore.renameDurably(update.path, to: blobs.updatePath(of: id))
            } catch {
                // Nobody was told that it is here.
                unlink(blobs.updatePath(of: id))
                if isPrivate { unlink(blobs.receiptPath(of: id)) }
                throw error
            }
        }
        var known = clients[client]
        // How long the work took, and how fast, depends on the client's data.
        if !isPrivate, measuresSpeed(specification) {
            known?.noteWork(seconds: now.timeIntervalSince(record.createdAt), update.metrics)
        }
        if !isPrivate {
            let metrics = specification.declared(update.metrics)
            if !metrics.isEmpty { record.metrics = StoredDocument.text(metrics) }
        }
        if RoundTerms(specification, isEvaluation: round.isEvaluation).isBuffered { record.countedRound = round.number }
        if specification.aggregation.limitsNorms || specification.privacy.mode == .local {
            squaredNorms[id] = update.squaredNorm
        }
        let effects = try apply(
            isPrivate
                ? .accepted(sha256: nil, bytes: nil, examples: nil)
                : .accepted(sha256: update.sha256, bytes: update.byteCount, examples: update.exampleCount),
            to: &record
        )
        var stored = changes(of: record, effects)
        if let known, known != clients[client] || known.generation != nil { stored.append(.client(known)) }
        do {
            try drive(run: record.runId, effects.roundEvents, with: stored)
        } catch {
            // Not counted: its bytes are the caller's again, unless the database may hold that they are.
            if isFile, isInDoubt {
                movedInDoubt.insert(id)
            } else if isFile {
                rename(blobs.updatePath(of: id), update.path)
                if isPrivate { unlink(blobs.receiptPath(of: id)) }
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
        return receipt(record, facts)
    }

    private func measuresSpeed(_ specification: RunSpecification) -> Bool {
        specification.cohort.tiers > 1 || specification.cohort.targetSeconds > 0
    }

    /// Notes that an update was refused for its contents; the slot is free again.
    package func rejectUpdate(assignment id: String, client: String, code: String) throws {
        try end(assignment: id, client: client, .rejected(code: code))
    }

    /// Notes that the client could not do the work.
    package func reportFailure(assignment id: String, client: String, _ report: FailureReport) throws {
        let record = try ownAssignment(id, client: client)
        guard runs[record.runId]?.specification.isPrivate != true else {
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
        let effects = try apply(event, to: &record)
        var stored = changes(of: record, effects)
        // What it has reported says that it has the assignment's generation, also to a server that is started again.
        if let known = clients[client], known.generation != nil { stored.append(.client(known)) }
        if runs[record.runId]?.counts(record) ?? false {
            try drive(run: record.runId, effects.roundEvents, with: stored)
        } else {
            try commit(stored)
        }
    }

    // MARK: - Receipts

    private func receipt(_ record: AssignmentRecord, _ facts: SpooledReceipt) -> UpdateReceipt {
        var receipt = UpdateReceipt(
            assignment: record.id,
            state: record.state,
            sha256: facts.sha256,
            bytes: facts.byteCount
        )
        receipt.ledgerHead = runs[record.runId].flatMap { budgets.ledger.populationHead($0.record.populationId) }
        return receipt
    }

    /// What is known about the accepted update: by its row, or with privacy by its file as long as that is there.
    ///
    /// - Throws: ``CoordinationError`` with code `storage_failed` where the disk does not give it now.
    private func facts(of record: AssignmentRecord) throws(CoordinationError) -> SpooledReceipt? {
        guard let sha256 = record.updateSha256 else {
            return try SpooledReceipt.read(path: blobs.receiptPath(of: record.id))
        }
        return SpooledReceipt(
            sha256: sha256,
            byteCount: record.updateBytes ?? 0,
            exampleCount: record.exampleCount ?? 1
        )
    }

    private func acceptedReceipt(_ record: AssignmentRecord) throws -> UpdateReceipt {
        try facts(of: record).map { receipt(record, $0) }
            ?? UpdateReceipt(assignment: record.id, state: record.state, sha256: "", bytes: 0, compared: false)
    }

    /// The answer to an update for an assignment that has one: the same for the same bytes; other bytes are refused as long
    /// as anything is left to compare them with, and after that every repeat hears that the work is done.
    ///
    /// - Throws: ``CoordinationError`` with code `update_differs`, or `storage_failed` where nothing can be compared now.
    package func repeatedReceipt(
        _ record: AssignmentRecord,
        sha256: String,
        byteCount: Int
    ) throws -> UpdateReceipt {
        guard let facts = try facts(of: record) else {
            return UpdateReceipt(
                assignment: record.id,
                state: record.state,
                sha256: sha256,
                bytes: byteCount,
                compared: false
            )
        }
        guard facts.sha256 == sha256 else {
            throw CoordinationError(
                .conflict,
                "update_differs",
                "another update was accepted for this assignment already"
            )
        }
        return receipt(record, facts)
    }
}

extension FailureReport {
    /// Codes that say nothing about data: the device's policy and abilities, and its owner's wish.
    private static let dataFreeCodes: Set<FailureCode> = [.privacyRefused, .notEligible, .cancelled]
    /// What is kept of a failure where something is promised about the data: devices of this version report none that
    /// depends on them.
    var privateCode: FailureCode { Self.dataFreeCodes.contains(code) ? code : .trainingFailed }
}

extension AssignmentRecord {
    /// Whether the work is to measure a version.
    package var isEvaluation: Bool { round < 0 }
    /// The version that the client starts from, or measures.
    var baseVersion: Int { isEvaluation ? -round : round - 1 }
}
