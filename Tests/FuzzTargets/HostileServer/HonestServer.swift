import Crypto
import Foundation
import LocalTraining
import StrictJSON
import Tensors
import UpdateCompression
import WireFormat

/// What an honest server would answer to one client in one round: the good input that a hostile one begins with.
struct HonestServer: Sendable {
    /// The answer to a check-in.
    var checkIn: JSONValue
    /// The assignment alone.
    var assignment: JSONValue
    /// Files by path.
    var files: [String: [UInt8]]

    static let registration = JSONValue.object(["client_id": .string("clt_1"), "token": .string("mlt_secret")])
    static let problem = JSONValue.object([
        "type": .string("about:blank"), "title": .string("gone"), "status": .integer(410),
        "detail": .string("the round has ended"), "code": .string("round_closed"),
    ])
    static let heartbeat = JSONValue.object([
        "state": .string("training"), "lease_s": .integer(30), "deadline_in_s": .integer(50),
    ])
    static let away = JSONValue.object([
        "reason": .string("no_run"), "retry_window": .object(["min_s": .integer(5), "max_s": .number(9.5)]),
    ])

    /// A model, and what is asked of the client.
    private struct Scenario {
        var architecture = "cifg-lstm"
        var config = #"{"embedding_dim": 3, "hidden_dim": 4, "tokenizer": {"type": "char", "alphabet": "abcdefgh "}}"#
        var specification = "{}"
        var kind = "train"
        var encoding: UpdateEncoding?
        var base = false
        var apartTokenizer = false
    }

