import DifferentialPrivacy
import Foundation
import TestSupport
import Testing
import WireFormat

@testable import Coordination

struct RunPublicationTests {
    private let start = SampleRun.start
    private let failure = StorageFailure(.write, path: "/x/a.result", role: .result, code: 28).error

    private func closed() throws -> SampleRun {
        var sample = try SampleRun { $0.cohort += ["goal": 1, "minimum": 1] }
        try sample.open()
        try sample.accept(sample.assign("c0").id)
        try sample.take([.tick(live: 0)])
        return sample
    }

    @Test("A round waits longer each time, at most a minute, and keeps since when.")
    func pauses() throws {
        var publication = RunPublication()
        var time = start
        var pauses: [Double] = []
        for index in 0..<8 {
            let (stall, isFirst) = publication.stall("r", failure, at: time)
            #expect(isFirst == (index == 0) && stall.since == start && stall.until == time + stall.pause)
            pauses.append(stall.pause)
            time += stall.pause
        }
        #expect(pauses == [1, 2, 4, 8, 16, 32, 60, 60])
        let (ended, again) = (publication.endAttempt(run: "r"), publication.endAttempt(run: "r"))
        #expect(ended?.since == start && again == nil)
    }

    @Test(
        "What has waited long enough is tried once, also after the clock was put back, and never while it is at work."
    )
    func due() throws {
        let sample = try closed()
        var publication = RunPublication()
        _ = publication.stall(sample.id, failure, at: start)
        let early = publication.takeDue(at: start, sample.runs)
        #expect(early.isEmpty)
        let late = publication.takeDue(at: start + 1, sample.runs)
        let again = publication.takeDue(at: start + 1, sample.runs)
        #expect(late == [sample.id] && again.isEmpty)
        let back = publication.takeDue(at: start - 100, sample.runs)
        #expect(back == [sample.id])
        publication.begin(sample.id)
        let busy = publication.takeDue(at: start + 100, sample.runs)
        #expect(busy.isEmpty && publication.isWorking(sample.id))
        publication.end(sample.id)
        var open = try SampleRun { $0.cohort.goal = 1 }
        try open.open()
        let none = publication.takeDue(at: start + 500, open.runs)
        #expect(none.isEmpty && publication.stalls.isEmpty)
    }

    @Test("The first result of an attempt stands, and its noise is drawn once.")
    func once() throws {
        let sample = try closed()
        let round = try sample.round
        var publication = RunPublication()
        let first = EvaluationRelease.Outcome(rates: ["loss": 1], noise: [:])
        _ = publication.keep(.measurements(first), of: round)
        let kept = publication.keep(.measurements(.init(rates: ["loss": 2], noise: [:])), of: round)
        guard case .measurements(let release) = kept else {
            Issue.record("another kind of result")
            return
        }
        #expect(release.rates == ["loss": 1])
        var draws = 0
        for _ in 0..<3 {
            _ = publication.noiseKey(of: round) {
                draws += 1
                return NoiseKey()
            }
        }
        #expect(draws == 1)
        var next = round
        next.attempt += 1
        #expect(publication.result(of: next) == nil)
        _ = publication.noiseKey(of: next) {
            draws += 1
            return NoiseKey()
        }
        #expect(draws == 2)
    }

    @Test(
        "A result whose file is gone is made again; what is known of ended attempts goes when the state is read again."
    )
    func forgotten() throws {
        var sample = try closed()
        let round = try sample.round
        var publication = RunPublication()
        _ = publication.keep(.exactSums, of: round)
        publication.keepOpen(sample.runs)
        #expect(publication.result(of: round) != nil)
        let gone = StorageFailure(.open, path: "/x/a.result", role: .result, code: ENOENT).error
        _ = publication.stall(sample.id, gone, at: start)
        #expect(publication.result(of: round) == nil && publication.stalls[sample.id] != nil)
        _ = publication.keep(.exactSums, of: round)
        try sample.take([.abandoned(reason: "no")])
        publication.keepOpen(sample.runs)
        #expect(publication.result(of: round) == nil && publication.stalls.isEmpty)
    }

    @Test("Nothing is given up for what may pass, but for an update that is lost.")
    func passing() {
        #expect(RunPublication.mayPass(failure))
        let lost = StorageFailure(.open, path: "/x/a.update", role: .update, code: ENOENT).error
        #expect(!RunPublication.mayPass(lost))
        #expect(RunPublication.mayPass(CoordinationError(.unavailable, "model_missing", "")))
        #expect(!RunPublication.mayPass(CoordinationError(.unprocessable, "tensor_mismatch", "")))
    }
}
