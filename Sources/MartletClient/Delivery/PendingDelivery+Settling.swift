import Foundation
import MartletTransport
import WireFormat

/// What becomes of a finished update when it has its answer.
///
/// Each step may be the last one before a kill: then the same answer comes again, and the rest is done.
extension PendingDelivery {
    /// Keeps what hangs on an update that was accepted, and forgets the bytes.
    func accept() throws {
        if let run = controlRun { try ControlVariateFile(run: run, files: files).accept(assignment: note.assignment) }
        // What was left out counts from the update that arrived; one that did not leaves everything as it was.
        if let file = note.residualFile { try files.move(ClientState.residualFile, to: file) }
        try forget("accepted")
    }

    /// Drops what hangs on an update that was not accepted, and forgets the bytes; the owner reads the reason.
    func drop(_ code: String, _ reason: String) throws -> ParticipationOutcome {
        if controlRun != nil { try files.remove(ControlVariateFile.unsent) }
        if note.residualFile != nil { try files.remove(ClientState.residualFile) }
        if note.file != nil, let run = note.run.flatMap({ RunID($0) }), let verdict = RefusalVerdict(code: code),
            [.contentsAreRefused, .workCannotBeDelivered].contains(verdict)
        {
            try KeptReport.refuse(run: run, sha256: note.sha256, code: code, files: files)
        }
        try forget(code)
        tellOwner(code, reason)
        return .ended(code: code)
    }

    private var controlRun: RunID? { note.controlRun.flatMap { RunID($0) } }

    private func forget(_ code: String) throws {
        var ledger = try device.state.ledger()
        if ledger.finish(note.payer ?? note.assignment) { try files.write(.ledger, ledger) }
        try device.memory.remember(assignment, code: code)
        try files.remove(StateFile.delivery.name)
        try files.remove(ClientState.updateFile)
    }

    private func tellOwner(_ code: String, _ reason: String) {
        device.end(note.assignment, run: note.run ?? "", round: note.round ?? 0, code: code, reason: reason)
    }

    // MARK: - The helper

    /// Drops an update that was finished before the device pinned its helper's key, or while it pinned another one.
    ///
    /// - Returns: `nil` where the update may be sent.
    func refuseWithoutHelper() async throws -> ParticipationOutcome? {
        guard let key = device.helper, note.helper != key.hexadecimal else { return nil }
        let outcome = try drop(
            FailureCode.privacyRefused.rawValue,
            "a finished update of before is not sent: it is not masked for the helper whose key this device pins"
        )
        try await device.session.report(.init(code: .privacyRefused), for: assignment)
        return outcome
    }

    // MARK: - Damage

    /// What is wrong with the finished file; `nil` when it is what was written.
    ///
    /// - Throws: `ClientError` where the disk does not give it now: then nothing is wrong with it yet.
    func damage() throws -> String? {
        let path = files.path(note.fileName)
        guard try files.exists(note.fileName) else { return "\(path) is missing" }
        let digest = try files.digest(note.fileName)
        return digest.base64EncodedString() == note.sha256 ? nil : "\(path) is not what was written"
    }

    /// Ends the assignment of a file that cannot be sent.
    func giveUp(_ damage: String) async throws -> ParticipationOutcome {
        let reason = "\(damage): the finished update cannot be sent"
        try device.memory.remember(assignment, code: ClientError.stateDamaged)
        let name = try device.state.setAside(StateFile.delivery.name, at: device.now)
        try files.remove(note.fileName)
        try files.remove(ClientState.residualFile)
        try files.remove(ControlVariateFile.unsent)
        tellOwner(ClientError.stateDamaged, reason)
        device.voice.notify(ofState: "\(reason); its note is now \(name)")
        try await device.session.report(.init(code: .trainingFailed, detail: ClientError.stateDamaged), for: assignment)
        return .ended(code: ClientError.stateDamaged)
    }
}
