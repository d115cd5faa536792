import Foundation
import StrictJSON
import Testing
import WireFormat

/// What one client counts for: how run files say it, and what is written into a specification.
struct CohortBoundTests {
    private func read(_ aggregation: String, _ more: String = "") throws -> RunSpecification.Aggregation {
        let text = """
            {"population": "p", "rounds": 2, "model": {"architecture": "external"}, "cohort": {"goal": 10},
             "aggregation": {\(aggregation)}\(more)}
            """
        return try RunSpecification.read(JSONValue.parse(Array(text.utf8))).aggregation
    }

    private func problems(_ aggregation: String, _ more: String = "") -> [String] {
        do {
            _ = try read(aggregation, more)
            return []
        } catch {
            return (error as? DocumentError)?.problems.map { $0.pointer + " " + $0.detail } ?? ["\(error)"]
        }
    }

    private static let central = #", "privacy": {"mode": "central", "noise_multiplier": 1}"#
    private static let local = #", "privacy": {"mode": "local", "noise_multiplier": 1}"#

    @Test func withoutPrivacyOneClientIsHeldToTenTimesTheMedians() throws {
        let plain = try read("")
        #expect(plain.exampleCap == .timesMedian(10) && plain.normBound == .timesMedian(10))
        #expect(plain.weightUnit == .examples)
        let off = try read(#""example_cap": "none", "norm_bound": "none", "weight_unit": "tokens""#)
        #expect(off.exampleCap == .off && off.normBound == .off && off.weightUnit == .tokens && !off.limitsNorms)
        let given = try read(#""example_cap": 1099511627776, "norm_bound": {"times_median": 2.5}"#)
        #expect(given.exampleCap == .value(0x1p40) && given.normBound == .timesMedian(2.5))
        // Where the medians mean nothing, the defaults are what they were.
        let buffered = try read(#""mode": "buffered""#)
        #expect(buffered.exampleCap == .value(1_000_000) && buffered.normBound == .off)
        let central = try read("", Self.central)
        #expect(central.exampleCap == .value(1_000_000) && central.normBound == nil)
        #expect(try read("", Self.local).exampleCap == .value(1_000_000))
        #expect(try read("", #", "training": {"algorithm": "scaffold"}"#).normBound == .off)
    }

    @Test(arguments: [
        (
            #""example_cap": {"times_median": 10}"#, central,
            "/aggregation/example_cap must be a number in privacy mode central"
        ),
        (
            #""norm_bound": {"times_median": 10}"#, local,
            "/aggregation/norm_bound must be a number in privacy mode local"
        ),
        (#""example_cap": {"times_median": 10}, "mode": "buffered""#, "", "in mode buffered"),
        (#""norm_bound": {"times_median": 10}, "mode": "buffered""#, "", "in mode buffered"),
        (#""example_cap": "none", "weighting": "examples""#, central, "/aggregation/example_cap must be a number"),
        (#""example_cap": "all""#, "", "must be a number, none, or {times_median: m}, not 'all'"),
        (#""example_cap": 1.5"#, "", "must be a whole number"),
        (#""example_cap": 1099511627777"#, "", "is outside 1 to 1099511627776"),
        (#""example_cap": {"times_median": 0.5}"#, "", "0.5 is outside 1.0 to 1000000.0"),
        (#""norm_bound": {"times": 2}"#, "", "/aggregation/norm_bound/times_median is required"),
        (#""norm_bound": [1]"#, "", "must be a number, none, or {times_median: m}, not an array"),
        (
            #""norm_bound": {"times_median": 10}"#, #", "training": {"algorithm": "scaffold"}"#,
            "has no meaning with scaffold"
        ),
        (#""weight_unit": "words""#, "", "'words' is not one of examples, tokens"),
        (
            #""value_bound": 65505"#, #", "training": {"encoding": "f16"}"#,
            "/aggregation/value_bound 65505.0 is more than f16 holds"
        ),
    ])
    func whatCannotHoldIsRefusedByName(_ aggregation: String, _ more: String, _ words: String) {
        let found = problems(aggregation, more)
        #expect(found.contains { $0.contains(words) }, "\(found)")
    }

    @Test(arguments: ["", #""example_cap": "none", "norm_bound": 0.5"#, #""example_cap": 7, "norm_bound": "none""#])
    func aStoredSpecificationHasTheBoundsAndReadsAgainAsItself(_ aggregation: String) throws {
        let first = try read(aggregation)
        let data = try WireCoding.encode(first)
        #expect(try WireCoding.decode(RunSpecification.Aggregation.self, from: data) == first)
        let text = String(decoding: data, as: UTF8.self)
        #expect(aggregation.isEmpty == text.contains(#""example_cap":{"times_median":10}"#), "\(text)")
        #expect(try read(String(text.dropFirst().dropLast())) == first)
    }

    /// As runs were stored before there were such bounds: they keep what they had.
    @Test func aStoredRunOfBeforeKeepsItsCapAndHasNoNormBound() throws {
        let text = #"""
            {"example_cap": 1000000, "mode": "synchronous", "optimizer": {"learning_rate": 1, "name": "sgd"}, "rule": "mean",
             "value_bound": 64, "weighting": "examples"}
            """#
        let stored = try WireCoding.decode(RunSpecification.Aggregation.self, from: Data(text.utf8))
        #expect(stored.exampleCap == .value(1_000_000) && !stored.limitsNorms && stored.weightUnit == .examples)
    }

    @Test(
        arguments: [
            (["hit1": 11, "tokens": 10], "hit1 is more than tokens"), (["hit1": 9], "hit1 is more than num_examples"),
            (["hit1": 4, "hit3": 3, "tokens": 10], "hit1 is more than hit3"),
            (["hit3": 11, "tokens": 10], "hit3 is more than tokens"),
            (["loss_tokens": 11, "tokens": 10], "loss_tokens is more than tokens"), (["nll": -0.1], "nll is negative"),
            (["nll": .infinity], "nll is not finite"), (["tokens": -1], "tokens is negative"),
            (["hit1": -1], "hit1 is negative"), (["seconds": -1], "seconds is negative"),
            (["my_loss": -2], "my_loss is negative"),
        ] as [([String: Double], String)]
    )
    func countsBeyondWhatTheyArePartOfAreImplausible(_ metrics: [String: Double], _ fault: String) {
        #expect(MetricSums.implausible(metrics, exampleCount: 8) == fault)
    }

    @Test func whatClientsSendIsPlausible() {
        // A table's trainer counts no third guesses, another no tokens; a mean may be negative.
        for metrics in [
            ["nll": 12, "loss_tokens": 8, "tokens": 10, "hit1": 2, "hit3": 4], ["hit1": 8], ["bias": -3, "hit1": 0],
            ["hit1": 5, "hit3": 0, "tokens": 5], ["hit1": 5, "hit3": 0, "tokens": 0, "nll": 3, "loss_tokens": 0],
        ] as [[String: Double]] {
            #expect(MetricSums.implausible(metrics, exampleCount: 8) == nil, "\(metrics)")
        }
        #expect(MetricSums.counted(["hit1": 5, "hit3": 0]) == ["hit1": 5])
        #expect(MetricSums.counted(["hit1": 0, "hit3": 0]) == ["hit1": 0, "hit3": 0])
    }
}
