import Foundation
import PrivacyVectors
import TestSupport
import Testing

/// Reference values made by independent tools: 40-digit arithmetic, dp-accounting 0.6.0, prv-accountant and scipy; each
/// fixture carries the versions, conventions and tolerances.
struct ReferenceVectorTests {
    static let files = [
        "calibration-and-ledger", "clipping-and-matrix", "composition", "discrete-and-distributed", "gaussian",
        "laplace",
        "pld", "rdp", "shuffle-and-audit",
    ]

    private static func data(_ name: String) throws -> Data {
        let url = try #require(Bundle.module.url(forResource: name, withExtension: "json", subdirectory: "Fixtures"))
        return try Data(contentsOf: url)
    }

    @Test(.slow, arguments: files)
    func everyCaseIsWithinItsTolerance(_ name: String) throws {
        let outcomes = try ReferenceVectors.evaluate(Self.data(name))
        #expect(!outcomes.isEmpty)
        for outcome in outcomes {
            #expect(outcome.status == .pass, "\(outcome.id): \(outcome.failures)")
        }
    }

    @Test func theFixturesHoldEveryCase() throws {
        let counts = try Self.files.map { name in
            try #require(JSONSerialization.jsonObject(with: Self.data(name)) as? [String: Any])["cases"] as? [Any]
        }
        #expect(counts.map { $0?.count ?? 0 }.reduce(0, +) == 52)
    }

    @Test func computedHasTheKeysOfExpectAndAWrongValueFails() throws {
        let text = """
            {"schema": "fl-privacy-vectors/1", "cases": [
              {"id": "a", "kind": "gaussian_epsilon", "params": {"sigma": 1, "sensitivity": 1, "delta": 1e-5},
               "expect": {"epsilon": 4.37717809568}, "tolerance": {"rel": 1e-9}},
              {"id": "b", "kind": "gaussian_epsilon", "params": {"sigma": 1, "sensitivity": 1, "delta": 1e-5},
               "expect": {"epsilon": 4.3772}, "tolerance": {"rel": 1e-6}},
              {"id": "c", "kind": "soothsaying", "params": {}, "expect": {"epsilon": 1}},
              {"id": "d", "kind": "pld_epsilon",
               "params": {"composition": [{"q": 0.1, "sigma": 2, "steps": 10}], "delta": 1e-6},
               "expect": {"epsilon_min": 5.0}, "tolerance": {"rule": "epsilon_min <= epsilon"}},
              {"id": "e", "kind": "gaussian_epsilon", "params": {"sigma": 1}, "expect": {"epsilon": 1}}
            ]}
            """
        let outcomes = try ReferenceVectors.evaluate(Data(text.utf8))
        #expect(outcomes.map(\.status) == [.pass, .fail, .unsupported, .fail, .fail])
        let line = try #require(
            JSONSerialization.jsonObject(with: Data(outcomes[0].line.utf8)) as? [String: Any]
        )
        #expect((line["computed"] as? [String: Double]).map { Array($0.keys) } == ["epsilon"])
        #expect(outcomes[3].failures.first?.contains("unsound") == true)
        #expect(throws: ReferenceVectors.FormatError.self) { try ReferenceVectors.evaluate(Data("[]".utf8)) }
        #expect(throws: ReferenceVectors.FormatError.self) {
            try ReferenceVectors.evaluate(Data(#"{"schema": "other", "cases": []}"#.utf8))
        }
    }
}
