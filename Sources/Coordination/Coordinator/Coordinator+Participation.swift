package import Foundation
import Logging
package import Tensors
package import UpdateCompression
package import WireFormat

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
    /// Until when its bytes may come.
    package var deadline: Date
    package var layout: ParameterLayout
    package var baseSHA256: String
    /// `delta`, `weights` or `gradient`.
    package var kind = "delta"
    package var valueBound: Double
    package var exampleCap: Int
    /// How the run wants updates to be written.
    package var encoding: UpdateEncoding
    /// Set when an update was accepted before: the same bytes get the same answer.
    package var accepted: UpdateReceipt?
    /// The hash of the update that was accepted before.
    package var acceptedSHA256: String? { accepted?.sha256 }
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

    package init(
        path: String,
        sha256: String,
        byteCount: Int,
        exampleCount: Int,
        metrics: [String: Double] = [:]
    ) {
        self.metrics = metrics
        self.path = path
        self.sha256 = sha256
        self.byteCount = byteCount
        self.exampleCount = exampleCount
    }
}

extension Coordinator {
    /// Gives a client work, or waits for some, at most until `wait` has passed.
    ///
    /// A wait that is cancelled, as that of a client which has hung up, gets none: the work would wait for its lease in vain.
    package func checkIn(client: String, _ request: CheckInRequest, wait: Duration) async throws -> CheckInResponse {
        let deadline = ContinuousClock.now + wait
        while true {
            let answer = try checkInNow(client: client, request)
            if answer.hasAssignment || ContinuousClock.now >= deadline || answer.retryWindow == nil {
                return answer
            }
            guard waiters.count < configuration.waiterLimit, !isStopping else { return answer }
            await waitForWork(client: client, until: deadline)
            if Task.isCancelled { return answer }
        }
    }

