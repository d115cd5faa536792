import DifferentialPrivacy
import Foundation
import MartletTransport
import SecureAggregation
import StrictJSON
import Tensors
import TrainerInterface
import WireFormat

extension AssignmentWork {
    /// Ends an assignment that the policy or the ledger of the device forbids.
    ///
    /// The reason stays here: the device's running total and how often it took part are its own, and other servers' runs are in
    /// them.
    func refuse(_ reason: String) async throws -> ParticipationOutcome {
        device.status.refusal = OwnerSentence(reason)
        return try await fail(.init(code: .privacyRefused), reason: reason)
    }

    /// Ends an assignment that came to nothing on this device, and tells the server; the owner reads the reason.
    func fail(_ report: FailureReport, code: String? = nil, reason: String) async throws -> ParticipationOutcome {
        let code = code ?? report.code.rawValue
        tellOwner(code, reason)
        // Remembered before it is reported: should the report be lost, the server hands the same work out again, and it is
        // reported again and not done again.
        do { try device.memory.remember(assignment.id, code: code) } catch let error as ClientError {
            // A full disk keeps nothing; the report frees the place all the same.
            guard ClientError.localCodes.contains(error.code) else { throw error }
            device.status.hasStorageTrouble = true
        }
        var told = report
        // In a private run without a word: what a device says beside the code could depend on its data.
        if assignment.isPrivate { told.detail = nil }
        try await device.session.report(told, for: assignment.id)
        return .ended(code: code)
    }

    /// Says again how work ended that this device has ended before.
    func reportAgain(_ code: String) async throws -> ParticipationOutcome {
        device.status.reason = OwnerSentence("this device has done this work before, and it ended with \(code)")
        // Endings that are no failures of this device mean to the server that it gives the place back.
        try await device.session.report(.init(code: FailureCode(rawValue: code) ?? .cancelled), for: assignment.id)
        return .ended(code: code)
    }

    /// Ends an assignment that the server wants no more.
    func unwanted(_ code: String) -> ParticipationOutcome {
        tellOwner(code, "the server no longer waits for this work: \(code.replacing("_", with: " "))")
        return .ended(code: code)
    }

    private func tellOwner(_ code: String, _ reason: String) {
        let (id, run) = (assignment.id.text, assignment.run.text)
        device.end(id, run: run, round: assignment.round, code: code, reason: reason)
    }

    private func refuseUnfit(_ error: ClientError, field: String? = nil) async throws -> ParticipationOutcome {
        try await device.refuseUnfit(
            assignment.id,
            error,
            field: field,
            run: assignment.run,
            round: assignment.round
        )
    }

    /// Ends an assignment after an error, or throws it where the work may go on later.
    func end(after error: any Error) async throws -> ParticipationOutcome {
        if error is CancellationError || Task.isCancelled { throw CancellationError() }
        let isOpen = assignment.privacy.mode == .none
        let error = (error as? SetupFailure)?.failure ?? error
        switch error {
        case let error as LocalTrainingError:
            return try await fail(
                .init(code: error.failureCode, detail: error.serverDetail),
                reason: error.ownerSentence
            )
        case let error as ExternalTrainerError:
            // The server is told the rule; the trainer's own words stay on the device.
            return try await fail(
                .init(code: error.failure, detail: "external trainer: \(error.rule.rawValue)"),
                reason: error.description
            )
        case let error as TrainerFailure:
            return try await fail(
                .init(code: .trainingFailed, detail: isOpen ? "the trainer failed with \(error.type)" : nil),
                reason: "the trainer failed: \(error.words)"
            )
        case let error as PrivacyError:
            return try await fail(.init(code: .trainingFailed, detail: "\(error)"), reason: "\(error)")
        case let error as SecureAggregationError:
            return try await fail(
                .init(code: .trainingFailed, detail: error.code.rawValue),
                reason: "the update could not be masked: \(error.description)"
            )
        case let error as ClientError where [ClientError.serverInvalid, "digest_mismatch"].contains(error.code):
            return try await refuseUnfit(error)
        case let error as SafetensorsError where error.isOfContents:
            return try await refuseUnfit(
                ClientError(invalid: PrintableText.escaped("the model cannot be read: \(error)", limit: 300))
            )
        case let error as ModelConfigurationError:
            return try await refuseUnfit(
                ClientError(invalid: PrintableText.escaped(error.description, limit: 300)),
                field: "/architecture/config" + error.pointer
            )
        case let error as ClientError where error.code == ClientError.modelMismatch:
            return try await fail(
                .init(code: .trainingFailed, detail: error.message),
                reason: error.message
            )
        case let error as ClientError where error.verdict != nil && error.verdict != .clientIsOut:
            // What the work needs is refused for good, such as a model that is gone.
            return try await fail(
                .init(code: .trainingFailed, detail: error.code),
                code: error.code,
                reason: error.message
            )
        default:
            guard let local = LocalFailure.error(error, files.directory) else { throw error }
            device.status.hasStorageTrouble = true
            // The note of a finished update is there, or may be: it is sent when the disk is well again, and not made anew.
            if (try? files.exists(.delivery)) != false { throw local }
            return try await fail(
                .init(code: .trainingFailed, detail: local.code),
                code: local.code,
                reason: local.message
            )
        }
    }
}
