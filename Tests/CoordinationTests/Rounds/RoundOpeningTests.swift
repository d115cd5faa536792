import Foundation
import TestSupport
import Testing
import WireFormat

@testable import Coordination

struct RoundOpeningTests {
    private func next(_ sample: SampleRun, missing: String? = nil) throws -> String {
        switch try sample.run.nextRound(at: sample.now, missingNoise: { _ in missing }, drawKey: { "key" }) {
        case .opens(let round): "\(round.number)/\(round.attempt) \(round.phase)"
        case .finished(let cause): cause
        case .failed(let code, _): code
        }
    }

    @Test("Rounds follow one another, attempts have a limit, and after the last round the run has ended.")
    func order() throws {
        var sample = try SampleRun(rounds: 2) { $0.cohort += ["goal": 1, "minimum": 1, "max_attempts": 2] }
        #expect(try next(sample) == "1/1 selecting")
        try sample.open()
        try sample.take([.abandoned(reason: "no")])
        #expect(try next(sample) == "1/2 selecting")
        try sample.open()
        try sample.take([.abandoned(reason: "no")])
        #expect(try next(sample) == "attempts_exhausted")
        sample.publish(1)
        #expect(try next(sample) == "2/1 selecting")
        sample.publish(2)
        #expect(try next(sample) == "all rounds are committed")
    }

    @Test("An evaluation that is due comes before the next round, and is left out after three attempts.")
    func evaluations() throws {
        var sample = try SampleRun(rounds: 1) {
            $0.cohort += ["goal": 1, "minimum": 1]
            $0.evaluation += ["every": 1, "cohort_goal": 1, "minimum": 1]
        }
        sample.publish(1)
        for attempt in 1...3 {
            #expect(try next(sample) == "-1/\(attempt) selecting")
            try sample.open()
            try sample.take([.abandoned(reason: "no")])
        }
        #expect(try next(sample) == "all rounds are committed")
    }

    @Test("A drawn cohort has a key and reports at once, and noise that cannot be made ends the run.")
    func kinds() throws {
        var sample = try SampleRun { $0.cohort += ["goal": 1, "minimum": 1, "policy": "all"] }
        #expect(try next(sample) == "1/1 reporting")
        try sample.open()
        #expect(try sample.round.drawKey == "key" && sample.round.deadline == sample.now + 100)
        #expect(try next(SampleRun { $0.cohort.goal = 1 }, missing: "gone") == "noise_state_lost")
    }

    @Test("An evaluation that the budget does not admit is an attempt that ended, and says why.")
    func refused() throws {
        var sample = try SampleRun { $0.cohort.goal = 1 }
        try sample.open()
        let error = CoordinationError(.conflict, "budget_exhausted", "too little")
        let round = try sample.round.refused(by: error, at: sample.now)
        #expect(round.phase == .abandoned && round.isRefusedByBudget && round.closedAt == sample.now)
    }
}
