import Foundation
public import Logging
public import MartletTransport
public import TrainerInterface
import WireFormat

/// One device's part in federated learning: registers once, then fetches, trains, clips, noises and uploads.
///
/// The trainer is not trusted with privacy: whatever it returns is checked, clipped and noised here. For one assignment there is
/// one event in the device's ledger, which is on disk before noise is drawn, and one finished update, which is on disk before
/// it is sent: after a kill, and whatever answers in the server's place, the same bytes are sent again.
public actor FederatedClient {
    package nonisolated let device: Device
    private let enrollmentToken: String?
    private let id = UUID()
    private var pace = EndingPace()

    /// Creates a client.
    ///
    /// - Parameters:
    ///   - server: The server's base URL, such as `http://127.0.0.1:8080`.
    ///   - enrollmentToken: Needed until the client has registered.
    ///   - state: What the client keeps.
    ///   - trainer: Trains on this device's data.
    ///   - transport: Shared by clients of one process.
    ///   - models: Shared by clients of one process.
    ///   - policy: What the device's owner allows.
    ///   - helper: The key of the helper without whose grant the device does no work; without one it refuses work that asks for a helper.
    ///   - limits: How much of what the server sends is taken.
    ///   - retry: How failed requests are repeated.
    ///   - arithmetic: Bounds how many clients of the process train at the same time.
    ///   - logger: Is told what the client does, without values of data, keys or tokens; nobody is by default.
    ///   - notify: Receives what there is to say meanwhile: a server that is away and comes back, a state that was mended.
    public init(
        server: String,
        enrollmentToken: String?,
        state: ClientState,
        trainer: any LocalTrainer,
        transport: any Transport,
        models: ModelCache,
        policy: ClientPrivacyPolicy = .init(),
        helper: HelperKey? = nil,
        limits: ClientLimits = .init(),
        retry: RetryPolicy = .init(),
        arithmetic: ArithmeticQueue = .shared,
        logger: Logger? = nil,
        notify: @escaping @Sendable (ClientNotice) -> Void = { _ in }
    ) {
        let voice = ClientVoice(logger: logger, notify: notify)
        let memory = DeviceMemory(state)
        device = Device(
            session: ServerSession(
                server: server,
                transport: transport,
                retry: retry,
                limits: limits,
                voice: voice,
                token: { memory.token }
            ),
            state: state,
            memory: memory,
            trainer: trainer,
            models: models,
            policy: policy,
            helper: helper,
            arithmetic: arithmetic,
            voice: voice
        )
        self.enrollmentToken = enrollmentToken
    }

    /// Bytes of updates that were accepted.
    public var bytesUp: Int { device.status.bytesUp }
    /// Why the last assignment ended that was not accepted, in a sentence for the device's owner; it is sent to nobody.
    public var lastReason: String? { device.status.reason?.text }
    /// Why the policy or the ledger of the device forbade the last assignment that ended with `privacy_refused`.
    public var lastRefusal: String? { device.status.refusal?.text }
    /// What the device's owner has to know of the server's privacy ledger: that it is another one than before, or was restored.
    public var ledgerNotice: String? { device.status.ledgerNotice?.text }
    /// Why the data gave nothing to the last private assignment: the server has got zeros, and is not told.
    ///
    /// For the device's owner alone.
    public var lastShortfall: String? { device.status.shortfall?.text }

    /// What the owner has not been told yet of the server's ledger; asked again, `nil`.
    public func takeLedgerNotice() -> String? {
        defer { device.status.ledgerNotice = nil }
        return ledgerNotice
    }

    /// What the client does from now on, as it happens.
    public nonisolated func events() -> ClientEvents { device.voice.listen() }

    /// Registers where that has not happened, and keeps the credential.
    public func register() async throws { try await device.register(with: enrollmentToken) }

    /// Asks for work once, and does it.
    ///
    /// After work that ended without an accepted update the next question waits, the longer the more such work there was in a
    /// row.
    ///
    /// - Parameter waitSeconds: How long the server may hold the question.
    /// - Returns: What came of it.
    /// - Throws: `ClientError` when the server refuses the client, or stays out of reach, and with code `already_running` beside
    ///   another attempt with the same state; `CancellationError`.
    public func participateOnce(waitSeconds: Int) async throws -> ParticipationOutcome {
        try beginAttempts()
        defer { device.state.lock.end() }
        return try await participate(waitSeconds: waitSeconds)
    }

    /// Takes the place of the one who takes part with this state.
    ///
    /// Two attempts at a time would be handed the same assignment, and noise twice what is charged once.
    func beginAttempts() throws {
        if try device.state.lock.begin(id) { device.memory.close() }
    }

    /// One attempt of the one who has the place.
    func participate(waitSeconds: Int) async throws -> ParticipationOutcome {
        let retry = device.session.retry
        let pause = pace.takePause()
        if pause > 0 { try await retry.sleep(pause) }
        let outcome = try await device.attempt(enrollmentToken: enrollmentToken, waitSeconds: waitSeconds)
        pace.note(outcome, retry)
        return outcome
    }
}
