import Foundation
import TestSupport
import Testing
import WireFormat

@testable import Coordination

struct RunProgressTests {
    private func progress(_ sample: SampleRun, _ planned: @escaping () -> Int = { 0 }) throws -> RunProgress {
        RunProgress(run: try sample.run, time: sample.now, waitingFor: "w", plannedByteCount: planned)
    }

    @Test("The run's own view, the overview's and the event's say the same.")
    func sameEverywhere() throws {
        var sample = try SampleRun { $0.cohort += ["goal": 1, "minimum": 1] }
        try sample.open()
        try sample.accept(sample.assign("c0").id)
        try sample.take([.tick(live: 0)])
        try sample.take([.aggregated(sha256: "1")])
        sample.publish(1)
        let progress = try progress(sample)
        let (view, summary, event) = (progress.view, progress.summary, progress.event)
        #expect(view.round == 1 && view.committedRounds == 1 && view.modelVersion == 1 && view.modelSha256 == "1")
        #expect(summary.round == 1 && summary.committedRounds == 1 && summary.state == view.state)
        #expect(event.round == 1 && event.committedRounds == 1 && event.state == view.state)
        #expect(view.waitingFor == "w" && summary.waitingFor == "w" && event.waitingFor == "w")
        #expect(event.modelVersion == 1 && summary.roundKind == .training && summary.rounds == 3)
    }

    @Test("The open attempt shows who is at work, and an ended one that it waits for nothing.")
    func rounds() throws {
        var sample = try SampleRun { $0.cohort += ["goal": 2, "minimum": 1] }
        try sample.open()
        try sample.assign("c0")
        sample.now += 5
        let open = try progress(sample).view(sample.round, sample.runs)
        #expect(open.live == ["assigned": 1] && open.waitingFor == "w" && open.seconds == 5)
        #expect(open.phaseSeconds == ["selecting": 5] && open.deadline != nil && open.goal == 2)
        let old = try sample.round
        try sample.take([.abandoned(reason: "no")])
        try sample.open()
        let ended = try #require(try sample.run.rounds.first)
        let shown = try progress(sample).view(ended, sample.runs)
        #expect(old.attempt == 1 && shown.live == nil && shown.reason == "no" && shown.deadline == nil)
        #expect(shown.waitingFor == "nothing: the round is abandoned")
    }

    @Test("Bytes are what came, with privacy what was planned, and nothing if the number of clients is secret.")
    func bytes() throws {
        var sample = try SampleRun { $0.cohort += ["goal": 2, "minimum": 1] }
        try sample.open()
        try sample.accept(sample.assign("c0").id)
        let open = try sample.run.bytesUp(sample.round) {
            Issue.record("an open run's bytes are its own")
            return 0
        }
        #expect(open == 5)
        let privacy = #", "privacy": {"mode": "central", "noise_multiplier": 1}"#
        var closed = try SampleRun {
            $0.cohort += ["goal": 2, "max_participations": 3]
            $0.privacy += ["mode": "central", "noise_multiplier": 1]
        }
        try closed.open()
        try closed.accept(closed.assign("c0").id)
        #expect(try closed.run.bytesUp(closed.round) { 100 } == 100)
        #expect(try closed.run.bytesDown(closed.round) == 0)
    }

    @Test("A version shows where its files are, and whether it is the best.")
    func versions() throws {
        var sample = try SampleRun { $0.cohort.goal = 2 }
        sample.publish(1)
        let record = try sample.run.metricsRecord(["loss": 0.5], version: 1, source: "held-out", at: sample.now)
        sample.apply([.modelMetrics(record)])
        let view = try sample.run.view(sample.run.version("latest"))
        #expect(view.version == 1 && view.isBest == true && view.metrics == ["held-out": ["loss": 0.5]])
        #expect(view.url == "/v1/runs/run_a/models/1/weights" && view.optimizerUrl == nil)
        #expect(refusalCode { _ = try sample.run.version("2") } == "not_found")
        #expect(refusalCode { _ = try sample.run.version("x") } == "not_found")
    }
}
