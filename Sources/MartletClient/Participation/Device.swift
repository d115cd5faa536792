import Foundation
import MartletTransport
import StrictJSON
import TrainerInterface
import WireFormat

/// One device: all that registering, an assignment's work and a delivery share.
package struct Device: Sendable {
    let session: ServerSession
    let state: ClientState
    let memory: DeviceMemory
    let trainer: any LocalTrainer
    let models: ModelCache
    let policy: ClientPrivacyPolicy
    /// The helper without whose grant the device does no work; `nil` for a device that has none.
    let helper: HelperKey?
    let arithmetic: ArithmeticQueue
    let voice: ClientVoice
    let status = ClientStatus()

    var files: StateFiles { state.files }
    var now: Date { session.retry.now() }

    /// Reads what the state directory holds, once.
    func open() throws { try memory.open(at: now) { voice.notify(ofState: $0) } }

    /// Registers where that has not happened, and keeps the credential.
    func register(with enrollmentToken: String?) async throws {
        try open()
        guard memory.credential == nil else { return }
        try state.requireRegistration(by: policy)
        voice.tell(.phase(.registering))
        guard let enrollmentToken else {
            throw ClientError(
                code: "not_registered",
                message: "this device is not registered yet, and an enrollment token is needed for that"
            )
        }
        // The key is on disk before the request: a repeat after a kill gives the same client. The ledger is there before the
        // credential: one that is missing later was lost.
        let key = try files.readIfWhole(.registration)?.first ?? UUID().uuidString
        try files.write(.registration, [key])
        if try !files.exists(.ledger) { try files.write(.ledger, ClientLedger()) }
        try memory.keep(await session.register(enrollmentToken, idempotencyKey: key))
    }

    /// Tells the owner how an assignment ended that was not accepted.
    func end(_ assignment: String, run: String, round: Int, code: String, reason: String?) {
        status.reason = reason.map { OwnerSentence($0) }
        EndingsFile(files: files).add(
            assignment: assignment,
            run: run,
            round: round,
            code: code,
            reason: reason,
            at: now
        )
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
        status.refusal = OwnerSentence(error.message)
        end(id?.text ?? "", run: run?.text ?? "", round: round, code: error.code, reason: error.message)
        guard let id else { return .ended(code: error.code) }
        try memory.remember(id, code: error.code)
        let detail = error.code + (field.map { ": " + PrintableText.escaped($0, limit: 200) } ?? "")
        try await session.report(.init(code: .trainingFailed, detail: detail), for: id)
        return .ended(code: error.code)
    }

    /// Adds the way out to an error that ends the client, where there is one.
    func advice(on error: ClientError) -> ClientError {
        guard memory.credential != nil, error.endsClient, error.status != nil, !error.is(.forbidden) else {
            return error
        }
        var error = error
        error.message +=
            ": \(session.server) does not take this device's token or state; the client was revoked, or this is another server or "
            + "one that was set up anew. To register as a new client, which keeps the device's ledger: martlet client "
            + "--register-again with an enrollment token, which an operator makes with: martlet population token NAME"
        return error
    }
}
