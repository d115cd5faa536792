import Crypto
import Foundation
import LocalTraining
import StrictJSON
import Synchronization
import Tensors
import TestSupport
import Testing
import UpdateCompression
import WireFormat

@testable import MartletClient

/// In a private run whatever a device sends is the same for any data, but for the contents of the update, the sums, the
/// vote and the bit: requests, their order and number, their sizes, codes and header fields.
///
/// The real client and the built-in trainers run against a scripted server, once for each world.
@Suite(.timeLimit(.minutes(10)))
struct NonInterferenceTests {
    /// One request as an observer of everything but contents sees it.
    struct Seen: Equatable, Sendable, CustomStringConvertible {
        var method: String
        var path: String
        var fields: [String]
        var bodyByteCount: Int
        /// Of what is no update and no sums.
        var body: String?

        var description: String { "\(method) \(path) \(bodyByteCount) \(body ?? "…") \(fields)" }
    }

    private final class Server: Transport {
        private let work: AssignmentBody
        private let model: Data
        private let count = Mutex(0)
        private let requests = Mutex<[Seen]>([])
        private let uploads = Mutex<[Data]>([])
        /// Whether a model takes until two signs of life have come meanwhile.
        private let waitsForSigns: Bool

        init(_ work: AssignmentBody, model: Data, waitsForSigns: Bool = false) throws {
            self.waitsForSigns = waitsForSigns
            self.work = work
            self.model = model
        }

        var transcript: [Seen] { requests.withLock { $0 } }
        var signCount: Int { transcript.count { $0.path.hasSuffix("/heartbeat") } }
        var sent: [Data] { uploads.withLock { $0 } }

        func send(_ request: TransportRequest) async throws -> TransportResponse {
            var body = Data()
            switch request.body {
            case .none: break
            case .bytes(let data): body = data
            case .file(let path, let offset):
                body = try Data(contentsOf: URL(fileURLWithPath: path)).dropFirst(offset)
            }
            let path = request.url.replacing("http://server", with: "")
            let isUpload = path == "/update"
            let hidden: Set<String> = ["Content-Digest", "Idempotency-Key"]
            let seen = Seen(
                method: request.method,
                path: path,
                fields: request.headers.map {
                    hidden.contains($0.key) ? "\($0.key)/\($0.value.count)" : "\($0.key)=\($0.value)"
                }
                .sorted(),
                bodyByteCount: body.count,
                body: isUpload ? nil : String(decoding: body, as: UTF8.self)
            )
            requests.withLock { $0.append(seen) }
            if waitsForSigns, path == "/model" {
                let before = signCount
                try await wait(for: "signs of life") { signCount >= before + 2 }
            }
            if isUpload { uploads.withLock { $0.append(body) } }
            switch "\(request.method) \(path)" {
            case "POST /v1/clients":
                return TransportResponse(
                    status: 201,
                    body: try WireCoding.encode(RegistrationResponse(clientId: "clt_1", token: "secret"))
                )
            case "POST /v1/checkins":
                // Another piece of work each time.
                let number = count.withLock { count in
                    count += 1
                    return count
                }
                var body = work
                body.id = "asg_\(number)"
                body.round = number
                return TransportResponse(status: 201, body: try WireCoding.encode(CheckInResponse(assignment: body)))
            case "GET /model":
                if let destination = request.destination { try model.write(to: URL(fileURLWithPath: destination)) }
                return TransportResponse(
                    status: 200,
                    headers: ["etag": "\"\(request.fileSHA256 ?? "")\""],
                    body: model
                )
            case "GET /v1/assignments/asg_1":
                var body = work
                body.roundCommitted = true
                return TransportResponse(status: 200, body: try WireCoding.encode(body))
            case "PUT /update":
                let receipt = UpdateReceipt(
                    assignment: "asg_\(count.withLock { $0 })",
                    state: .accepted,
                    sha256: SHA256.hash(data: body).map { String(format: "%02x", $0) }.joined(),
                    bytes: body.count
                )
                return TransportResponse(status: 200, body: try WireCoding.encode(receipt))
            case let other where other.hasSuffix("/failure"): return TransportResponse(status: 204)
            default: return TransportResponse(status: 200)
            }
        }
    }

