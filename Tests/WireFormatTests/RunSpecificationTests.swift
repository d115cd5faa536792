import Foundation
import StrictJSON
import Testing
import WireFormat

struct RunSpecificationTests {
    private func read(_ text: String) throws(DocumentError) -> RunSpecification {
        try RunSpecification.read(JSONValue.parse(Array(text.utf8)))
    }

    private let minimal =
        #"{"population": "p", "rounds": 2, "cohort": {"goal": 10}, "model": {"architecture": "external"}}"#

    @Test func defaultsAreFilledInAndSurviveARoundTrip() throws {
        let specification = try read(minimal)
        #expect(specification.cohort.minimum == 8 && specification.aggregation.weighting == .examples)
        #expect(specification.privacy.mode == .none)
        let encoded = try WireCoding.encode(specification)
        #expect(try WireCoding.decode(RunSpecification.self, from: encoded) == specification)
        #expect(try read(String(decoding: encoded, as: UTF8.self)) == specification)
    }

    @Test func everyBadFieldIsNamedWithItsPath() {
        let text = #"""
            {"population": 7, "rounds": 0, "cohort": {"gaol": 1, "goal": 1.5}, "extra/field": 1,
             "model": {"architecture": "g/p/t"}, "privacy": {"mode": "central"},
             "aggregation": {"optimizer": {"name": "adamm"}}}
            """#
        do {
            _ = try read(text)
            Issue.record("accepted")
        } catch {
            let pointers = Set(error.problems.map(\.pointer))
            #expect(
                pointers.isSuperset(of: [
                    "/population", "/rounds", "/cohort/gaol", "/cohort/goal", "/extra~1field", "/model/architecture",
                    "/privacy/noise_multiplier", "/aggregation/optimizer/name",
                ]),
                "\(pointers)"
            )
            let optimizer = error.problems.first { $0.pointer == "/aggregation/optimizer/name" }
            #expect(optimizer?.detail.contains("sgd, momentum, adagrad, adam, yogi, fedadagrad") == true)
        }
    }

    /// A deadline that would have passed before anybody could meet it.
    @Test func deadlinesInThePastAreRefused() throws {
        for value in ["0", "-60", "-1e300"] {
            let text = #"""
                {"population": "p", "model": {"architecture": "external"}, "rounds": 1,
                 "cohort": {"selection_timeout_s": \#(value), "report_timeout_s": \#(value), "lease_s": \#(value)},
                 "evaluation": {"report_timeout_s": \#(value)}}
                """#
            let error = #expect(throws: DocumentError.self) { try read(text) }
            let pointers = Set(try #require(error).problems.map(\.pointer))
            #expect(
                pointers.isSuperset(of: [
                    "/cohort/selection_timeout_s", "/cohort/report_timeout_s", "/cohort/lease_s",
                    "/evaluation/report_timeout_s",
                ]),
                "\(value): \(pointers)"
            )
        }
    }

    @Test func privacyThatWouldVoidItselfIsRefused() {
        func refused(_ more: String, pointer: String) {
            do {
                _ = try read(#"{"population": "p", "rounds": 2, "model": {"architecture": "external"}, \#(more)}"#)
                Issue.record("accepted")
            } catch {
                #expect(error.problems.contains { $0.pointer == pointer }, "\(error.problems)")
            }
        }
        let central = #""privacy": {"mode": "central", "noise_multiplier": 1}, "#
        refused(central + #""cohort": {"goal": 10, "max_participations": 0}"#, pointer: "/cohort/max_participations")
        refused(
            central + #""cohort": {"goal": 10}, "aggregation": {"weighting": "examples"}"#,
            pointer: "/aggregation/example_cap"
        )
        refused(
            #""privacy": {"mode": "local", "noise_multiplier": 0.01}, "cohort": {"goal": 10}"#,
            pointer: "/privacy/noise_multiplier"
        )
    }

    @Test(arguments: ["", "{", "[]", "null", "1", #"{"a":"#, String(repeating: "[", count: 100)])
    func whatIsNoObjectIsRefused(text: String) {
        #expect(throws: DocumentError.self) { try read(text) }
    }
}
