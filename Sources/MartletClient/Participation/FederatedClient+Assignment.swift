import Crypto
import DifferentialPrivacy
import Foundation
import MartletTransport
import Tensors
import TrainerInterface
import UpdateCompression
import WireFormat

extension FederatedClient {
    /// Does an assignment that was handed out.
    func perform(_ assignment: Assignment) async throws -> ParticipationOutcome {
        try notePlace(of: assignment)
        tell(
            .assigned(
                run: assignment.run.text,
                round: assignment.round,
                evaluates: assignment.kind == .evaluate
            )
        )
        if let code = log.code(of: assignment.id.text) { return try await reportAgain(assignment, code) }
        let isPrivate = assignment.privacy.mode != .none
        let (ledger, unneeded) = try await whileGivingSigns(of: assignment, phase: .downloading) {
            LedgerJudgement(
                refusal: try await self.ledgerRefusal(
                    assignment.ledgerHead,
                    isPrivate: isPrivate,
                    seconds: assignment.deadline.seconds
                )
            )
        }
        guard let ledger else { return ended(assignment, unneeded) }
        if let refusal = ledger.refusal {
            lastRefusal = refusal
            return try await fail(assignment, .init(code: .privacyRefused), code: "ledger_forked", reason: refusal)
        }
        KeptReport.prune(state.files, now: retry.now())
        let report = KeptReport(assignment, files: state.files, now: retry.now())
        let standing = try standing(of: report)
        if let refusal = try state.ledger().refusal(of: assignment, policy: policy, paidBy: standing.payer) {
            return try await refuse(assignment, refusal)
        }
        // Whatever the data are: later it would tell what they gave.
        guard !isPrivate || trainer.canRehearse else {
            return try await refuse(assignment, DataAnswer<Never>.needsRehearsal)
        }
        switch standing {
        case .none, .begun: break
        case .refused(let reason):
            // The server gives its place to others, and this device no further turn.
            return try await fail(assignment, .init(code: .notEligible), reason: reason)
        case .made(let note):
            guard let report else { break }
            return try await sendAgain(assignment, report, note)
        }
        tell(.phase(.downloading))
        do {
            let (fetched, unwanted) = try await whileGivingSigns(of: assignment, phase: .downloading) {
                let model = try await self.model(of: assignment)
                let instructions = try await self.instructions(for: assignment)
                let controls = try await self.controls(for: assignment, layout: model.layout)
                try await self.makeRoom(for: assignment)
                return Fetched(model: model, instructions: instructions, controls: controls)
            }
            guard let fetched else { return ended(assignment, unwanted) }
            tell(.phase(.training))
            return try await assignment.kind == .evaluate
                ? evaluate(assignment, fetched) : train(assignment, fetched, report)
        } catch {
            return try await end(assignment, after: error)
        }
    }

    private struct LedgerJudgement: Sendable {
        var refusal: String?
    }

    private struct Fetched: Sendable {
        var model: ParameterVector
        var instructions: TrainingInstructions
        var controls: ControlVariateStep?
    }

    /// Remembers the generation that came with an assignment, before anything is done for it.
    private func notePlace(of assignment: Assignment) throws {
        guard let generation = assignment.stateGeneration else { return }
        if generation != log.generation {
            var next = log
            next.generation = generation
            try state.files.write(AssignmentLog.file, next)
            log = next
        }
        try noteGeneration(generation)
    }

    private func ended(_ assignment: Assignment, _ code: String) -> ParticipationOutcome {
        end(
            assignment.id.text,
            run: assignment.run.text,
            round: assignment.round,
            code: code,
            reason: "the server no longer waits for this work: \(code.replacing("_", with: " "))"
        )
        return .ended(EndingReason(code: code))
    }

