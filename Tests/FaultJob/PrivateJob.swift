import Coordination
import CoordinatorAPI
import Crypto
import DifferentialPrivacy
import Foundation
import HTTPServing
import HTTPTypes
import Logging
import SQLiteStorage
import StrictJSON
import Tensors
import TestSupport
import WireFormat

/// Why a job is not what the undisturbed one was.
struct Deviation: Error, CustomStringConvertible {
    var description: String
    init(_ description: String) { self.description = description }
}

/// A server without a socket, and three clients that work on a run with central privacy until it is completed.
///
/// The noise of round n is known, so that its models can be compared to the bit: the key is put into the coordinator's configuration
/// by this program, and no setting of the server reaches it.
struct PrivateJob {
    /// What a job has come to.
    struct Outcome: Equatable {
        /// By version.
        var models: [String] = []
        var accepted: [Int] = []
        var evaluated: [String] = []
        var ledger: [String: Int] = [:]
        var spentEpsilon = 0.0
    }

    static let roundCount = 5
    static let clientCount = 3
    static let parameterCount = 64
    private static let layout = ParameterLayout([.init(name: "w", shape: [parameterCount])])
    /// Each client takes part in every second round, so that noise is correlated over two.
    private static let bandedRun = """
        {"population": "p", "rounds": \(roundCount), "model": {"architecture": "external"},
         "cohort": {"goal": \(clientCount), "minimum": \(clientCount), "over_selection": 1, "min_separation_rounds": 2,
                    "max_participations": \(roundCount)},
         "privacy": {"mode": "central", "mechanism": "banded_matrix", "noise_multiplier": 8, "clipping": {"norm": 1}}}
        """
    private static let run = """
        {"population": "p", "rounds": \(roundCount), "model": {"architecture": "external"},
         "cohort": {"goal": \(clientCount), "minimum": \(clientCount), "over_selection": 1, "max_participations": \(roundCount)},
         "aggregation": {"optimizer": {"name": "fedadam"}},
         "privacy": {"mode": "central", "noise_multiplier": 8, "clipping": {"policy": "adaptive", "norm": 1}},
         "evaluation": {"every": 3, "minimum": \(clientCount), "noise_multiplier": 0.3, "max_participations": \(roundCount)}}
        """

    let directory: String
    /// Whether the run's noise is correlated; whose updates a round has depends on the disk then, so that all are the same.
    let hasBands: Bool
    let clock = TestClock()
    private var coordinator: Coordinator
    private var router: Router
    private(set) var admin = ""
    private(set) var id = ""
    private var tokens: [String] = []
    /// Updates and measurements that were answered 200, by assignment.
    private var acknowledged: [String: String] = [:]

