import Crypto
import DifferentialPrivacy
import Foundation
import LocalTraining
import MartletClient
import StrictJSON
import Synchronization
import Tensors
import TestSupport
import Testing
import UpdateCompression
import WireFormat

/// A server made of closures: answers by method and path, and remembers what was asked.
private final class ScriptedTransport: Transport {
    struct Call: Sendable {
        var method: String
        var path: String
        var headers: [String: String]
        var body: Data
        /// The id of the assignment that was handed out last.
        var assignment = ""

        /// The server's receipt for these bytes.
        var receipt: TransportResponse {
            let sha256 = SHA256.hash(data: body).map { String(format: "%02x", $0) }.joined()
            let receipt = UpdateReceipt(assignment: assignment, state: .accepted, sha256: sha256, bytes: body.count)
            return TransportResponse(status: 200, body: (try? WireCoding.encode(receipt)) ?? Data())
        }
    }
    typealias Answer = @Sendable (Call) throws -> TransportResponse?

    private let calls = Mutex<[Call]>([])
    private let handedOut = Mutex("")
    private static let assignmentCount = Atomic<Int>(0)
    private let answers: Mutex<[String: [Answer]]>

    /// Answers for `METHOD /path`; the last one is used again and again.
    init(_ answers: [String: [Answer]]) {
        self.answers = Mutex(answers)
    }

    var lastAssignment: String { handedOut.withLock { $0 } }

    func made(_ key: String) -> [Call] { calls.withLock { $0.filter { "\($0.method) \($0.path)" == key } } }

    func send(_ request: TransportRequest) async throws -> TransportResponse {
        var body = Data()
        switch request.body {
        case .none: break
        case .bytes(let data): body = data
        case .file(let path, let offset):
            body = try Data(contentsOf: URL(fileURLWithPath: path)).dropFirst(offset)
        }
        var path = request.url.replacing("http://server", with: "")
        let asked = path.firstMatch(of: /asg_[0-9]+/).map { String($0.output) }
        path.replace(/asg_[0-9]+/, with: "asg_1")
        let call = Call(
            method: request.method,
            path: path,
            headers: request.headers,
            body: body,
            assignment: handedOut.withLock { $0 }
        )
        calls.withLock { $0.append(call) }
        let key = "\(call.method) \(call.path)"
        let answer = answers.withLock { table in
            (table[key]?.count ?? 0) > 1 ? table[key]?.removeFirst() : table[key]?.first
        }
        guard var response = try answer?(call) else { throw ClientError(code: "network", message: "unreachable") }
        if key == "POST /v1/checkins", response.status == 201 {
            // Each time another assignment, as a server does it.
            let id = "asg_\(Self.assignmentCount.add(1, ordering: .relaxed).newValue)"
            handedOut.withLock { $0 = id }
            let text = String(decoding: response.body, as: UTF8.self).replacing("\"asg_1\"", with: "\"\(id)\"")
            response.body = Data(text.utf8)
        }
        if key == "GET /v1/assignments/asg_1", let asked {
            let text = String(decoding: response.body, as: UTF8.self).replacing("\"asg_1\"", with: "\"\(asked)\"")
            response.body = Data(text.utf8)
        }
        // A server names the file that it sends.
        if let hash = request.fileSHA256, response.headers.isEmpty { response.headers["etag"] = "\"\(hash)\"" }
        if let destination = request.destination, response.status == 200 {
            try response.body.write(to: URL(fileURLWithPath: destination))
        }
        return response
    }
}

/// Adds one to every parameter, and counts how often it was asked.
private final class CountingTrainer: LocalTrainer {
    var canRehearse: Bool { true }
    let count = Mutex(0)
    let told = Mutex<[TrainingInstructions]>([])
    let value: Float
    init(value: Float = 1) { self.value = value }

