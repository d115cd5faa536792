import Foundation
import TestSupport
import Testing
import WireFormat

@testable import Coordination

struct RoundClosingTests {
    private static let evaluation: RunFile = ["every": 1, "cohort_goal": 1, "minimum": 1]

    private func row(_ epsilon: Double) -> LedgerRow {
        LedgerRow(
            sequence: 1,
            populationId: "p",
            runId: "run_a",
            round: 1,
            attempt: 1,
            state: .committed,
            event: "{}",
            epsilonAfter: epsilon,
            createdAt: SampleRun.start,
            previousHash: "",
            rowHash: ""
        )
    }

    /// A run whose round is being summed, with one update that counts.
    private func closed(
        evaluating: Bool = false,
        _ change: (inout RunFile) throws -> Void = { _ in }
    ) throws -> SampleRun {
        var sample = try SampleRun {
            $0.cohort += ["goal": 1, "minimum": 1, "max_participations": 3]
            try change(&$0)
        }
        if evaluating { sample.publish(1) }
        try sample.open()
        var work = try sample.assign("c0")
        work.metrics = #"{"loss": 3, "examples": 2}"#
        sample.runs.set(work)
        try sample.accept(work.id)
        try sample.take([.tick(live: 0)])
        return sample
    }

    private func outcome(_ file: AggregationJob.File) -> AggregationJob.Outcome {
        var outcome = AggregationJob.Outcome()
        outcome.model = file
        outcome.nextNorm = 0.5
        return outcome
    }

    private func published(_ sample: SampleRun) throws -> RoundClosing {
        let file = AggregationJob.File(path: "/x", sha256: "new", byteCount: 9)
        return try RoundClosing(
            published: outcome(file),
            file,
            sample.run,
            sample.round,
            counted: sample.runs.counted(sample.run),
            judged: [.client(sample.clients.client("c0"))],
            at: sample.now
        )
    }

    @Test("A round of training publishes its version, what its clients measured, and then its end.")
    func training() throws {
        let sample = try closed()
        let closing = try published(sample)
        #expect(
            closing.changes.map(\.word)
                == ["version 1", "history committed", "metrics training", "client", "round committed"]
        )
        #expect(!closing.isCharged && closing.round.modelSha256 == "new" && closing.round.epsilon == nil)
        guard case .modelVersion(let version)? = closing.changes.first else {
            Issue.record("the version comes first")
            return
        }
        #expect(version.bytes == 9 && version.clippingNorm == 0.5 && version.version == 1)
    }

    @Test("With privacy a round has its charge in the transaction, and nothing of what clients measured.")
    func privateTraining() throws {
        var closing = try published(closed { $0.privacy += ["mode": "central", "noise_multiplier": 1] })
        #expect(closing.isCharged)
        closing.settle(row(0.7))
        #expect(
            closing.changes.map(\.word)
                == ["version 1", "history committed", "ledger committed", "client", "round committed"]
        )
        #expect(closing.round.epsilon == 0.7)
    }

    @Test("An evaluation marks the version that it measured.")
    func evaluating() throws {
        let sample = try closed(evaluating: true) { $0.evaluation = Self.evaluation }
        let closing = try RoundClosing(
            measured: nil,
            sample.run,
            sample.round,
            counted: sample.runs.counted(sample.run),
            at: sample.now
        )
        #expect(closing.changes.map(\.word) == ["round committed", "history committed", "metrics federated"])
        #expect(!closing.isCharged && closing.round.modelSha256 == "1")
    }

    @Test("A noised evaluation says how much noise there is, and one of which the noise left nothing has no rates.")
    func noisedEvaluation() throws {
        let sample = try closed(evaluating: true) { $0.evaluation = Self.evaluation }
        func cause(_ release: EvaluationRelease.Outcome) throws -> (String?, [String]) {
            let closing = try RoundClosing(measured: release, sample.run, sample.round, counted: [], at: sample.now)
            let causes = closing.changes.compactMap { if case .history(let row) = $0 { row.cause } else { nil } }
            return (causes.first, closing.changes.map(\.word))
        }
        let some = try cause(EvaluationRelease.Outcome(rates: ["loss": 1], noise: ["loss": 0.25]))
        #expect(some.0?.hasSuffix("standard deviation of the noise: loss ±0.25") == true)
        #expect(some.1.contains("metrics federated"))
        let none = try cause(EvaluationRelease.Outcome(rates: [:], noise: [:]))
        #expect(none.0?.contains("the noise left nothing of it") == true && !none.1.contains("metrics federated"))
    }

    @Test("A round that is not being summed has no end.")
    func notClosed() throws {
        var sample = try SampleRun { $0.cohort.goal = 1 }
        try sample.open()
        #expect(refusalCode { _ = try published(sample) } == "round_closed")
    }
}