    /// Sees to it that what is kept between rounds stays within the owner's limit, before anything is trained.
    private func makeRoom(for assignment: Assignment) throws {
        let vector = 4 * assignment.tensors.parameterCount
        // A control variate is there twice while its round is open.
        let byteCount =
            (assignment.training.usesControlVariates ? 2 * vector : 0)
            + (assignment.training.encoding == .topk ? vector : 0)
        guard assignment.kind == .train, byteCount > 0 else { return }
        let removed = try RunFiles(files: state.files, limits: limits).makeRoom(
            for: assignment.run,
            byteCount: byteCount
        )
        guard !removed.isEmpty else { return }
        notify(
            .init(
                kind: .state,
                message: "to make room for run \(assignment.run.text), what was kept between rounds is removed of: "
                    + removed.map(\.text).joined(separator: ", ")
            )
        )
    }

    /// Trains, and sends what comes of it.
    private func train(
        _ assignment: Assignment,
        _ fetched: Fetched,
        _ report: KeptReport?
    ) async throws -> ParticipationOutcome {
        let feedback = try ErrorFeedback(
            run: assignment.run,
            files: state.files,
            parameterCount: assignment.tensors.parameterCount
        )
        let (trainer, files) = (trainer, state.files)
        let path = files.temporaryPath(ClientState.updateFile)
        let charge = LedgerCharge(assignment, files: files, report: report)
        let earlierTries = try noteTry(assignment)
        defer { noteTryEnded(assignment) }
        let (prepared, unwanted) = try await whileGivingSigns(of: assignment, phase: .training) {
            [arithmetic, whenHeld] in
            try await arithmetic.run(
                cancelling: fetched.instructions.cancellation,
                closing: charge,
                whenHeld: whenHeld
            ) {
                do {
                    let update = try await PreparedUpdate(
                        assignment,
                        model: fetched.model,
                        trainer: trainer,
                        instructions: fetched.instructions,
                        controls: fetched.controls,
                        feedback: feedback,
                        earlierTries: earlierTries,
                        path: path,
                        beforeNoise: charge.record
                    )
                    try charge.check()
                    return update
                } catch {
                    try? FileManager.default.removeItem(atPath: path)
                    throw error
                }
            }
        }
        guard let prepared else {
            try? FileManager.default.removeItem(atPath: path)
            return ended(assignment, unwanted)
        }
        lastShortfall = prepared.shortfall
        noteTryEnded(assignment, isDone: prepared.shortfall == nil)
        // The note comes last: nothing is sent of which there is none, and what it names is complete.
        try files.failpoint()
        let kept = try report?.complete(path, digest: prepared.digest, control: prepared.control)
        if kept == nil { try files.rename(path, to: ClientState.updateFile) }
        if let control = prepared.control { try files.write(ControlVariateFile.unsent, data: control) }
        if let feedback = prepared.feedback { try files.write(ClientState.residualFile, data: feedback.data) }
        var pending = note(of: assignment, digest: prepared.digest)
        pending.controlRun = prepared.control.map { _ in assignment.run.text }
        pending.file = report.map(\.bytesName)
        pending.payer = kept?.event.assignment
        pending.residualFile = prepared.feedback.map { _ in StateFileName.residual(assignment.run) }
        try files.write(ClientState.pendingFile, pending)
        return try await upload(pending)
    }

    /// What there is of a report; a damaged note is put aside, and what comes then is paid for anew.
    private func standing(of report: KeptReport?) throws -> KeptReport.Standing {
        guard let report else { return .none }
        do { return try report.standing() } catch let error as ClientError where error.isStateDamaged {
            let name = try report.setAside(in: state, at: retry.now())
            notify(.init(kind: .state, message: "\(error.message); it is now \(name)"))
            return .none
        }
    }

