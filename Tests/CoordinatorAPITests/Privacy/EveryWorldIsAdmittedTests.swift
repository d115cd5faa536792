import Coordination
import CoordinatorAPI
import Foundation
import HTTPServing
import HTTPTypes
import LocalTraining
import MartletClient
import Synchronization
import Tensors
import TestSupport
import Testing
import WireFormat

/// In a private run the real client and the real server say the same to each other whatever the device's data: each kind of run is
/// played once for each world, and the server's own admission takes what the client sends in all of them.
///
/// An update that is refused for what data did to it would tell of them as much as one that is missing.
@Suite(.timeLimit(.minutes(30)))
struct EveryWorldIsAdmittedTests {
    /// One request and the status of its answer, as an observer of everything but contents sees them.
    private struct Seen: Equatable, Sendable, CustomStringConvertible {
        var line: String
        var fields: [String]
        var bodyByteCount: Int
        /// Of what is no update and no sums.
        var body: String?
        var status: Int
        var description: String { "\(line) \(bodyByteCount) \(body ?? "…") \(fields) gives \(status)" }
    }

    /// The device's way to the routes of a server in this process.
    private final class Routed: Transport {
        private let router: Router
        private let requests = Mutex<[Seen]>([])
        init(_ router: Router) { self.router = router }

        var transcript: [Seen] { requests.withLock { $0 } }

        /// Random names become words.
        private static func normalized(_ text: String) -> String {
            let names = text.replacing(/(run|asg|clt|pop|tok|mlt)_[A-Za-z0-9_-]+/, with: "name")
            return names.replacing(/[0-9a-f]{64}/, with: "hash")
        }

