import Foundation
import TestSupport
import Testing
import WireFormat

@testable import Coordination

struct RoundStepTests {
    private static let central: RunFile = ["mode": "central", "noise_multiplier": 1]
    private static let local: RunFile = ["mode": "local", "noise_multiplier": 2]

    @Test(
        "A transaction has the others' changes first, then the round with its history, and then what the round's end brings."
    )
    func order() throws {
        var sample = try SampleRun { $0.cohort += ["goal": 1, "minimum": 1] }
        try sample.open()
        let first = try sample.assign("c0")
        try sample.assign("c1")
        try sample.accept(first.id)
        let step = try sample.take([.tick(live: 1)], with: [.client(sample.clients.client("c0"))])
        #expect(
            step.changes.map(\.word)
                == [
                    "client", "round aggregating", "history aggregating", "assignment superseded",
                    "history superseded",
                ]
        )
        #expect(step.effects.contains(.aggregate) && !step.isDiscarded && step.ledgerCount == nil)
    }

    @Test("An attempt that is given up says whose updates go.")
    func discarded() throws {
        var sample = try SampleRun { $0.cohort += ["goal": 2, "minimum": 2] }
        try sample.open()
        let work = try sample.assign("c0")
        try sample.assign("c1")
        try sample.accept(work.id)
        let step = try sample.take([.abandoned(reason: "no")])
        #expect(step.isDiscarded && step.accepted == [work.id] && step.before.phase != .abandoned)
        #expect(
            step.changes.map(\.word)
                == ["round abandoned", "history abandoned", "assignment superseded", "history superseded"]
        )
    }

    @Test("An event that the round does not take changes nothing.")
    func refused() throws {
        var sample = try SampleRun { $0.cohort.goal = 2 }
        try sample.open()
        try sample.take([.abandoned(reason: "no")])
        let before = try sample.run.rounds
        #expect(refusalCode { try sample.take([.assigned]) } == "round_closed")
        #expect(try sample.run.rounds == before)
    }

    @Test("Tiers are counted with the assignments that the transaction makes.")
    func tiers() throws {
        var sample = try SampleRun { $0.cohort += ["goal": 2, "tiers": 2] }
        var client = try sample.clients.client("c0")
        client.secondsPerAssignment = 9
        sample.clients.set(client)
        sample.runs[sample.id]?.tierBounds = [5]
        try sample.open()
        let work = try sample.assign("c0")
        #expect(try sample.round.counts(ofTier: 0) == (1, 0))
        try sample.accept(work.id)
        #expect(try sample.round.counts(ofTier: 0) == (1, 1))
    }

    @Test("What an attempt without a result costs depends on what may have been released.")
    func settlements() throws {
        func settlement(
            _ privacy: RunFile,
            _ cost: AttemptCost = .judged,
            isElsewhere: Bool = false,
            works: Bool = true,
            isClosed: Bool = false
        ) throws -> AttemptSettlement {
            var sample = try SampleRun {
                $0.cohort += ["goal": 1, "minimum": 1, "max_participations": 3]
                $0.privacy = privacy
            }
            try sample.open()
            if works {
                let work = try sample.assign("c0")
                if isClosed {
                    try sample.accept(work.id)
                    try sample.take([.tick(live: 0)])
                }
            }
            let step = try sample.take([.abandoned(reason: "no")])
            return AttemptSettlement(try sample.run.specification, step, cost: cost, isElsewhere: isElsewhere)
        }
        #expect(try settlement([:]) == .nothing)
        #expect(try settlement(Self.central) == .released)
        #expect(try settlement(Self.central, isClosed: true) == .committed, "noise may have been drawn")
        #expect(try settlement(Self.central, .kept) == .committed && settlement(Self.central, .apart) == .apart)
        #expect(try settlement(Self.central, isElsewhere: true) == .apart)
        #expect(try settlement(Self.central, .chargedAgain, isElsewhere: true) == .released)
        #expect(try settlement(Self.local, works: false) == .released)
        #expect(try settlement(Self.local) == .committed, "every byte is a release")
    }
}
