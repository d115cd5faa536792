package import Foundation
package import Tensors
package import WireFormat

/// What intake needs to check an upload by.
package struct UploadTerms: Sendable {
    package var assignmentID: String
    package var runID: String
    package var spoolPath: String
    package var byteLimit: Int
    package var layout: ParameterLayout
    package var baseSHA256: String
    package var valueBound: Double
    package var exampleCap: Int
    /// Set when an update was accepted before: the same bytes get the same answer.
    package var acceptedSHA256: String?
}

/// An update that passed intake: on disk, synced, its contents checked.
package struct ReceivedUpdate: Sendable {
    package var path: String
    package var sha256: String
    package var byteCount: Int
    package var exampleCount: Int

    package init(path: String, sha256: String, byteCount: Int, exampleCount: Int) {
        self.path = path
        self.sha256 = sha256
        self.byteCount = byteCount
        self.exampleCount = exampleCount
    }
}

extension Coordinator {
    /// Gives a client work, or waits for some, at most until `wait` has passed.
    package func checkIn(client: String, _ request: CheckInRequest, wait: Duration) async throws -> CheckInResponse {
        let deadline = ContinuousClock.now + wait
        while true {
            let answer = try checkInNow(client: client, request)
            if answer.assignment != nil || ContinuousClock.now >= deadline || answer.retryWindow == nil {
                return answer
            }
            guard waiters.count < configuration.waiterLimit else { return answer }
            await waitForWork(until: deadline)
        }
    }

    private func waitForWork(until deadline: ContinuousClock.Instant) async {
        let id = nextWaiter
        nextWaiter += 1
        let alarm = Task {
            try? await Task.sleep(until: deadline, clock: .continuous)
            self.wake(id)
        }
        await withCheckedContinuation { waiters[id] = $0 }
        alarm.cancel()
    }

    private func wake(_ id: Int) {
        waiters.removeValue(forKey: id)?.resume()
    }

    /// Wakes every long poll: a round opened, a slot became free, or the server stops.
    package func wakeAll() {
        let sleeping = waiters
        waiters = [:]
        for continuation in sleeping.values { continuation.resume() }
    }

    private func checkInNow(client id: String, _ request: CheckInRequest) throws -> CheckInResponse {
        guard var client = clients[id], client.state != "revoked" else {
            throw CoordinationError(.forbidden, "client_revoked", "this client has been revoked")
        }
        lastSeen[id] = now
        if let live = liveAssignmentByClient[id], let assignment = assignments[live] {
            return CheckInResponse(assignment: try body(of: assignment))
        }
        let candidates = runOrder.filter { run in
            guard let state = runs[run], state.record.populationId == client.populationId,
                state.record.state == "running"
            else { return false }
            return request.runs.map { $0.contains(run) } ?? true
        }
        guard !candidates.isEmpty else { return away("no_run", 5, 30) }
        var sawCap = false
        for offset in 0..<candidates.count {
            let runID = candidates[(nextRunTurn + offset) % candidates.count]
            guard let run = runs[runID], var round = run.round else { continue }
            let cap = run.specification.cohort.maxParticipations
            if cap > 0 && run.participations[id, default: 0] >= cap {
                sawCap = true
                continue
            }
            guard run.freeSlots > 0, !run.assignmentIDs.contains(where: { assignments[$0]?.clientId == id }) else {
                continue
            }
            nextRunTurn += 1
            let assignment = AssignmentRecord(
                id: Secrets.identifier("asg"),
                runId: runID,
                round: round.number,
                attempt: round.attempt,
                clientId: id,
                state: .assigned,
                createdAt: now,
                deadline: now.addingTimeInterval(run.specification.cohort.reportTimeoutS)
            )
            round.assigned += 1
            client.state = "active"
            try commit([.client(client), .round(round), .assignment(assignment)])
            runs[runID]?.participations[id, default: 0] += 1
            runs[runID]?.assignmentIDs.append(assignment.id)
            return CheckInResponse(assignment: try body(of: assignment))
        }
        if sawCap && candidates.allSatisfy({ capReached(run: $0, client: id) }) {
            return CheckInResponse(assignment: nil, reason: "participation_limit")
        }
        return away("no_open_slot", 1, 5)
    }

    private func capReached(run: String, client: String) -> Bool {
        guard let state = runs[run], state.specification.cohort.maxParticipations > 0 else { return false }
        return state.participations[client, default: 0] >= state.specification.cohort.maxParticipations
    }

