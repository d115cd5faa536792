import Foundation
import Logging
import SecureAggregation
import StrictJSON
import Tensors
import WireFormat

/// Protected rounds: the helper is asked for a session before a round opens, for a sum when it closes, and told when it is over.
///
/// Nothing of the helper's runs in the coordinator's queue, and each step is stored before the next: a stop at any of them goes on with
/// the same session and the same list, for which the helper gives the same bytes.
extension Coordinator {
    // MARK: - Opening

    /// The session of an attempt that is about to open; `nil` while it is not there, and then the helper is asked.
    ///
    /// - Throws: ``CoordinationError`` where no session can be asked for.
    func sessionForOpening(_ round: RoundRecord, of run: RunState) throws -> ProtectedSessionRecord? {
        protection.keepOnly(round)
        if let session = protection.session(of: round) { return session }
        let id = run.record.id
        guard protection.mayAsk(id, at: now) else { return nil }
        guard let helper = configuration.helper else {
            wait(run: id, "this server names no helper: set helper_url, helper_token_file and helper_key")
            return nil
        }
        // A second attempt would be a second sum of one round.
        guard !run.sessions.contains(where: { $0.round == round.number && $0.state.isOwed }) else { return nil }
        let request = try sessionRequest(for: round, of: run)
        let domain = run.specification.protection?.domain ?? ""
        protection.beginAsking(for: round)
        Task {
            let result: Result<ProtectedSessionRecord, any Error>
            do {
                let view = try await helper.party.createSession(request)
                result = .success(
                    try ProtectedSessionRecord(verifying: view, of: request, domain: domain, by: helper.key)
                )
            } catch {
                result = .failure(error)
            }
            self.takeGrant(for: round, result)
        }
        return nil
    }

    private func takeGrant(for round: RoundRecord, _ result: Result<ProtectedSessionRecord, any Error>) {
        let id = round.runId
        if case .failure(let error) = result, (error as? HelperFailure)?.is(.attemptConflict) == true {
            protection.noteConflict(round)
        }
        switch result {
        case .success(let session):
            protection.take(session)
            if runs[id]?.isOver ?? true { return protection.withdraw(id) }
            takeNextStep(run: id)
        case .failure(let error): wait(run: id, ErrorSentence.text(of: error))
        }
    }

    /// Lets a run wait for its helper.
    private func wait(run id: String, _ reason: String) {
        let isFirst = protection.wait(id, reason: reason, at: now)
        logger.log(
            level: isFirst ? .error : .info,
            "A round waits for the helper",
            metadata: ["run.id": "\(id)", "reason": "\(reason)"]
        )
    }

    /// What the helper is asked for: the same bytes for the same attempt, whenever it is asked.
    private func sessionRequest(for round: RoundRecord, of run: RunState) throws -> HelperSessionRequest {
        let specification = run.specification
        let count = try uploadLayout(of: run.record.id).parameterCount
        guard let grid = try specification.protectionGrid(coordinateCount: count), let base = run.versions.last else {
            throw CoordinationError(.conflict, "model_missing", "the run has no model yet")
        }
        let cohort = specification.cohort
        let seconds = 2 * (cohort.selectionTimeoutS + cohort.reportTimeoutS) + 2 * 86_400
        return HelperSessionRequest(
            purpose: .training,
            run: run.record.id,
            round: round.number,
            attempt: round.attempt,
            model: base.sha256,
            instructions: try instructions(of: round),
            bits: Int(grid.width.rawValue),
            coordinates: grid.coordinateCount,
            step: grid.step,
            coordinateBound: Int(grid.coordinateBound),
            norm: Int(grid.norm),
            noise: grid.noise == .none ? .none : .gaussian,
            noiseDeviation: grid.noiseDeviation,
            measure: .l2,
            minimum: max(1, cohort.minimum),
            maximum: specification.protectedMaximum,
            maxParticipations: specification.protectedParticipations,
            expiresInS: min(HelperSessionRequest.longestSeconds, Int(seconds))
        )
    }

    /// The hash of the instructions that every device of the attempt gets, read back as a device reads them.
    private func instructions(of round: RoundRecord) throws -> String {
        let sample = AssignmentRecord(id: "asg_0", of: round, client: "", at: now, deadline: now, turn: 1)
        let run = try runs.run(round.runId)
        let body = try body(of: sample, protection: run.specification.protection.map { .placeholder(of: $0) })
        let document = try JSONValue(parsing: Array(WireCoding.encode(body)))
        return try Assignment.read(document, modelByteLimit: .max).instructionsHash().hexadecimal
    }

