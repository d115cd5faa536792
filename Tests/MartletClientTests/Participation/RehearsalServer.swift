import Crypto
import Foundation
import LocalTraining
import MartletClient
import StrictJSON
import Synchronization
import Tensors
import TestSupport
import WireFormat

/// What stands between a client and its server in a test, and answers in its place or loses what it should pass on.
enum Interference: CaseIterable {
    /// The request does not arrive.
    case unreachable
    /// It arrives, and the answer is lost.
    case answerLost
    /// It arrives twice.
    case repeated
    /// Somebody answers in the server's place.
    case forbidden, proxyLogin, tooLarge, badGateway, gatewayTimeout, redirect, captivePortal, unknownProblem
    /// The same with status 200 and other bytes than a page for people.
    case json, xml, image, octets, untyped, largePortal, largeOctets
    /// The server's own answer is cut.
    case cut
    /// The server is busy.
    case busy

    func answer() -> TransportResponse? {
        let page = Data("<html><h1>Welcome to our Wi-Fi</h1></html>".utf8)
        func html(_ status: Int, _ headers: [String: String] = [:]) -> TransportResponse {
            TransportResponse(
                status: status,
                headers: headers.merging(["content-type": "text/html"]) { first, _ in first },
                body: page
            )
        }
        func other(_ type: String?, _ body: Data) -> TransportResponse {
            TransportResponse(status: 200, headers: type.map { ["content-type": $0] } ?? [:], body: body)
        }
        switch self {
        case .unreachable, .answerLost, .repeated, .cut: return nil
        case .json: return other("application/json", Data(#"{"login": "https://portal.example"}"#.utf8))
        case .xml: return other("application/xml", Data("<login/>".utf8))
        case .image: return other("image/png", Data([0x89, 0x50, 0x4E, 0x47]))
        case .octets: return other("application/octet-stream", Data(count: 100))
        case .untyped: return other(nil, Data("please log in".utf8))
        case .largePortal: return other("text/html", Data(repeating: 32, count: 3 << 20))
        case .largeOctets: return other("application/octet-stream", Data(count: 3 << 20))
        case .forbidden: return html(403)
        case .proxyLogin: return html(407)
        case .tooLarge: return html(413)
        case .badGateway: return html(502)
        case .gatewayTimeout: return html(504)
        case .redirect: return html(302, ["location": "https://portal.example/login?token=secret"])
        case .captivePortal: return html(200)
        case .unknownProblem:
            // Some other service's problem document.
            let body = Data(
                #"{"type": "about:blank", "title": "no", "status": 403, "detail": "no", "code": "WAF-17"}"#.utf8
            )
            return TransportResponse(status: 403, headers: ["content-type": "application/problem+json"], body: body)
        case .busy: return RehearsalServer.refusal(503, "recovering")
        }
    }
}

/// A server in memory with one run of mode `local`: it hands out assignments one after the other, takes one update for each, and
/// counts what it is sent.
final class RehearsalServer: Transport {
    /// The client's process is gone: nothing that it does has any effect.
    struct Killed: Error {}

    struct State {
        var issued = 0
        /// The assignment that is live.
        var live: String?
        /// Hashes of accepted updates by assignment.
        var accepted: [String: String] = [:]
        var failed: [String: String] = [:]
        /// All distinct updates that were sent, by assignment, whoever received them.
        var sent: [String: Set<Data>] = [:]
        var requestCount = 0
        var isDead = false
        /// Updates refused as too large, by the server itself.
        var refusesSize = false
        /// The round that was handed out last, and that of each assignment.
        var round = 0
        var rounds: [String: Int] = [:]
        var attempt = 1
        /// Whether the next assignment is of the same round: a further turn, or another attempt.
        var repeatsRound = false
        /// Whether a failure that the device reports leaves the round as it is.
        var keepsRoundAfterFailure = false
        /// Codes that end an assignment, by its number, when its update comes; the round stays open.
        var endings: [Int: String] = [:]
        var noiseMultiplier = 2
    }

    static let layout = ParameterLayout([.init(name: "w", shape: [4])])
    /// The file that it sends.
    static let model = SafetensorsWriter.encode(ParameterVector(zeros: layout))
    let state = Mutex(State())
    private let mode: String
    private let model: Data
    private let interference: @Sendable (_ request: Int, _ key: String) -> Interference?
    private let change: @Sendable (_ work: inout AssignmentBody, _ number: Int) -> Void

    init(
        mode: String = "local",
        interference: @escaping @Sendable (Int, String) -> Interference? = { _, _ in nil },
        change: @escaping @Sendable (inout AssignmentBody, Int) -> Void = { _, _ in }
    ) {
        self.mode = mode
        self.change = change
        self.interference = interference
        model = SafetensorsWriter.encode(ParameterVector(zeros: Self.layout))
    }

    /// A refusal of the server's.
    static func refusal(_ status: Int, _ code: String) -> TransportResponse {
        let problem = ProblemDocument(title: "t", status: status, detail: "the server says \(code)", code: code)
        return TransportResponse(
            status: status,
            headers: ["content-type": "application/problem+json"],
            body: (try? WireCoding.encode(problem)) ?? Data()
        )
    }

    func send(_ request: TransportRequest) async throws -> TransportResponse {
        var body = Data()
        switch request.body {
        case .none: break
        case .bytes(let data): body = data
        case .file(let path, let offset):
            guard let file = FileManager.default.contents(atPath: path) else {
                throw ClientError(code: "storage", message: "cannot read \(path)")
            }
            body = Data(file.dropFirst(offset))
        }
        let parts = request.url.split(separator: "/").map(String.init)
        let key = "\(request.method) \(parts.last ?? "")"
        let number = try state.withLock { state in
            // A client waits for no process that is gone.
            guard !state.isDead else { throw CancellationError() }
            state.requestCount += 1
            // Whatever becomes of the request: the bytes have left the device.
            if parts.last == "update", parts.count > 1 { state.sent[parts[parts.count - 2], default: []].insert(body) }
            return state.requestCount
        }
        let fault = interference(number, key)
        if let answer = fault?.answer() { return try deliver(answer, request) }
        let lost = ClientError(code: "network", message: "no answer")
        if fault == .unreachable { throw lost }
        var answer = try handle(key, parts, body)
        if fault == .repeated { answer = try handle(key, parts, body) }
        try state.withLock { if $0.isDead { throw CancellationError() } }
        // A transport tells that a file was cut: its length is not the one announced.
        if fault == .answerLost || fault == .cut && request.destination != nil { throw lost }
        if fault == .cut { answer.body = answer.body.prefix(answer.body.count / 2) }
        return try deliver(answer, request)
    }

    private func deliver(_ answer: TransportResponse, _ request: TransportRequest) throws -> TransportResponse {
        var taken = AnswerBody(request)
        try answer.body.withUnsafeBytes { try taken.take($0, status: answer.status, headers: answer.headers) }
        try taken.close()
        return TransportResponse(status: answer.status, headers: answer.headers, body: taken.memory)
    }

    private func handle(_ key: String, _ parts: [String], _ body: Data) throws -> TransportResponse {
        switch key {
        case "POST clients":
            let answer = RegistrationResponse(clientId: "clt_1", token: "secret")
            return TransportResponse(status: 201, body: try WireCoding.encode(answer))
        case "POST checkins":
            let (id, round, attempt, noise) = state.withLock { state in
                if state.live == nil {
                    state.issued += 1
                    state.live = "asg_\(state.issued)"
                    if !state.repeatsRound { state.round += 1 }
                    state.repeatsRound = false
                    state.rounds["asg_\(state.issued)"] = state.round
                }
                return (state.live ?? "", state.round, state.attempt, state.noiseMultiplier)
            }
            let body = try assignment(id, round, attempt: attempt, noiseMultiplier: noise)
            return TransportResponse(status: 201, body: try WireCoding.encode(body))
        case "GET model":
            let tag = "\"\(SHA256.hash(data: model).map { String(format: "%02x", $0) }.joined())\""
            return TransportResponse(status: 200, headers: ["etag": tag], body: model)
        case "POST heartbeat":
            return TransportResponse(
                status: 200,
                body: try WireCoding.encode(HeartbeatResponse(state: .training, leaseS: 60, deadlineInS: 60))
            )
        case "PUT update": return try update(parts[parts.count - 2], body)
        case "POST failure":
            let id = parts[parts.count - 2]
            let report = try WireCoding.decode(FailureReport.self, from: body)
            state.withLock { state in
                if state.accepted[id] == nil { state.failed[id] = report.code.rawValue }
                if state.live == id {
                    state.live = nil
                    state.repeatsRound = state.keepsRoundAfterFailure
                }
            }
            return TransportResponse(status: 204)
        default: return Self.refusal(404, "not_found")
        }
    }

    private func update(_ id: String, _ body: Data) throws -> TransportResponse {
        let sha256 = SHA256.hash(data: body).map { String(format: "%02x", $0) }.joined()
        let refusal = state.withLock { state -> TransportResponse? in
            if let accepted = state.accepted[id] {
                return accepted == sha256 ? nil : Self.refusal(409, "update_differs")
            }
            if state.refusesSize { return Self.refusal(413, "too_large") }
            guard state.live == id else { return Self.refusal(410, "round_closed") }
            if let code = state.endings[Int(id.dropFirst(4)) ?? 0] {
                // A size leaves the place to the client until it reports.
                if code == "too_large" { return Self.refusal(413, code) }
                (state.live, state.repeatsRound) = (nil, true)
                return Self.refusal(RefusalVerdict(code: code) == .workIsOver ? 410 : 422, code)
            }
            state.accepted[id] = sha256
            state.live = nil
            return nil
        }
        if let refusal { return refusal }
        let receipt = UpdateReceipt(assignment: id, state: .accepted, sha256: sha256, bytes: body.count)
        return TransportResponse(status: 200, body: try WireCoding.encode(receipt))
    }

    private func assignment(
        _ id: String,
        _ number: Int,
        attempt: Int,
        noiseMultiplier: Int
    ) throws -> CheckInResponse {
        let specification = try RunSpecification.sample {
            $0.cohort.goal = 1
            guard mode != "none" else { return }
            $0.privacy += ["mode": mode, "noise_multiplier": noiseMultiplier]
            $0.privacy.clipping.norm = 0.5
        }
        var body = AssignmentBody(
            id: id,
            run: "run_1",
            round: number,
            attempt: attempt,
            state: .assigned,
            model: .init(
                version: 0,
                url: "/v1/model",
                sha256: SHA256.hash(data: model).map { String(format: "%02x", $0) }.joined(),
                bytes: model.count
            ),
            architecture: specification.model,
            training: specification.training,
            privacy: specification.privacy,
            maxParticipations: 1_000,
            tensors: Self.layout,
            updateUrl: "/v1/assignments/\(id)/update",
            seed: String(number),
            deadline: "2030-01-01T00:00:00Z",
            deadlineInS: 60
        )
        change(&body, number)
        return CheckInResponse(assignment: body)
    }
}

/// Counts how often each assignment was trained, by its seed.
final class RehearsalTrainer: LocalTrainer {
    var canRehearse: Bool { true }
    let counts = Mutex<[UInt64: Int]>([:])
    private let training: @Sendable (TrainingInstructions) throws -> Void

    init(_ training: @escaping @Sendable (TrainingInstructions) throws -> Void = { _ in }) { self.training = training }

    func train(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingResult {
        counts.withLock { $0[instructions.seed, default: 0] += 1 }
        try training(instructions)
        let delta = ParameterVector(layout: model.layout, values: model.values.map { _ in 1 })
        return TrainingResult(delta: delta, exampleCount: 7, stepCount: 4)
    }
}

/// The device of a rehearsal: a directory, a clock that only moves when something waits, and what its owner was told.
final class RehearsalDevice: Sendable {
    let directory: TemporaryDirectory
    let notices = Mutex<[ClientNotice]>([])
    let seconds = Mutex<Double>(1_800_000_000)
    let waits = Mutex<[Double]>([])

    init() throws { directory = try TemporaryDirectory() }

    var path: String { directory.path + "/device" }

    /// The next process of this device.
    func client(
        _ server: any Transport,
        _ trainer: any LocalTrainer,
        attemptLimit: Int = 3,
        policy: ClientPrivacyPolicy = .init(),
        helper: HelperKey? = nil,
        limits: ClientLimits = .init(),
        models: String? = nil,
        failpoint: (@Sendable () throws -> Void)? = nil
    ) throws -> FederatedClient {
        FederatedClient(
            server: "http://server",
            enrollmentToken: "enroll",
            state: try ClientState(directory: path, failpoint: failpoint ?? {}),
            trainer: trainer,
            transport: server,
            models: try ModelCache(directory: models ?? directory.path + "/models"),
            policy: policy,
            helper: helper,
            limits: limits,
            retry: RetryPolicy(
                attemptLimit: attemptLimit,
                sleep: { [self] wait in
                    try Task.checkCancellation()
                    waits.withLock { $0.append(wait) }
                    seconds.withLock { $0 += wait }
                },
                uniform: { 0.5 },
                now: { [self] in Date(timeIntervalSince1970: seconds.withLock { $0 }) }
            ),
            arithmetic: ArithmeticQueue(width: 1),
            notify: { [self] notice in notices.withLock { $0.append(notice) } }
        )
    }

    /// The assignments that the device's ledger has an event of.
    func ledger() throws -> [String] {
        let data = try Data(contentsOf: URL(fileURLWithPath: path + "/ledger.json"))
        let events = try JSONSerialization.jsonObject(with: data) as? [String: [[String: Any]]]
        return (events?["events"] ?? []).compactMap { $0["assignment"] as? String }
    }

    /// The rounds that the device's ledger has events of.
    func ledgerRounds() throws -> [Int] {
        guard let data = FileManager.default.contents(atPath: path + "/ledger.json") else { return [] }
        let events = try JSONSerialization.jsonObject(with: data) as? [String: [[String: Any]]]
        return (events?["events"] ?? []).compactMap { $0["round"] as? Int }
    }

    func files() throws -> [String] { try FileManager.default.contentsOfDirectory(atPath: path).sorted() }
}

/// A number that several threads change.
final class Counter: Sendable {
    private let count: Mutex<Int>

    init(_ value: Int = 0) { count = Mutex(value) }

    var value: Int {
        get { count.withLock { $0 } }
        set { count.withLock { $0 = newValue } }
    }

    /// Adds one.
    ///
    /// - Returns: The new value.
    func increase() -> Int {
        count.withLock {
            $0 += 1
            return $0
        }
    }
}

extension Assignment.ModelFile {
    /// The model of a rehearsal.
    static var rehearsed: Self {
        get throws {
            let model = RehearsalServer.model
            guard let path = ServerPath("/v1/model"),
                let hash = ContentHash(SHA256.hash(data: model).map { String(format: "%02x", $0) }.joined())
            else { throw CancellationError() }
            return Self(
                version: 0,
                path: path,
                sha256: hash,
                fileHash: hash,
                fileByteCount: model.count,
                encoding: .f32
            )
        }
    }
}
