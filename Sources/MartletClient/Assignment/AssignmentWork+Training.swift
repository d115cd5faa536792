import Crypto
import Foundation
import SecureAggregation
import TrainerInterface
import WireFormat

extension AssignmentWork {
    /// Trains, and sends what comes of it.
    func train(
        _ fetched: Fetched,
        _ report: KeptReport?,
        _ session: HelperSession?
    ) async throws -> ParticipationOutcome {
        let feedback = try ErrorFeedback(
            run: assignment.run,
            files: files,
            parameterCount: assignment.tensors.parameterCount
        )
        let path = files.temporaryPath(ClientState.updateFile)
        let charge = LedgerCharge(assignment, files: files, report: report, session: session)
        let earlierTries = try WorkTries.begin(assignment, files: files)
        defer { WorkTries.end(assignment, isDone: false, files: files) }
        let (assignment, trainer, failpoint) = (assignment, device.trainer, files.failpoint)
        let work = try await whileHeld(fetched.instructions, charge) {
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
                    session: session,
                    failpoint: failpoint,
                    beforeNoise: charge.record
                )
                try charge.check()
                return update
            } catch {
                try? FileManager.default.removeItem(atPath: path)
                throw error
            }
        }
        switch work {
        case .unwanted(let code):
            try? FileManager.default.removeItem(atPath: path)
            return unwanted(code)
        case .done(let prepared):
            note(prepared.shortfall)
            return try await keep(prepared, path, report, session).deliver()
        }
    }

    /// Keeps a finished update and what hangs on it.
    ///
    /// The note comes last: nothing is sent of which there is none, and what it names is complete.
    private func keep(
        _ prepared: PreparedUpdate,
        _ path: String,
        _ report: KeptReport?,
        _ session: HelperSession?
    ) throws -> PendingDelivery {
        try files.failpoint()
        let kept = try report?.complete(path, digest: prepared.digest, control: prepared.control)
        if kept == nil { try files.rename(path, to: ClientState.updateFile) }
        if let control = prepared.control { try files.write(ControlVariateFile.unsent, data: control) }
        if let feedback = prepared.feedback { try files.write(ClientState.residualFile, data: feedback.data) }
        var note = deliveryNote(sha256: prepared.digest.base64EncodedString())
        note.controlRun = prepared.control.map { _ in assignment.run.text }
        note.file = report.map(\.bytesName)
        note.payer = kept?.event.assignment
        note.residualFile = prepared.feedback.map { _ in StateFileName.residual(assignment.run) }
        note.contentType = session.map { _ in MaskedUpdateFile.mediaType }
        note.helper = session?.key.hexadecimal
        return try PendingDelivery(note, of: assignment, on: device)
    }

    /// Sends a report that was made for an earlier turn, or for an earlier attempt at the round.
    func sendAgain(_ report: KeptReport, _ made: KeptReport.Note) async throws -> ParticipationOutcome {
        do {
            try report.renew(made)
            var ledger = try device.state.ledger()
            if ledger.record(made.event) { try files.write(.ledger, ledger) }
            var note = deliveryNote(sha256: made.sha256 ?? "")
            note.file = report.bytesName
            note.payer = made.event.assignment
            if made.hasControl == true, let control = try report.control() {
                try files.write(ControlVariateFile.unsent, data: control)
                note.controlRun = assignment.run.text
            }
            return try await PendingDelivery(note, of: assignment, on: device).deliver()
        } catch {
            return try await end(after: error)
        }
    }

    /// Measures the model on the device's held-out data and sends the sums, which are on disk before.
    func evaluate(_ fetched: Fetched) async throws -> ParticipationOutcome {
        let charge = LedgerCharge(assignment, files: files)
        let earlierTries = try WorkTries.begin(assignment, files: files)
        defer { WorkTries.end(assignment, isDone: false, files: files) }
        let (assignment, trainer) = (assignment, device.trainer)
        let work = try await whileHeld(fetched.instructions, charge) {
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
        let answer: DataAnswer<TrainingMetrics>
        switch work {
        case .unwanted(let code): return unwanted(code)
        case .done(let done): answer = done
        }
        note(answer.shortfall)
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
        var note = deliveryNote(sha256: Data(SHA256.hash(data: bytes)).base64EncodedString())
        note.contentType = "application/json"
        return try await PendingDelivery(note, of: assignment, on: device).deliver()
    }

    // MARK: - Shared by training and measuring

    /// Runs work of the trainer when it has its turn, while heartbeats keep the lease.
    private func whileHeld<Result: Sendable>(
        _ instructions: TrainingInstructions,
        _ charge: LedgerCharge,
        _ work: @escaping @Sendable () async throws -> Result
    ) async throws -> LeasedWork<Result> {
        let (arithmetic, voice) = (device.arithmetic, device.voice)
        return try await keepingLease(.training) {
            try await arithmetic.run(
                cancelling: instructions.cancellation,
                closing: charge,
                whenHeld: { count in
                    voice.notify(
                        ofState:
                            "training waits: \(count) cancelled \(count == 1 ? "trainer goes" : "trainers go") on all the same and "
                            + "\(count == 1 ? "holds its place" : "hold their places"); a trainer must look at its cancellation"
                    )
                },
                work
            )
        }
    }

    /// Notes that the work was done, and why the data gave nothing to it where they did not.
    private func note(_ shortfall: String?) {
        device.status.shortfall = shortfall.map { OwnerSentence($0) }
        WorkTries.end(assignment, isDone: shortfall == nil, files: files)
    }

    private func deliveryNote(sha256: String) -> PendingDelivery.Note {
        PendingDelivery.Note(
            assignment: assignment.id.text,
            updateUrl: assignment.updatePath.text,
            sha256: sha256,
            run: assignment.run.text,
            round: assignment.round,
            deadline: device.now.timeIntervalSince1970 + assignment.deadline.seconds,
            isPrivate: assignment.isPrivate
        )
    }
}