    /// What a run without an open round waits for, if it is the helper.
    func helperReason(_ run: RunState) -> String? {
        guard run.specification.isProtected, run.round?.phase.isFinal ?? true else { return nil }
        if let reason = protection.reason(run.record.id, at: now) { return reason }
        return run.sessions.contains { $0.state == .abandoned }
            ? "the helper to be told that the last attempt is over" : nil
    }

    // MARK: - The sum

    /// Charges a closed round, asks for its sum, and computes the next model.
    func startProtectedSum(
        _ run: RunState,
        _ round: RoundRecord,
        _ base: ModelVersionRecord,
        _ known: ProtectedSessionRecord
    ) {
        let id = run.record.id
        do {
            // Of a run that was cancelled nothing is charged, and no sum is asked for.
            guard !run.isOver else { throw CancellationError() }
            let all = runs.counted(run)
            guard all.count == round.accepted else { throw Self.countDiffers(round, all) }
            guard let helper = configuration.helper else {
                throw HelperFailure(code: "helper_missing", message: "this server names none", isTemporary: true)
            }
            let session = try charging(run, round, known)
            let excluded = session.excludedAssignments
            let counted = all.filter { !excluded.contains($0.id) }
            guard counted.count >= max(1, run.terms(of: round).minimum) else {
                return try abandon(
                    run: id,
                    reason:
                        "too few updates: \(excluded.count) seeds did not open, and \(counted.count) updates are left"
                )
            }
            let work = try protectedArithmetic(of: run, round, base, counted)
            publication.begin(id)
            sum(round, session, work, helper)
        } catch {
            finish(round, .failure(error))
        }
    }

    /// Commits the round's own charge before anything leaves that a sum could be made of.
    private func charging(
        _ run: RunState,
        _ round: RoundRecord,
        _ known: ProtectedSessionRecord
    ) throws -> ProtectedSessionRecord {
        guard known.state == .open else { return known }
        var session = known
        session.state = .summing
        let count = budgets.ledger.rows.count
        var changes: [StoreChange] = [.protectedSession(session)]
        if run.specification.isPrivate {
            let row = try settle(run, round, as: .committed)
            var charged = round
            charged.epsilon = row.epsilonAfter
            changes += [.ledger(row), .round(charged)]
        }
        try commit(changes, ledgerCount: count)
        return session
    }

    /// What is computed when the helper's sum is there, and what it is made of.
    private struct ProtectedWork: Sendable {
        var job: AggregationJob
        var updates: [(assignment: String, path: String)]
        var file: MaskedUpdateFile
        var maskPath: String
    }

    private func protectedArithmetic(
        of run: RunState,
        _ round: RoundRecord,
        _ base: ModelVersionRecord,
        _ counted: [AssignmentRecord]
    ) throws -> ProtectedWork {
        let count = try uploadLayout(of: run.record.id).parameterCount
        guard let grid = try run.specification.protectionGrid(coordinateCount: count),
            let file = run.specification.maskedUpdateFile(coordinateCount: count)
        else { throw CoordinationError(.unprocessable, "protection_impossible", "the run is not protected") }
        var job = try aggregationJob(of: run, round, base, counted)
        let maskPath = blobs.spoolPath("\(round.runId)-\(round.number)-\(round.attempt).mask.part")
        job.protected = ProtectedSum(
            grid: grid,
            paths: job.updates.map(\.path),
            maskPath: maskPath,
            divisor: Double(run.specification.isPrivate ? run.specification.cohort.goal : counted.count)
        )
        return ProtectedWork(
            job: job,
            updates: job.updates.map { ($0.assignment.id, $0.path) },
            file: file,
            maskPath: maskPath
        )
    }