    func train(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingResult {
        count.withLock { $0 += 1 }
        told.withLock { $0.append(instructions) }
        let delta = ParameterVector(layout: model.layout, values: model.values.map { _ in value })
        var metrics = TrainingMetrics()
        metrics.tokens = 9
        return TrainingResult(delta: delta, exampleCount: 7, metrics: metrics, stepCount: 4)
    }

    func gradient(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingResult {
        let gradient = ParameterVector(layout: model.layout, values: model.values.map { _ in -3 })
        return TrainingResult(delta: gradient, exampleCount: 5)
    }

    func evaluate(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingMetrics {
        count.withLock { $0 += 1 }
        var metrics = TrainingMetrics()
        (metrics.nll, metrics.lossTokens, metrics.tokens, metrics.hit1) = (12, 6, 8, 4)
        return metrics
    }
}

@Suite(.timeLimit(.minutes(10)))
struct FederatedClientTests {
    private let directory: TemporaryDirectory
    private let model = ParameterVector(zeros: ParameterLayout([.init(name: "w", shape: [4])]))
    private let waits = Waits()

    private final class Waits: Sendable {
        let seconds = Mutex<[Double]>([])
    }

    init() throws {
        directory = try TemporaryDirectory()
    }

    private func assignment(
        mode: String,
        sha256: String? = nil,
        training: String = "{}",
        modelEncoding: String? = nil,
        encodedFile: Data? = nil,
        clipping: String = #"{"norm": 0.5}"#,
        measuring: [String]? = nil,
        round: Int = 1
    ) throws -> Data {
        let file = SafetensorsWriter.encode(model)
        let digest = sha256 ?? SHA256.hash(data: file).map { String(format: "%02x", $0) }.joined()
        let privacy = mode == "none" ? "{}" : #"{"mode": "\#(mode)", "noise_multiplier": 2, "clipping": \#(clipping)}"#
        let sections = try [training, privacy].map { try JSONValue(parsing: Array($0.utf8)) }
        let specification = try RunSpecification.sample {
            $0 += ["training": sections[0], "privacy": sections[1]]
            $0.cohort.goal = 1
        }
        var body = AssignmentBody(
            id: "asg_1",
            run: "run_1",
            round: round,
            attempt: 1,
            state: .assigned,
            model: .init(
                version: 0,
                url: "/model",
                sha256: digest,
                bytes: file.count,
                encoding: modelEncoding.flatMap(ModelEncoding.init)
            ),
            architecture: specification.model,
            training: specification.training,
            privacy: specification.privacy,
            maxParticipations: 1,
            tensors: model.layout,
            updateUrl: "/update",
            seed: "5",
            deadline: "",
            deadlineInS: 60
        )
        if let encodedFile {
            body.model.encodedSha256 = SHA256.hash(data: encodedFile).map { String(format: "%02x", $0) }.joined()
            body.model.encodedBytes = encodedFile.count
        }
        if let measuring {
            body.kind = .evaluate
            body.release = .init(metrics: measuring, lossBound: 10)
        }
        return try WireCoding.encode(CheckInResponse(assignment: body))
    }

    private func transport(
        mode: String = "none",
        sha256: String? = nil,
        training: String = "{}",
        clipping: String = #"{"norm": 0.5}"#,
        update: [ScriptedTransport.Answer]? = nil,
        committed: [Bool] = [],
        measuring: [String]? = nil,
        round: Int = 1
    ) throws -> ScriptedTransport {
        let checkIn = try assignment(
            mode: mode,
            sha256: sha256,
            training: training,
            clipping: clipping,
            measuring: measuring,
            round: round
        )
        let registered = try WireCoding.encode(RegistrationResponse(clientId: "clt_1", token: "secret"))
        let file = SafetensorsWriter.encode(model)
        let work = try WireCoding.decode(CheckInResponse.self, from: checkIn).assignment
        return ScriptedTransport([
            "GET /v1/assignments/asg_1": try committed.map { isCommitted in
                var body = work
                body?.roundCommitted = isCommitted
                let data = try WireCoding.encode(body)
                return { _ in TransportResponse(status: 200, body: data) }
            },
            "POST /v1/clients": [{ _ in TransportResponse(status: 201, body: registered) }],
            "POST /v1/checkins": [{ _ in TransportResponse(status: 201, body: checkIn) }],
            "GET /model": [{ _ in TransportResponse(status: 200, body: file) }],
            "PUT /update": update ?? [{ $0.receipt }],
            "POST /v1/assignments/asg_1/failure": [{ _ in TransportResponse(status: 204) }],
        ])
    }

    private func client(
        _ transport: ScriptedTransport,
        _ trainer: CountingTrainer = .init(),
        policy: ClientPrivacyPolicy = .init(),
        attemptLimit: Int = 5
    ) throws -> FederatedClient {
        let waits = waits
        return FederatedClient(
            server: "http://server/",
            enrollmentToken: "enroll",
            state: try ClientState(directory: directory.path),
            trainer: trainer,
            transport: transport,
            models: try ModelCache(directory: directory.path + "/models"),
            policy: policy,
            retry: RetryPolicy(
                attemptLimit: attemptLimit,
                sleep: { seconds in waits.seconds.withLock { $0.append(seconds) } },
                uniform: { 0.5 }
            )
        )
    }

    /// A refusal of the server's.
    private func refusal(_ status: Int, _ code: String) throws -> TransportResponse {
        let problem = ProblemDocument(title: "t", status: status, detail: "d", code: code)
        return TransportResponse(
            status: status,
            headers: ["content-type": "application/problem+json"],
            body: try WireCoding.encode(problem)
        )
    }

    /// The tensors that were uploaded, and their metadata.
    private func uploaded(_ transport: ScriptedTransport) throws -> [(vector: ParameterVector, kind: String?)] {
        try transport.made("PUT /update").map { call in
            let path = directory.path + "/sent-\(UUID().uuidString)"
            try call.body.write(to: URL(fileURLWithPath: path))
            let file = try SafetensorsFile(path: path)
            return (try file.readAll(), file.header.metadata["kind"])
        }
    }

    /// What a sparse update left out counts from the update that the server took: one that it refused or never got leaves
    /// the device's memory as it was.
    @Test func whatATopKUpdateLeftOutIsKeptOnlyWhenItWasAccepted() async throws {
        func residual() -> [Float]? {
            FileManager.default.contents(atPath: directory.path + "/residual-run_1.f32")?.withUnsafeBytes {
                Array($0.bindMemory(to: Float.self))
            }
        }
        let refusal = try refusal(410, "round_closed")
        let refused = try transport(training: #"{"encoding": "topk"}"#, update: [{ _ in refusal }])
        _ = try await client(refused, .init(value: 2)).participateOnce(waitSeconds: 0)
        #expect(residual() == nil)
        let accepted = try transport(training: #"{"encoding": "topk"}"#)
        _ = try await client(accepted, .init(value: 2)).participateOnce(waitSeconds: 0)
        // One of four is sent, the first of equal ones.
        #expect(residual() == [0, 2, 2, 2])
        _ = try await client(refused, .init(value: 3)).participateOnce(waitSeconds: 0)
        #expect(residual() == [0, 2, 2, 2])
        _ = try await client(accepted, .init(value: 3)).participateOnce(waitSeconds: 0)
        #expect(residual() == [3, 0, 5, 5])
        #expect(!FileManager.default.fileExists(atPath: directory.path + "/residual.next"))
    }

    @Test func gradientsWeightsAndProximalTermsAreAsTheRunAsks() async throws {
        let gradient = try transport(training: #"{"submit": "gradient"}"#)
        _ = try await client(gradient).participateOnce(waitSeconds: 0)
        var sent = try #require(try uploaded(gradient).first)
        #expect(sent.kind == "gradient" && sent.vector.values == [-3, -3, -3, -3])
        let weights = try transport(training: #"{"submit": "weights"}"#)
        _ = try await client(weights).participateOnce(waitSeconds: 0)
        sent = try #require(try uploaded(weights).first)
        #expect(sent.kind == "weights" && sent.vector.values == [1, 1, 1, 1])
        let trainer = CountingTrainer()
        let local = #"{"local": {"proximal_mu": 0.25, "optimizer": "momentum", "momentum": 0.5, "weight_decay": 0.1}}"#
        _ = try await client(try transport(training: local), trainer).participateOnce(waitSeconds: 0)
        let told = try #require(trainer.told.withLock { $0.first })
        #expect(told.proximalMu == 0.25 && told.optimizer.rule == .momentum)
        #expect(told.optimizer.momentum == 0.5 && told.optimizer.weightDecay == 0.1)
        let adam = #"{"local": {"optimizer": "adamw", "beta1": 0.8, "beta2": 0.99, "epsilon": 1e-6}}"#
        _ = try await client(try transport(training: adam), trainer).participateOnce(waitSeconds: 0)
        let constants = try #require(trainer.told.withLock { $0.last }).optimizer
        #expect(constants.rule == .adamw && constants.beta1 == 0.8 && constants.beta2 == 0.99)
        #expect(constants.epsilon == 1e-6)
    }

    @Test func scaffoldKeepsItsControlVariateOnceItsRoundIsCommitted() async throws {
        let training = #"{"algorithm": "scaffold", "local": {"learning_rate": 0.5}}"#
        let refusal = try refusal(410, "round_closed")
        let refused: ScriptedTransport.Answer = { _ in refusal }
        let accepted: ScriptedTransport.Answer = { $0.receipt }
        let transport = try transport(
            training: training,
            update: [refused, accepted],
            // What became of the two accepted updates: the first one's attempt was abandoned, the second one's committed.
            committed: [false, true]
        )
        let trainer = CountingTrainer()
        // Each time a new process, which knows what the last one left on the disk.
        for _ in 0..<4 { _ = try await client(transport, trainer).participateOnce(waitSeconds: 0) }
        let parts = try uploaded(transport).map {
            ControlVariates.split($0.vector.values, modelLayout: model.layout)
        }
        // c = 0 and delta = 1 over 4 steps at rate 0.5: each change of c_i is −1 / 2, whatever c_i is.
        #expect(parts.count == 4 && parts.allSatisfy { $0.model == [1, 1, 1, 1] })
        #expect(parts.allSatisfy { $0.control == [-0.5, -0.5, -0.5, -0.5] })
        // c − c_i: neither the refused update nor the abandoned one changed anything, the committed one did.
        let corrections = trainer.told.withLock { $0.map(\.gradientCorrection) }
        #expect(corrections == [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0.5, 0.5, 0.5, 0.5]])
    }

    /// Without privacy the server hears the rule, and nothing that was read from the data; with it, it hears nothing.
    @Test func whatAFailureSaysOfTheDataStaysOnTheDevice() async throws {
        struct Poor: LocalTrainer {
            var canRehearse: Bool { true }
            func train(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingResult {
                throw LocalTrainingError.unusableData(
                    reason: "row 7, column 'age': 'Jane Roe' is no number",
                    rule: "column 'age' must hold numbers"
                )
            }
        }
        for mode in ["none", "local", "central"] {
            let transport = try transport(mode: mode)
            let client = FederatedClient(
                server: "http://server/",
                enrollmentToken: "enroll",
                state: try ClientState(directory: directory.path + "/" + mode),
                trainer: Poor(),
                transport: transport,
                models: try ModelCache(directory: directory.path + "/models")
            )
            let outcome = try await client.participateOnce(waitSeconds: 0)
            let reports = transport.made("POST /v1/assignments/asg_1/failure").map {
                String(decoding: $0.body, as: UTF8.self)
            }
            guard mode == "none" else {
                #expect(outcome == .accepted(run: "run_1", round: 1) && reports.isEmpty)
                #expect(await client.lastShortfall == "row 7, column 'age': 'Jane Roe' is no number")
                continue
            }
            #expect(outcome == .ended(code: "no_data") && reports.count == 1)
            #expect(reports[0].contains("column 'age' must hold numbers"))
            #expect(!reports[0].contains("Jane") && !reports[0].contains("row"))
        }
    }

    @Test func scaffoldIsClippedAsOneVectorUnderPrivacy() async throws {
        let transport = try transport(mode: "central", training: #"{"algorithm": "scaffold"}"#)
        _ = try await client(transport).participateOnce(waitSeconds: 0)
        let values = try #require(try uploaded(transport).first).vector.values
        #expect(values.count == 8)
        // The bound of 0.5 is on delta and change of the control variate together.
        #expect(abs(VectorKernels.squaredNorm(values).squareRoot() - 0.5) < 1e-6)
    }

    @Test func oneParticipationSendsTheClippedUpdateWithItsDigest() async throws {
        let transport = try transport(mode: "central")
        #expect(try await client(transport).participateOnce(waitSeconds: 30) == .accepted(run: "run_1", round: 1))
        let update = try #require(transport.made("PUT /update").first)
        let digest = Data(SHA256.hash(data: update.body)).base64EncodedString()
        #expect(update.headers["Content-Digest"] == "sha-256=:\(digest):")
        #expect(update.headers["Authorization"] == "Bearer secret")
        let path = directory.path + "/sent"
        try update.body.write(to: URL(fileURLWithPath: path))
        let file = try SafetensorsFile(path: path)
        // Four ones have norm 2; the bound is 0.5.
        #expect(try file.readAll().values == [0.25, 0.25, 0.25, 0.25])
        #expect(file.header.metadata["tokens"] == nil && file.header.metadata["num_examples"] == "1")
        #expect(transport.made("POST /v1/checkins").first?.headers["Prefer"] == "wait=30")
    }

    @Test func registeringHappensOnceAndRepeatsItsKey() async throws {
        let lost = try transport()
        let failing = ScriptedTransport(["POST /v1/clients": [{ _ in nil }]])
        await #expect(throws: ClientError.self) { try await client(failing, attemptLimit: 2).register() }
        try await client(lost).register()
        let keys = Set(
            (failing.made("POST /v1/clients") + lost.made("POST /v1/clients")).map { $0.headers["Idempotency-Key"] }
        )
        #expect(keys.count == 1 && failing.made("POST /v1/clients").count == 2)
        try await client(lost).register()
        #expect(lost.made("POST /v1/clients").count == 1)
    }

    @Test func aFailedUploadIsRepeatedWithTheSameBytesAlsoByTheNextProcess() async throws {
        let down = try transport(
            mode: "local",
            update: [{ _ in TransportResponse(status: 503, headers: ["retry-after": "7"]) }]
        )
        let trainer = CountingTrainer()
        await #expect(throws: ClientError.self) {
            try await client(down, trainer, attemptLimit: 3).participateOnce(waitSeconds: 0)
        }
        #expect(waits.seconds.withLock { $0 } == [7, 7])
        // The next process finds the finished update and sends it before anything else.
        let up = try transport(
            mode: "local",
            update: [
                { call in
                    var call = call
                    call.assignment = down.lastAssignment
                    return call.receipt
                }
            ]
        )
        _ = try await client(up, trainer).participateOnce(waitSeconds: 0)
        let bodies = Set((down.made("PUT /update") + up.made("PUT /update").prefix(1)).map(\.body))
        #expect(down.made("PUT /update").count == 3 && bodies.count == 1)
        #expect(FileManager.default.fileExists(atPath: directory.path + "/pending.json") == false)
    }

    @Test func permanentRefusalsEndTheAssignment() async throws {
        let refusal = try refusal(410, "round_full")
        let transport = try transport(update: [{ _ in refusal }])
        #expect(try await client(transport).participateOnce(waitSeconds: 0) == .ended(code: "round_full"))
        #expect(transport.made("PUT /update").count == 1)
    }

    @Test func whatTheOwnerDoesNotAllowIsRefusedWithoutTraining() async throws {
        let policies: [(String, ClientPrivacyPolicy)] = [
            ("none", .init(acceptedModes: ["local", "central"])), ("local", .init(maxEpsilon: 0.5)),
            ("central", .init(maxParticipations: 0)), ("central", .init(maxEpsilon: .nan)),
        ]
        for (mode, policy) in policies {
            let trainer = CountingTrainer()
            let transport = try transport(mode: mode)
            let client = try client(transport, trainer, policy: policy)
            #expect(try await client.participateOnce(waitSeconds: 0) == .ended(code: "privacy_refused"))
            #expect(try #require(await client.lastRefusal).isEmpty == false)
            #expect(trainer.count.withLock { $0 } == 0 && transport.made("PUT /update").isEmpty)
            let report = try #require(transport.made("POST /v1/assignments/asg_1/failure").first)
            // No total, no count and no policy of the device leaves it: the code alone.
            #expect(String(decoding: report.body, as: UTF8.self) == #"{"code":"privacy_refused"}"#)
        }
        // A noise multiplier of 2 costs 2.06 at delta 1e-5 the first time, and more than 2.5 the second.
        do {
            let first = try transport(mode: "local")
            let strict = try client(first, policy: .init(maxEpsilon: 2.5))
            #expect(try await strict.participateOnce(waitSeconds: 0) == .accepted(run: "run_1", round: 1))
            // The same version again is the same report, which costs nothing more.
            #expect(try await strict.participateOnce(waitSeconds: 0) == .accepted(run: "run_1", round: 1))
            #expect(Set(first.made("PUT /update").map(\.body)).count == 1)
        }
        let strict = try client(try transport(mode: "local", round: 2), policy: .init(maxEpsilon: 2.5))
        #expect(try await strict.participateOnce(waitSeconds: 0) == .ended(code: "privacy_refused"))
    }

    /// A measurement that is published is in the device's ledger before it can leave, and only what is published leaves.
    @Test func aMeasurementIsChargedOnTheDeviceBeforeItLeaves() async throws {
        let ledger = directory.path + "/ledger.json"
        let before = Mutex<[Bool]>([])
        let transport = try transport(
            mode: "central",
            update: [
                { call in
                    let events = try String(contentsOfFile: ledger, encoding: .utf8)
                    before.withLock { $0.append(events.contains(call.assignment)) }
                    return call.receipt
                }
            ],
            measuring: ["loss"]
        )
        // A noise multiplier of 2 costs 2.06 at delta 1e-5 the first time, and more than 2.5 the second.
        let trainer = CountingTrainer()
        let client = try client(transport, trainer, policy: .init(maxEpsilon: 2.5))
        #expect(try await client.participateOnce(waitSeconds: 0) == .accepted(run: "run_1", round: 1))
        #expect(before.withLock { $0 } == [true])
        let sent = try #require(transport.made("PUT /update").first).body
        let result = try EvaluationResult.read(JSONValue.parse(Array(sent)))
        // The rate that is published, as a sum over one example.
        #expect(result.metrics == ["nll": 2, "loss_tokens": 1])
        #expect(try await client.participateOnce(waitSeconds: 0) == .ended(code: "privacy_refused"))
        #expect(trainer.count.withLock { $0 } == 1)
    }

    @Test func aModelIsFetchedOnceAndAgainWhenItsFileIsDamaged() async throws {
        let transport = try transport()
        for _ in 0..<2 {
            // Each time another process, as far as the cache can tell.
            #expect(
                try await client(transport).participateOnce(waitSeconds: 0) == .accepted(run: "run_1", round: 1)
            )
        }
        #expect(transport.made("GET /model").count == 1)
        let models = directory.path + "/models"
        let name = try #require(try FileManager.default.contentsOfDirectory(atPath: models).first)
        var bytes = try Data(contentsOf: URL(fileURLWithPath: models + "/" + name))
        bytes[bytes.count - 1] ^= 1
        try bytes.write(to: URL(fileURLWithPath: models + "/" + name))
        #expect(try await client(transport).participateOnce(waitSeconds: 0) == .accepted(run: "run_1", round: 1))
        #expect(transport.made("GET /model").count == 2)
        #expect(try FileManager.default.contentsOfDirectory(atPath: models) == [name])
    }

    /// The hash that counts is that of the assignment: what the answer with the file says of itself counts for nothing.
    @Test func aModelInFewerBitsIsReadAndItsDigestIsDemanded() async throws {
        let path = directory.path + "/plain"
        let values: [Float] = [0.1, -3, 0.00001, 7]
        try SafetensorsWriter.encode(ParameterVector(layout: model.layout, values: values))
            .write(to: URL(fileURLWithPath: path))
        let collected = Mutex(Data())
        try ModelVariant.write(path, as: .f16) { bytes in collected.withLock { $0.append(contentsOf: bytes) } }
        let file = collected.withLock { $0 }
        let other = file.dropLast() + [file[file.count - 1] ^ 1]
        let checkIn = try assignment(mode: "none", modelEncoding: "f16", encodedFile: file)
        let registered = try WireCoding.encode(RegistrationResponse(clientId: "clt_1", token: "secret"))
        func transport(_ file: Data) -> ScriptedTransport {
            ScriptedTransport([
                "POST /v1/clients": [{ _ in TransportResponse(status: 201, body: registered) }],
                "POST /v1/checkins": [{ _ in TransportResponse(status: 201, body: checkIn) }],
                "GET /model": [{ _ in TransportResponse(status: 200, body: file) }],
                "PUT /update": [{ $0.receipt }],
                "POST /v1/assignments/asg_1/failure": [{ _ in TransportResponse(status: 204) }],
            ])
        }
        for bad in [other, file + [0]] {
            let outcome = try await client(transport(bad)).participateOnce(waitSeconds: 0)
            #expect(outcome == .ended(code: "digest_mismatch"))
        }
        let good = transport(file)
        for _ in 0..<2 {
            #expect(try await client(good).participateOnce(waitSeconds: 0) == .accepted(run: "run_1", round: 1))
        }
        #expect(good.made("GET /model").count == 1)
        // The update says from which model it comes by the name that the server knows.
        let sent = try #require(try uploaded(good).first).vector
        #expect(sent.values == [1, 1, 1, 1])
    }

    /// Every run of 32 bytes on the device, raw or from hexadecimal or Base64 text, is tried as the noise's key.
    @Test func noKeyOfTheNoiseIsOnTheDisk() async throws {
        // The upload fails for now, so that everything is there that a client keeps between two tries.
        let transport = try transport(mode: "local", update: [{ _ in TransportResponse(status: 503) }])
        await #expect(throws: ClientError.self) {
            try await client(transport, attemptLimit: 1).participateOnce(waitSeconds: 0)
        }
        let sent = try #require(try uploaded(transport).first).vector.values
        let grid = try NoiseGrid(clippingNorm: 0.5, noiseMultiplier: 2, parameterCount: 4, isLocal: true)
        let noised = sent.map { Int64((Double($0) / grid.step).rounded()) }
        func regenerates(_ key: [UInt8]) throws -> Bool {
            var integers = grid.quantize([0.25, 0.25, 0.25, 0.25])
            try IntegerGaussianSampler(testKey: SymmetricKey(data: key)).addNoise(to: &integers)
            // Single precision keeps 24 bits of a value of up to 28.
            return zip(integers, noised).allSatisfy { abs($0 - $1) <= 64 }
        }
        var candidates: Set<[UInt8]> = []
        func collect(_ bytes: [UInt8]) {
            for start in bytes.indices where start + 32 <= bytes.count {
                candidates.insert(Array(bytes[start..<(start + 32)]))
            }
        }
        let files = try #require(FileManager.default.enumerator(atPath: directory.path)).compactMap { $0 as? String }
        for name in files where !name.hasPrefix("sent-") {
            guard let data = FileManager.default.contents(atPath: directory.path + "/" + name) else { continue }
            collect(Array(data))
            for word in String(decoding: data, as: UTF8.self).split(whereSeparator: {
                !$0.isLetter && !$0.isNumber && !"+/=".contains($0)
            }) {
                if let decoded = Data(base64Encoded: String(word)) { collect(Array(decoded)) }
                let digits = Array(word.utf8).compactMap { Character(UnicodeScalar($0)).hexDigitValue.map(UInt8.init) }
                if digits.count == word.utf8.count {
                    for shift in 0...1 {
                        collect(
                            stride(from: shift, to: digits.count - 1, by: 2).map { digits[$0] << 4 | digits[$0 + 1] }
                        )
                    }
                }
            }
        }
        #expect(candidates.count > 100)
        for key in candidates { #expect(try !regenerates(key)) }
        // The check finds a key that is there.
        let planted = [UInt8](repeating: 7, count: 32)
        var integers = grid.quantize([0.25, 0.25, 0.25, 0.25])
        try IntegerGaussianSampler(testKey: SymmetricKey(data: planted)).addNoise(to: &integers)
        let reread = integers.map { Int64((Double(Float(Double($0) * grid.step)) / grid.step).rounded()) }
        #expect(zip(integers, reread).allSatisfy { abs($0 - $1) <= 64 })
    }

    @Test func aLedgerThatCannotBeReadStopsTheDevice() async throws {
        let trainer = CountingTrainer()
        try Data("{".utf8).write(to: URL(fileURLWithPath: directory.path + "/ledger.json"))
        let transport = try transport(mode: "local")
        let error = await #expect(throws: ClientError.self) {
            try await client(transport, trainer).participateOnce(waitSeconds: 0)
        }
        #expect(error?.code == "state_damaged" && error?.message.contains("ledger.json") == true)
        // The server is not asked: work that cannot be done is for others.
        #expect(trainer.count.withLock { $0 } == 0 && transport.made("POST /v1/checkins").isEmpty)
    }

    @Test func theNormsBitGoesWithAnUpdateOfAnAdaptiveRunOnly() async throws {
        func bit(_ policy: String, norm: Double) async throws -> String? {
            let transport = try transport(mode: "central", clipping: #"{"norm": \#(norm), "policy": "\#(policy)"}"#)
            _ = try await client(transport).participateOnce(waitSeconds: 0)
            let path = directory.path + "/sent"
            try #require(transport.made("PUT /update").first).body.write(to: URL(fileURLWithPath: path))
            return try SafetensorsFile(path: path).header.metadata["within_norm"]
        }
        #expect(try await bit("adaptive", norm: 0.5) == "0")
        #expect(try await bit("adaptive", norm: 3) == "1")
        #expect(try await bit("flat", norm: 3) == nil)
    }

    @Test func aModelWithAnotherDigestIsNotUsed() async throws {
        let trainer = CountingTrainer()
        let transport = try transport(sha256: String(repeating: "0", count: 64))
        #expect(
            try await client(transport, trainer).participateOnce(waitSeconds: 0) == .ended(code: "digest_mismatch")
        )
        #expect(trainer.count.withLock { $0 } == 0)
        // The server's slot is free again.
        #expect(transport.made("POST /v1/assignments/asg_1/failure").count == 1)
    }

    @Test func numericFailuresAreReportedAndNothingIsSent() async throws {
        let transport = try transport()
        #expect(
            try await client(transport, CountingTrainer(value: .nan)).participateOnce(waitSeconds: 0)
                == .ended(code: "training_failed")
        )
        #expect(transport.made("PUT /update").isEmpty)
    }

    @Test func curlTransportSaysWhenNobodyAnswers() async throws {
        // Port 1 of the loopback interface has no listener on any ordinary machine; connecting is refused at once.
        await #expect(throws: ClientError.self) {
            try await CurlTransport().send(TransportRequest(method: "GET", url: "http://127.0.0.1:1/"))
        }
        await #expect(throws: ClientError.self) {
            try await CurlTransport().send(TransportRequest(method: "GET", url: "file:///etc/passwd"))
        }
    }
}
