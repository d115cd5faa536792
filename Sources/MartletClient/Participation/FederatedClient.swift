import Foundation
public import Logging
public import MartletTransport
import StrictJSON
public import TrainerInterface
import WireFormat

/// What one attempt to take part came to.
public enum ParticipationOutcome: Sendable, Equatable {
    /// An update was accepted.
    case accepted(run: String, round: Int)
    /// There was no work; ask again after so many seconds.
    case noWork(reason: NoWorkReason, retrySeconds: Double)
    /// This client will never get work again: it was revoked.
    case finished
    /// The work could not be done or was no longer wanted; ``FederatedClient/lastReason`` says why in a sentence.
    case ended(EndingReason)

    /// An ending by the word of the protocol.
    package static func ended(code: String) -> Self { .ended(EndingReason(code: code)) }
}

/// One device's part in federated learning: registers once, then fetches, trains, clips, noises and uploads.
///
/// The trainer is not trusted with privacy: whatever it returns is checked, clipped and noised here. For one assignment there is
/// one event in the device's ledger, which is on disk before noise is drawn, and one finished update, which is on disk before
/// it is sent: after a kill, and whatever answers in the server's place, the same bytes are sent again.
public actor FederatedClient {
    let server: String
    let origin: ServerOrigin?
    let limits: ClientLimits
    let enrollmentToken: String?
    let state: ClientState
    let trainer: any LocalTrainer
    let transport: any Transport
    let retry: RetryPolicy
    let policy: ClientPrivacyPolicy
    let models: ModelCache
    let arithmetic: ArithmeticQueue
    let notify: @Sendable (ClientNotice) -> Void
    let source: ClientEventSource
    private let logger: Logger?
    /// Bytes of the update that was accepted last.
    var acceptedByteCount = 0
    var credential: ClientState.Credential?
    /// What is remembered of assignments; read with the credential.
    var log = AssignmentLog()
    private var isOpen = false
    /// Whether the generation of this state is known: not where the log of an older version's state was damaged.
    private var knowsGeneration = true
    private let id = UUID()
    /// Whether this device's disk has failed since it was last seen to work.
    var hasStorageTrouble = false
    /// The longest wait for work that whatever stands before the server lets through, in seconds.
    private var pollLimit = 60
    /// Whether the server knows generations of a state.
    private var saysGeneration = true
    private var endedInARow = 0
    private var pauseSeconds = 0.0
    /// Bytes of updates that were accepted.
    public internal(set) var bytesUp = 0
    /// Why the last assignment ended that was not accepted, in a sentence for the device's owner; it is sent to nobody.
    public internal(set) var lastReason: String? {
        // Errors of trainers and readers quote what a server sent.
        didSet { lastReason = lastReason.map { PrintableText.escaped($0) } }
    }
    /// Why the policy or the ledger of the device forbade the last assignment that ended with `privacy_refused`.
    public internal(set) var lastRefusal: String? {
        didSet { lastRefusal = lastRefusal.map { PrintableText.escaped($0) } }
    }
    /// What the device's owner has to know of the server's privacy ledger: that it is another one than before, or was restored.
    public internal(set) var ledgerNotice: String? {
        didSet { ledgerNotice = ledgerNotice.map { PrintableText.escaped($0) } }
    }
    /// Why the data gave nothing to the last private assignment: the server has got zeros, and is not told.
    ///
    /// For the device's owner alone.
    public internal(set) var lastShortfall: String? {
        didSet { lastShortfall = lastShortfall.map { PrintableText.escaped($0) } }
    }

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
        limits: ClientLimits = .init(),
        retry: RetryPolicy = .init(),
        arithmetic: ArithmeticQueue = .shared,
        logger: Logger? = nil,
        notify: @escaping @Sendable (ClientNotice) -> Void = { _ in }
    ) {
        let source = ClientEventSource()
        self.source = source
        self.logger = logger
        let notify: @Sendable (ClientNotice) -> Void = { notice in
            ClientLog.write(.notice(notice), to: logger)
            source.send(.notice(notice))
            notify(notice)
        }
        self.server = server
        origin = try? ServerOrigin(server)
        self.limits = limits
        self.enrollmentToken = enrollmentToken
        self.state = state
        self.trainer = trainer
        self.transport = CheckedTransport(transport)
        self.models = models
        self.policy = policy
        self.arithmetic = arithmetic
        self.notify = notify
        var retry = retry
        if retry.watch == nil { retry.watch = OutageWatch(now: retry.now, notify: notify) }
        self.retry = retry
    }

    /// Reads what the state directory holds, once.
    func open() throws {
        guard !isOpen else { return }
        credential = try state.credential { notify(.init(kind: .state, message: $0)) }
        do { log = try state.files.read(AssignmentLog.file, AssignmentLog.self) ?? AssignmentLog() } catch {
            guard (error as? ClientError)?.isStateDamaged == true else { throw error }
            let name = try state.setAside(AssignmentLog.file, at: retry.now())
            notify(.init(kind: .state, message: "\(AssignmentLog.file) was damaged and is now \(name)"))
            log = AssignmentLog()
        }
        // A log that is damaged or missing must not make a device look like a copy of itself.
        if let credential {
            let isNew = log == AssignmentLog()
            log.generation = max(log.generation, credential.generation ?? 0)
            knowsGeneration = !isNew || credential.generation != nil
        }
        isOpen = true
    }

    /// Registers where that has not happened, and keeps the credential.
    public func register() async throws {
        try open()
        guard credential == nil else { return }
        try state.requireRegistration(by: policy)
        tell(.phase(.registering))
        guard let enrollmentToken else {
            throw ClientError(code: "not_registered", message: "an enrollment token is needed to register")
        }
        // The key is on disk before the request: a repeat after a kill gives the same client. The ledger is there before the
        // credential: one that is missing later was lost.
        let known = try state.files.readIfWhole(ClientState.registrationFile, [String].self)
        let key = known?.first ?? UUID().uuidString
        try state.files.write(ClientState.registrationFile, [key])
        if try !state.files.exists(ClientState.ledgerFile) {
            try state.files.write(ClientState.ledgerFile, ClientLedger())
        }
        let answer: RegistrationAnswer
        do {
            answer = try await call(
                Endpoints.register(),
                RegistrationRequest(name: nil),
                token: enrollmentToken,
                headers: ["Idempotency-Key": key]
            ) { try ServerAnswer.read($0, of: "registration", RegistrationAnswer.read) }
        } catch let error as ClientError where error.status == 401 && error.verdict == .clientIsOut {
            throw ClientError(
                code: error.code,
                message: "the enrollment token is refused at \(server): \(error.message); an operator makes one with: "
                    + "martlet population token NAME",
                status: error.status
            )
        }
        let fresh = ClientState.Credential(
            clientId: answer.clientID.text,
            token: answer.token.text,
            format: ClientState.Credential.currentFormat,
            generation: log.generation
        )
        try state.files.write(ClientState.credentialFile, fresh)
        credential = fresh
        knowsGeneration = true
    }

    /// Keeps the generation beside the credential too: the two files are not damaged together.
    func noteGeneration(_ generation: Int) throws {
        knowsGeneration = true
        guard var next = credential, next.generation != generation else { return }
        next.generation = generation
        try state.files.write(ClientState.credentialFile, next)
        credential = next
    }

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
        defer { state.lock.end() }
        return try await participate(waitSeconds: waitSeconds)
    }

    /// Takes the place of the one who takes part with this state.
    ///
    /// Two attempts at a time would be handed the same assignment, and noise twice what is charged once.
    func beginAttempts() throws {
        if try state.lock.begin(id) { isOpen = false }
    }

    /// One attempt of the one who has the place.
    func participate(waitSeconds: Int) async throws -> ParticipationOutcome {
        let outcome = try await attempt(waitSeconds: waitSeconds)
        switch outcome {
        case .accepted(let run, let round): tell(.accepted(run: run, round: round, byteCount: acceptedByteCount))
        case .ended(let reason): tell(.refused(reason, sentence: lastReason))
        case .noWork(let reason, let seconds): tell(.noWork(reason, retrySeconds: seconds))
        case .finished: tell(.finished)
        }
        return outcome
    }

    /// What the client does from now on, as it happens.
    public nonisolated func events() -> ClientEvents { ClientEvents(source.listen()) }

    /// Tells an event to all who listen, and to the log.
    func tell(_ event: ClientEvent) {
        ClientLog.write(event, to: logger)
        source.send(event)
    }

    /// Takes what a transfer has moved.
    nonisolated var followTransfer: @Sendable (TransferProgress) -> Void {
        { [source] progress in source.send(.bytes(progress)) }
    }

    private func attempt(waitSeconds: Int) async throws -> ParticipationOutcome {
        let pause = pauseSeconds
        pauseSeconds = 0
        if pause > 0 { try await retry.sleep(pause) }
        if hasStorageTrouble {
            try state.files.probe()
            hasStorageTrouble = false
            retry.watch?.answered()
        }
        do {
            let outcome = try await takePart(waitSeconds: waitSeconds)
            pace(outcome)
            return outcome
        } catch let error as ClientError where error.is(.clientRevoked) && error.status != nil {
            lastReason = error.message
            return .finished
        } catch let error as ClientError {
            if ClientError.localCodes.contains(error.code) { hasStorageTrouble = true }
            throw adviceOn(error)
        }
    }

    private func takePart(waitSeconds: Int) async throws -> ParticipationOutcome {
        try open()
        // Before anything is asked for: what cannot be read permits nothing.
        _ = try state.ledger()
        try await register()
        if let pending = try pendingUpload() { return try await upload(pending, isRepeated: true) }
        let wait = min(waitSeconds, pollLimit)
        tell(.phase(.waiting))
        let answer = try await checkIn(wait: wait)
        switch answer {
        case .work(let assignment): return try await perform(assignment)
        case .unfit(let id, let error):
            return try await refuseUnfit(
                id,
                ClientError(invalid: "assignment", error),
                field: error.problems.first?.pointer
            )
        case .away(let reason, let wait):
            if reason == Self.gatewayTimeout { shortenPolls(min(waitSeconds, pollLimit)) }
            // Another run may want this client: the end of one is not its own.
            let reason = NoWorkReason(code: reason)
            let window: (Double, Double) = reason == .participationLimit ? (60, 600) : (5, 30)
            let (first, last) = (wait?.lowerBound.seconds ?? window.0, wait?.upperBound.seconds ?? window.1)
            return .noWork(reason: reason, retrySeconds: first + (last - first) * retry.uniform())
        }
    }

    /// The reason of a check-in that a proxy has ended.
    private static let gatewayTimeout = "gateway_timeout"

    private func checkIn(wait: Int) async throws -> CheckInAnswer {
        let limit = limits.modelBytes
        let says = saysGeneration && knowsGeneration
        let request = CheckInRequest(stateGeneration: says ? log.generation : nil)
        do {
            return try await call(
                Endpoints.checkIn(),
                request,
                headers: wait > 0 ? ["Prefer": "wait=\(wait)"] : [:],
                passing: { response in
                    // A proxy that waits less long than the server: there was no work until then.
                    guard response.status == 504, wait > 0, ProblemAnswer(response) == nil else { return nil }
                    let window = PeerDuration(seconds: 1).flatMap { first in PeerDuration(seconds: 5).map { first...$0 }
                    }
                    return .away(reason: Self.gatewayTimeout, wait: window)
                },
                reading: { response in
                    try ServerAnswer.read(response, of: "answer to the check-in") { document throws(DocumentError) in
                        try CheckInAnswer.read(document, modelByteLimit: limit)
                    }
                }
            )
        } catch let error as ClientError where error.is(.invalidDocument) && says {
            // A server of before generations refuses what it does not know.
            saysGeneration = false
            return try await checkIn(wait: wait)
        }
    }

    private func shortenPolls(_ wait: Int) {
        if pollLimit == 60 {
            notify(
                .init(
                    kind: .outageBegan,
                    message:
                        "a proxy in front of \(server) answers 504 before the server has: its read time-out is shorter "
                        + "than a wait for work of \(wait) s; asking with shorter waits"
                )
            )
        }
        pollLimit = wait / 2
    }

    /// Lets work that ends again and again be asked for ever more seldom.
    private func pace(_ outcome: ParticipationOutcome) {
        switch outcome {
        case .accepted: endedInARow = 0
        case .noWork, .finished: break
        case .ended(let reason):
            endedInARow += 1
            let limit = RefusalVerdict(code: reason.code) == .workIsOver ? min(10, retry.capSeconds) : retry.capSeconds
            let step = retry.baseSeconds * Double(1 << min(endedInARow, 16))
            pauseSeconds = min(limit, step) * (0.5 + 0.5 * retry.uniform())
        }
    }

    /// The way out, where there is one.
    private func adviceOn(_ error: ClientError) -> ClientError {
        guard credential != nil, error.endsClient, error.status != nil, !error.is(.forbidden) else { return error }
        var error = error
        error.message +=
            ": \(server) does not take this device's token or state; the client was revoked, or this is another server or one "
            + "that was set up anew. To register as a new client, which keeps the device's ledger: martlet client "
            + "--register-again with an enrollment token, which an operator makes with: martlet population token NAME"
        return error
    }

    // MARK: - Requests

    func authorization() -> [String: String] {
        // What would end the field never gets into one.
        credential.flatMap { BearerToken($0.token) }.map { ["Authorization": "Bearer \($0.text)"] } ?? [:]
    }

    /// A target's URL on the configured server.
    func url<Body, Document>(_ target: RequestTarget<Body, Document>) throws -> String {
        try (origin ?? ServerOrigin(server)).base + target.target
    }

    /// A path's URL on the configured server.
    func url(_ path: ServerPath) throws -> String {
        guard let origin else { return try ServerOrigin(server).url(path) }
        return origin.url(path)
    }

    /// Sends JSON and reads JSON; `passing` takes answers that are no documents of the server's and yet mean something.
    ///
    /// Throws `ClientError`, and what `read` does.
    func call<Body: Encodable, Document, Answer: Sendable>(
        _ target: RequestTarget<Body, Document>,
        _ body: Body,
        token: String? = nil,
        headers: [String: String] = [:],
        passing: @Sendable (TransportResponse) -> Answer? = { _ in nil },
        reading read: @Sendable (TransportResponse) throws -> Answer
    ) async throws -> Answer {
        var fields = token.map { ["Authorization": "Bearer \($0)"] } ?? authorization()
        fields["Content-Type"] = "application/json"
        fields.merge(headers) { _, new in new }
        let url = try url(target)
        var request = TransportRequest(
            method: target.method.rawValue,
            url: url,
            headers: fields,
            body: .bytes(try WireCoding.encode(body))
        )
        request.byteLimit = ServerAnswer.byteLimit
        return try await retry.send(request, over: transport) { response in
            if let answer = passing(response) { return answer }
            return try response.document(from: url) { try read(response) }
        }
    }
}