    private static let scenarios: [Scenario] = [
        .init(), .init(encoding: .f16), .init(encoding: .int8), .init(base: true), .init(apartTokenizer: true),
        .init(specification: #"{"training": {"algorithm": "scaffold"}}"#),
        .init(specification: #"{"training": {"encoding": "topk"}}"#),
        .init(specification: #"{"training": {"encoding": "rotated2", "local": {"optimizer": "adamw"}}}"#),
        .init(specification: #"{"training": {"submit": "gradient"}}"#),
        .init(specification: #"{"training": {"submit": "weights", "data": {"minimum_records": 2}}}"#),
        .init(specification: #"{"privacy": {"mode": "local", "noise_multiplier": 2}}"#),
        .init(
            specification:
                #"{"privacy": {"mode": "local", "noise_multiplier": 2, "mechanism": "discrete_gaussian"}}"#
        ),
        .init(
            specification:
                #"{"privacy": {"mode": "central", "noise_multiplier": 1, "clipping": {"policy": "adaptive"}}}"#
        ),
        .init(specification: #"{"privacy": {"mode": "central", "noise_multiplier": 1, "mechanism": "laplace"}}"#),
        .init(kind: "evaluate"),
        .init(specification: #"{"privacy": {"mode": "central", "noise_multiplier": 1}}"#, kind: "evaluate"),
        .init(
            architecture: "decoder",
            config: """
                {"vocab_size": 13, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
                 "num_key_value_heads": 1, "max_position_embeddings": 16,
                 "tokenizer": {"type": "char", "alphabet": "abcdefgh "}}
                """
        ),
        .init(
            architecture: "histogram",
            config:
                #"{"tokens": "word", "words_per_client": 4, "tokenizer": {"type": "word", "vocabulary": ["bad", "cab", "face"]}}"#,
            kind: "analyze"
        ),
        .init(
            architecture: "triehh",
            config: #"{"tokens": "word", "levels": 3, "prefix_limit": 5}"#,
            kind: "analyze"
        ),
    ]

    /// All of them.
    static func all() throws -> [HonestServer] { try scenarios.map { try HonestServer($0) } }

    private init(_ scenario: Scenario) throws {
        let architecture = try ModelArchitectures.make(
            ModelDescription(architecture: scenario.architecture, config: scenario.config)
        )
        let model = architecture.initialParameters(seed: 7)
        let file = Array(SafetensorsWriter.encode(model))
        files = ["/v1/runs/run_1/models/0/weights": file]
        var reference: [String: JSONValue] = [
            "version": .integer(0), "url": .string("/v1/runs/run_1/models/0/weights"),
            "sha256": .string(Self.hash(file)),
            "bytes": .integer(file.count),
        ]
        let plain = reference
        if let encoding = scenario.encoding {
            let variant = try Self.variant(file, encoding)
            files["/v1/runs/run_1/models/0/weights?encoding=\(encoding.rawValue)"] = variant
            reference["url"] = .string("/v1/runs/run_1/models/0/weights?encoding=\(encoding.rawValue)")
            reference["encoding"] = .string(encoding.rawValue)
            reference["encoded_sha256"] = .string(Self.hash(variant))
            reference["encoded_bytes"] = .integer(variant.count)
        }
        let specification = try RunSpecification.read(Self.document(scenario.specification))
        var config = try JSONValue.parse(Array(scenario.config.utf8))
        if scenario.apartTokenizer, case .object(var fields) = config, let tokenizer = fields["tokenizer"] {
            let document = tokenizer.compactText
            files["/v1/runs/run_1/tokenizer"] = document
            fields["tokenizer"] = .object([
                "sha256": .string(Self.hash(document)), "url": .string("/v1/runs/run_1/tokenizer"),
            ])
            config = .object(fields)
        }
        var body: [String: JSONValue] = [
            "id": .string("asg_1"), "run": .string("run_1"), "round": .integer(1), "attempt": .integer(1),
            "state": .string("assigned"), "kind": .string(scenario.kind), "model": .object(reference),
            "architecture": .object(["architecture": .string(scenario.architecture), "config": config]),
            "max_participations": .integer(1), "update_url": .string("/v1/assignments/asg_1/update"),
            "seed": .string("12345"), "deadline": .string("2030-01-01T00:00:00Z"), "deadline_in_s": .number(60.5),
            "lease_s": .integer(30), "cohort_minimum": .integer(5), "example_cap": .integer(1000),
            "value_bound": .integer(1_114_112),
        ]
        body["training"] = try Self.tree(specification.training)
        body["privacy"] = try Self.tree(specification.privacy)
        body["tensors"] = try Self.tree(architecture.layout)
        body["ledger_head"] = .object([
            "population": .string("pop_1"), "number": .integer(3), "hash": .string(Self.hash(file)),
        ])
        if scenario.base { body["base"] = .object(plain) }
        if specification.training.usesControlVariates { body["control"] = .object(plain) }
        if scenario.architecture == "triehh" {
            body["privacy"] = .object([
                "mode": .string("central"), "mechanism": .string("sample_and_threshold"),
                "noise_multiplier": .integer(0),
                "clipping": .object(["norm": .integer(1), "policy": .string("flat")]), "amplification": .string("none"),
            ])
            body["update_tensors"] = try Self.tree(PrefixTrie.voteLayout)
        }
        if scenario.kind == "evaluate", specification.privacy.mode != .none {
            body["release"] = .object([
                "metrics": .array([.string("loss"), .string("top1")]), "loss_bound": .integer(10),
            ])
        }
        assignment = .object(body)
        checkIn = .object(["assignment": assignment])
    }

    // MARK: -

    private static func document(_ text: String) throws -> JSONValue {
        guard case .object(var fields) = try JSONValue.parse(Array(text.utf8)) else { return .null }
        fields["population"] = .string("p")
        fields["rounds"] = .integer(1)
        fields["cohort"] = .object(["goal": .integer(1), "max_participations": .integer(1)])
        fields["model"] = .object(["architecture": .string("external")])
        return .object(fields)
    }

    private static func tree(_ value: some Encodable) throws -> JSONValue {
        try .parse(Array(WireCoding.encode(value)))
    }

    static func hash(_ bytes: [UInt8]) -> String {
        SHA256.hash(data: bytes).map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }

    private static func variant(_ file: [UInt8], _ encoding: UpdateEncoding) throws -> [UInt8] {
        let path = NSTemporaryDirectory() + "martlet-fuzz-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: path) }
        try Data(file).write(to: URL(fileURLWithPath: path))
        var bytes: [UInt8] = []
        try ModelVariant.write(path, as: encoding) { bytes += Array($0) }
        return bytes
    }
}