    private func away(_ reason: String, _ minimum: Double, _ maximum: Double) -> CheckInResponse {
        CheckInResponse(assignment: nil, reason: reason, retryWindow: .init(minS: minimum, maxS: maximum))
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
        guard let run = runs[record.runId], record.round <= run.versions.count else {
            throw CoordinationError(.unavailable, "model_missing", "the run has no model yet")
        }
        let version = run.versions[record.round - 1]
        var body = AssignmentBody(
            id: record.id,
            run: record.runId,
            round: record.round,
            attempt: record.attempt,
            state: record.state.rawValue,
            model: .init(
                version: version.version,
                url: "/v1/runs/\(record.runId)/models/\(version.version)/weights",
                sha256: version.sha256,
                bytes: version.bytes
            ),
            architecture: run.assignedModel,
            training: run.specification.training,
            privacy: run.specification.privacy,
            maxParticipations: run.specification.cohort.maxParticipations,
            tensors: try layout(of: record.runId),
            updateUrl: "/v1/assignments/\(record.id)/update",
            seed: String(Self.seed(of: record.id)),
            deadline: record.deadline.wireTimestamp,
            deadlineInS: max(0, record.deadline.timeIntervalSince(now))
        )
        body.base = baseModel(of: run.specification)
        return body
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

    /// Whether an update may be sent now, and by what it is judged; refuses before the body is read.
    package func beginUpdate(assignment id: String, client: String) throws -> UploadTerms {
        let record = try ownAssignment(id, client: client)
        guard let run = runs[record.runId], let round = run.round else {
            throw CoordinationError(.gone, "round_closed", "the round has ended")
        }
        if record.state != .accepted { try requireLive(record, in: round) }
        let layout = try layout(of: record.runId)
        return UploadTerms(
            assignmentID: id,
            runID: record.runId,
            spoolPath: blobs.spoolPath("\(id)-\(Secrets.identifier("up")).part"),
            byteLimit: min(
                configuration.modelByteLimit,
                layout.parameterCount * 4 + (64 << 10) + SafetensorsHeader.headerByteLimit
            ),
            layout: layout,
            baseSHA256: run.versions[record.round - 1].sha256,
            valueBound: run.specification.aggregation.valueBound,
            exampleCap: run.specification.aggregation.exampleCap,
            acceptedSHA256: record.updateSha256
        )
    }

    private func requireLive(_ record: AssignmentRecord, in round: RoundRecord) throws {
        if record.state == .assigned && round.phase.isCollecting && round.number == record.round
            && round.attempt == record.attempt && record.deadline >= now
        {
            return
        }
        switch record.state {
        case .rejected, .failed:
            throw CoordinationError(.conflict, "assignment_ended", "the assignment ended as \(record.state.rawValue)")
        case .superseded where round.phase == .aggregating || round.phase == .committed:
            throw CoordinationError(.gone, "round_full", "the round has all the updates that it wants")
        default: throw CoordinationError(.gone, "round_closed", "the round no longer waits for this update")
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
        guard var round = runs[record.runId]?.round else {
            throw CoordinationError(.gone, "round_closed", "the round has ended")
        }
        try requireLive(record, in: round)
        try BlobStore.renameDurably(update.path, to: blobs.spoolPath(id + ".update"))
        record.state = .accepted
        record.updateSha256 = update.sha256
        record.updateBytes = update.byteCount
        record.exampleCount = update.exampleCount
        round.accepted += 1
        round.bytesUp += update.byteCount
        round.exampleCount += update.exampleCount
        try commit([.assignment(record), .round(round)])
        lastSeen[client] = now
        try closeIfComplete(run: record.runId)
        return receipt(record)
    }

    /// Notes that an update was refused for its contents; the slot is free again.
    package func rejectUpdate(assignment id: String, client: String, code: String) throws {
        try end(assignment: id, client: client, as: .rejected, code: code)
    }

    /// Notes that the client could not do the work.
    package func reportFailure(assignment id: String, client: String, _ report: FailureReport) throws {
        try end(assignment: id, client: client, as: .failed, code: report.code)
    }

    private func end(assignment id: String, client: String, as state: AssignmentState, code: String) throws {
        var record = try ownAssignment(id, client: client)
        if record.state == state && record.code == code { return }
        guard record.state == .assigned, var round = runs[record.runId]?.round else {
            throw CoordinationError(.conflict, "assignment_ended", "the assignment ended as \(record.state.rawValue)")
        }
        record.state = state
        record.code = code
        if state == .rejected { round.rejected += 1 } else { round.failed += 1 }
        try commit([.assignment(record), .round(round)])
        wakeAll()
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