        func send(_ request: TransportRequest) async throws -> TransportResponse {
            var headers: HTTPFields = [:]
            for (name, value) in request.headers { headers[try #require(HTTPField.Name(name))] = value }
            var body = Data()
            switch request.body {
            case .none: break
            case .bytes(let data): body = data
            case .file(let path, let offset):
                body = try Data(contentsOf: URL(fileURLWithPath: path)).dropFirst(offset)
            }
            let target = request.url.replacing("http://server", with: "")
            var asked = try ServerRequest(
                method: request.method,
                rawTarget: target,
                headers: headers,
                body: MemoryBody(Array(body)),
                requestID: "test"
            )
            asked.remoteAddress = "192.0.2.7"
            let response = await router.handle(asked)
            // Of these the value is the content's or random, and the length is not.
            let hidden: Set<String> = ["content-digest", "idempotency-key", "authorization"]
            let isUpdate = target.hasSuffix("/update") || target.hasSuffix("/evaluation")
            let seen = Seen(
                line: "\(request.method) \(Self.normalized(target))",
                fields: request.headers.map {
                    hidden.contains($0.key.lowercased())
                        ? "\($0.key)/\($0.value.count)" : "\($0.key)=\(Self.normalized($0.value))"
                }
                .sorted(),
                bodyByteCount: isUpdate ? body.count : 0,
                body: isUpdate ? nil : Self.normalized(String(decoding: body, as: UTF8.self)),
                status: response.status
            )
            requests.withLock { $0.append(seen) }
            var answer = Data()
            switch response.body {
            case .bytes(let bytes): answer = Data(bytes)
            case .file(let path, let range):
                answer = try Data(contentsOf: URL(fileURLWithPath: path)).subdata(in: range)
            case .stream(let produce):
                let collected = Mutex<[UInt8]>([])
                try await produce { block in collected.withLock { $0 += block } }
                answer = Data(collected.withLock { $0 })
            case .none: break
            }
            if let path = request.destination, response.status == 200 {
                try answer.write(to: URL(fileURLWithPath: path))
                answer = Data()
            }
            var fields: [String: String] = [:]
            for field in response.headers { fields[field.name.canonicalName] = field.value }
            return TransportResponse(status: response.status, headers: fields, body: answer)
        }
    }

    /// A kind of run, and the worlds of its device.
    struct Case: Sendable, CustomTestStringConvertible {
        enum Data: Sendable { case table, texts, words, external }
        var name: String
        var privacy: String
        var extra: String
        var data = Data.table
        var cohort = #"{"goal": 2, "minimum": 1, "over_selection": 1, "max_participations": 3}"#
        var rounds = 3
        var testDescription: String { name }
    }

    private static let tabular = #"""
        , "model": {"architecture": "tabular", "config": {"hidden": [6], "schema":
          {"label": {"column": "y", "positive": "> 0"},
           "features": [{"column": "a"}, {"column": "b", "type": "category", "levels": ["x", "z"]}]}}}
        """#
    private static let rules = #", "training": {"data": {"minimum_records": 5}}"#
    private static let text = #"""
        , "model": {"architecture": "cifg-lstm", "config": {"vocab_size": 52, "embedding_dim": 4, "hidden_dim": 6}},
          "training": {"limits": {"max_steps": 3}}
        """#

    private static func privacy(_ mode: String, _ terms: String = "", clipping: String = "") -> String {
        #"{"mode": "\#(mode)", "noise_multiplier": 1\#(terms), "clipping": {"norm": 0.5\#(clipping)}}"#
    }

    static let cases: [Case] = [
        Case(name: "central", privacy: privacy("central"), extra: tabular + rules),
        Case(name: "local", privacy: privacy("local"), extra: tabular + rules),
        Case(
            name: "laplace",
            privacy: privacy("central", #", "mechanism": "laplace""#, clipping: #", "policy": "l1""#),
            extra: tabular + rules
        ),
        Case(
            name: "laplace, local",
            privacy: privacy("local", #", "mechanism": "laplace""#, clipping: #", "policy": "l1""#),
            extra: tabular + rules
        ),
        Case(
            name: "discrete_gaussian",
            privacy: privacy("central", #", "mechanism": "discrete_gaussian""#),
            extra: tabular + rules
        ),
        Case(
            name: "per_layer",
            privacy: privacy("central", clipping: #", "policy": "per_layer""#),
            extra: tabular + rules
        ),
        Case(
            name: "adaptive",
            privacy: privacy("central", clipping: #", "policy": "adaptive""#),
            extra: tabular + rules
        ),
        Case(
            name: "banded",
            privacy: privacy("central", #", "mechanism": "banded_matrix""#),
            extra: tabular + rules,
            cohort:
                #"{"goal": 2, "minimum": 1, "over_selection": 1, "max_participations": 3, "min_separation_rounds": 1}"#
        ),
        Case(name: "text", privacy: privacy("central"), extra: text, data: .texts),
        Case(name: "text, local", privacy: privacy("local"), extra: text, data: .texts),
        Case(
            name: "weighted by tokens",
            privacy: privacy("central"),
            extra: text
                + #", "aggregation": {"weighting": "examples", "weight_unit": "tokens", "example_cap": 5000}"#,
            data: .texts
        ),
        Case(
            name: "votes",
            privacy: #"{"noise_multiplier": 2}"#,
            extra: #", "kind": "analytics", "analytics": {"method": "votes", "prefix_limit": 50}"#,
            data: .words,
            cohort: #"{"goal": 2, "minimum": 1, "max_participations": 3}"#
        ),
        Case(
            name: "external trainer",
            privacy: privacy("central"),
            extra: "",
            data: .external
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

    private static let example =
        URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent().path + "/Examples/trainers/plain-python/trainer.py"

    private func worlds(_ kind: Case, _ directory: String) throws -> [(name: String, trainer: any LocalTrainer)] {
        switch kind.data {
        case .table:
            let bad = try Table(header: ["y", "a", "b"], rows: (0..<9).map { ["1", $0 == 8 ? "Jane" : "2", "x"] })
            return [
                ("20 rows", DeviceTrainer(data: try Self.table(20))),
                ("900 rows", DeviceTrainer(data: try Self.table(900))),
                ("none", DeviceTrainer(data: try Self.table(0))), ("too few", DeviceTrainer(data: try Self.table(3))),
                ("a cell that is no number", DeviceTrainer(data: .table(bad))),
                (
                    "no file",
                    DeviceTrainer(reading: { throw LocalTrainingError.unusableData(reason: "cannot read the file") })
                ),
            ]
        case .texts, .words:
            return [
                ("a text", DeviceTrainer(texts: ["good morning, see you at seven"])),
                ("many", DeviceTrainer(texts: (0..<200).map { "maybe \($0) of them come" })),
                ("none", DeviceTrainer(texts: [])), ("empty ones", DeviceTrainer(texts: ["", " "])),
                ("a table", DeviceTrainer(data: try Self.table(3))),
                (
                    "no file",
                    DeviceTrainer(reading: { throw LocalTrainingError.unusableData(reason: "cannot read the file") })
                ),
            ]
        case .external:
            func trainer(_ name: String, _ rows: String) throws -> (String, any LocalTrainer) {
                let path = "\(directory)/\(name).csv"
                try ("a,b,c,y\n" + rows).write(toFile: path, atomically: true, encoding: .utf8)
                let made = "\(directory)/made.csv"
                try "a,b,c,y\n1,0,0,1\n0,1,0,0\n".write(toFile: made, atomically: true, encoding: .utf8)
                return (
                    name,
                    ExternalTrainer(
                        .init(
                            command: "python3 " + Self.example,
                            data: path,
                            workDirectory: "\(directory)/work-\(name)",
                            madeUpData: made
                        )
                    )
                )
            }
            return [
                try trainer("some", "1,0,0,1\n0,1,0,0\n0,0,1,0\n1,1,0,1\n"),
                try trainer("many", String(repeating: "1,0,0,1\n0,1,1,0\n", count: 100)), try trainer("none", ""),
                try trainer("words", "Jane,0,0,1\n"),
            ]
        }
    }

    /// What a device and the server say to each other in two turns.
    private func play(
        _ kind: Case,
        _ trainer: any LocalTrainer
    ) async throws -> (transcript: [Seen], outcomes: [ParticipationOutcome]) {
        let bench = try await PrivateBench(
            tensors: [.init(name: "weight", shape: [3]), .init(name: "bias", shape: [1])]
        )
        try await bench.begin(
            privacy: kind.privacy,
            cohort: kind.cohort,
            rounds: kind.rounds,
            extra: kind.extra,
            // Votes need so many that a word can be found.
            clients: kind.data == .words ? 12 : 1,
            isBuiltIn: kind.data != .external
        )
        let token = try #require(
            try await bench.post("/v1/populations/p/enrollment-tokens", #"{"max_uses": 1}"#).json["token"] as? String
        )
        let device = try TemporaryDirectory()
        let transport = Routed(bench.router)
        let client = FederatedClient(
            server: "http://server",
            enrollmentToken: token,
            state: try ClientState(directory: device.path),
            trainer: trainer,
            transport: transport,
            models: try ModelCache(directory: device.path + "/models"),
            retry: RetryPolicy(attemptLimit: 2, sleep: { _ in }, uniform: { 0.5 })
        )
        var outcomes: [ParticipationOutcome] = []
        for _ in 0..<2 { outcomes.append(try await client.participateOnce(waitSeconds: 0)) }
        return (transport.transcript, outcomes)
    }

    @Test(.slow, arguments: cases)
    func whatADeviceSendsIsTakenAndTellsNothing(_ kind: Case) async throws {
        let directory = try TemporaryDirectory()
        let worlds = try worlds(kind, directory.path)
        var expected: [Seen]?
        for (name, trainer) in worlds {
            let (transcript, outcomes) = try await play(kind, trainer)
            guard case .accepted(_, let round) = outcomes[0] else {
                Issue.record("\(kind.name), \(name): \(outcomes), \(transcript.last?.description ?? "")")
                continue
            }
            #expect(round == 1)
            let first = expected ?? transcript
            expected = first
            #expect(transcript.count == first.count, "\(kind.name), \(name)")
            for (left, right) in zip(first, transcript) where left != right {
                Issue.record("\(kind.name), \(name): \(right) against \(left)")
            }
        }
    }
}