    /// A run file's part, and how its assignments are.
    struct Terms: Sendable, CustomTestStringConvertible {
        var name: String
        var text: String
        var measures: [String]?
        var testDescription: String { name }
    }

    private static let schema = #"""
        {"label": {"column": "y", "positive": "> 0"},
         "features": [{"column": "a"}, {"column": "b", "type": "category", "levels": ["x", "z"]}]}
        """#

    private static func tabular(
        _ name: String,
        _ privacy: String,
        _ extra: String = "",
        measures: [String]? = nil,
        cohort: String = ""
    ) -> Terms {
        Terms(
            name: name,
            text: """
                {"population": "p", "rounds": 3, "cohort": {"goal": 2, "max_participations": 3\(cohort)},
                 "model": {"architecture": "tabular", "config": {"hidden": [40], "schema": \(schema)}},
                 "privacy": \(privacy)\(extra)}
                """,
            measures: measures
        )
    }

    private static let central = #"{"mode": "central", "noise_multiplier": 1, "clipping": {"norm": 0.5}}"#
    private static let local = #"{"mode": "local", "noise_multiplier": 1, "clipping": {"norm": 0.5}}"#
    private static let rules = #""data": {"minimum_records": 5}"#

    static let tables: [Terms] = [
        tabular("central", central, #", "training": {\#(rules)}"#),
        tabular("local", local, #", "training": {\#(rules)}"#),
        tabular("gradient", central, #", "training": {"submit": "gradient", \#(rules)}"#),
        tabular("scaffold", central, #", "training": {"algorithm": "scaffold", \#(rules)}"#),
        tabular("topk", central, #", "training": {"encoding": "topk", \#(rules)}"#),
        tabular("int4", local, #", "training": {"encoding": "int4", \#(rules)}"#),
        tabular("rotated1", central, #", "training": {"encoding": "rotated1", \#(rules)}"#),
        tabular(
            "adaptive",
            #"{"mode": "central", "noise_multiplier": 1, "clipping": {"norm": 0.5, "policy": "adaptive"}}"#,
            #", "training": {\#(rules)}"#
        ),
        tabular(
            "laplace",
            #"{"mode": "central", "mechanism": "laplace", "noise_multiplier": 1, "clipping": {"norm": 0.5, "policy": "l1"}}"#,
            #", "training": {\#(rules)}"#
        ),
        tabular(
            "discrete_gaussian",
            #"{"mode": "central", "mechanism": "discrete_gaussian", "noise_multiplier": 1, "clipping": {"norm": 0.5}}"#,
            #", "training": {\#(rules)}"#
        ),
        tabular(
            "per_layer",
            #"{"mode": "central", "noise_multiplier": 1, "clipping": {"norm": 0.5, "policy": "per_layer"}}"#,
            #", "training": {\#(rules)}"#
        ),
        tabular(
            "banded",
            #"{"mode": "central", "mechanism": "banded_matrix", "noise_multiplier": 1, "clipping": {"norm": 0.5}}"#,
            #", "training": {\#(rules)}"#,
            cohort: #", "min_separation_rounds": 1"#
        ),
        tabular(
            "weighted",
            central,
            #", "training": {\#(rules)}, "aggregation": {"weighting": "examples", "example_cap": 5000}"#
        ),
        tabular(
            "evaluation",
            central,
            #", "training": {\#(rules)}, "evaluation": {"every": 1, "noise_multiplier": 1}"#,
            measures: ["loss", "top1"]
        ),
    ]

    private static func table(_ count: Int) throws -> LocalData {
        .table(
            try Table(
                header: ["y", "a", "b"],
                rows: (0..<count).map { ["\($0 % 2)", "\(Double($0) / 3)", $0 % 3 == 0 ? "x" : "z"] }
            )
        )
    }

    /// Fails late, or gives what no update may be.
    private struct Odd: LocalTrainer {
        var canRehearse: Bool { true }
        enum Way: String, CaseIterable { case notFinite, otherTensors, external, memory }
        var way: Way

        private func fail() throws {
            if way == .external { throw ExternalTrainerError.exit(10) }
            if way == .memory { throw ExternalTrainerError.exit(12) }
        }

        func train(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingResult {
            try fail()
            var delta = way == .otherTensors ? ParameterVector(zeros: .init([.init(name: "?", shape: [1])])) : model
            delta.values[0] = .nan
            return TrainingResult(delta: delta, exampleCount: 1, stepCount: 1)
        }

        func gradient(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingResult {
            try train(model: model, instructions: instructions)
        }

        func evaluate(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingMetrics {
            try fail()
            var metrics = TrainingMetrics()
            metrics.nll = .nan
            return metrics
        }
    }

    private func tableWorlds() throws -> [(name: String, trainer: any LocalTrainer)] {
        let unreadable = try Table(header: ["y", "a", "b"], rows: (0..<9).map { ["1", $0 == 8 ? "Jane" : "2", "x"] })
        var worlds: [(String, any LocalTrainer)] = [
            ("20 rows", DeviceTrainer(data: try Self.table(20))),
            ("1,700 rows", DeviceTrainer(data: try Self.table(1700))),
            ("none", DeviceTrainer(data: try Self.table(0))),
            ("too few", DeviceTrainer(data: try Self.table(3))),
            ("a cell that is no number", DeviceTrainer(data: .table(unreadable))),
            ("no such column", DeviceTrainer(data: .table(try Table(header: ["q"], rows: [["1"]])))),
            ("no table", DeviceTrainer(data: .texts(["hello"]))),
            (
                "no file",
                DeviceTrainer(reading: { throw LocalTrainingError.unusableData(reason: "cannot read the file") })
            ),
        ]
        for way in Odd.Way.allCases { worlds.append((way.rawValue, Odd(way: way))) }
        return worlds
    }

    private static func assignment(_ terms: Terms) throws -> (AssignmentBody, ParameterVector) {
        let specification = try RunSpecification.read(JSONValue.parse(Array(terms.text.utf8)))
        let description = try #require(try specification.model.description)
        let model = try ModelArchitectures.make(description).initialParameters(seed: 3)
        let file = SafetensorsWriter.encode(model)
        let digest = SHA256.hash(data: file).map { String(format: "%02x", $0) }.joined()
        var body = AssignmentBody(
            id: "asg_1",
            run: "run_1",
            round: 1,
            attempt: 1,
            state: .assigned,
            model: .init(version: 0, url: "/model", sha256: digest, bytes: file.count),
            architecture: specification.model,
            training: specification.training,
            privacy: specification.privacy,
            maxParticipations: 3,
            tensors: model.layout,
            updateUrl: "/update",
            seed: "5",
            deadline: "",
            deadlineInS: 600,
            kind: terms.measures != nil ? .evaluate : specification.analytics == nil ? .train : .analyze
        )
        if specification.analytics?.isTrie == true { body.updateTensors = PrefixTrie.voteLayout }
        if specification.training.usesControlVariates { body.updateTensors = ControlVariates.jointLayout(model.layout) }
        if specification.aggregation.weighting == .examples {
            body.exampleCap = specification.aggregation.exampleCap.number.map { Int($0) }
        }
        body.valueBound = specification.aggregation.valueBound
        if let measures = terms.measures {
            body.privacy.noiseMultiplier = 1
            body.release = .init(metrics: measures, lossBound: 10)
        }
        return (body, model)
    }

    /// What a device sends in two assignments, one after the other, and what it keeps of the charges.
    private func play(
        _ terms: Terms,
        _ trainer: any LocalTrainer
    ) async throws -> (transcript: [Seen], sent: [Data], ledger: ClientLedger?, outcomes: [ParticipationOutcome]) {
        let directory = try TemporaryDirectory()
        let (body, model) = try Self.assignment(terms)
        let server = try Server(body, model: SafetensorsWriter.encode(model))
        let state = try ClientState(directory: directory.path)
        var outcomes: [ParticipationOutcome] = []
        let client = FederatedClient(
            server: "http://server",
            enrollmentToken: "enroll",
            state: state,
            trainer: trainer,
            transport: server,
            models: try ModelCache(directory: directory.path + "/models"),
            retry: RetryPolicy(attemptLimit: 2, sleep: { _ in }, uniform: { 0.5 }),
            arithmetic: ArithmeticQueue(width: 1)
        )
        for _ in 0..<2 { outcomes.append(try await client.participateOnce(waitSeconds: 0)) }
        return (server.transcript, server.sent, try state.ledger(), outcomes)
    }

    @Test(.slow, arguments: tables)
    func transcriptsDoNotDependOnATable(_ terms: Terms) async throws {
        let worlds = try tableWorlds()
        let expected = try await play(terms, worlds[0].trainer)
        #expect(expected.outcomes == [.accepted(run: "run_1", round: 1), .accepted(run: "run_1", round: 2)])
        #expect(expected.ledger?.events.count == 2 && expected.sent.count == 2)
        for (name, trainer) in worlds.dropFirst() {
            let other = try await play(terms, trainer)
            #expect(other.transcript == expected.transcript, "\(terms.name), \(name)")
            #expect(other.outcomes == expected.outcomes && other.ledger == expected.ledger, "\(terms.name), \(name)")
        }
    }

    /// The same check has to find a client that tells: the failures that earlier versions reported.
    @Test func theTranscriptsOfARunWithoutPrivacyDiffer() async throws {
        let terms = Self.tabular("none", #"{"mode": "none"}"#, #", "training": {\#(Self.rules)}"#)
        let worlds = try tableWorlds()
        let expected = try await play(terms, worlds[0].trainer)
        // A row that is left out by rule shows in no size.
        for (name, trainer) in worlds.dropFirst() where name != "a cell that is no number" {
            #expect(try await play(terms, trainer).transcript != expected.transcript, "\(name)")
        }
    }

    private static let words: [Terms] = [
        Terms(
            name: "histogram",
            text: """
                {"population": "p", "kind": "analytics", "cohort": {"goal": 2}, "privacy": {"mode": "central", "noise_multiplier": 1},
                 "analytics": {"method": "histogram", "candidates": ["yes", "no", "maybe"], "words_per_client": 2}}
                """
        ),
        Terms(
            name: "histogram, local",
            text: """
                {"population": "p", "kind": "analytics", "cohort": {"goal": 2}, "privacy": {"mode": "local", "noise_multiplier": 1},
                 "analytics": {"method": "histogram", "candidates": ["yes", "no", "maybe"], "words_per_client": 2}}
                """
        ),
    ]

    @Test(arguments: words)
    func transcriptsDoNotDependOnWords(_ terms: Terms) async throws {
        let worlds: [any LocalTrainer] = [
            DeviceTrainer(texts: ["yes and no"]), DeviceTrainer(texts: (0..<900).map { "maybe \($0)" }),
            DeviceTrainer(texts: []), DeviceTrainer(data: try Self.table(3)), Odd(way: .notFinite), Odd(way: .external),
        ]
        let expected = try await play(terms, worlds[0])
        for trainer in worlds.dropFirst() {
            let other = try await play(terms, trainer)
            #expect(other.transcript == expected.transcript && other.outcomes == expected.outcomes)
        }
    }

    /// Zeros in mode central are zeros; in mode local they are noised like any other update.
    @Test func zerosAreNoisedWhereUpdatesAre() async throws {
        func values(_ mode: Terms) async throws -> [Float] {
            let sent = try await play(mode, DeviceTrainer(data: try Self.table(0))).sent
            let directory = try TemporaryDirectory()
            try sent[0].write(to: URL(fileURLWithPath: directory.path + "/u"))
            return try SafetensorsFile(path: directory.path + "/u").readAll().values
        }
        let zeros = try await values(Self.tables[0])
        #expect(zeros.allSatisfy { $0 == 0 })
        let noised = try await values(Self.tables[1])
        // 161 numbers of standard deviation 1: all within a tenth of 0 has a chance under 1e-170.
        #expect(noised.count > 100 && noised.contains { abs($0) > 0.1 })
    }

    /// The bit of a client whose data gave nothing is a fair coin: of 40 throws one side has all with a chance of 2e-12.
    @Test func theBitOfNothingIsAFairCoin() async throws {
        let terms = try #require(Self.tables.first { $0.name == "adaptive" })
        var bits: Set<String> = []
        for _ in 0..<20 where bits.count < 2 {
            for data in try await play(terms, DeviceTrainer(data: try Self.table(0))).sent {
                let text = String(decoding: data.prefix(400), as: UTF8.self)
                bits.formUnion(["0", "1"].filter { text.contains("\"within_norm\":\"\($0)\"") })
            }
        }
        #expect(bits == ["0", "1"])
    }

    /// Measurements of a client whose data gave nothing add 0 to every sum and to the number of clients.
    @Test func measurementsOfNothingAreZeros() async throws {
        let terms = try #require(Self.tables.first { $0.name == "evaluation" })
        let sent = try await play(terms, DeviceTrainer(data: try Self.table(0))).sent
        let result = try EvaluationResult.read(JSONValue.parse(Array(sent[0])), isPrivate: true)
        #expect(result.numExamples == 0)
        #expect(result.metrics.allSatisfy { $0.value == 0 || ["tokens", "loss_tokens"].contains($0.key) })
        #expect(sent[0].count == EvaluationResult.privateByteCount)
        let some = try await play(terms, DeviceTrainer(data: try Self.table(9))).sent
        let other = try EvaluationResult.read(JSONValue.parse(Array(some[0])), isPrivate: true)
        // The number of examples does not leave the device.
        #expect(other.numExamples == 1 && other.metrics.keys.sorted() == result.metrics.keys.sorted())
    }

    /// Whatever a trainer measures: the server reads it, and the rates that it makes of it are the device's, cut to their bounds.
    @Test func measurementsAreCutToWhatTheServerTakes() async throws {
        struct Measured: LocalTrainer {
            var canRehearse: Bool { true }
            var nll: Double
            var hits: Int
            func train(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingResult {
                throw LocalTrainingError.noData
            }
            func evaluate(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingMetrics {
                var metrics = TrainingMetrics()
                (metrics.nll, metrics.tokens, metrics.lossTokens, metrics.hit1) = (nll, 7, 4, hits)
                return metrics
            }
        }
        let terms = try #require(Self.tables.first { $0.name == "evaluation" })
        let expected = try await play(terms, DeviceTrainer(data: try Self.table(20)))
        for (nll, hits, loss, top1) in [
            (2e12, 3, 10.0, 3.0 / 7), (1e308, 0, 10, 0), (-5, -1, 0, 0), (6, Int.max, 1.5, 1),
            (.leastNonzeroMagnitude, 7, 0, 1),
        ] {
            let other = try await play(terms, Measured(nll: nll, hits: hits))
            #expect(other.transcript == expected.transcript && other.outcomes == expected.outcomes, "\(nll)")
            let result = try EvaluationResult.read(JSONValue.parse(Array(other.sent[0])), isPrivate: true)
            var sums = MetricSums()
            sums.add(result.metrics, exampleCount: result.numExamples)
            #expect(result.numExamples == 1 && result.metrics.values.allSatisfy { (0...10).contains($0) })
            #expect(abs(try #require(sums.rates["loss"]) - loss) < 1e-5, "\(nll)")
            #expect(abs(try #require(sums.rates["top1"]) - top1) < 1e-5, "\(hits)")
        }
    }

    /// One that dies in the middle of every round's work would be missing from each.
    @Test func aRunWhoseWorkKilledTheProcessTwiceGetsZerosInLaterRoundsToo() async throws {
        let directory = try TemporaryDirectory()
        let (body, model) = try Self.assignment(Self.tables[0])
        let server = try Server(body, model: SafetensorsWriter.encode(model))
        let state = try ClientState(directory: directory.path)
        // Two deaths, each in the work of another round.
        try state.files.write(
            .tries,
            WorkTries(assignment: "asg_0", count: 1, run: "run_1", deaths: ["run_1": 1])
        )
        func client(_ rows: Int) throws -> FederatedClient {
            FederatedClient(
                server: "http://server",
                enrollmentToken: "enroll",
                state: state,
                trainer: DeviceTrainer(data: try Self.table(rows)),
                transport: server,
                models: try ModelCache(directory: directory.path + "/models")
            )
        }
        let first = try client(20)
        for round in 1...2 {
            #expect(try await first.participateOnce(waitSeconds: 0) == .accepted(run: "run_1", round: round))
            #expect(await first.lastShortfall?.contains("memory") == true)
        }
        // One death that was followed by work that succeeded is no reason, nor are deaths in another run's work.
        try state.files.write(
            .tries,
            WorkTries(assignment: "asg_9", count: 1, run: "run_1", deaths: ["run_0": 5])
        )
        let second = try client(20)
        #expect(try await second.participateOnce(waitSeconds: 0) == .accepted(run: "run_1", round: 3))
        #expect(await second.lastShortfall == nil)
        let note = try #require(try state.files.read(.tries))
        #expect(note.count == 0 && note.deaths == ["run_0": 5])
    }

    /// Signs of life during an upload, and how long the work may take, are the same whatever the data.
    @Test func privateWorkStopsAtAPartOfItsTimeAndSaysNoPhase() async throws {
        for (privacy, share) in [(Self.central, TrainingInstructions.privateShare), (#"{"mode": "none"}"#, 1)] {
            let (body, _) = try Self.assignment(Self.tabular("t", privacy))
            let assignment = try Assignment.read(.parse(Array(WireCoding.encode(body))), modelByteLimit: 1 << 20)
            let instructions = try TrainingInstructions(assignment, architecture: assignment.architecture, base: nil)
            #expect(instructions.maxSeconds == 600 * share)
        }
        #expect(2 * TrainingInstructions.privateShare < 1)
    }

    /// Signs of life come while a model is on its way and while there is work, and with privacy they are all alike.
    @Test(.slow, arguments: [true, false])
    func signsOfLifeNameNoPhaseInPrivateRuns(isPrivate: Bool) async throws {
        struct Slow: LocalTrainer {
            let trainer: DeviceTrainer
            var canRehearse: Bool { true }
            let server: Server
            func train(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingResult {
                let before = server.signCount
                var patience = Patience("signs of life")
                // The first may have been on its way when the work began.
                while server.signCount < before + 2 { try patience.pauseThread() }
                return try trainer.train(model: model, instructions: instructions)
            }
        }
        let directory = try TemporaryDirectory()
        var (body, model) = try Self.assignment(Self.tabular("t", isPrivate ? Self.central : #"{"mode": "none"}"#))
        // A sign each half a second.
        body.leaseS = 1
        let server = try Server(body, model: SafetensorsWriter.encode(model), waitsForSigns: true)
        let client = FederatedClient(
            server: "http://server",
            enrollmentToken: "enroll",
            state: try ClientState(directory: directory.path),
            trainer: Slow(trainer: DeviceTrainer(data: try Self.table(20)), server: server),
            transport: server,
            models: try ModelCache(directory: directory.path + "/models")
        )
        #expect(try await client.participateOnce(waitSeconds: 0) == .accepted(run: "run_1", round: 1))
        let signs = server.transcript.filter { $0.path.hasSuffix("/heartbeat") }.map { $0.body ?? "" }
        #expect(signs.count >= 3, "\(signs)")
        if isPrivate {
            #expect(Set(signs).count == 1 && !signs[0].contains("phase"), "\(signs)")
        } else {
            #expect(
                ["downloading", "training"].allSatisfy { phase in signs.contains { $0.contains(phase) } },
                "\(signs)"
            )
        }
    }

    /// A process that dies in the middle of the same work again and again would never answer.
    @Test func workThatKillsTheProcessTwiceIsAnsweredByZeros() async throws {
        let directory = try TemporaryDirectory()
        let (body, model) = try Self.assignment(Self.tables[0])
        let server = try Server(body, model: SafetensorsWriter.encode(model))
        let state = try ClientState(directory: directory.path)
        try state.files.write(.tries, WorkTries(assignment: "asg_1", count: 2))
        let client = FederatedClient(
            server: "http://server",
            enrollmentToken: "enroll",
            state: state,
            trainer: DeviceTrainer(data: try Self.table(20)),
            transport: server,
            models: try ModelCache(directory: directory.path + "/models")
        )
        #expect(try await client.participateOnce(waitSeconds: 0) == .accepted(run: "run_1", round: 1))
        #expect(await client.lastShortfall?.contains("memory") == true)
    }

    /// A trainer that has nothing made up to work on would tell by how soon it is done that its data gave nothing.
    @Test func aTrainerThatCannotRehearseRefusesPrivateRunsWhateverTheData() async throws {
        struct Hasty: LocalTrainer {
            let trainer: DeviceTrainer
            func train(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingResult {
                try trainer.train(model: model, instructions: instructions)
            }
        }
        var transcripts: [[Seen]] = []
        for rows in [20, 0] {
            let seen = try await play(Self.tables[0], Hasty(trainer: DeviceTrainer(data: try Self.table(rows))))
            #expect(seen.outcomes.allSatisfy { $0 == .ended(code: "privacy_refused") } && seen.sent.isEmpty)
            #expect(seen.ledger?.events.isEmpty == true)
            #expect(!seen.transcript.contains { $0.path == "/model" })
            transcripts.append(seen.transcript)
        }
        #expect(transcripts[0] == transcripts[1])
        let open = Self.tabular("none", #"{"mode": "none"}"#)
        let trained = try await play(open, Hasty(trainer: DeviceTrainer(data: try Self.table(20))))
        #expect(trained.sent.count == 2)
    }

    /// The owner hears that the made-up data are of no use, which the time would tell others.
    @Test func aRehearsalThatFailsIsSaidToTheOwner() async throws {
        struct Broken: LocalTrainer {
            var canRehearse: Bool { true }
            func train(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingResult {
                throw LocalTrainingError.noData
            }
            func rehearse(_ task: TrainingTask, model: ParameterVector, instructions: TrainingInstructions) throws {
                throw ExternalTrainerError.exit(3)
            }
        }
        let directory = try TemporaryDirectory()
        let (body, model) = try Self.assignment(Self.tables[0])
        let server = try Server(body, model: SafetensorsWriter.encode(model))
        let client = FederatedClient(
            server: "http://server",
            enrollmentToken: "enroll",
            state: try ClientState(directory: directory.path),
            trainer: Broken(),
            transport: server,
            models: try ModelCache(directory: directory.path + "/models")
        )
        #expect(try await client.participateOnce(waitSeconds: 0) == .accepted(run: "run_1", round: 1))
        #expect(await client.lastShortfall?.contains("made-up data failed") == true)
    }

    /// What no data could change is said before they are opened: here it would tell which worlds fail.
    @Test func aModelThatIsNotTheArchitecturesIsRefusedWhateverTheData() async throws {
        for rows in [0, 20] {
            let directory = try TemporaryDirectory()
            var (body, _) = try Self.assignment(Self.tables[0])
            let other = ParameterVector(zeros: .init([.init(name: "w", shape: [2])]))
            let file = SafetensorsWriter.encode(other)
            body.tensors = other.layout
            body.model.sha256 = SHA256.hash(data: file).map { String(format: "%02x", $0) }.joined()
            body.model.bytes = file.count
            let server = try Server(body, model: file)
            let client = FederatedClient(
                server: "http://server",
                enrollmentToken: "enroll",
                state: try ClientState(directory: directory.path),
                trainer: DeviceTrainer(data: try Self.table(rows)),
                transport: server,
                models: try ModelCache(directory: directory.path + "/models")
            )
            #expect(try await client.participateOnce(waitSeconds: 0) == .ended(code: "training_failed"))
            let report = try #require(server.transcript.last?.body)
            #expect(report == #"{"code":"training_failed"}"#)
        }
    }
}

/// What is made up must pass the rules of the architecture that learns from it.
struct MadeUpDataTests {
    @Test func aRehearsalWorksForEveryKindOfModel() throws {
        let table = #"""
            {"schema": {"label": {"column": "y", "levels": ["p", "q", "r"]},
             "features": [{"column": "a", "center": 5, "scale": 2}, {"column": "y2", "type": "text", "buckets": 8},
                          {"column": "b", "type": "category", "levels": ["x", "z"], "drop_first": true}]}}
            """#
        for (name, config) in [
            ("tabular", table), ("tabular-statistics", table),
            ("cifg-lstm", #"{"vocab_size": 52, "embedding_dim": 4, "hidden_dim": 8}"#),
        ] {
            let description = ModelDescription(architecture: name, config: config)
            let architecture = try ModelArchitectures.make(description)
            let model = architecture.initialParameters(seed: 1)
            let instructions = TrainingInstructions(
                learningRate: 0.1,
                batchSize: 8,
                epochs: 1,
                maxSteps: 3,
                seed: 1,
                model: description
            )
            let trainer = DeviceTrainer(texts: [])
            try trainer.check(.train, model: model, instructions: instructions)
            try trainer.rehearse(.train, model: model, instructions: instructions)
        }
    }
}