    /// List, helper's sum and arithmetic, away from the coordinator's queue.
    private func sum(
        _ round: RoundRecord,
        _ session: ProtectedSessionRecord,
        _ work: ProtectedWork,
        _ helper: HelperSetting
    ) {
        let queue = DispatchQueue.global(qos: .utility)
        Task { [metrics, blobs] in
            var order: [String] = []
            let result: Result<RoundResult, any Error>
            do {
                // A result that an earlier process has finished needs no helper.
                let known = try await queue.result { try work.job.verifiedEarlierOutcome() }
                if known == nil {
                    let list = try await queue.result { try ProtectedSum.list(of: work.updates, work.file) }
                    order = list.assignments
                    Failpoint.reach()
                    try await helper.party.makeSum(
                        session.session,
                        list: list.bytes,
                        byteCount: work.file.wordByteCount,
                        to: work.maskPath
                    )
                    Failpoint.reach()
                }
                result = .success(try await queue.result { try RoundArithmetic.model(work.job).run(metrics) })
            } catch {
                result = .failure(error)
            }
            blobs.removeAtOnce([work.maskPath])
            if case .failure(let error) = result, let refused = error as? HelperFailure, refused.namesSeeds {
                self.exclude(refused, order, round)
            } else {
                self.takeResult(of: round, result)
            }
        }
    }

    /// Leaves out the updates whose seeds do not open, and asks for the sum of the others.
    private func exclude(_ refused: HelperFailure, _ order: [String], _ round: RoundRecord) {
        publication.end(round.runId)
        guard isBeingSummed(round), let session = runs[round.runId]?.session(of: round) else { return }
        do {
            let names = Set(refused.entries.filter { order.indices.contains($0) }.map { order[$0] })
            guard !names.isEmpty, session.exclusionCount < ProtectedSessionRecord.exclusionLimit else {
                return try abandon(
                    run: round.runId,
                    reason: "the helper refused the list \(session.exclusionCount + 1) times: \(refused.message)"
                )
            }
            logger.warning(
                "Updates are left out, because the helper refuses their seeds",
                metadata: ["run.id": "\(round.runId)", "round.id": "\(round.number)", "count": "\(names.count)"]
            )
            try commit([.protectedSession(session.excluding(names))])
            startAggregation(run: round.runId)
        } catch {
            stall(run: round.runId, error)
        }
    }

    // MARK: - Ends

    /// Tells helpers of sessions that are over; called by each tick.
    func endOwedSessions() {
        for id in protection.opening where runs[id]?.isOver ?? true { protection.withdraw(id) }
        guard let helper = configuration.helper else { return }
        for session in protection.takeOwed(at: now) {
            Task {
                let failure = await Self.end(session, at: helper.party)
                self.noteEnd(of: session, failure)
            }
        }
    }

    /// Cancels a session, or deletes its sum.
    ///
    /// - Returns: Why it must be tried again; `nil` if the helper has nothing left of the session to end.
    private nonisolated static func end(
        _ session: ProtectedSessionRecord,
        at party: any HelperParty
    ) async -> (any Error)? {
        do {
            if session.state == .published {
                try await party.deleteSum(session.session)
            } else {
                do {
                    try await party.cancelSession(session.session)
                } catch let failure as HelperFailure where failure.is(.sessionSpent) {
                    try await party.deleteSum(session.session)
                }
            }
            return nil
        } catch let failure as HelperFailure where !failure.isTemporary {
            return nil
        } catch {
            return error
        }
    }

    private func noteEnd(of session: ProtectedSessionRecord, _ failure: (any Error)?) {
        protection.endTrying(session.session, at: now)
        if let failure {
            logger.info(
                "The helper could not be told that a session is over",
                metadata: ["run.id": "\(session.runId)", "reason": "\(ErrorSentence.text(of: failure))"]
            )
            return
        }
        var ended = session
        ended.state = .ended
        do {
            try commit([.protectedSession(ended)])
            takeNextStep(run: session.runId)
        } catch {
            // A tick tells the helper once more, which knows it.
            if let failure = StorageFailure(error) { storage.note(failure) }
        }
    }
}

extension AssignmentBody.Protection {
    /// Stands for document and grant where the instructions are hashed, which name neither.
    static func placeholder(of protection: RunSpecification.Protection) -> Self {
        .init(
            kind: protection.kind,
            bits: protection.bits,
            norm: protection.norm,
            document: Data(count: 1).base64EncodedString(),
            grant: Data(count: Assignment.Protection.grantByteCount).base64EncodedString()
        )
    }

    /// What devices get of a session.
    init(_ protection: RunSpecification.Protection, _ session: ProtectedSessionRecord) {
        self.init(
            kind: protection.kind,
            bits: protection.bits,
            norm: protection.norm,
            document: session.document,
            grant: session.grant
        )
    }
}