    /// Prepares the run and its clients.
    init(directory: String, hasBands: Bool = false) async throws {
        self.directory = directory
        self.hasBands = hasBands
        (coordinator, router) = try await Self.open(directory, clock)
        admin = try await coordinator.makeFirstAdminToken() ?? ""
        _ = try await call("POST", "/v1/populations", #"{"name": "p", "budget": {"epsilon": 500, "delta": 1e-5}}"#)
        id = try await text("id", of: call("POST", "/v1/runs", hasBands ? Self.bandedRun : Self.run))
        let model = SafetensorsWriter.encode(ParameterVector(zeros: Self.layout))
        _ = try await call("PUT", "/v1/runs/\(id)/model", body: Array(model), type: "application/vnd.safetensors")
        _ = try await call("POST", "/v1/runs/\(id)/start", "{}")
        let enrollment = try await text(
            "token",
            of: call("POST", "/v1/populations/p/enrollment-tokens", #"{"max_uses": \#(2 * Self.clientCount)}"#)
        )
        for _ in 0..<(hasBands ? 2 : 1) * Self.clientCount {
            tokens.append(try await text("token", of: call("POST", "/v1/clients", "{}", token: enrollment)))
        }
    }

    private static func open(_ directory: String, _ clock: TestClock) async throws -> (Coordinator, Router) {
        var configuration = CoordinatorConfiguration(dataDirectory: directory)
        configuration.now = { clock.now }
        configuration.drawNoiseKey = { _, round in
            NoiseKey(testKey: SymmetricKey(data: SHA256.hash(data: Data("round \(round)".utf8))))
        }
        let coordinator = try await Coordinator(
            configuration: configuration,
            store: try SQLiteRunStore(path: directory + "/martlet.sqlite"),
            logger: Logger(label: "fault", factory: { _ in SwiftLogNoOpLogHandler() })
        )
        return (
            coordinator,
            CoordinatorAPI(coordinator: coordinator, isOpen: false, makeInitialModel: { _ in nil }).router()
        )
    }

    // MARK: - Requests

    private struct Answer {
        var status: Int
        var bytes: [UInt8]
        var json: JSONValue? { try? JSONValue.parse(bytes) }
    }

    private func call(
        _ method: String,
        _ target: String,
        body: [UInt8],
        type: String = "application/json",
        token: String? = nil
    ) async throws -> Answer {
        let request = try ServerRequest(
            method: method,
            rawTarget: target,
            headers: [.authorization: "Bearer \(token ?? admin)", .contentType: type],
            body: MemoryBody(body),
            requestID: "fault"
        )
        let response = await router.handle(request)
        switch response.body {
        case .none: return Answer(status: response.status, bytes: [])
        case .bytes(let bytes): return Answer(status: response.status, bytes: bytes)
        case .file(let path, let range):
            return Answer(
                status: response.status,
                bytes: Array(try Data(contentsOf: URL(fileURLWithPath: path))[range])
            )
        case .stream: throw Deviation("a stream is not asked for")
        }
    }

    private func call(_ method: String, _ target: String, _ body: String, token: String? = nil) async throws -> Answer {
        try await call(method, target, body: Array(body.utf8), token: token)
    }

    private func text(_ name: String, of answer: Answer) throws -> String {
        guard let text = answer.json?[name]?.string else {
            throw Deviation("\(answer.status) \(String(decoding: answer.bytes, as: UTF8.self))")
        }
        return text
    }

    // MARK: - Work

    /// Plays the run to its end; every request that is answered 503 is sent again.
    ///
    /// - Parameter step: Is called before each turn, with its number: a place to fill or empty the disk.
    /// - Throws: ``Deviation`` where the run does not come to its end.
    mutating func play(_ step: (Int) throws -> Void = { _ in }) async throws {
        var patience = Patience("the run to end")
        for turn in 0..<2000 {
            try step(turn)
            clock.advance(by: 0.25)
            try? await coordinator.tick()
            let view = try await coordinator.run(id)
            if view.state == .completed { return }
            guard view.state == .running else { throw Deviation("the run is \(view.state): \(view.reason ?? "")") }
            var worked = false
            for (index, token) in tokens.enumerated() where try await work(index, token) { worked = true }
            if !worked {
                // The arithmetic is elsewhere; a pause between two tries may be a minute of the clock.
                clock.advance(by: 1)
                try await patience.pause()
            }
        }
        throw Deviation("the run does not end: it waits for \(try await coordinator.run(id).waitingFor)")
    }

    /// Lets the server try again what it had put off.
    ///
    /// - Throws: ``Deviation`` where it keeps an update that should be gone: a start is not what removes it.
    func settle() async throws {
        for _ in 0..<3 {
            clock.advance(by: 60)
            try await coordinator.tick()
        }
        let left = coordinator.blobs.spoolNames().sorted()
        guard left.isEmpty else { throw Deviation("the server keeps \(left) until it is started again") }
    }

    /// One client's turn: a check-in, and what it was given.
    private mutating func work(_ index: Int, _ token: String) async throws -> Bool {
        let answer = try await call("POST", "/v1/checkins", "{}", token: token)
        guard [200, 201, 503].contains(answer.status) else {
            throw Deviation("a check-in was answered \(answer.status) \(String(decoding: answer.bytes, as: UTF8.self))")
        }
        guard answer.status == 201, let assignment = answer.json?["assignment"],
            let url = assignment["update_url"]?.string,
            let round = assignment["round"]?.whole, let name = assignment["id"]?.string
        else { return false }
        let isEvaluation = assignment["kind"]?.string == "evaluate"
        let base = assignment["model"]?["sha256"]?.string ?? ""
        let plain =
            isEvaluation ? Self.measurements(index) : Self.update(hasBands ? 0 : index, round: round, base: base)
        let planned = assignment["update_bytes"]?.whole ?? 0
        let bytes =
            isEvaluation
            ? plain + [UInt8](repeating: 0x20, count: max(0, planned - plain.count))
            : Array(SafetensorsWriter.padded(Data(plain), to: planned))
        for _ in 0..<50 {
            let receipt = try await call(
                "PUT",
                url,
                body: bytes,
                type: isEvaluation ? "application/json" : "application/vnd.safetensors",
                token: token
            )
            if receipt.status == 200 {
                acknowledged[name] = receipt.json?["sha256"]?.string ?? ""
                return true
            }
            guard receipt.status == 503 else {
                throw Deviation(
                    "an upload was answered \(receipt.status) \(String(decoding: receipt.bytes, as: UTF8.self))"
                )
            }
            clock.advance(by: 0.25)
            try? await coordinator.tick()
        }
        return false
    }

    /// What the client trains in a round: the same whenever it is asked.
    private static func update(_ index: Int, round: Int, base: String) -> [UInt8] {
        var generator = Xoshiro256StarStar(seed: UInt64(round * 100 + index))
        let values = (0..<parameterCount).map { _ in Float(generator.next() >> 40) / Float(1 << 24) - 0.5 }
        let vector = ParameterVector(layout: layout, values: values)
        return Array(
            SafetensorsWriter.encode(
                vector,
                metadata: ["base": base, "num_examples": "1", UpdateMetadata.withinNorm: "\(index % 2)"]
            )
        )
    }

    private static func measurements(_ index: Int) -> [UInt8] {
        Array(
            #"{"num_examples": 8, "metrics": {"nll": \#(16 + index), "tokens": 8, "hit1": 2, "hit3": 4}}"#.utf8
        )
    }

    // MARK: - Judgement

    /// What the job has come to, as the running server says, and as one says that is started from what is on the disk.
    mutating func outcome() async throws -> Outcome {
        let said = try await outcome(coordinator)
        (coordinator, router) = try await Self.open(directory, clock)
        let stored = try await outcome(coordinator)
        guard said == stored else { throw Deviation("after a restart \(stored) and not \(said)") }
        for (assignment, sha256) in acknowledged {
            let store = try SQLiteRunStore(path: directory + "/martlet.sqlite")
            guard let record = try store.assignment(assignment), record.state == .accepted else {
                throw Deviation("an acknowledged update of \(assignment) is not accepted")
            }
            guard record.updateSha256 == nil || sha256.isEmpty || record.updateSha256 == sha256 else {
                throw Deviation("the update of \(assignment) is another one than was acknowledged")
            }
        }
        let left = try FileManager.default.contentsOfDirectory(atPath: directory + "/spool").sorted()
        guard left.isEmpty else { throw Deviation("the spool holds \(left)") }
        let strays = try FileManager.default.subpathsOfDirectory(atPath: directory).filter { $0.contains(".part") }
        guard strays.isEmpty else { throw Deviation("left over: \(strays)") }
        let inspection = try SQLiteInspection(path: directory + "/martlet.sqlite")
        guard let state = try inspection.state() else { throw Deviation("the database cannot be read") }
        let findings =
            try inspection.findings()
            + DataDirectoryCheck(
                state: state,
                blobs: DirectoryBlobStore(existing: directory),
                ledgerHeadPath: directory + "/ledger.head"
            ).findings(isDeep: true)
        let bad = findings.filter { $0.severity != .ok && $0.severity != .notice }
        guard bad.isEmpty else { throw Deviation("doctor says \(bad.map(\.message))") }
        return stored
    }

    private func outcome(_ coordinator: Coordinator) async throws -> Outcome {
        var outcome = Outcome()
        outcome.models = try await coordinator.models(run: id).items.map(\.sha256)
        let rounds = try await coordinator.rounds(run: id).items
        let evaluations = try await coordinator.evaluations(run: id).items
        for round in rounds + evaluations where round.state != .committed || round.attempt != 1 {
            throw Deviation(
                "attempt \(round.attempt) of round \(round.number) is \(round.state): \(round.reason ?? "")"
            )
        }
        outcome.accepted = rounds.map(\.accepted)
        outcome.evaluated = try await coordinator.models(run: id).items.map { version in
            (version.metrics ?? [:]).sorted { $0.key < $1.key }.map { source in
                source.key + source.value.sorted { $0.key < $1.key }.map { " \($0.key) \($0.value)" }.joined()
            }.joined()
        }
        let rows = try await coordinator.ledgerRows(population: "p").items.filter { !$0.runId.isEmpty }
        outcome.ledger = Dictionary(grouping: rows, by: \.state.rawValue).mapValues(\.count)
        let budget = try await coordinator.population("p").budget
        outcome.spentEpsilon = budget?.spentEpsilon ?? 0
        guard budget?.reservedEpsilon == 0 else { throw Deviation("something is still reserved") }
        return outcome
    }

    /// Whether the disk's troubles were told: to whoever looks at the overview while there are some.
    func isToldOfTrouble() async throws -> Bool {
        try await coordinator.overview(role: .viewer).problems.contains {
            ["storage_failed", "round_waits_for_disk"].contains($0.code)
        }
    }
}

extension JSONValue {
    fileprivate subscript(_ name: String) -> JSONValue? {
        if case .object(let members) = self { members[name] } else { nil }
    }

    fileprivate var string: String? {
        if case .string(let text) = self { text } else { nil }
    }

    fileprivate var whole: Int? {
        if case .integer(let number) = self { number } else { nil }
    }
}
