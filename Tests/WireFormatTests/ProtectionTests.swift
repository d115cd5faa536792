import Foundation
import StrictJSON
import Tensors
import TestSupport
import Testing
import WireFormat

/// The section `protection`, and what an assignment says about it.
struct ProtectionTests {
    private static let section: RunFile = ["kind": "helper", "domain": "keyboards"]

    private static func problems(_ change: (inout RunFile) throws -> Void) throws -> [String] {
        do {
            _ = try RunSpecification.sample {
                $0.protection = section
                try change(&$0)
            }
            return []
        } catch let error as DocumentError {
            return error.problems.map { $0.pointer + " " + $0.detail }
        }
    }

    @Test func defaultsFollowThePrivacyMode() throws {
        let plain = try RunSpecification.sample { $0.protection = Self.section }
        #expect(plain.protection == .init(domain: "keyboards", bits: 32))
        #expect(plain.aggregation.weighting == .uniform && !plain.aggregation.limitsNorms)
        #expect(plain.protectedMaximum == 3 && plain.protectedParticipations == 1)
        let noised = try RunSpecification.sample {
            $0.protection = Self.section
            $0.privacy = ["mode": "central", "noise_multiplier": 1]
        }
        #expect(noised.protection?.bits == 64 && noised.isProtected)
        for absent in [try RunSpecification.sample(), try .sample { $0.protection = ["kind": "none"] }] {
            #expect(absent.protection == nil)
        }
        let stored = try RunSpecification.readStored(.parse(Array(WireCoding.encode(noised))))
        #expect(stored == noised)
    }

    @Test func theSectionIsReadStrictly() throws {
        #expect(try Self.problems { _ in }.isEmpty)
        for (change, pointer) in [
            (["kind": "secagg"], "/protection/kind"), (["kind": "helper"], "/protection/domain"),
            (["kind": "none", "domain": "d"], "/protection/domain"),
            (["kind": "helper", "domain": "d", "bits": 24], "/protection/bits"),
            (["kind": "helper", "domain": "a b"], "/protection/domain"),
            (["kind": "helper", "domain": "d", "norm": 0], "/protection/norm"),
            (["kind": "helper", "domain": "d", "url": "https://x"], "/protection/url"),
        ] as [(RunFile, String)] {
            let found = try Self.problems { $0.protection = change }
            #expect(found.count == 1 && found.first?.hasPrefix(pointer) == true, "\(change): \(found)")
        }
    }

    /// Each names what it does not go with.
    @Test func whatASumOfMaskedUpdatesCannotGiveIsRefusedByName() throws {
        let central: RunFile = ["mode": "central", "noise_multiplier": 1]
        func refused(_ words: String, _ change: (inout RunFile) throws -> Void) throws {
            let found = try Self.problems(change)
            #expect(found.contains { $0.contains(words) }, "\(words): \(found)")
        }
        try refused("privacy.mode local") { $0.privacy = ["mode": "local", "noise_multiplier": 1] }
        try refused("aggregation.mode buffered") { $0.aggregation = ["mode": "buffered"] }
        try refused("aggregation.rule median") { $0.aggregation = ["rule": "median"] }
        try refused("aggregation.anomalies") { $0.aggregation = ["anomalies": ["action": "exclude"]] }
        try refused("aggregation.norm_bound") { $0.aggregation = ["norm_bound": 3] }
        try refused("aggregation.weighting examples") { $0.aggregation = ["weighting": "examples"] }
        try refused("banded_matrix") {
            $0.privacy = ["mode": "central", "noise_multiplier": 1, "mechanism": "banded_matrix"]
            $0.cohort += ["min_separation_rounds": 2]
        }
        try refused("mechanism laplace") {
            $0.privacy = ["mode": "central", "noise_multiplier": 1, "mechanism": "laplace"]
        }
        for policy in ["per_layer", "adaptive"] {
            try refused("clipping.policy \(policy)") {
                $0.privacy = central
                $0.privacy.clipping += ["policy": policy]
            }
        }
        try refused("cohort.policy poisson") { $0.cohort += ["policy": "poisson", "sampling_rate": 0.1] }
        try refused("scaffold") { $0.training = ["algorithm": "scaffold"] }
        try refused("training.submit weights") { $0.training = ["submit": "weights"] }
        try refused("training.encoding topk") { $0.training = ["encoding": "topk"] }
        try refused("training.model_encoding") { $0.training = ["model_encoding": "f16"] }
        try refused("evaluation.every") { $0.evaluation = ["every": 1] }
        try refused("metrics") { $0.metrics = ["nll"] }
        try refused("cohort.min_examples") { $0.cohort += ["min_examples": 2] }
        try refused("target_seconds") { $0.cohort += ["target_seconds": 9] }
        try refused("/protection/bits") {
            $0.privacy = central
            $0.protection += ["bits": 16]
        }
        try refused("/protection/norm") {
            $0.privacy = central
            $0.protection += ["norm": 5]
        }
    }