    private func waitForWork(client: String, until deadline: ContinuousClock.Instant) async {
        let id = waiters.nextID()
        let alarm = Task {
            try? await Task.sleep(until: deadline, clock: .continuous)
            self.wake(id)
        }
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                guard !Task.isCancelled else { return continuation.resume() }
                waiters.add(id, client: client, population: clients[client]?.populationId ?? "", continuation)
            }
        } onCancel: {
            alarm.cancel()
        }
        alarm.cancel()
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
                guard case .client(let id)? = try? coordinator.principal(token: token, certificateKey: certificateKey),
                    request.capabilities == nil, coordinator.liveAssignmentByClient[id] == nil,
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

    private func checkInNow(client id: String, _ request: CheckInRequest) throws -> CheckInResponse {
        if var client = clients[id], client.state != "revoked", let capabilities = request.capabilities {
            client.capabilities = Self.document(capabilities)
            if client != clients[id] { try commit([.client(client)]) }
        }
        if let live = liveAssignmentByClient[id], let assignment = assignments[live], clients[id]?.state != "revoked" {
            noteSeen(id)
            return CheckInResponse(assignment: try body(of: assignment))
        }
        switch try decide(client: id, request) {
        case .away(let answer): return answer
        case .work(let run, let round):
            guard var client = clients[id] else { return away("no_open_slot", .init(minS: 5, maxS: 30)) }
            nextRunTurn += 1
            let (assignment, changes) = try newAssignment(for: id, in: runState(run), round: round)
            client.state = "active"
            try drive(run: run, [.assigned], with: [.client(client)] + changes)
            return CheckInResponse(assignment: try body(of: assignment))
        }
    }

    /// Whether there is work for a client that has none, from memory and without changing what is stored.
    private func decide(client id: String, _ request: CheckInRequest) throws -> CheckInDecision {
        guard let client = clients[id], client.state != "revoked" else {
            throw CoordinationError(.forbidden, "client_revoked", "this client has been revoked")
        }
        presence.note(id, population: client.populationId, at: now)
        guard client.quarantinedAt == nil else { return .away(away("quarantined", .init(minS: 3600, maxS: 7200))) }
        let candidates = runOrder.filter { run in
            guard let state = runs[run], state.record.populationId == client.populationId,
                state.record.state == "running"
            else { return false }
            return request.runs.map { $0.contains(run) } ?? true
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
    private func inFairOrder(_ candidates: [String]) -> [String] {
        guard candidates.count > 1 else { return candidates }
        func load(_ id: String) -> Double {
            guard let run = runs[id], let round = run.round else { return 1 }
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
            deadline: round.phase == .reporting && !terms.isBuffered ? min(limit, round.deadline) : limit
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

    static func document(_ value: some Encodable) -> String {
        (try? WireCoding.encode(value)).map { String(decoding: $0, as: UTF8.self) } ?? "{}"
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
        let encoding = record.isEvaluation ? nil : training.modelEncoding.flatMap { $0 == "f32" ? nil : $0 }
        var privacy = run.specification.privacy
        if let norm = version.clippingNorm { privacy.clipping.norm = norm }
        let target = run.specification.cohort.targetSeconds
        if target > 0 {
            // Steps come from the speed that was measured; time bounds them where there is none yet, or it has dropped.
            let seconds = record.maxSteps == nil ? target : 2 * target
            training.limits.maxSeconds = min(training.limits.maxSeconds ?? seconds, seconds)
        }
        var body = AssignmentBody(
            id: record.id,
            run: record.runId,
            round: abs(record.round),
            attempt: record.attempt,
            state: record.state.rawValue,
            model: .init(
                version: version.version,
                url: "/v1/runs/\(record.runId)/models/\(version.version)/weights"
                    + (encoding.map { "?encoding=" + $0 } ?? ""),
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
                    url: "/v1/runs/\(record.runId)/models/\(version.version)/control",
                    sha256: sha256,
                    bytes: version.bytes
                )
            },
            updateUrl: "/v1/assignments/\(record.id)/update",
            seed: String(Self.seed(of: record.id)),
            deadline: record.deadline.wireTimestamp,
            deadlineInS: max(0, record.deadline.timeIntervalSince(now)),
            kind: record.isEvaluation ? "evaluate" : run.specification.analytics == nil ? "train" : "analyze",
            leaseS: record.leaseUntil.map { max(0, $0.timeIntervalSince(now)) }
        )
        body.base = baseModel(of: run.specification)
        if run.specification.aggregation.weighting == "examples" {
            body.exampleCap = run.specification.aggregation.exampleCap
        }
        body.cohortMinimum =
            record.isEvaluation
            ? run.specification.evaluation.minimum : run.specification.cohort.minimum
        body.valueBound = run.specification.aggregation.valueBound
        if record.state == .accepted { body.roundCommitted = run.hasCommitted(record) }
        if record.isEvaluation { setRelease(&body, of: run.specification) }
        return body
    }

    /// Tells a client by what terms its measurements are published.
    private func setRelease(_ body: inout AssignmentBody, of specification: RunSpecification) {
        guard specification.hasPrivateEvaluation else { return }
        let evaluation = specification.evaluation
        body.privacy.mechanism = "gaussian"
        body.privacy.band = nil
        body.privacy.noiseScale = nil
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
        let layout = try SafetensorsFile(path: blobs.path(sha256: version.sha256)).layout
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
        noteSeen(client)
        guard record.state != .accepted else {
            return HeartbeatResponse(state: record.state.rawValue, leaseS: 0, deadlineInS: 0)
        }
        try requireWanted(record)
        let lease = try runState(record.runId).lease
        let phase = AssignmentState(rawValue: request.phase) ?? .training
        let effects = try apply(.heartbeat(phase: phase, progress: request.progress, lease: lease), to: &record)
        if effects.isEmpty {
            // A lease is not worth a transaction: after a restart every client has a fresh one.
            assignments[id] = record
        } else {
            try commit(changes(of: record, effects))
        }
        return HeartbeatResponse(
            state: record.state.rawValue,
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
    package func beginUpdate(assignment id: String, client: String) throws -> UploadTerms {
        var record = try ownAssignment(id, client: client)
        guard let run = runs[record.runId] else {
            throw CoordinationError(.gone, "round_closed", "the round has ended")
        }
        if record.state != .accepted {
            try requireWanted(record)
            // While its body arrives the client cannot give a sign of life; shown, and not worth a transaction.
            record.state = .uploading
            if record.leaseUntil != nil { record.leaseUntil = record.deadline }
            assignments[id] = record
        }
        let layout = try uploadLayout(of: record.runId)
        let encoding = UpdateEncoding(rawValue: run.specification.training.encoding) ?? .f32
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
            // Who repeats what was accepted hears so after the deadline as well, and has an hour to say it.
            deadline: record.state == .accepted ? now.addingTimeInterval(3600) : record.deadline,
            layout: layout,
            baseSHA256: run.versions[record.baseVersion].sha256,
            kind: run.specification.training.submit,
            valueBound: run.specification.aggregation.valueBound,
            exampleCap: run.specification.aggregation.exampleCap,
            encoding: encoding,
            accepted: record.state == .accepted ? receipt(record) : nil,
            isEvaluation: record.isEvaluation,
            releasedMetrics: record.isEvaluation && run.specification.hasPrivateEvaluation
                ? run.specification.evaluation.metrics ?? [] : [],
            minimumExamples: record.isEvaluation ? 1 : run.specification.cohort.minExamples,
            needsClippingBit: run.specification.privacy.isAdaptive && !record.isEvaluation,
            answer: run.specification.analyticsAnswer
        )
    }

    /// Refuses what nobody waits for, with the reason.
    private func requireWanted(_ record: AssignmentRecord) throws {
        guard record.state.isLive else { throw RoundError.assignmentEnded(record.state, code: record.code).refusal }
        guard record.deadline >= now else { throw RoundError.deadlinePassed.refusal }
        guard let run = runs[record.runId], let round = run.round else { throw RoundError.deadlinePassed.refusal }
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
        var record = try ownAssignment(id, client: client)
        if record.state == .accepted {
            guard record.updateSha256 == update.sha256 else {
                throw CoordinationError(
                    .conflict,
                    "update_differs",
                    "another update was accepted for this assignment already"
                )
            }
            return receipt(record)
        }
        try requireWanted(record)
        // Not the run itself: a copy of it would copy its lists when they change.
        guard let specification = runs[record.runId]?.specification, let round = runs[record.runId]?.round,
            runs[record.runId]?.counts(record) == true
        else {
            // In mode `buffered`, between two versions or while one is measured: the next buffer opens after that.
            throw CoordinationError(.unavailable, "round_opening", "the next round is about to open; send it again")
        }
        let isFile = !record.isEvaluation || specification.hasPrivateEvaluation
        if isFile {
            try BlobStore.renameDurably(update.path, to: blobs.spoolPath(id + ".update"))
        }
        var speed = clients[client]
        speed?.noteWork(seconds: now.timeIntervalSince(record.createdAt), update.metrics)
        var update = update
        if specification.privacy.mode != "none",
            record.isEvaluation || specification.aggregation.weighting != "examples"
        {
            // A count of examples is a release of its own; where it decides nothing it is not kept.
            update.exampleCount = 1
        }
        if specification.privacy.mode == "none", !update.metrics.isEmpty {
            record.metrics = Self.document(update.metrics)
        }
        if RoundTerms(specification, isEvaluation: round.isEvaluation).isBuffered { record.countedRound = round.number }
        let effects = try apply(
            .accepted(sha256: update.sha256, bytes: update.byteCount, examples: update.exampleCount),
            to: &record
        )
        var stored = changes(of: record, effects)
        if let speed, speed != clients[client], measuresSpeed(specification) { stored.append(.client(speed)) }
        try drive(run: record.runId, effects.roundEvents, with: stored)
        noteSeen(client)
        do {
            try closeIfComplete(run: record.runId)
        } catch {
            // The update is on disk and counted; the next tick closes the round.
            logger.error("A round could not be closed", metadata: ["run.id": "\(record.runId)", "error": "\(error)"])
        }
        return receipt(record)
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
        try end(assignment: id, client: client, .failed(code: report.code, detail: report.detail))
    }

    private func end(assignment id: String, client: String, _ event: AssignmentEvent) throws {
        var record = try ownAssignment(id, client: client)
        switch event {
        case .rejected(let code) where record.state == .rejected && record.code == code: return
        case .failed(let code, _) where record.state == .failed && record.code == code: return
        default: break
        }
        let effects = try apply(event, to: &record)
        let stored = changes(of: record, effects)
        if runs[record.runId]?.counts(record) ?? false {
            try drive(run: record.runId, effects.roundEvents, with: stored)
        } else {
            try commit(stored)
        }
    }

    private func noteSeen(_ client: String) {
        presence.note(client, population: clients[client]?.populationId ?? "", at: now)
    }

    private func receipt(_ record: AssignmentRecord) -> UpdateReceipt {
        UpdateReceipt(
            assignment: record.id,
            state: record.state.rawValue,
            sha256: record.updateSha256 ?? "",
            bytes: record.updateBytes ?? 0
        )
    }
}

extension AssignmentRecord {
    /// Whether the work is to measure a version.
    package var isEvaluation: Bool { round < 0 }
    /// The version that the client starts from, or measures.
    var baseVersion: Int { isEvaluation ? -round : round - 1 }
}

extension ClientRecord {
    /// Smooths what one more piece of work says about the client's speed.
    mutating func noteWork(seconds: Double, _ metrics: [String: Double]) {
        func smooth(_ old: Double?, _ new: Double) -> Double { old.map { 0.7 * $0 + 0.3 * new } ?? new }
        secondsPerAssignment = smooth(secondsPerAssignment, max(0.001, seconds))
        if let steps = metrics["steps"], let time = metrics["seconds"], steps > 0, time > 0, steps / time < 1e9 {
            stepsPerSecond = smooth(stepsPerSecond, steps / time)
        }
    }
}
