import Coordination
import Foundation
import LocalTraining
import StrictJSON
import Tensors
import TestSupport
import Testing
import WireFormat

@testable import MartletClient

/// In a private run everybody's update has one length: the server names it, its own client keeps to it, and any other is refused
/// whatever is in it.
@Suite(.timeLimit(.minutes(10)))
struct PlannedLengthTests {
    private static let cohort = #"{"goal": 3, "minimum": 1, "over_selection": 1, "max_participations": 9}"#
    private static let central = #"{"mode": "central", "noise_multiplier": 4}"#

    struct Terms: Sendable, CustomTestStringConvertible {
        var name: String
        var privacy = PlannedLengthTests.central
        var extra: String
        var cohort = PlannedLengthTests.cohort
        var rounds = 1
        var clients = 3
        var testDescription: String { name }
    }

    private static let model =
        #", "model": {"architecture": "cifg-lstm", "config": {"vocab_size": 52, "embedding_dim": 4, "hidden_dim": 8}}"#

    private static func trained(_ name: String, _ extra: String = "", privacy: String = central) -> Terms {
        Terms(name: name, privacy: privacy, extra: model + extra)
    }

    private static let terms: [Terms] =
        ["f32", "f16", "bf16", "int8", "int4", "topk", "rotated1", "rotated2", "rotated4"].map {
            trained($0, #", "training": {"encoding": "\#($0)"}"#)
        } + [
            trained("local", privacy: #"{"mode": "local", "noise_multiplier": 4}"#),
            trained(
                "adaptive",
                privacy: #"{"mode": "central", "noise_multiplier": 1, "clipping": {"norm": 1, "policy": "adaptive"}}"#
            ),
            trained("weighted", #", "aggregation": {"weighting": "examples", "example_cap": 100000}"#),
            trained(
                "weighted by tokens",
                #", "aggregation": {"weighting": "examples", "weight_unit": "tokens", "example_cap": 1000}"#
            ),
            trained("gradient", #", "training": {"submit": "gradient"}"#),
            trained("scaffold", #", "training": {"algorithm": "scaffold"}"#),
            Terms(
                name: "histogram",
                extra: #"""
                    , "kind": "analytics",
                    "analytics": {"method": "histogram", "candidates": ["yes", "no", "maybe"], "words_per_client": 2}
                    """#,
                cohort: cohort.replacing("9}", with: "1}")
            ),
            Terms(
                name: "votes",
                privacy: #"{"noise_multiplier": 2}"#,
                extra: #", "kind": "analytics", "analytics": {"method": "votes", "prefix_limit": 50}"#,
                cohort: #"{"goal": 18, "minimum": 1, "max_participations": 10}"#,
                rounds: 10,
                clients: 24
            ),
        ]

    private func begin(_ terms: Terms) async throws -> PrivateBench {
        let bench = try await PrivateBench()
        try await bench.begin(
            privacy: terms.privacy,
            cohort: terms.cohort,
            rounds: terms.rounds,
            extra: terms.extra,
            clients: terms.clients,
            isBuiltIn: true
        )
        return bench
    }

    /// The first client that is given work, and its work.
    private func work(_ bench: PrivateBench) async throws -> (client: Int, assignment: Assignment) {
        for client in bench.clients.indices {
            let answer = try await bench.exchange(
                "POST",
                "/v1/checkins",
                token: bench.clients[client],
                Array("{}".utf8)
            )
            let document = try JSONValue(parsing: Array(answer.body))
            if case .work(let assignment) = try CheckInAnswer.read(document, modelByteLimit: 1 << 30) {
                return (client, assignment)
            }
        }
        throw ClientError(code: "test", message: "nobody was given work")
    }

    /// What the real client sends, with and without data.
    private func update(_ assignment: Assignment, _ texts: [String], _ bench: PrivateBench) async throws -> Data {
        let start = try SafetensorsFile(path: bench.coordinator.blobs.path(sha256: assignment.model.sha256.text))
            .readAll()
        let scratch = try TemporaryDirectory()
        let state = try ClientState(directory: scratch.path)
        let path = scratch.path + "/update"
        _ = try await PreparedUpdate(
            assignment,
            model: start,
            trainer: DeviceTrainer(texts: texts),
            instructions: TrainingInstructions(assignment, architecture: assignment.architecture, base: nil),
            controls: assignment.training.usesControlVariates
                ? ControlVariateStep(
                    server: [Float](repeating: 0, count: start.values.count),
                    own: [Float](repeating: 0, count: start.values.count)
                ) : nil,
            feedback: ErrorFeedback(run: assignment.run, files: state.files, parameterCount: start.values.count),
            path: path,
            beforeNoise: {}
        )
        return try Data(contentsOf: URL(fileURLWithPath: path))
    }

    @Test(.slow, arguments: terms)
    func theClientKeepsToTheLengthThatTheServerPlans(_ terms: Terms) async throws {
        let bench = try await begin(terms)
        let (client, assignment) = try await work(bench)
        let target = assignment.updatePath.text
        let shown = try await bench.call(
            "GET",
            target.replacing("/update", with: ""),
            token: bench.clients[client]
        ).json
        let planned = try #require(shown["update_bytes"] as? Int)
        for texts in [["yes, call me after seven"], [], (0..<70).map { "maybe \($0)" }] {
            #expect(try await update(assignment, texts, bench).count == planned)
        }
        let sent = try await update(assignment, ["no"], bench)
        #expect(try await bench.call("PUT", target, token: bench.clients[client], Array(sent)).status == 200)
    }

    /// A header that is longer or shorter, and a body of NaN: the length is looked at before anything else.
    @Test(arguments: ["longer", "shorter", "longer and wrong", "in parts"])
    func anotherLengthIsRefusedBeforeTheContents(_ way: String) async throws {
        let bench = try await PrivateBench()
        try await bench.begin(privacy: Self.central, cohort: Self.cohort, clients: 3)
        let work = try #require(try await bench.checkIn(0)["assignment"] as? [String: Any])
        let planned = try #require(work["update_bytes"] as? Int)
        let target = try #require(work["update_url"] as? String)
        let plain = SafetensorsWriter.encode(
            ParameterVector(layout: bench.layout, values: way.hasSuffix("wrong") ? [.nan, 0, 0, 0] : [1, 2, 3, 4]),
            metadata: ["base": try #require((work["model"] as? [String: Any])?["sha256"] as? String)]
        )
        #expect(plain.count < planned - 8)
        let body = Array(SafetensorsWriter.padded(plain, to: way == "shorter" ? planned - 8 : planned + 8))
        let answer =
            way == "in parts"
            ? try await bench.append(target, token: bench.clients[0], body, isLast: true)
            : try await bench.call("PUT", target, token: bench.clients[0], body)
        #expect(answer.status == 422 && answer.json["code"] as? String == "length_mismatch", "\(answer.json)")
        #expect(bench.coordinator.blobs.spoolNames().isEmpty)
        // The place is free again, and the right length is taken.
        let again = try #require(try await bench.checkIn(0)["assignment"] as? [String: Any])
        #expect(try await bench.upload(0, again, [1, 2, 3, 4]).status == 200)
    }

    @Test func aVoteOfAnotherLengthIsRefused() async throws {
        let bench = try await begin(try #require(Self.terms.first { $0.name == "votes" }))
        let (client, assignment) = try await work(bench)
        let sent = try await update(assignment, ["yes"], bench)
        let longer = SafetensorsWriter.padded(sent, to: sent.count + 8)
        let answer = try await bench.call(
            "PUT",
            assignment.updatePath.text,
            token: bench.clients[client],
            Array(longer)
        )
        #expect(answer.status == 422 && answer.json["code"] as? String == "length_mismatch", "\(answer.json)")
    }

    @Test func sumsOfAnotherLengthAreRefused() async throws {
        let bench = try await PrivateBench()
        try await bench.begin(
            privacy: Self.central,
            cohort: Self.cohort,
            extra: #", "evaluation": {"every": 1, "noise_multiplier": 2, "cohort_goal": 3, "metrics": ["top1"]}"#,
            clients: 3
        )
        _ = try await bench.play(0..<3, [0, 0, 0, 0])
        let sums = EvaluationResult(numExamples: 1, metrics: ["hit1": 2, "tokens": 5])
        var documents = [try WireCoding.encode(sums), try sums.privateDocument() + Data(" ".utf8)]
        // Not even a document.
        documents.append(Data("{".utf8))
        for (client, document) in documents.enumerated() {
            let work = try #require(try await bench.checkIn(client)["assignment"] as? [String: Any])
            #expect(work["update_bytes"] as? Int == EvaluationResult.privateByteCount)
            let answer = try await bench.call(
                "PUT",
                try #require(work["update_url"] as? String),
                token: bench.clients[client],
                Array(document),
                type: "application/json"
            )
            #expect(answer.status == 422 && answer.json["code"] as? String == "length_mismatch", "\(answer.json)")
        }
    }

    /// Nothing is promised there, and any length will do.
    @Test func withoutPrivacyNoLengthIsNamed() async throws {
        let bench = try await PrivateBench()
        try await bench.begin(
            privacy: #"{"mode": "none"}"#,
            cohort: #"{"goal": 3, "minimum": 1, "over_selection": 1}"#,
            clients: 3,
            hasBudget: false
        )
        let work = try #require(try await bench.checkIn(0)["assignment"] as? [String: Any])
        #expect(work["update_bytes"] == nil)
        #expect(try await bench.upload(0, work, [1, 2, 3, 4], metadata: ["note": "whatever"]).status == 200)
    }
}
