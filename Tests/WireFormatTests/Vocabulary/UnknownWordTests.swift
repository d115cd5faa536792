import Foundation
import StrictJSON
import Tensors
import Testing
import WireFormat

/// A word of a closed set that this program does not know is refused where it stands; nothing stands in for it.
struct UnknownWordTests {
    private static let strange = JSONValue.string("unheard_of")

    /// The document with another value at a path of object keys.
    private static func replacing(_ path: ArraySlice<String>, in document: JSONValue) -> JSONValue {
        guard let name = path.first, case .object(var fields) = document else { return strange }
        fields[name] = replacing(path.dropFirst(), in: fields[name] ?? .object([:]))
        return .object(fields)
    }

    private static func specification() throws -> RunSpecification {
        let text = #"""
            {"population": "p", "rounds": 1, "cohort": {"goal": 10}, "model": {"architecture": "external"},
             "aggregation": {"anomalies": {"action": "report"}}}
            """#
        return try RunSpecification.read(.parse(Array(text.utf8)))
    }

    private static func pointers(_ body: () throws -> Void) -> [String] {
        do {
            try body()
            return []
        } catch {
            return (error as? DocumentError)?.problems.map(\.pointer) ?? ["\(error)"]
        }
    }

    /// As a new run file, as the specification of a run that exists, and as the command line decodes it.
    @Test(arguments: [
        "kind", "cohort/policy", "training/submit", "training/algorithm", "training/encoding",
        "training/model_encoding",
        "training/local/optimizer", "aggregation/rule", "aggregation/mode", "aggregation/weighting",
        "aggregation/weight_unit", "aggregation/optimizer/name", "aggregation/anomalies/action", "privacy/mode",
        "privacy/mechanism", "privacy/clipping/policy", "privacy/amplification",
    ])
    func ofASpecificationIsRefusedByItsField(_ path: String) throws {
        let stored = try JSONValue.parse(Array(WireCoding.encode(Self.specification())))
        let document = Self.replacing(path.split(separator: "/").map(String.init)[...], in: stored)
        #expect(Self.pointers { _ = try RunSpecification.read(document) }.contains("/" + path))
        #expect(Self.pointers { _ = try RunSpecification.readStored(document) }.contains("/" + path))
        #expect(throws: DecodingError.self) {
            try WireCoding.decode(RunSpecification.self, from: Data(document.text.utf8))
        }
    }

    /// A device does not do something else than it is asked for.
    @Test(arguments: [
        "kind", "weight_unit", "model/encoding", "training/submit", "training/algorithm", "training/encoding",
        "training/model_encoding", "training/local/optimizer", "privacy/mode", "privacy/mechanism",
        "privacy/clipping/policy", "privacy/amplification",
    ])
    func ofAnAssignmentIsRefusedByItsField(_ path: String) throws {
        let specification = try Self.specification()
        let body = AssignmentBody(
            id: "asg_1",
            run: "run_1",
            round: 1,
            attempt: 1,
            state: .assigned,
            model: .init(version: 0, url: "/v1/m", sha256: String(repeating: "ab", count: 32), bytes: 1000),
            architecture: specification.model,
            training: specification.training,
            privacy: specification.privacy,
            maxParticipations: 1,
            tensors: ParameterLayout([.init(name: "w", shape: [4])]),
            updateUrl: "/v1/assignments/asg_1/update",
            seed: "1",
            deadline: "",
            deadlineInS: 60
        )
        let sent = try JSONValue.parse(Array(WireCoding.encode(body)))
        _ = try Assignment.read(sent, modelByteLimit: 1 << 20)
        let document = Self.replacing(path.split(separator: "/").map(String.init)[...], in: sent)
        #expect(Self.pointers { _ = try Assignment.read(document, modelByteLimit: 1 << 20) }.contains("/" + path))
    }

    @Test func ofOtherBodiesIsRefusedByItsField() throws {
        func object(_ name: String) -> JSONValue { .object([name: Self.strange, "name": .string("n")]) }
        #expect(Self.pointers { _ = try TokenRequest.read(object("role")) }.contains("/role"))
        #expect(Self.pointers { _ = try TokenRequest.read(.object(["name": .string("n")])) } == ["/role"])
        #expect(Self.pointers { _ = try HeartbeatRequest.read(.object(["phase": Self.strange])) } == ["/phase"])
        #expect(Self.pointers { _ = try FailureReport.read(.object(["code": Self.strange])) } == ["/code"])
        let budget = JSONValue.object(["epsilon": .integer(1), "delta": .number(1e-6), "accountant": Self.strange])
        let population = JSONValue.object(["name": .string("n"), "budget": budget])
        #expect(Self.pointers { _ = try PopulationRequest.read(population) } == ["/budget/accountant"])
    }

    /// Where another version may have added a word, it is kept as it is, and is none that is known.
    @Test func ofAnotherVersionIsKeptAndIsNone() throws {
        let known = try WireCoding.decode([PeerWord<PrivacyMode>].self, from: Data(#"["local", "total"]"#.utf8))
        #expect(known == [.known(.local), .unknown("total")] && known[0].is(.local))
        #expect(PrivacyMode.allCases.allSatisfy { !known[1].is($0) })
        #expect(try String(decoding: WireCoding.encode(known), as: UTF8.self) == #"["local","total"]"#)
    }

    /// Another alternative's fields are no slips of the pen: they are refused by name, on devices too.
    @Test func fieldsOfAnotherAlternativeAreRefused() throws {
        let fields = JSONValue.object([
            "mode": .string("central"), "noise_multiplier": .integer(1), "band": .integer(3),
        ])
        let found = Self.pointers {
            _ = try FieldReader.readAnswer(.object(["privacy": fields])) { reader -> Bool? in
                reader.object("privacy") { privacy in
                    privacy.isAlternative("mechanism gaussian", fields: ["band"])
                    _ = privacy.value("mode")
                    return true
                }
            }
        }
        #expect(found == ["/privacy/band"])
    }
}
