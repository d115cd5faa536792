import Crypto
import DifferentialPrivacy
import Dispatch
import Foundation
public import LocalTraining
import Tensors
import WireFormat

/// What one attempt to take part came to.
public enum ParticipationOutcome: Sendable, Equatable {
    /// An update was accepted.
    case accepted(run: String, round: Int)
    /// There was no work; ask again after so many seconds.
    case noWork(reason: String, retrySeconds: Double)
    /// The client has taken part as often as it may.
    case finished
    /// The work could not be done or was no longer wanted; the code says why.
    case ended(code: String)
}

/// One device's part in federated learning: registers once, then fetches, trains, clips, noises and uploads.
///
/// The trainer is not trusted with privacy: whatever it returns is checked, clipped and noised here. A finished update is
/// on disk before it is sent, and after a kill the same bytes are sent again: nothing is trained or noised twice.
public actor FederatedClient {
    private let server: String
    private let enrollmentToken: String?
    private let state: ClientState
    private let trainer: any LocalTrainer
    private let transport: any Transport
    private let retry: RetryPolicy
    private let policy: ClientPrivacyPolicy
    private let models: ModelCache
    private let arithmetic: ArithmeticQueue
    private var credential: ClientState.Credential?
    /// Bytes of updates that were accepted.
    public private(set) var bytesUp = 0
    /// Why the policy or the ledger of the device forbade the last assignment that ended with `privacy_refused`.
    public private(set) var lastRefusal: String?

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
    ///   - retry: How failed requests are repeated.
    ///   - arithmetic: Bounds how many clients of the process train at the same time.
    public init(
        server: String,
        enrollmentToken: String?,
        state: ClientState,
        trainer: any LocalTrainer,
        transport: any Transport,
        models: ModelCache,
        policy: ClientPrivacyPolicy = .init(),
        retry: RetryPolicy = .init(),
        arithmetic: ArithmeticQueue = .shared
    ) {
        self.server = server.hasSuffix("/") ? String(server.dropLast()) : server
        self.enrollmentToken = enrollmentToken
        self.state = state
        self.trainer = trainer
        self.transport = transport
        self.models = models
        self.policy = policy
        self.retry = retry
        self.arithmetic = arithmetic
        credential = state.read("credential.json", ClientState.Credential.self)
    }

    /// Takes part until the task is cancelled or the client may no longer take part.
    ///
    /// - Throws: ``ClientError`` when the server refuses the client for good.
    public func run() async throws {
        while !Task.isCancelled {
            switch try await participateOnce(waitSeconds: 30) {
            case .finished: return
            case .noWork(_, let seconds): try await retry.sleep(seconds)
            case .accepted, .ended: continue
            }
        }
    }

    /// Registers where that has not happened, and keeps the credential.
    public func register() async throws {
        guard credential == nil else { return }
        guard let enrollmentToken else {
            throw ClientError(code: "not_registered", message: "an enrollment token is needed to register")
        }
        // The key is on disk before the request: a repeat after a kill gives the same client.
        let key = state.read("registration.json", [String].self)?.first ?? UUID().uuidString
        try state.write("registration.json", [key])
        let response: TransportResponse
        do {
            response = try await call(
                "POST",
                "/v1/clients",
                token: enrollmentToken,
                body: try WireCoding.encode(RegistrationRequest(name: nil)),
                headers: ["Idempotency-Key": key]
            )
        } catch let error as ClientError where error.status == 401 {
            throw ClientError(
                code: error.code,
                message: "the enrollment token is refused at \(server): \(error.message); an operator makes one with: "
                    + "martlet population token NAME",
                status: error.status
            )
        }
        let answer = try WireCoding.decode(RegistrationResponse.self, from: response.body)
        let fresh = ClientState.Credential(clientId: answer.clientId, token: answer.token)
        try state.write("credential.json", fresh)
        credential = fresh
    }

    /// Asks for work once, and does it.
    ///
    /// - Parameter waitSeconds: How long the server may hold the question.
    /// - Returns: What came of it.
    /// - Throws: ``ClientError`` when the server refuses the client, or stays out of reach.
    public func participateOnce(waitSeconds: Int) async throws -> ParticipationOutcome {
        try await register()
        if let pending = state.read("pending.json", ClientState.PendingUpload.self) {
            if let outcome = try await upload(pending, run: "", round: 0, isRepeated: true) { return outcome }
        }
        let response = try await call(
            "POST",
            "/v1/checkins",
            body: try WireCoding.encode(CheckInRequest()),
            headers: waitSeconds > 0 ? ["Prefer": "wait=\(waitSeconds)"] : [:]
        )
        let answer = try WireCoding.decode(CheckInResponse.self, from: response.body)
        guard let assignment = answer.assignment else {
            let reason = answer.reason ?? "none"
            guard reason != "participation_limit" else { return .finished }
            let window = answer.retryWindow ?? .init(minS: 5, maxS: 30)
            return .noWork(reason: reason, retrySeconds: window.minS + (window.maxS - window.minS) * retry.uniform())
        }
        return try await perform(assignment)
    }

    // MARK: - One assignment

    private func perform(_ assignment: AssignmentBody) async throws -> ParticipationOutcome {
        var ledger = ClientLedger()
        if state.exists("ledger.json") {
            guard let kept = state.read("ledger.json", ClientLedger.self) else {
                return try await refuse(assignment, "the device's own ledger cannot be read")
            }
            ledger = kept
        }
        if let refusal = ledger.refusal(of: assignment, policy: policy) {
            return try await refuse(assignment, refusal)
        }
        do {
            let (fetched, unwanted) = try await whileGivingSigns(of: assignment, phase: "downloading") {
                let model = try await self.model(of: assignment)
                let instructions = try await self.instructions(for: assignment)
                let controls = try await self.controls(for: assignment, layout: model.layout)
                return (model: model, instructions: instructions, controls: controls)
            }
            guard let (model, instructions, controls) = fetched else { return .ended(code: unwanted) }
            let feedback = ErrorFeedback(
                run: assignment.run,
                state: state,
                parameterCount: assignment.tensors.parameterCount
            )
            let trainer = trainer
            if assignment.kind == "evaluate" {
                return try await evaluate(assignment, model: model, instructions: instructions, ledger: ledger)
            }
            let partial = state.path("update.safetensors.part")
            let (prepared, refusal) = try await whileGivingSigns(
                of: assignment,
                phase: "training",
                cancelling: instructions.cancellation
            ) { [arithmetic] in
                try await arithmetic.run {
                    try PreparedUpdate(
                        assignment,
                        model: model,
                        trainer: trainer,
                        instructions: instructions,
                        controls: controls,
                        feedback: feedback,
                        path: partial
                    )
                }
            }
            guard let prepared else { return .ended(code: refusal) }
            // The event is on disk before the update can leave the device.
            ledger.events.append(.init(assignment))
            try state.write("ledger.json", ledger)
            try state.move("update.safetensors.part", to: "update.safetensors")
            if let control = prepared.control { try state.write(ControlVariateFile.unsent, data: control) }
            if let feedback = prepared.feedback { try state.write("residual.next", data: feedback.data) }
            let pending = ClientState.PendingUpload(
                assignment: assignment.id,
                updateUrl: assignment.updateUrl,
                sha256: prepared.digest.base64EncodedString(),
                controlRun: prepared.control.map { _ in assignment.run },
                residualFile: prepared.feedback.map { _ in ErrorFeedback.fileName(run: assignment.run) }
            )
            try state.write("pending.json", pending)
            return try await upload(pending, run: assignment.run, round: assignment.round)
                ?? .ended(code: "round_closed")
        } catch let error as LocalTrainingError {
            return try await fail(assignment, error.failureCode, error.failureDetail(in: assignment.privacy.mode))
        } catch let error as ExternalTrainerError {
            // The server is told the rule; the trainer's own words stay on the device.
            return try await fail(assignment, error.failureCode, "external trainer: \(error.rule.rawValue)")
        } catch let error as PrivacyError {
            return try await fail(assignment, "training_failed", "\(error)")
        } catch let error as ClientError where error.code == "model_mismatch" {
            return try await fail(assignment, "training_failed", error.message)
        }
    }

    /// Measures the model on the device's held-out data and sends the sums, which are on disk before.
    private func evaluate(
        _ assignment: AssignmentBody,
        model: ParameterVector,
        instructions: TrainingInstructions,
        ledger: ClientLedger
    ) async throws -> ParticipationOutcome {
        let trainer = trainer
        let (metrics, refusal) = try await whileGivingSigns(
            of: assignment,
            phase: "training",
            cancelling: instructions.cancellation
        ) { [arithmetic] in
            try await arithmetic.run { try trainer.evaluate(model: model, instructions: instructions) }
        }
        guard let metrics else { return .ended(code: refusal) }
        guard metrics.tokens > 0, metrics.nll.isFinite else { throw LocalTrainingError.noData }
        var sums = metrics.sums
        if let release = assignment.release {
            // Only what is published leaves the device, and its cost is on disk before.
            sums = MetricSums.sums(sums, for: release.metrics)
            var ledger = ledger
            ledger.events.append(.init(assignment))
            try state.write("ledger.json", ledger)
        }
        let result = EvaluationResult(numExamples: metrics.tokens, metrics: sums)
        let bytes = try WireCoding.encode(result)
        try state.write("update.safetensors", data: bytes)
        let pending = ClientState.PendingUpload(
            assignment: assignment.id,
            updateUrl: assignment.updateUrl,
            sha256: Data(SHA256.hash(data: bytes)).base64EncodedString(),
            contentType: "application/json"
        )
        try state.write("pending.json", pending)
        return try await upload(pending, run: assignment.run, round: assignment.round)
            ?? .ended(code: "round_closed")
    }

    /// Works while heartbeats keep the lease; what is done within a third of it needs none.
    ///
    /// - Parameters:
    ///   - assignment: The work.
    ///   - phase: What the server is told of it.
    ///   - cancellation: Set when the server says that the work is no longer wanted, so that it ends early.
    ///   - work: What is done meanwhile.
    /// - Returns: The result; `nil` with the server's code when the work is no longer wanted, however it ended.
    /// - Throws: The work's error.
    private func whileGivingSigns<Result: Sendable>(
        of assignment: AssignmentBody,
        phase: String,
        cancelling cancellation: TrainingCancellation? = nil,
        _ work: @Sendable () async throws -> Result
    ) async throws -> (result: Result?, code: String) {
        let pulse = Task {
            let seconds = max(0.5, (assignment.leaseS ?? 60) / 3)
            while true {
                try await Task.sleep(for: .seconds(seconds))
                do {
                    let body = try WireCoding.encode(HeartbeatRequest(phase: phase))
                    _ = try await call("POST", "/v1/assignments/\(assignment.id)/heartbeat", body: body)
                } catch let error as ClientError where error.status == 410 {
                    cancellation?.cancel()
                    return error.code
                } catch is ClientError {
                    // The server is away or the answer was lost: the next sign may arrive.
                }
            }
        }
        defer { pulse.cancel() }
        let outcome: Swift.Result<Result, any Error>
        do { outcome = .success(try await work()) } catch { outcome = .failure(error) }
        pulse.cancel()
        if let code = try? await pulse.value { return (nil, code) }
        return (try outcome.get(), "")
    }

    private func model(of assignment: AssignmentBody) async throws -> ParameterVector {
        let model = try await weights(assignment.model, layout: assignment.tensors)
        guard model.layout == assignment.tensors else {
            throw ClientError(code: "model_mismatch", message: "the model's tensors are not those of the assignment")
        }
        return model
    }

    /// A model's tensors, from the cache or the server.
    private func weights(
        _ reference: AssignmentBody.Model,
        layout: ParameterLayout? = nil
    ) async throws -> ParameterVector {
        let (url, headers, transport, retry) = (server + reference.url, authorization(), transport, retry)
        return try await models.model(reference, layout: layout) { path in
            try await ResumableDownload(url: url, headers: headers, path: path).send(over: transport, retry: retry)
        }
    }

    /// What the trainer is told, with the base model and the tokeniser fetched where the model needs them.
    private func instructions(for assignment: AssignmentBody) async throws -> TrainingInstructions {
        var architecture = assignment.architecture
        if let reference = architecture.tokenizerReference {
            let request = TransportRequest(method: "GET", url: server + reference.url, headers: authorization())
            let (transport, retry) = (transport, retry)
            let document = try await models.document(sha256: reference.sha256) {
                let response = try await retry.send(request, over: transport)
                guard response.status == 200 else { throw ClientError(answer: response) }
                return response.body
            }
            architecture = try architecture.embedding(tokenizer: document)
        }
        var base: ParameterVector?
        if let reference = assignment.base { base = try await weights(reference) }
        return try TrainingInstructions(assignment, architecture: architecture, base: base)
    }

    /// SCAFFOLD's two control variates; `nil` where the run uses none.
    private func controls(
        for assignment: AssignmentBody,
        layout: ParameterLayout
    ) async throws -> ControlVariateStep? {
        guard assignment.training.usesControlVariates else { return nil }
        var server = ParameterVector(zeros: layout)
        if let reference = assignment.control { server = try await weights(reference) }
        let file = ControlVariateFile(run: assignment.run, state: state)
        try await file.settle { try await self.hasCommitted($0) }
        let own = file.value(layout: layout)
        guard server.layout == layout, own.layout == layout else {
            throw ClientError(code: "model_mismatch", message: "the control variate's tensors are not the model's")
        }
        return ControlVariateStep(server: server.values, own: own.values)
    }

    /// Whether the round of an accepted update became a model version; `nil` while it is open.
    private func hasCommitted(_ assignment: String) async throws -> Bool? {
        let request = TransportRequest(
            method: "GET",
            url: server + "/v1/assignments/\(assignment)",
            headers: authorization()
        )
        let response = try await retry.send(request, over: transport)
        // A server that was restored from a backup knows nothing of it, nor does its control variate.
        guard response.status != 404 else { return false }
        guard response.status == 200 else { throw ClientError(answer: response) }
        return try WireCoding.decode(AssignmentBody.self, from: response.body).roundCommitted
    }

    /// Updates of fewer bytes are sent again whole when a connection is lost.
    private static let resumableByteCount = 1 << 20

    /// Sends the finished update; `nil` when the server no longer wants it.
    private func upload(
        _ pending: ClientState.PendingUpload,
        run: String,
        round: Int,
        isRepeated: Bool = false
    ) async throws -> ParticipationOutcome? {
        let path = state.path("update.safetensors")
        let size = FileManager.default.byteCount(atPath: path)
        let response: TransportResponse
        if size >= Self.resumableByteCount && pending.contentType == nil {
            let upload = ResumableUpload(
                url: server + pending.updateUrl,
                headers: authorization(),
                path: path,
                sha256: pending.sha256,
                isRepeated: isRepeated
            )
            response = try await upload.send(over: transport, retry: retry)
        } else {
            var headers = authorization()
            headers["Content-Type"] = pending.contentType ?? "application/vnd.safetensors"
            headers["Content-Digest"] = "sha-256=:\(pending.sha256):"
            let request = TransportRequest(
                method: "PUT",
                url: server + pending.updateUrl,
                headers: headers,
                body: .file(path: path),
                timeoutSeconds: 600
            )
            response = try await retry.send(request, over: transport)
        }
        let error = response.status == 200 ? nil : ClientError(answer: response)
        if let error, error.isTemporary || response.status == 401 { throw error }
        if let run = pending.controlRun {
            if error == nil {
                try ControlVariateFile(run: run, state: state).accept(assignment: pending.assignment)
            } else {
                state.remove(ControlVariateFile.unsent)
            }
        }
        if let file = pending.residualFile {
            // What was left out counts from the update that arrived; one that did not leaves everything as it was.
            if error == nil { try state.move("residual.next", to: file) } else { state.remove("residual.next") }
        }
        state.remove("pending.json")
        state.remove("update.safetensors")
        guard let error else {
            bytesUp += size
            return .accepted(run: run, round: round)
        }
        return run.isEmpty ? nil : .ended(code: error.code)
    }

    private func refuse(_ assignment: AssignmentBody, _ reason: String) async throws -> ParticipationOutcome {
        // The reason stays here: the device's running total and how often it took part are its own, and other servers' runs
        // are in them.
        lastRefusal = reason
        return try await fail(assignment, "privacy_refused", nil)
    }

    private func fail(
        _ assignment: AssignmentBody,
        _ code: String,
        _ detail: String?
    ) async throws -> ParticipationOutcome {
        let report = FailureReport(code: code, detail: detail.map { String($0.prefix(500)) })
        do {
            _ = try await call(
                "POST",
                "/v1/assignments/\(assignment.id)/failure",
                body: try WireCoding.encode(report)
            )
        } catch let error as ClientError where (400..<500).contains(error.status ?? 0) {
            // The round ended in the meantime: there is nothing left to free.
        }
        return .ended(code: code)
    }

    // MARK: - Requests

    private func authorization() -> [String: String] {
        credential.map { ["Authorization": "Bearer \($0.token)"] } ?? [:]
    }

    private func call(
        _ method: String,
        _ path: String,
        token: String? = nil,
        body: Data,
        headers: [String: String] = [:]
    ) async throws -> TransportResponse {
        var fields = token.map { ["Authorization": "Bearer \($0)"] } ?? authorization()
        fields["Content-Type"] = "application/json"
        fields.merge(headers) { _, new in new }
        let response = try await retry.send(
            TransportRequest(method: method, url: server + path, headers: fields, body: .bytes(body)),
            over: transport
        )
        guard (200..<300).contains(response.status) else { throw ClientError(answer: response) }
        return response
    }
}

/// Runs training away from the cooperative threads, a bounded number at a time.
public final class ArithmeticQueue: Sendable {
    /// As many at a time as there are cores.
    public static let shared = ArithmeticQueue(width: ProcessInfo.processInfo.activeProcessorCount)

    private let queue: OperationQueue

    /// Bounds the number of trainings at the same time.
    public init(width: Int) {
        queue = OperationQueue()
        queue.maxConcurrentOperationCount = width
    }

    func run<Result: Sendable>(_ body: @escaping @Sendable () throws -> Result) async throws -> Result {
        try await withCheckedThrowingContinuation { continuation in
            queue.addOperation { continuation.resume(with: Swift.Result { try body() }) }
        }
    }
}