    /// Sends a report that was made for an earlier turn, or for an earlier attempt at the round.
    private func sendAgain(
        _ assignment: Assignment,
        _ report: KeptReport,
        _ note: KeptReport.Note
    ) async throws -> ParticipationOutcome {
        do {
            let files = state.files
            try report.renew(note)
            var ledger = try state.ledger()
            if ledger.record(note.event) { try files.write(ClientState.ledgerFile, ledger) }
            var pending = self.note(of: assignment, digest: Data())
            pending.sha256 = note.sha256 ?? ""
            pending.file = report.bytesName
            pending.payer = note.event.assignment
            if note.hasControl == true, let control = try report.control() {
                try files.write(ControlVariateFile.unsent, data: control)
                pending.controlRun = assignment.run.text
            }
            try files.write(ClientState.pendingFile, pending)
            return try await upload(pending)
        } catch {
            return try await end(assignment, after: error)
        }
    }

    /// Measures the model on the device's held-out data and sends the sums, which are on disk before.
    private func evaluate(_ assignment: Assignment, _ fetched: Fetched) async throws -> ParticipationOutcome {
        let (trainer, files) = (trainer, state.files)
        let charge = LedgerCharge(assignment, files: files)
        let earlierTries = try noteTry(assignment)
        defer { noteTryEnded(assignment) }
        let (answer, unwanted) = try await whileGivingSigns(of: assignment, phase: .training) {
            [arithmetic, whenHeld] in
            try await arithmetic.run(
                cancelling: fetched.instructions.cancellation,
                closing: charge,
                whenHeld: whenHeld
            ) {
                try await DataAnswer(
                    .evaluate,
                    of: assignment,
                    by: trainer,
                    model: fetched.model,
                    instructions: fetched.instructions,
                    earlierTries: earlierTries
                ) {
                    let metrics = try await TrainerFailure.catching {
                        try await trainer.evaluate(model: fetched.model, instructions: fetched.instructions)
                    }
                    guard metrics.tokens > 0, metrics.nll.isFinite else { throw LocalTrainingError.noData }
                    return metrics
                }
            }
        }
        guard let answer else { return ended(assignment, unwanted) }
        lastShortfall = answer.shortfall
        noteTryEnded(assignment, isDone: answer.shortfall == nil)
        let metrics = answer.value ?? TrainingMetrics()
        let bytes: Data
        if let release = assignment.release {
            // Only what is published leaves the device, and its cost is on disk before. The number of examples is not: a
            // client counts as one, or as none where its data gave nothing; and no number is one that the server would refuse.
            try charge.record()
            let sums = MetricSums.released(
                answer.value == nil ? [:] : metrics.sums,
                exampleCount: metrics.tokens,
                for: release.metrics,
                lossBound: release.lossBound
            )
            bytes = try EvaluationResult(numExamples: answer.value == nil ? 0 : 1, metrics: sums).privateDocument()
        } else {
            bytes = try WireCoding.encode(EvaluationResult(numExamples: metrics.tokens, metrics: metrics.sums))
        }
        try files.write(ClientState.updateFile, data: bytes)
        var pending = note(of: assignment, digest: Data(SHA256.hash(data: bytes)))
        pending.contentType = "application/json"
        try files.write(ClientState.pendingFile, pending)
        return try await upload(pending)
    }

    /// Says that this work waits for a place that cancelled work holds.
    private var whenHeld: @Sendable (Int) -> Void {
        { [notify] count in
            notify(
                .init(
                    kind: .state,
                    message:
                        "training waits: \(count) cancelled \(count == 1 ? "trainer goes" : "trainers go") on all the same and "
                        + "\(count == 1 ? "holds its place" : "hold their places"); a trainer must look at its cancellation"
                )
            )
        }
    }

