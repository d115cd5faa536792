import Foundation
import Synchronization
import TestSupport
import Testing
import WireFormat

@testable import Coordination

struct PlacementTests {
    @Test("The run with the smallest share comes first, those alike take turns, and a secret draw counts as empty.")
    func fairOrder() throws {
        var sample = try SampleRun { $0.cohort.goal = 2 }
        let specification = try sample.run.specification
        try sample.add("run_b", specification)
        try sample.open()
        sample.runs["run_b"]?.setRound(
            RoundRecord(
                runId: "run_b",
                number: 1,
                attempt: 1,
                opening: .selecting,
                at: sample.now,
                deadline: sample.now + 50
            )
        )
        var placement = Placement()
        let both = ["run_a", "run_b"]
        #expect(placement.inFairOrder(both, sample.runs) == both)
        placement.noteHandedOut(isSecret: true)
        #expect(placement.inFairOrder(both, sample.runs) == both)
        placement.noteHandedOut(isSecret: false)
        #expect(placement.inFairOrder(both, sample.runs) == ["run_b", "run_a"])
        placement.noteHandedOut(isSecret: false)
        try sample.assign("c0")
        #expect(placement.inFairOrder(both, sample.runs) == ["run_b", "run_a"])
    }

    @Test("A client is told the reason that may pass first, and is sent away for good only if every run has had it.")
    func answers() throws {
        let sample = try SampleRun { $0.cohort.goal = 2 }
        func reason(_ refusals: Refusal...) -> (String?, Bool) {
            let refused = refusals.map { (refusal: $0, run: sample.id) }
            let answer = Placement.answer(to: refused, sample.runs, seen: 3, at: SampleRun.start)
            return (answer.reason, answer.retryWindow != nil)
        }
        #expect(reason(.cap, .separation, .choosing) == ("in_selection", true))
        #expect(reason(.version, .requirements) == ("not_eligible", true))
        #expect(reason(.cap, .cap) == ("participation_limit", false))
        #expect(reason() == ("no_open_slot", true))
    }

    @Test("As many polls are woken as there are places, the oldest first, and a choice is told of all who wait.")
    func looking() async throws {
        var sample = try SampleRun { $0.cohort.goal = 2 }
        try sample.open()
        var uniform = try SampleRun { $0.cohort += ["goal": 2, "policy": "uniform"] }
        try uniform.open()
        let first = Admission(run: try sample.run, time: sample.now)
        let choice = Admission(run: try uniform.run, time: sample.now)
        let clients = sample.clients
        let polls = Polls()
        try await withThrowingTaskGroup(of: Bool.self) { group in
            for index in 0..<3 {
                group.addTask { await polls.wait(index + 1, client: "c\(index)") }
                while polls.state.withLock({ $0.waiters.count }) <= index { await Task.yield() }
            }
            let found = polls.state.withLock { $0.look(population: "p", for: [(first, 2)], clients) }
            #expect(found.woken == [1, 2] && found.offered.isEmpty && found.isFinished)
            let chosen = polls.state.withLock { $0.look(population: "p", for: [(choice, .max)], clients) }
            #expect(chosen.woken.isEmpty && chosen.offered.map(\.client) == ["c0", "c1", "c2"])
            polls.state.withLock { $0.wakeAll() }
            for try await maySearch in group { #expect(maySearch) }
        }
    }

    /// Polls that wait, each in a task of its own.
    private final class Polls: Sendable {
        let state = Mutex(Placement())

        func wait(_ id: Int, client: String) async -> Bool {
            await withCheckedContinuation { continuation in
                state.withLock { $0.waiters.add(id, client: client, population: "p", continuation) }
            }
        }
    }

    @Test("An attempt ends early only if no client may join it, and the next one would find somebody.")
    func nobodyLeft() throws {
        var sample = try SampleRun(clients: 2) { $0.cohort += ["goal": 2, "minimum": 1, "max_participations": 0] }
        try sample.open()
        var placement = Placement()
        let early = placement.isNobodyLeft(for: try sample.run, sample.clients)
        #expect(!early)
        for client in ["c0", "c1"] {
            for _ in 0..<AttemptMembers.turnLimit {
                var work = try sample.assign(client)
                let effects = try work.taking(.failed(code: "no_data"), at: sample.now)
                try sample.take(effects.roundEvents, with: work.changes(effects, at: sample.now))
                placement.noteChanged(client: client, run: sample.id)
            }
        }
        let late = placement.isNobodyLeft(for: try sample.run, sample.clients)
        #expect(late, "both have had their turns, and may take part in the next attempt")
        // A third client may join: it is found although the search had seen everybody.
        var third = try sample.clients.client("c0")
        third.id = "c9"
        sample.clients.set(third)
        let again = placement.isNobodyLeft(for: try sample.run, sample.clients)
        #expect(!again)
    }

    @Test("Many clients are counted once a minute and attempt, and one count at a time.")
    func tallies() {
        var placement = Placement()
        let start = SampleRun.start
        let first = placement.beginTally(of: "r", [1, 1], at: start)
        #expect(first.count == nil && first.begins)
        let second = placement.beginTally(of: "r", [1, 1], at: start + 100)
        #expect(second.count == nil && !second.begins)
        placement.endTally(of: "r", [1, 1], count: 7, at: start + 1)
        placement.endTally(of: "r", [1, 2], count: 9, at: start + 1)
        let known = placement.beginTally(of: "r", [1, 1], at: start + 30)
        #expect(known.count == 7 && !known.begins)
        let old = placement.beginTally(of: "r", [1, 1], at: start + 90)
        #expect(old.count == 7 && old.begins)
        let other = placement.beginTally(of: "r", [1, 2], at: start + 90)
        #expect(other.count == nil && other.begins)
    }

    @Test("Those who wait are told of a draw once an attempt, and again after the run's state has changed.")
    func draws() throws {
        var sample = try SampleRun { $0.cohort += ["goal": 2, "policy": "all"] }
        try sample.open()
        var placement = Placement()
        let (first, second) = try (
            placement.beginTelling(run: sample.id, sample.round), placement.beginTelling(run: sample.id, sample.round)
        )
        #expect(first && !second)
        placement.noteState(of: try sample.run)
        let third = try placement.beginTelling(run: sample.id, sample.round)
        #expect(third)
    }

    @Test("The limits on participation say how many may still join.")
    func newcomers() throws {
        var sample = try SampleRun(clients: 3) { $0.cohort += ["goal": 3, "minimum": 1, "max_participations": 1] }
        try sample.open()
        #expect(try !sample.run.asksForNewcomers(present: 100) && sample.run.asksForNewcomers(present: 2))
        try sample.assign("c0")
        let left = try sample.clients.part(from: 0, limit: 10).filter(sample.run.isNewcomer).map(\.id)
        #expect(left == ["c1", "c2"])
    }
}
