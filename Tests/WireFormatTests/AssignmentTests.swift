import Foundation
import StrictJSON
import Tensors
import Testing
import WireFormat

struct AssignmentTests {
    private static let hash = String(repeating: "ab", count: 32)

    /// What the server writes, with every optional field there.
    private static func body() throws -> AssignmentBody {
        let specification = try RunSpecification.read(
            .parse(
                Array(
                    #"""
                    {"population": "p", "rounds": 1, "cohort": {"goal": 1},
                     "model": {"architecture": "cifg-lstm", "config": {"hidden": 8}},
                     "training": {"encoding": "int8", "model_encoding": "f16", "limits": {"max_seconds": 9}},
                     "privacy": {"mode": "local", "noise_multiplier": 2, "clipping": {"norm": 0.5}}}
                    """#.utf8
                )
            )
        )
        let layout = ParameterLayout([.init(name: "w", shape: [4, 2]), .init(name: "b", shape: [])])
        var body = AssignmentBody(
            id: "asg_1",
            run: "run_1",
            round: 3,
            attempt: 2,
            state: .assigned,
            model: .init(version: 2, url: "/v1/m?encoding=f16", sha256: hash, bytes: 1000, encoding: .f16),
            architecture: specification.model,
            training: specification.training,
            privacy: specification.privacy,
            maxParticipations: 1,
            tensors: layout,
            updateTensors: layout,
            control: .init(version: 2, url: "/v1/c", sha256: hash, bytes: 1000),
            updateUrl: "/v1/assignments/asg_1/update",
            seed: "18446744073709551615",
            deadline: "2026-01-01T00:00:00Z",
            deadlineInS: 60.5,
            leaseS: 30
        )
        body.model.encodedSha256 = String(repeating: "c", count: 64)
        body.model.encodedBytes = 600
        body.architecture = body.architecture.referringToTokenizer(sha256: hash, url: "/v1/runs/run_1/tokenizer")
        body.base = .init(version: 1, url: "/v1/b", sha256: hash, bytes: 500)
        (body.cohortMinimum, body.exampleCap, body.valueBound, body.roundCommitted) = (8, 100, 64, true)
        body.release = .init(metrics: ["loss", "top1"], lossBound: 10)
        body.weightUnit = .examples
        body.stateGeneration = 7
        body.ledgerHead = .init(population: "pop_1", number: 3, hash: hash)
        body.protection = .init(
            kind: .helper,
            bits: 64,
            norm: 1000,
            document: Data([1, 2, 3]).base64EncodedString(),
            grant: Data(count: 64).base64EncodedString()
        )
        return body
    }

    private static func document() throws -> [String: JSONValue] {
        guard case .object(let fields) = try JSONValue.parse(Array(WireCoding.encode(body()))) else { return [:] }
        return fields
    }

    private static func read(_ fields: [String: JSONValue], limit: Int = 1 << 30) throws -> Assignment {
        try Assignment.read(.object(fields), modelByteLimit: limit)
    }

    @Test func whatTheServerWritesIsRead() throws {
        let assignment = try Self.read(Self.document())
        #expect(assignment.id.text == "asg_1" && assignment.run.text == "run_1" && assignment.kind == .train)
        #expect(assignment.model.encoding == .f16 && assignment.model.fileByteCount == 600)
        #expect(assignment.model.sha256.text == Self.hash && assignment.model.fileHash.text.hasPrefix("cc"))
        #expect(assignment.base?.fileHash == assignment.base?.sha256 && assignment.control?.fileByteCount == 1000)
        #expect(assignment.tokenizer?.path.text == "/v1/runs/run_1/tokenizer")
        #expect(assignment.tensors.parameterCount == 9 && assignment.updateTensors?.parameterCount == 9)
        #expect(assignment.seed == .max && assignment.deadline.seconds == 60.5 && assignment.lease?.seconds == 30)
        let body = try Self.body()
        #expect(assignment.training == body.training && assignment.privacy == body.privacy)
        #expect(assignment.release?.metrics == ["loss", "top1"] && assignment.valueBound == 64)
    }

    private static func tree(_ layout: ParameterLayout) throws -> JSONValue {
        try JSONValue.parse(Array(WireCoding.encode(layout.tensors)))
    }

    private static let scaffold = JSONValue.object(["algorithm": .string("scaffold")])
    private static let votes = JSONValue.object([
        "mode": .string("central"), "mechanism": .string("gaussian_sparse_histogram"), "noise_multiplier": .integer(2),
        "threshold": .integer(20),
    ])

    /// A model of four parameters and an update of fifty million made the device work beyond its owner's limit.
    @Test func onlyTensorsOfARunsUpdatesAreTaken() throws {
        let model = ParameterLayout([.init(name: "w", shape: [4, 2]), .init(name: "b", shape: [])])
        let joint = ControlVariates.jointLayout(model)
        let huge = ParameterLayout([.init(name: "w", shape: [50_000_000])])
        let renamed = ParameterLayout([.init(name: "w", shape: [2, 4]), .init(name: "b", shape: [])])
        for (training, privacy, good) in [
            (JSONValue.object([:]), JSONValue.object(["mode": .string("none")]), model),
            (Self.scaffold, .object(["mode": .string("none")]), joint),
            (.object([:]), Self.votes, PrefixTrie.voteLayout),
        ] {
            var fields = try Self.document()
            (fields["training"], fields["privacy"]) = (training, privacy)
            if good == PrefixTrie.voteLayout { fields["kind"] = .string("analyze") }
            for layout in [model, joint, huge, renamed, PrefixTrie.voteLayout] {
                fields["update_tensors"] = try Self.tree(layout)
                let problems = Self.problems(.object(fields))
                #expect(problems == (layout == good ? nil : ["/update_tensors"]), "\(layout.tensors) \(privacy)")
            }
            fields["update_tensors"] = nil
            #expect(Self.problems(.object(fields)) == nil)
        }
    }

    /// Control variates are told apart by their names' beginning.
    @Test func aModelsNamesAreNotThoseOfControlVariates() throws {
        for names in [["scaffold_control/w"], ["w", "scaffold_control/w"], ["scaffold_control/scaffold_control/w"]] {
            var fields = try Self.document()
            fields["training"] = Self.scaffold
            fields["update_tensors"] = nil
            fields["tensors"] = try Self.tree(ParameterLayout(names.map { .init(name: $0, shape: [2]) }))
            #expect(Self.problems(.object(fields)) == ["/tensors"], "\(names)")
        }
    }

    /// A field that the server starts to send is read by the client, or passed over on purpose.
    @Test func everyFieldThatTheServerWritesIsKnown() throws {
        let names = Set(try Self.document().keys)
        #expect(names == Assignment.knownFields.union(Assignment.unreadFields))
    }

    @Test func fieldsOfANewerServerArePassedOver() throws {
        var fields = try Self.document()
        fields["colour"] = .string("green")
        guard case .object(var training)? = fields["training"] else { return }
        training["future"] = .object(["a": .null])
        fields["training"] = .object(training)
        let (newer, known) = (try Self.read(fields), try Self.read(Self.document()))
        #expect(newer == known)
    }

    /// Without the name of the file in fewer bits there is nothing to check it by: the F32 file is fetched.
    @Test func anEncodingWithoutAHashMeansTheFileThatIsNamed() throws {
        var fields = try Self.document()
        guard case .object(var model)? = fields["model"] else { return }
        model["encoded_sha256"] = nil
        fields["model"] = .object(model)
        let file = try Self.read(fields).model
        #expect(file.encoding == .f32 && file.path.text == "/v1/m" && file.fileHash.text == Self.hash)
        #expect(file.fileByteCount == 1000)
    }

    /// Values that no field of an assignment can have; each is tried in each field, at every depth.
    private static let hostile: [JSONValue] = [
        .null, .number(1e300), .number(-1e300), .integer(-1), .number(0x1p62), .string(""),
        .string("../../../etc/passwd"),
        .string("@127.0.0.1:7299/steal"), .string("x/../../../evil?a=b#"), .string("\u{1B}[2J\0"),
        .string("unheard-of"),
        .array([]), .array([.array([.integer(1)])]), .object([:]), .object(["a": .object(["b": .null])]),
        .boolean(true), .string(String(repeating: "a", count: 5000)),
    ]

    private static let optional = [
        "base", "control", "release", "update_tensors", "round_committed", "ledger_head", "protection",
    ]

    /// Fields of whatever type that mean nothing to a client, and those that a value above fits.
    private static func mayBe(_ path: String, _ value: JSONValue) -> Bool {
        let free = ["state", "deadline", "max_participations", "architecture/config", "architecture/initialization"]
        // Only a reference to a tokeniser is read; one that came along is the architecture's.
        if free.contains(where: { path == $0 || path.hasPrefix($0 + "/") }) { return !path.contains("tokenizer/") }
        switch value {
        // Whatever has defaults reads as them.
        case .object(let fields):
            return fields.isEmpty || path == "training" || path.hasPrefix("training/") || path == "privacy/clipping"
        case .null:
            return Self.optional.contains(path)
        case .number(0x1p62): return path == "value_bound"
        case .boolean: return path == "round_committed" || path == "training/data/clean"
        case .string("unheard-of"):
            return ["id", "run", "architecture/architecture", "ledger_head/population"].contains(path)
        // Base64 of bytes that no grant is of; the document is read when its grant is checked.
        case .string(let text) where text.utf8.count == 5000: return path == "protection/document"
        default: return false
        }
    }

    /// The tree with one place changed, for every place, by its path.
    private static func changed(_ value: JSONValue, to bad: JSONValue, _ path: String = "") -> [(String, JSONValue)] {
        guard case .object(let fields) = value else { return [] }
        var trees: [(String, JSONValue)] = []
        for (name, inner) in fields {
            let here = path.isEmpty ? name : path + "/" + name
            for (place, tree) in [(here, bad)] + changed(inner, to: bad, here) {
                var copy = fields
                copy[name] = tree
                trees.append((place, .object(copy)))
            }
        }
        return trees
    }

    /// The pointers of what does not fit; `nil` where it was taken.
    private static func problems(_ document: JSONValue) -> [String]? {
        do throws(DocumentError) {
            _ = try Assignment.read(document, modelByteLimit: 1 << 30)
            return nil
        } catch {
            return error.problems.map(\.pointer)
        }
    }

    @Test func everyFieldWithEveryHostileValueIsRefusedByName() throws {
        var tried = 0
        let good = JSONValue.object(try Self.document())
        for bad in Self.hostile {
            for (path, document) in Self.changed(good, to: bad) where !Self.mayBe(path, bad) {
                tried += 1
                let first = "/" + path.prefix { $0 != "/" }
                let problems = Self.problems(document)
                #expect(
                    problems?.contains { $0.hasPrefix(first) } == true,
                    "\(path) as \(bad): \(problems ?? ["was taken"])"
                )
            }
        }
        #expect(tried > 800)
    }

    @Test(arguments: [
        #"[{"name": "w", "shape": [4611686018427387904, 4]}]"#, #"[{"name": "w", "shape": [3037000500, 3037000500]}]"#,
        #"[{"name": "w", "shape": [9007199254740992, 1024]}]"#, #"[{"name": "w", "shape": [0]}]"#,
        #"[{"name": "w", "shape": [-1]}]"#, #"[{"name": "w", "shape": [2]}, {"name": "w", "shape": [2]}]"#,
        #"[{"name": "a", "shape": [9007199254740991, 1024]}, {"name": "b", "shape": [9007199254740991, 1024]}]"#, "[]",
        #"[{"name": "w"}]"#, #"[{"shape": [1]}]"#, #"[{"name": "w", "shape": [268435457]}]"#,
        #"[{"name": "w", "shape": [1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]}]"#,
    ])
    func shapesThatMultiplyPastTheLimitAreRefused(_ tensors: String) throws {
        var fields = try Self.document()
        fields["tensors"] = try .parse(Array(tensors.utf8))
        #expect(throws: DocumentError.self) { try Self.read(fields) }
        #expect(throws: (any Error).self) {
            try JSONDecoder().decode(ParameterLayout.self, from: Data(tensors.replacing("268435457", with: "0").utf8))
            if tensors == "[]" || tensors.contains("1,1,1") { throw CocoaError(.featureUnsupported) }
        }
    }

    @Test func noFileIsLargerThanTheOwnerAllows() throws {
        let error = #expect(throws: DocumentError.self) { try Self.read(Self.document(), limit: 999) }
        #expect(error?.problems.map(\.pointer).sorted() == ["/control/bytes", "/model/bytes"])
    }

    @Test func termsThatDoNotGoTogetherAreRefused() throws {
        for privacy in [
            #"{"mode": "local", "noise_multiplier": 2, "clipping": {"norm": 1, "policy": "adaptive"}}"#,
            #"{"mode": "local", "noise_multiplier": 2, "mechanism": "banded_matrix"}"#, #"{"noise_multiplier": 2}"#,
            #"{"mode": "central"}"#, #"{"mode": "central", "noise_multiplier": 0.01}"#,
            #"{"mode": "local", "mechanism": "sample_and_threshold"}"#,
            #"{"mode": "central", "mechanism": "sample_and_threshold", "noise_multiplier": 1}"#,
            #"{"mode": "local", "noise_multiplier": 2, "amplification": "poisson"}"#,
        ] {
            var fields = try Self.document()
            fields["privacy"] = try .parse(Array(privacy.utf8))
            // With a vote's mechanism there are other tensors.
            fields["update_tensors"] = nil
            let error = #expect(throws: DocumentError.self, "\(privacy)") { try Self.read(fields) }
            #expect(error?.problems.allSatisfy { $0.pointer.hasPrefix("/privacy") } == true)
        }
    }
}

struct ServerAnswerTests {
    private func parse(_ text: String) throws -> JSONValue { try .parse(Array(text.utf8)) }

    @Test(arguments: [
        "{}", #"{"client_id": "c"}"#, #"{"client_id": "../c", "token": "t"}"#,
        #"{"client_id": "c", "token": "a\r\nb"}"#, "[]",
        #"{"client_id": 7, "token": "t"}"#,
    ])
    func aRegistrationThatDoesNotFitIsRefused(_ text: String) throws {
        #expect(throws: DocumentError.self) { try RegistrationAnswer.read(parse(text)) }
    }

    @Test(arguments: [
        "{}", #"{"reason": "A B"}"#, #"{"reason": "no_run", "retry_window": {"min_s": 1e300, "max_s": 1e300}}"#,
        #"{"reason": "no_run", "retry_window": {"min_s": 5}}"#,
        #"{"reason": "no_run", "retry_window": {"min_s": 5, "max_s": 4}}"#,
        #"{"reason": "no_run", "retry_window": {"min_s": -1, "max_s": 4}}"#,
        #"{"reason": "no_run", "retry_window": 5}"#,
    ])
    func aCheckInThatDoesNotFitIsRefused(_ text: String) throws {
        #expect(throws: DocumentError.self) { try CheckInAnswer.read(parse(text), modelByteLimit: 100) }
    }

    @Test func anUnfitAssignmentKeepsItsIdSoThatItCanBeReported() throws {
        let answer = try CheckInAnswer.read(parse(#"{"assignment": {"id": "asg_1", "seed": 7}}"#), modelByteLimit: 100)
        guard case .unfit(let id, let error) = answer else { throw DocumentError("", "was taken") }
        #expect(id?.text == "asg_1" && error.problems.contains { $0.pointer == "/assignment/seed" })
        guard
            case .unfit(nil, _) = try CheckInAnswer.read(parse(#"{"assignment": {"id": "a/b"}}"#), modelByteLimit: 100),
            case .unfit(nil, _) = try CheckInAnswer.read(parse(#"{"assignment": []}"#), modelByteLimit: 100)
        else { throw DocumentError("", "was taken") }
    }

    @Test func waitsAreReadAsTheServerWritesThem() throws {
        let body = CheckInResponse(assignment: nil, reason: "no_run", retryWindow: .init(minS: 1.5, maxS: 60))
        let answer = try CheckInAnswer.read(.parse(body.awayDocument), modelByteLimit: 100)
        let (first, last) = (PeerDuration(seconds: 1.5), PeerDuration(seconds: 60))
        guard let first, let last else { return }
        #expect(answer == .away(reason: "no_run", wait: first...last))
    }

    @Test func aProblemIsOneShortSafeLine() throws {
        let text = #"{"code": "gone", "detail": "\u001b[2Jx\n\#(String(repeating: "y", count: 9000))", "title": 7}"#
        let problem = try ProblemAnswer.read(parse(text))
        #expect(problem.code == "gone")
        let detail = try #require(problem.detail)
        #expect(detail.unicodeScalars.count <= ProblemAnswer.detailLimit + 1)
        #expect(!detail.unicodeScalars.contains(where: PrintableText.isUnsafe))
        #expect(throws: DocumentError.self) { try ProblemAnswer.read(parse(#"{"code": "\u001b[2J", "detail": "x"}"#)) }
    }
}
