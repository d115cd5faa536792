import DifferentialPrivacy
import Foundation
import MartletTransport
import StrictJSON
import Tensors
import TrainerInterface
import WireFormat

extension FederatedClient {
    func refuse(_ assignment: Assignment, _ reason: String) async throws -> ParticipationOutcome {
        // The reason stays here: the device's running total and how often it took part are its own, and other servers' runs
        // are in them.
        lastRefusal = reason
        return try await fail(assignment, .init(code: .privacyRefused), reason: reason)
    }

    /// Ends an assignment that came to nothing on this device, and tells the server; the owner reads the reason.
    func fail(
        _ assignment: Assignment,
        _ report: FailureReport,
        code: String? = nil,
        reason: String
    ) async throws -> ParticipationOutcome {
        let code = code ?? report.code.rawValue
        end(assignment.id.text, run: assignment.run.text, round: assignment.round, code: code, reason: reason)
        // Remembered before it is reported: should the report be lost, the server hands the same work out again, and it is
        // reported again and not done again.
        do { try remember(assignment.id.text, code: code) } catch let error as ClientError {
            // A full disk keeps nothing; the report frees the place all the same.
            guard ClientError.localCodes.contains(error.code) else { throw error }
            hasStorageTrouble = true
        }
        var told = report
        // In a private run without a word: what a device says beside the code could depend on its data.
        if assignment.isPrivate { told.detail = nil }
        try await self.report(told, for: assignment.id)
        return .ended(EndingReason(code: code))
    }

    /// Says again how work ended that this device has ended before.
    func reportAgain(_ assignment: Assignment, _ code: String) async throws -> ParticipationOutcome {
        lastReason = "this device has done this work before, and it ended with \(code)"
        // Endings that are no failures of this device mean to the server that it gives the place back.
        try await report(.init(code: FailureCode(rawValue: code) ?? .cancelled), for: assignment.id)
        return .ended(EndingReason(code: code))
    }

    /// Ends an assignment that is not what the protocol allows: reported where it has an id.
    ///
    /// The server is told the field's pointer; none of the device's data is in it.
    func refuseUnfit(
        _ id: AssignmentID?,
        _ error: ClientError,
        field: String? = nil,
        run: RunID? = nil,
        round: Int = 0
    ) async throws -> ParticipationOutcome {
        lastRefusal = error.message
        end(id?.text ?? "", run: run?.text ?? "", round: round, code: error.code, reason: error.message)
        guard let id else { return .ended(EndingReason(code: error.code)) }
        try remember(id.text, code: error.code)
        let detail = error.code + (field.map { ": " + PrintableText.escaped($0, limit: 200) } ?? "")
        try await report(.init(code: .trainingFailed, detail: detail), for: id)
        return .ended(EndingReason(code: error.code))
    }

    func report(_ report: FailureReport, for assignment: AssignmentID) async throws {
        var report = report
        report.detail = report.detail.map { String($0.prefix(500)) }
        do {
            try await call(
                Endpoints.failure(AssignmentReference(assignment)),
                report,
                passing: { $0.status == 204 ? () : nil },
                reading: { _ in
                    throw ClientError(code: "unexpected", message: "a failure report is answered without a body")
                }
            )
        } catch let error as ClientError where [.workIsOver, .workCannotBeDelivered].contains(error.verdict) {
            // The round ended in the meantime: there is nothing left to free.
        }
    }

    /// Remembers that an assignment has ended.
    func remember(_ assignment: String, code: String) throws {
        guard log.code(of: assignment) != code else { return }
        var next = log
        next.end(assignment, code: code)
        try state.files.write(AssignmentLog.file, next)
        log = next
    }

    /// Tells the device's owner of an ending.
    func end(_ assignment: String, run: String, round: Int, code: String, reason: String?) {
        lastReason = reason
        EndingsFile(files: state.files)
            .add(assignment: assignment, run: run, round: round, code: code, reason: reason, at: retry.now())
    }

    /// Ends an assignment after an error, or throws it where the work may go on later.
    func end(_ assignment: Assignment, after error: any Error) async throws -> ParticipationOutcome {
        if error is CancellationError || Task.isCancelled { throw CancellationError() }
        let isOpen = assignment.privacy.mode == .none
        let error = (error as? SetupFailure)?.failure ?? error
        switch error {
        case let error as LocalTrainingError:
            return try await fail(
                assignment,
                .init(code: error.failureCode, detail: error.serverDetail),
                reason: error.ownerSentence
            )
        case let error as ExternalTrainerError:
            // The server is told the rule; the trainer's own words stay on the device.
            return try await fail(
                assignment,
                .init(code: error.failure, detail: "external trainer: \(error.rule.rawValue)"),
                reason: error.description
            )
        case let error as TrainerFailure:
            return try await fail(
                assignment,
                .init(code: .trainingFailed, detail: isOpen ? "the trainer failed with \(error.type)" : nil),
                reason: "the trainer failed: \(error.words)"
            )
        case let error as PrivacyError:
            return try await fail(assignment, .init(code: .trainingFailed, detail: "\(error)"), reason: "\(error)")
        case let error as ClientError where [ClientError.serverInvalid, "digest_mismatch"].contains(error.code):
            return try await refuseUnfit(assignment.id, error, run: assignment.run, round: assignment.round)
        case let error as SafetensorsError where error.isOfContents:
            return try await refuseUnfit(
                assignment.id,
                ClientError(invalid: PrintableText.escaped("the model cannot be read: \(error)", limit: 300)),
                run: assignment.run,
                round: assignment.round
            )
        case let error as ModelConfigurationError:
            return try await refuseUnfit(
                assignment.id,
                ClientError(invalid: PrintableText.escaped(error.description, limit: 300)),
                field: "/architecture/config" + error.pointer,
                run: assignment.run,
                round: assignment.round
            )
        case let error as ClientError where ["model_mismatch"].contains(error.code):
            return try await fail(
                assignment,
                .init(code: .trainingFailed, detail: error.message),
                reason: error.message
            )
        case let error as ClientError where error.verdict != nil && error.verdict != .clientIsOut:
            // What the work needs is refused for good, such as a model that is gone.
            return try await fail(
                assignment,
                .init(code: .trainingFailed, detail: error.code),
                code: error.code,
                reason: error.message
            )
        default:
            guard let local = LocalFailure.error(error, state.directory) else { throw error }
            hasStorageTrouble = true
            // The note of a finished update is there, or may be: it is sent when the disk is well again, and not made anew.
            if (try? state.files.exists(ClientState.pendingFile)) != false { throw local }
            return try await fail(
                assignment,
                .init(code: .trainingFailed, detail: local.code),
                code: local.code,
                reason: local.message
            )
        }
    }
}

/// What a trainer threw that none of ours throws, apart from errors of the network and of this device that have the same types.
struct TrainerFailure: Error {
    /// What the trainer said, for the device's owner.
    let words: String
    let type: String

    init(_ error: any Error) {
        type = "\(Swift.type(of: error))"
        words = ErrorWords.of(error)
    }

    /// Runs a trainer; errors with a meaning of their own go through.
    static func catching<Result>(_ body: () async throws -> Result) async throws -> Result {
        do { return try await body() } catch {
            if error is LocalTrainingError || error is ExternalTrainerError || error is SetupFailure { throw error }
            // A trainer that says itself that this device's disk is to blame.
            if let local = error as? ClientError, ClientError.localCodes.contains(local.code) { throw local }
            throw TrainerFailure(error)
        }
    }
}
