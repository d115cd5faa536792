import Foundation
import StrictJSON
import Tensors
import TestSupport
import Testing
import WireFormat

@testable import Coordination

/// What is kept of runs so that no request walks them, beside walks.
struct RunIndexTests {
    private func walked(_ runs: RunTable, _ run: RunState) -> [String: Int] {
        run.atWork.reduce(into: [:]) { counts, id in
            if let state = runs.assignments[id]?.state { counts[state.rawValue, default: 0] += 1 }
        }
    }

    @Test(arguments: [1, 2, 3] as [UInt64])
    func clientsAtWorkAreCountedAsTheyChange(_ seed: UInt64) throws {
        var random = Xoshiro256StarStar(seed: seed)
        var sample = try SampleRun(clients: 30) { $0.cohort += ["goal": 30, "minimum": 1] }
        try sample.open()
        var records: [AssignmentRecord] = []
        for step in 0..<200 {
            if step < 30 { records.append(try sample.assign("c\(step)")) }
            let place = Int(random.next() % UInt64(records.count))
            var record = records[place]
            let states: [AssignmentState] = [.downloading, .training, .uploading, .expired, .accepted]
            if record.state.isLive { record.state = states[Int(random.next() % 5)] }
            records[place] = record
            // As something that is stored, or as what no transaction keeps.
            if random.next() % 2 == 0 { sample.runs.set(record) } else { sample.runs.keep(record) }
            if !record.state.isLive { sample.runs.place(record) }
            let run = try sample.run
            #expect(sample.runs.liveStates(of: run) == walked(sample.runs, run))
        }
        _ = sample.runs.endAttempt(run: sample.id)
        let run = try sample.run
        #expect(sample.runs.liveStates(of: run) == walked(sample.runs, run))
    }

    @Test func acceptedUpdatesAreAddedUpByVersion() throws {
        var sample = try SampleRun(rounds: 9) { $0.cohort += ["goal": 3, "minimum": 1] }
        var random = Xoshiro256StarStar(seed: 7)
        for number in 1...9 {
            for attempt in 1...2 {
                var round = RoundRecord(
                    runId: sample.id,
                    number: number,
                    attempt: attempt,
                    opening: .reporting,
                    at: sample.now,
                    deadline: sample.now
                )
                sample.runs[sample.id]?.setRound(round)
                round.accepted = Int(random.next() % 5)
                round.phase = attempt == 1 ? .abandoned : .committed
                sample.runs[sample.id]?.setRound(round)
            }
            sample.publish(number)
        }
        let run = try sample.run
        for version in 0...10 {
            let walked = run.rounds.filter { $0.phase == .committed && $0.number <= version }
            #expect(run.acceptedCount(through: version) == walked.reduce(0) { $0 + $1.accepted })
        }
    }

    /// Somebody may hold a run, as an answer that is being made does: a client that comes is offered without a copy of all before it.
    @Test func aRunThatIsHeldSharesWhoCame() throws {
        var sample = try SampleRun { $0.cohort += ["goal": 3, "minimum": 1, "policy": "uniform"] }
        try sample.open()
        sample.runs[sample.id]?.reservoir = Reservoir(capacity: 3)
        let held = try sample.run
        for index in 0..<100 { sample.runs.offer("c\(index)", run: sample.id) }
        let now = try sample.run
        #expect(held.reservoir === now.reservoir && held.reservoir?.seenCount == 100)
    }

    @Test func readersOfABaseAreThoseWhoTrainedOnIt() throws {
        var sample = try SampleRun { $0.cohort += ["goal": 3, "minimum": 1] }
        // The base is a run of the same table.
        let text = """
            {"population": "p", "rounds": 3, "cohort": {"goal": 3, "minimum": 1},
             "model": {"architecture": "external", "base": {"run": "\(sample.id)", "version": 0}}}
            """
        try sample.add("run_b", try RunSpecification.read(JSONValue.parse(Array(text.utf8))))
        #expect(sample.runs.isBase(sample.id, version: 0) && !sample.runs.isBase(sample.id, version: 1))
        #expect(!sample.runs.isBase("run_b", version: 0))
        let round = RoundRecord(
            runId: "run_b",
            number: 1,
            attempt: 1,
            opening: .reporting,
            at: sample.now,
            deadline: sample.now
        )
        sample.runs["run_b"]?.setRound(round)
        let record = AssignmentRecord(id: "asg_1", of: round, client: "c1", at: sample.now, deadline: sample.now)
        sample.runs.set(record)
        #expect(sample.runs.mayReadModels(client: "c1", run: sample.id))
        #expect(sample.runs.mayReadModels(client: "c1", run: "run_b"))
        #expect(!sample.runs.mayReadModels(client: "c2", run: sample.id))
    }
}
