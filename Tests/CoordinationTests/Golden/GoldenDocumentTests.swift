import Foundation
import StrictJSON
import Tensors
import TestSupport
import Testing
import WireFormat

@testable import Coordination

/// What is stored and sent, byte by byte as an earlier version made it: a word that changes on the way is a broken promise to
/// devices, databases and auditors.
struct GoldenDocumentTests {
    private static func fixture(_ name: String) -> String {
        URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().path + "/Fixtures/"
            + name
    }

    private static func specification(_ text: String) throws -> RunSpecification {
        try RunSpecification.read(.parse(Array(text.utf8)))
    }

    private static func accepted() -> [(name: String, specification: RunSpecification)] {
        SampleRunFiles.all.compactMap { name, text in
            (try? specification(text)).map { (name, $0) }
        }
    }

    /// The stored form, which reads back as itself; of a run file that is refused, where.
    @Test func runSpecificationsAreStoredAsEver() throws {
        var lines: [(name: String, text: String)] = []
        for (name, text) in SampleRunFiles.all {
            var line = ""
            do throws(DocumentError) {
                let document = try JSONValue.parse(Array(text.utf8))
                let specification = try RunSpecification.read(document)
                let stored = try? WireCoding.encode(specification)
                line = String(decoding: stored ?? Data(), as: UTF8.self)
                // What is stored has its noise: an open target is calibrated before.
                if specification.privacy.target?.calibrated ?? true {
                    #expect(try RunSpecification.readStored(.parse(Array(line.utf8))) == specification, "\(name)")
                }
            } catch {
                line = "! " + Set(error.problems.map(\.pointer)).sorted().joined(separator: " ")
            }
            #expect(line.hasPrefix("!") == name.hasPrefix("!"), "\(name): \(line)")
            lines.append((name, line))
        }
        let differences = try GoldenLines.differences(lines, from: Self.fixture("run-specifications.txt"))
        #expect(differences.isEmpty, "\(differences.joined(separator: "\n"))")
    }

    /// Assignments as devices get them, which they can read.
    @Test func assignmentsAreSentAsEver() throws {
        let hash = String(repeating: "ab", count: 32)
        let layout = ParameterLayout([.init(name: "w", shape: [4, 2]), .init(name: "b", shape: [])])
        var lines: [(name: String, text: String)] = []
        for (name, specification) in Self.accepted() where specification.privacy.target?.calibrated ?? true {
            for kind in WorkKind.allCases {
                let body = AssignmentBody(
                    id: "asg_1",
                    run: "run_1",
                    round: 3,
                    attempt: 2,
                    state: .assigned,
                    model: .init(version: 2, url: "/v1/m", sha256: hash, bytes: 1000),
                    architecture: specification.model,
                    training: specification.training,
                    privacy: specification.privacy,
                    maxParticipations: specification.cohort.maxParticipations,
                    tensors: layout,
                    updateUrl: "/v1/assignments/asg_1/update",
                    seed: "1",
                    deadline: "2026-01-01T00:00:00Z",
                    deadlineInS: 60,
                    kind: kind
                )
                let sent = String(decoding: try WireCoding.encode(body), as: UTF8.self)
                lines.append(("\(name), \(kind)", sent))
                let read = try Assignment.read(.parse(Array(sent.utf8)), modelByteLimit: 1 << 30)
                #expect(read.training == specification.training, "\(name)")
            }
        }
        let differences = try GoldenLines.differences(lines, from: Self.fixture("assignments.txt"))
        #expect(differences.isEmpty, "\(differences.joined(separator: "\n"))")
    }

    /// Charges as the ledger's rows hold them.
    @Test func chargesAreWrittenAsEver() throws {
        var lines: [(name: String, text: String)] = []
        for (name, specification) in Self.accepted() where specification.isPrivate {
            lines.append((name, PrivacyCharge(of: specification, parameterCount: 1000).canonical))
            if specification.hasPrivateEvaluation {
                lines.append(("\(name), evaluation", PrivacyCharge.evaluation(of: specification)?.canonical ?? "none"))
            }
        }
        let differences = try GoldenLines.differences(lines, from: Self.fixture("charges.txt"))
        #expect(differences.isEmpty, "\(differences.joined(separator: "\n"))")
    }
}
