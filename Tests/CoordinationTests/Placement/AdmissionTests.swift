import Foundation
import TestBenches
import TestSupport
import Testing
import WireFormat

@testable import Coordination

struct AdmissionTests {
    private func refusal(
        _ sample: SampleRun,
        _ client: String = "c0",
        isHalted: Bool = false,
        isHeld: Bool = false
    ) throws -> Refusal? {
        let admission = Admission(run: try sample.run, isHalted: isHalted, isHeld: isHeld, time: sample.now)
        return admission.refusal(of: try sample.clients.client(client), sample.clients)
    }

    @Test("A client has a place until all are taken, and no second one while it is at work.")
    func places() throws {
        var sample = try SampleRun { $0.cohort.goal = 2 }
        #expect(try refusal(sample) == .noSlot, "no round is open")
        try sample.open()
        #expect(try refusal(sample) == nil)
        #expect(try refusal(sample, isHalted: true) == .noSlot && refusal(sample, isHeld: true) == .noSlot)
        try sample.assign("c0")
        #expect(try refusal(sample) == .noSlot && refusal(sample, "c1") == nil)
        try sample.assign("c1")
        #expect(try refusal(sample, "c2") == .noSlot)
        try sample.take([.abandoned(reason: "no")])
        #expect(try refusal(sample, "c2") == .backoff)
    }

    @Test("The limits on participation hold over rounds, and a further turn in an attempt is no further participation.")
    func limits() throws {
        var sample = try SampleRun {
            $0.cohort += ["goal": 2, "max_participations": 1, "min_separation_rounds": 2]
        }
        try sample.open()
        var work = try sample.assign("c0")
        let effects = try work.taking(.failed(code: "no_data"), at: sample.now)
        try sample.take(effects.roundEvents, with: work.changes(effects, at: sample.now))
        #expect(try refusal(sample) == nil)
        try sample.take([.abandoned(reason: "no")])
        _ = sample.runs.endAttempt(run: sample.id)
        try sample.open()
        #expect(try refusal(sample) == .cap && refusal(sample, "c1") == nil)
        var far = try SampleRun {
            $0.cohort += ["goal": 2, "max_participations": 0, "min_separation_rounds": 2]
        }
        try far.open()
        try far.assign("c0")
        try far.take([.abandoned(reason: "no")])
        _ = far.runs.endAttempt(run: far.id)
        try far.open()
        #expect(try refusal(far) == .separation)
    }

    @Test("Requirements are asked of the profile, and a version that is too old has its own answer.")
    func requirements() throws {
        let sample = try SampleRun {
            $0.cohort += ["goal": 2, "requirements": "labels.tier == 'gold'", "minimum_client_version": "2.0"]
        }
        #expect(try sample.run.requirementRefusal(of: sample.clients.client("c0"), sample.clients) == .version)
        var client = try sample.clients.client("c0")
        client.capabilities = #"{"runtime_version": "2.1"}"#
        #expect(try sample.run.requirementRefusal(of: client, sample.clients) == .requirements)
        client.labels = #"{"tier": "gold"}"#
        #expect(try sample.run.requirementRefusal(of: client, sample.clients) == nil)
    }

    @Test(
        "A uniform cohort is chosen among those who come, and a draw takes clients that were there when its list was fixed."
    )
    func cohorts() throws {
        var uniform = try SampleRun { $0.cohort += ["goal": 2, "policy": "uniform"] }
        try uniform.open()
        #expect(try refusal(uniform) == .choosing)
        var all = try SampleRun { $0.cohort += ["goal": 2, "policy": "all"] }
        try all.open()
        #expect(try refusal(all) == nil)
        var late = try all.clients.client("c1")
        late.registeredAt = all.now + 1
        all.clients.set(late)
        #expect(try refusal(all, "c1") == .noSlot)
    }

    @Test("While places are kept for the other tiers, a tier has its share only.")
    func tiers() throws {
        var sample = try SampleRun { $0.cohort += ["goal": 2, "tiers": 2] }
        for (index, seconds) in [1.0, 1, 9, 9].enumerated() {
            var client = try sample.clients.client("c\(index)")
            client.secondsPerAssignment = seconds
            sample.clients.set(client)
        }
        sample.runs[sample.id]?.tierBounds = sample.clients.speeds(population: "p").bounds(tiers: 2)
        try sample.open()
        try sample.assign("c0")
        #expect(try refusal(sample, "c1") == .noSlot && refusal(sample, "c2") == nil)
        sample.now += 26
        #expect(try refusal(sample, "c1") == nil, "half of the selection is over")
    }
}
