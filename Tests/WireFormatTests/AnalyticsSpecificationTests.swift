import Foundation
import StrictJSON
import Testing
import WireFormat

struct AnalyticsSpecificationTests {
    private func read(_ text: String) throws(DocumentError) -> RunSpecification {
        try RunSpecification.read(JSONValue.parse(Array(text.utf8)))
    }

    private func problems(_ text: String) -> [String] {
        do {
            _ = try read(text)
            return []
        } catch {
            return error.problems.map { "\($0.pointer): \($0.detail)" }
        }
    }

    private let histogram = #"""
        {"population": "p", "kind": "analytics", "cohort": {"goal": 10},
         "analytics": {"method": "histogram", "candidates": ["a", "b"], "words_per_client": 4},
         "privacy": {"mode": "central", "noise_multiplier": 1}}
        """#
    private let trie = #"""
        {"population": "p", "kind": "analytics", "analytics": {"method": "triehh", "epsilon": 4}}
        """#
    private let votes = #"""
        {"population": "p", "kind": "analytics", "analytics": {"method": "votes"}, "cohort": {"goal": 10},
         "privacy": {"target": {"epsilon": 4}}}
        """#

    @Test func aHistogramsSensitivityIsTheSquareRootOfItsWords() throws {
        let run = try read(histogram)
        #expect(run.privacy.clipping.norm == 2 && run.cohort.maxParticipations == 1 && run.rounds == 1)
        #expect(run.aggregation.weighting == .uniform && run.aggregation.valueBound == 1)
        #expect(run.model.architecture == "histogram" && run.model.candidates == ["a", "b"])
    }

    @Test func votesAreCentralAndAClientMayVoteInEveryRound() throws {
        let run = try read(votes)
        #expect(run.rounds == 10 && run.cohort.maxParticipations == 10 && run.cohort.policy == .firstCome)
        #expect(run.privacy.mode == .central && run.privacy.mechanism == .gaussianSparseHistogram(threshold: nil))
        #expect(
            run.privacy.areVotes && !run.privacy.addsNoise && !run.privacy.hasSecretDraw && run.privacy.threshold == nil
        )
        #expect(run.model.architecture == "votes" && run.cohort.minimum == 8)
    }

    /// Kept for what servers have stored; a server makes no new run of it.
    @Test func aStoredTriesRateFollowsFromItsPromise() throws {
        // The paper's example: n = 1.78 million, epsilon 4, L = 10, threshold 15 give m = 39,122 voters.
        let run = try read(trie)
        let rate = try #require(run.cohort.samplingRate)
        #expect(Int((1_780_000 * rate).rounded()) == 39_122)
        #expect(run.rounds == 10 && run.analytics?.voteThreshold == 15 && run.cohort.policy == .poisson)
        #expect(run.privacy.mode == .central && run.privacy.mechanism == .sampleAndThreshold)
        #expect(!run.privacy.addsNoise && run.cohort.minimum == 0 && run.privacy.hasSecretDraw)
    }

    @Test func bothSurviveBeingStored() throws {
        // A target is stored with what was found for it.
        let calibrated = votes.replacing(
            #"{"target": {"epsilon": 4}}"#,
            with: #"{"target": {"epsilon": 4, "calibrated": true}, "noise_multiplier": 3.4, "threshold": 18.5}"#
        )
        for text in [histogram, trie, calibrated] {
            let run = try read(text)
            let stored = try WireCoding.encode(run)
            #expect(try read(String(decoding: stored, as: UTF8.self)) == run)
            #expect(try WireCoding.decode(RunSpecification.self, from: stored) == run)
        }
    }

    @Test(arguments: [
        (#""analytics": {"method": "histogram"}, "cohort": {"goal": 2}"#, "/analytics: candidates"),
        (#""analytics": {"method": "triehh"}"#, "/analytics/epsilon: is required"),
        (#""analytics": {"method": "votes"}"#, "/cohort/goal"),
        (
            #""analytics": {"method": "votes", "epsilon": 1}, "cohort": {"goal": 2}"#,
            "/analytics/epsilon: has no meaning with method votes"
        ),
        (
            #""analytics": {"method": "votes"}, "cohort": {"goal": 2}, "privacy": {"mode": "local", "noise_multiplier": 1}"#,
            "/privacy/mode"
        ),
        (
            #""analytics": {"method": "votes"}, "cohort": {"goal": 2, "max_participations": 11}, "privacy": {"noise_multiplier": 1}"#,
            "/cohort: max_participations is more than the rounds"
        ),
        (
            #""analytics": {"method": "votes"}, "cohort": {"goal": 2}, "privacy": {"noise_multiplier": 1, "clipping": {"norm": 2}}"#,
            "/privacy/clipping: a vote has weight 1"
        ),
        (
            #""analytics": {"method": "votes"}, "cohort": {"goal": 2, "policy": "poisson", "sampling_rate": 0.1}, "privacy": {"noise_multiplier": 1, "amplification": "poisson"}"#,
            "/privacy/clipping: a vote has weight 1"
        ),
        (
            #""analytics": {"method": "triehh", "epsilon": 1, "candidates": ["a"]}"#,
            "/analytics/candidates: has no meaning"
        ),
        (
            #""analytics": {"method": "triehh", "epsilon": 1, "words_per_client": 3}"#,
            "/analytics/words_per_client: has no"
        ),
        (#""analytics": {"method": "triehh", "epsilon": 1, "threshold": 3}"#, "/analytics/threshold: 3 is outside"),
        (
            #""analytics": {"method": "triehh", "epsilon": 1}, "cohort": {"policy": "first_come"}"#,
            "/cohort: must have policy poisson"
        ),
        (
            #""analytics": {"method": "triehh", "epsilon": 1}, "cohort": {"sampling_rate": 0.5}"#,
            "/cohort/sampling_rate: is 0.0"
        ),
        (
            #""analytics": {"method": "triehh", "epsilon": 1}, "cohort": {"max_participations": 2}"#,
            "/cohort: must have policy poisson without max_participations"
        ),
        (
            #""analytics": {"method": "triehh", "epsilon": 1}, "privacy": {"noise_multiplier": 1}"#,
            "/privacy/noise_multiplier: 1.0 is outside"
        ),
        (
            #""analytics": {"method": "histogram", "candidates": ["a"]}, "cohort": {"goal": 2, "max_participations": 2}"#,
            "/cohort: max_participations must be 1"
        ),
        (
            #""analytics": {"method": "triehh", "epsilon": 1}, "cohort": {"minimum": 3}"#,
            "/cohort/minimum: must be 0 or left out"
        ),
        (
            #""analytics": {"method": "histogram", "candidates": ["a"]}, "cohort": {"goal": 2}, "training": {"encoding": "int8"}"#,
            "/training: counts and votes are sent as they are"
        ),
        (
            #""analytics": {"method": "histogram", "candidates": ["a"]}, "cohort": {"goal": 2}, "training": {"local": {"epochs": 3}}"#,
            "/training: local, limits and model_encoding have no meaning here"
        ),
        (
            #""analytics": {"method": "histogram", "candidates": ["a"]}, "cohort": {"goal": 2}, "training": {"limits": {"max_steps": 3}}"#,
            "/training: local, limits and model_encoding have no meaning here"
        ),
        (
            #""analytics": {"method": "triehh", "epsilon": 1}, "training": {"model_encoding": "f16"}"#,
            "/training: local, limits and model_encoding have no meaning here"
        ),
        (
            #""analytics": {"method": "histogram", "candidates": ["a"]}, "cohort": {"goal": 2}, "aggregation": {"rule": "median"}"#,
            "/aggregation: counts are added up"
        ),
        (
            #""analytics": {"method": "histogram", "candidates": ["a"]}, "cohort": {"goal": 2}, "model": {"architecture": "decoder"}"#,
            "/model/architecture: 'decoder' is not one of histogram"
        ),
        (
            #""analytics": {"method": "histogram", "candidates": ["a"]}, "cohort": {"goal": 2}, "privacy": {"mode": "central", "noise_multiplier": 1, "clipping": {"norm": 1}}"#,
            "/privacy/clipping: norm is 4.47"
        ),
    ])
    func whatWouldNotWorkIsRefused(_ text: String, _ problem: String) {
        let found = problems(#"{"population": "p", "kind": "analytics", \#(text)}"#)
        #expect(found.contains { $0.hasPrefix(problem) }, "\(found)")
    }

    @Test func theSectionBelongsToTheKind() {
        let found = problems(
            #"""
            {"population": "p", "rounds": 1, "cohort": {"goal": 2}, "model": {"architecture": "external"},
             "analytics": {"method": "triehh"}}
            """#
        )
        #expect(found == ["/analytics: has no meaning in a run of kind training; set kind: analytics"])
        #expect(
            problems(#"{"population": "p", "kind": "analytics"}"#).contains { $0.hasPrefix("/analytics: is required") }
        )
    }
}