    /// Notes that a private assignment's work begins.
    ///
    /// - Returns: How often the process died in the middle of this run's work, in whichever assignment: one that always dies must not
    ///   do so in every round, which would show. From the third time on not even made-up records are worked on.
    private func noteTry(_ assignment: Assignment) throws -> Int {
        guard assignment.isPrivate else { return 0 }
        var note = try state.files.readIfWhole(ClientState.Attempt.file, ClientState.Attempt.self)
        let run = assignment.run.text
        var deaths = note?.deaths ?? [:]
        if let open = note, open.count > 0 {
            // What is still noted as begun did not end.
            let died = open.run ?? run
            deaths[died] = max(open.count, (deaths[died] ?? 0) + 1)
        }
        if deaths.count > 64, let first = deaths.keys.filter({ $0 != run }).min() { deaths[first] = nil }
        note = ClientState.Attempt(assignment: assignment.id.text, count: 1, run: run, deaths: deaths)
        try state.files.write(ClientState.Attempt.file, note)
        return deaths[run] ?? 0
    }

    /// Notes that the work has ended, however, with the process alive; where it was done, earlier deaths are forgotten.
    private func noteTryEnded(_ assignment: Assignment, isDone: Bool = false) {
        guard assignment.isPrivate,
            var note = (try? state.files.read(ClientState.Attempt.file, ClientState.Attempt.self)) ?? nil,
            note.count > 0
        else { return }
        note.count = 0
        if isDone { note.deaths?[assignment.run.text] = nil }
        // Where this fails the next work takes it for a death: then it is done on made-up records once too often.
        try? state.files.write(ClientState.Attempt.file, note)
    }

    private func note(of assignment: Assignment, digest: Data) -> ClientState.PendingUpload {
        ClientState.PendingUpload(
            assignment: assignment.id.text,
            updateUrl: assignment.updatePath.text,
            sha256: digest.base64EncodedString(),
            run: assignment.run.text,
            round: assignment.round,
            deadline: retry.now().timeIntervalSince1970 + assignment.deadline.seconds,
            isPrivate: assignment.isPrivate
        )
    }

    /// Works while heartbeats keep the lease; what is done within a third of it needs none.
    ///
    /// - Parameters:
    ///   - assignment: The work.
    ///   - phase: What the server is told of it.
    ///   - work: What is done meanwhile; cancelled when the server says that the work is no longer wanted.
    /// - Returns: The result; `nil` with the server's code when the work is no longer wanted, however it ended.
    /// - Throws: The work's error.
    private func whileGivingSigns<Result: Sendable>(
        of assignment: Assignment,
        phase: WorkPhase,
        _ work: @escaping @Sendable () async throws -> Result
    ) async throws -> (result: Result?, code: String) {
        try await whileGivingSigns(
            of: assignment.id,
            leaseSeconds: assignment.lease?.seconds,
            // With privacy a sign of life says no more than that.
            phase: assignment.isPrivate ? nil : phase,
            work
        )
    }

    /// As above, with the id alone; `prefersResult` says that a result counts although the work is over by now.
    func whileGivingSigns<Result: Sendable>(
        of id: AssignmentID,
        leaseSeconds: Double?,
        phase: WorkPhase?,
        prefersResult: Bool = false,
        _ work: @escaping @Sendable () async throws -> Result
    ) async throws -> (result: Result?, code: String) {
        let task = Task { try await work() }
        let pulse = Task { () -> String in
            let seconds = max(0.5, (leaseSeconds ?? 60) / 3)
            while true {
                try await Task.sleep(for: .seconds(seconds))
                do {
                    let target = Endpoints.heartbeat(AssignmentReference(id))
                    _ = try await self.call(target, HeartbeatRequest(phase: phase)) {
                        try ServerAnswer.read($0, of: "answer to a sign of life", HeartbeatAnswer.read)
                    }
                } catch let error as ClientError where error.verdict == .workIsOver {
                    task.cancel()
                    return error.code
                } catch is ClientError {
                    // The server is away or the answer was lost: the next sign may arrive.
                }
            }
        }
        let outcome = await withTaskCancellationHandler {
            await task.result
        } onCancel: {
            task.cancel()
            pulse.cancel()
        }
        pulse.cancel()
        let code = try? await pulse.value
        if let code, !prefersResult { return (nil, code) }
        if let code, case .failure = outcome { return (nil, code) }
        return (try outcome.get(), "")
    }
}
