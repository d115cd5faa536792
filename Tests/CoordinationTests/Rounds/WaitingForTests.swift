import Coordination
import Foundation
import StrictJSON
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

/// `waiting_for` says the true reason in every state, and what a pause holds up.
@Suite(.timeLimit(.minutes(10)))
struct WaitingForTests {
    private func said(_ bench: Bench, _ run: String) async throws -> String {
        try await bench.coordinator.run(run).waitingFor
    }

    @Test func fromTheCreationToTheLastRound() async throws {
        let bench = try await Bench(.memory)
        let coordinator = bench.coordinator
        _ = try await coordinator.createPopulation(PopulationRequest(name: "p", budget: nil))
        let run = try await coordinator.createRun(
            try Bench.exactSpecification(rounds: 1) { $0.cohort += ["goal": 2, "minimum": 1] },
            initialModel: ParameterVector(zeros: Bench.layout)
        ).id
        #expect(try await said(bench, run) == "the run to be started")
        let clients = try await bench.enroll(4)
        _ = try await coordinator.startRun(run)
        #expect(
            try await said(bench, run)
                == "clients to check in: 0 at work, 0 of 2 updates accepted, 50 s left to find the minimum of 1"
        )
        _ = try await coordinator.pauseRun(run)
        #expect(try await said(bench, run) == "the run to be resumed")
        _ = try await coordinator.resumeRun(run)
        let first = try #require(try await Bench.assignment(coordinator, clients[0])).id
        _ = try await coordinator.pauseRun(run)
        #expect(try await said(bench, run) == "the run to be resumed; 1 clients may still deliver")
        _ = try await coordinator.resumeRun(run)
        let second = try #require(try await Bench.assignment(coordinator, clients[1])).id
        try await coordinator.tick()
        #expect(try await said(bench, run) == "updates: 0 of 2 accepted, 2 at work, 100 s left")
        for (client, id) in [(clients[0], first), (clients[1], second)] {
            try await coordinator.reportFailure(assignment: id, client: client, FailureReport(code: .noData))
        }
        #expect(
            try await said(bench, run)
                == "updates: 0 of 2 accepted, 0 at work, 100 s left, nobody at work: 2 places are open"
        )
        let third = try #require(try await Bench.assignment(coordinator, clients[2])).id
        _ = try await Bench.submit(coordinator, clients[2], third, value: 1)
        let last = try #require(try await Bench.assignment(coordinator, clients[3])).id
        let zeros = ParameterVector(zeros: Bench.layout)
        let update = try await Bench.received(coordinator, clients[3], last, zeros)
        // In the step that closes the round: its sum cannot be ready.
        let during = try await coordinator.perform { coordinator in
            _ = try coordinator.finishUpdate(assignment: last, client: clients[3], update)
            return try coordinator.run(run).waitingFor
        }
        #expect(during == "the aggregation of 2 updates")
        _ = try await Bench.untilSettled(coordinator, run)
        #expect(try await said(bench, run) == "nothing: the run is completed")
    }

    @Test func aRunThatFailedSaysWhy() async throws {
        let bench = try await Bench(.memory)
        let (run, _) = try await bench.startRun(
            try Bench.exactSpecification { $0.cohort += ["goal": 2, "max_attempts": 1] },
            clients: 2
        )
        for _ in 0..<2 {
            bench.clock.advance(by: 51)
            try await bench.coordinator.tick()
        }
        #expect(try await said(bench, run) == "nothing: the run is failed (attempts_exhausted)")
    }

    @Test func aLimitThatLeavesTooFewIsNamed() async throws {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(
            try Bench.exactSpecification {
                $0.cohort += ["goal": 2, "minimum": 1, "min_separation_rounds": 2]
            },
            clients: 3
        )
        for client in clients.prefix(2) {
            let id = try #require(try await Bench.assignment(bench.coordinator, client)).id
            _ = try await Bench.submit(bench.coordinator, client, id, value: 1)
        }
        _ = try await Bench.untilSettled(bench.coordinator, run)
        let text = try await said(bench, run)
        #expect(text.contains("Only one more client") && text.contains("min_separation_rounds of 2"), "\(text)")
        #expect(!text.contains("max_participations"), "\(text)")
    }

    /// A buffer fills over time from fewer clients than it takes updates: only too few for its minimum are too few.
    @Test func aBufferIsNotShortOfClientsWhoComeAgain() async throws {
        for (minimum, isShort) in [(2, false), (4, true)] {
            let bench = try await Bench(.memory)
            let (run, _) = try await bench.startRun(
                try Bench.exactSpecification {
                    $0.cohort += ["goal": 5, "minimum": minimum]
                    $0.aggregation.mode = "buffered"
                },
                clients: 3
            )
            #expect(try await said(bench, run).contains("has only 3 clients") == isShort)
        }
    }

    // MARK: - Pauses

    /// What was given out before the pause may be delivered, and time ends its round; nothing new begins.
    @Test func aPausedRunFinishesItsRoundAndOpensNone() async throws {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(
            try Bench.exactSpecification { $0.cohort += ["goal": 2, "minimum": 1] },
            clients: 3
        )
        let coordinator = bench.coordinator
        for client in clients.prefix(2) { _ = try await Bench.assignment(coordinator, client) }
        try await coordinator.tick()
        _ = try await coordinator.pauseRun(run)
        let id = try #require(try await Bench.assignment(coordinator, clients[0])).id
        _ = try await Bench.submit(coordinator, clients[0], id, value: 1)
        bench.clock.advance(by: 101)
        try await coordinator.tick()
        _ = try await Bench.untilSettled(coordinator, run)
        #expect(try await coordinator.rounds(run: run).map(\.state) == [.committed])
        try await coordinator.tick()
        #expect(try await coordinator.rounds(run: run).count == 1)
        _ = try await coordinator.resumeRun(run)
        #expect(try await coordinator.rounds(run: run).map(\.state) == [.committed, .selecting])
    }

    @Test func aPauseShortensNoBackoff() async throws {
        let bench = try await Bench(.memory)
        let (run, _) = try await bench.startRun(
            try Bench.exactSpecification { $0.cohort += ["goal": 2, "retry_backoff_s": 40] },
            clients: 2
        )
        bench.clock.advance(by: 51)
        try await bench.coordinator.tick()
        _ = try await bench.coordinator.pauseRun(run)
        _ = try await bench.coordinator.resumeRun(run)
        #expect(try await bench.coordinator.rounds(run: run).map(\.state) == [.abandoned])
        bench.clock.advance(by: 40)
        try await bench.coordinator.tick()
        #expect(try await bench.coordinator.rounds(run: run).map(\.state) == [.abandoned, .selecting])
    }

    @Test func aGoalAboveThePopulationIsNamed() async throws {
        let bench = try await Bench(.memory)
        let (run, _) = try await bench.startRun(try Bench.timedSpecification { $0.cohort.goal = 10 }, clients: 3)
        #expect(
            try await bench.coordinator.run(run).waitingFor.hasSuffix(
                "The population has only 3 clients: enroll more, or create a run with a lower goal"
            )
        )
    }

    @Test func clientsThatMayTakePartNoMoreAreNamed() async throws {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(
            try Bench.timedSpecification(rounds: 2) {
                $0.cohort += ["goal": 2, "over_selection": 1, "max_participations": 1]
            },
            clients: 3
        )
        #expect(!(try await bench.coordinator.run(run).waitingFor.contains("Only")))
        for client in clients.prefix(2) {
            let id = try #require(try await Bench.assignment(bench.coordinator, client)).id
            _ = try await Bench.submit(bench.coordinator, client, id, value: 1)
        }
        _ = try await Bench.untilSettled(bench.coordinator, run)
        let said = try await bench.coordinator.run(run).waitingFor
        #expect(said.contains("Only one more client may take part"), "\(said)")
        #expect(said.contains("max_participations of 1"), "\(said)")
        // Also while it waits for another attempt; and no more when somebody new is there.
        bench.clock.advance(by: 51)
        try await bench.coordinator.tick()
        #expect(try await bench.coordinator.round(run: run, number: 2).state == .abandoned)
        #expect(try await bench.coordinator.run(run).waitingFor.contains("Only one more"))
        _ = try await bench.enroll(1, prefix: "new")
        #expect(!(try await bench.coordinator.run(run).waitingFor.contains("Only")))
    }

    @Test func attemptsRunOutWithTheReason() async throws {
        let bench = try await Bench(.memory)
        let (run, _) = try await bench.startRun(
            try Bench.timedSpecification {
                $0.cohort += ["goal": 2, "max_attempts": 2, "retry_backoff_s": 10]
            },
            clients: 2
        )
        for _ in 0..<4 {
            bench.clock.advance(by: 51)
            try await bench.coordinator.tick()
        }
        let view = try await bench.coordinator.run(run)
        #expect(view.state == .failed && view.reason == "attempts_exhausted")
        #expect(try await bench.coordinator.rounds(run: run).map(\.attempt) == [1, 2])
    }
}