    private static let hash = String(repeating: "ab", count: 32)

    private static func body(_ change: (inout AssignmentBody) -> Void = { _ in }) throws -> AssignmentBody {
        let specification = try RunSpecification.sample { $0.protection = section }
        var body = AssignmentBody(
            id: "asg_1",
            run: "run_1",
            round: 3,
            attempt: 2,
            state: .assigned,
            model: .init(version: 2, url: "/v1/m", sha256: hash, bytes: 1000),
            architecture: specification.model,
            training: specification.training,
            privacy: specification.privacy,
            maxParticipations: 1,
            tensors: ParameterLayout([.init(name: "w", shape: [4, 2]), .init(name: "b", shape: [])]),
            updateUrl: "/v1/assignments/asg_1/update",
            seed: "1",
            deadline: "2026-01-01T00:00:00Z",
            deadlineInS: 60.5
        )
        body.valueBound = 64
        body.protection = .init(
            kind: .helper,
            bits: 32,
            document: Data([1]).base64EncodedString(),
            grant: Data(count: 64).base64EncodedString()
        )
        change(&body)
        return body
    }

    private static func instructions(_ change: (inout AssignmentBody) -> Void = { _ in }) throws -> [UInt8] {
        let document = try JSONValue.parse(Array(WireCoding.encode(body(change))))
        return try Assignment.read(document, modelByteLimit: 1 << 30).instructionsHash()
    }

    /// What differs between two devices of a session is not among the instructions, and all that steers them is.
    @Test func instructionsNameWhatSteersAndNothingElse() throws {
        let known = try Self.instructions()
        #expect(known.count == 32)
        let same: [(inout AssignmentBody) -> Void] = [
            { $0.id = "asg_2" }, { $0.run = "run_2" }, { $0.round = 9 }, { $0.attempt = 7 }, { $0.seed = "5" },
            { $0.deadlineInS = 7 }, { $0.leaseS = 5 }, { $0.updateUrl = "/v1/assignments/x/update" },
            { $0.model.url = "/v1/n" }, { $0.stateGeneration = 4 },
            { $0.protection?.document = Data([7, 7]).base64EncodedString() },
            { $0.protection?.grant = Data(repeating: 1, count: 64).base64EncodedString() },
        ]
        for change in same { #expect(try Self.instructions(change) == known) }
        let other: [(inout AssignmentBody) -> Void] = [
            { $0.kind = .evaluate }, { $0.training.local.learningRate = 0.5 }, { $0.training.limits.maxSteps = 3 },
            { $0.privacy.clipping.norm = 3 }, { $0.valueBound = 5 }, { $0.architecture.architecture = "other" },
            { $0.architecture.config = .object(["hidden": .integer(3)]) },
            { $0.tensors = ParameterLayout([.init(name: "v", shape: [9])]) },
            { $0.base = .init(version: 1, url: "/v1/b", sha256: Self.hash, bytes: 500) },
            { $0.protection?.bits = 64 }, { $0.protection?.norm = 9 }, { $0.protection = nil },
            { $0.exampleCap = 4 }, { $0.weightUnit = .tokens },
        ]
        var found: Set<[UInt8]> = [known]
        for change in other { found.insert(try Self.instructions(change)) }
        #expect(found.count == other.count + 1)
    }

    @Test func documentsAndGrantsHaveTheirSizes() throws {
        func problem(_ change: (inout AssignmentBody) -> Void) throws -> String? {
            do {
                _ = try Self.instructions(change)
                return nil
            } catch let error as DocumentError { return error.problems.map(\.pointer).joined() }
        }
        #expect(try problem { $0.protection?.document = "" } == "/protection/document")
        #expect(try problem { $0.protection?.document = "@@@@" } == "/protection/document")
        #expect(
            try problem { $0.protection?.document = Data(count: 4097).base64EncodedString() } == "/protection/document"
        )
        #expect(try problem { $0.protection?.document = Data(count: 4096).base64EncodedString() } == nil)
        #expect(try problem { $0.protection?.grant = Data(count: 63).base64EncodedString() } == "/protection/grant")
        #expect(try problem { $0.protection?.kind = .none } == "/protection/kind")
        #expect(try problem { $0.protection?.bits = 33 } == "/protection/bits")
    }
}
