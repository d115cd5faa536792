import Foundation
import StrictJSON
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

@testable import Coordination

/// Who gets a place, and who is told to come again when, where `SchedulingTests` do not say it.
@Suite(.timeLimit(.minutes(10)))
struct CohortTests {
    private func checkIn(_ bench: Bench, _ client: String) async throws -> CheckInResponse {
        try await bench.coordinator.checkIn(client: client, CheckInRequest(), wait: .zero)
    }

    private func secondRun(_ bench: Bench, _ specification: RunSpecification) async throws -> String {
        let run = try await bench.coordinator.createRun(
            specification,
            initialModel: ParameterVector(zeros: Bench.layout)
        ).id
        _ = try await bench.coordinator.startRun(run)
        return run
    }

    // MARK: - Draws

    @Test func aClientCountsOnceHoweverOftenItComes() {
        var generator = Xoshiro256StarStar(seed: 5)
        let reservoir = Reservoir(capacity: 3)
        for _ in 0..<10 { for client in ["a", "b"] { reservoir.offer(client, using: &generator) } }
        #expect(reservoir.seenCount == 2 && reservoir.chosen == ["a", "b"])
    }

    /// Fixed keys, so the counts are what they are: binomial with mean 3,000 and standard deviation 46.
    @Test func aDrawDependsOnItsKeyAndTakesItsRate() {
        let clients = (0..<10_000).map { "clt_\($0)" }
        let cohorts = ["key 1", "key 2"].map { key in
            Set(clients.filter { PoissonDraw.includes($0, key: key, rate: 0.3) })
        }
        for cohort in cohorts { #expect(abs(cohort.count - 3000) < 250) }
        // Independent: 900 of them in both, with a standard deviation of 29.
        #expect(abs(cohorts[0].intersection(cohorts[1]).count - 900) < 150)
        #expect(clients.allSatisfy { PoissonDraw.includes($0, key: "key", rate: 1) })
    }

    @Test func policyAllCountsWhoWasThereAndIsNotRevoked() async throws {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(
            try Bench.exactSpecification(rounds: 2) {
                $0.cohort += ["goal": 4, "minimum": 1, "policy": "all"]
            },
            clients: 4
        )
        bench.clock.advance(by: 1)
        // Who registers after the opening belongs to the next round, who is revoked to none.
        let late = try #require(try await bench.enroll(1, prefix: "late").first)
        #expect(try await checkIn(bench, late).reason == "no_open_slot")
        for client in clients {
            let id = try #require(try await Bench.assignment(bench.coordinator, client)).id
            if client == clients[3] { try await bench.coordinator.revokeClient(client) }
            if client != clients[3] { _ = try await Bench.submit(bench.coordinator, client, id, value: 1) }
        }
        try await bench.coordinator.tick()
        _ = try await Bench.untilSettled(bench.coordinator, run)
        #expect(try await bench.coordinator.round(run: run, number: 1).accepted == 3)
        for client in clients.prefix(3) + [late] {
            let id = try #require(try await Bench.assignment(bench.coordinator, client)).id
            _ = try await Bench.submit(bench.coordinator, client, id, value: 1)
        }
        try await bench.coordinator.tick()
        #expect(try await Bench.untilSettled(bench.coordinator, run).state == .completed)
    }

    /// Between the choice and its moment some are revoked or quarantined, or take work of another run.
    @Test func whoIsNoLongerFreeIsNotChosen() async throws {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(
            try Bench.exactSpecification { $0.cohort += ["goal": 5, "minimum": 1, "policy": "uniform"] },
            clients: 5
        )
        for client in clients { #expect(try await checkIn(bench, client).reason == "in_selection") }
        let other = try await secondRun(bench, try Bench.exactSpecification { $0.cohort += ["goal": 1, "minimum": 1] })
        let busy = try #require(try await Bench.assignment(bench.coordinator, clients[0]))
        #expect(busy.run == other)
        try await bench.coordinator.revokeClient(clients[1])
        try await bench.coordinator.perform { coordinator in
            var record = try #require(coordinator.clients[clients[2]])
            record.quarantinedAt = coordinator.now
            try coordinator.commit([.client(record)])
        }
        bench.clock.advance(by: 51)
        try await bench.coordinator.tick()
        #expect(try await bench.coordinator.round(run: run, number: 1).assigned == 2)
        #expect(try await Bench.assignment(bench.coordinator, clients[0])?.id == busy.id)
        for client in clients.suffix(2) { #expect(try await Bench.assignment(bench.coordinator, client)?.run == run) }
    }

    /// How many examples a client has it says when it comes, and that is not kept: whoever came in time is chosen.
    @Test func whoSaidHowManyExamplesItHasMayBeChosen() async throws {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(
            try Bench.exactSpecification {
                $0.cohort += ["goal": 2, "minimum": 1, "policy": "uniform", "requirements": "num_examples >= 100"]
            },
            clients: 2
        )
        for client in clients {
            let request = try CheckInRequest.read(
                JSONValue.parse(Array(#"{"num_examples": 500, "capabilities": {"runtime_version": "9.0.0"}}"#.utf8))
            )
            let answer = try await bench.coordinator.checkIn(client: client, request, wait: .zero)
            #expect(answer.reason == "in_selection")
        }
        bench.clock.advance(by: 51)
        try await bench.coordinator.tick()
        #expect(try await bench.coordinator.round(run: run, number: 1).assigned == 2)
    }

    // MARK: - Places

    @Test func aReplacementHasTheTimeThatIsLeft() async throws {
        let bench = try await Bench(.memory)
        let (_, clients) = try await bench.startRun(
            try Bench.exactSpecification { $0.cohort += ["goal": 1, "minimum": 1] },
            clients: 2
        )
        let first = try #require(try await Bench.assignment(bench.coordinator, clients[0]))
        #expect(abs(first.deadlineInS - 100) < 0.01)
        try await bench.coordinator.tick()
        bench.clock.advance(by: 60)
        try await bench.coordinator.reportFailure(
            assignment: first.id,
            client: clients[0],
            FailureReport(code: .noData)
        )
        let second = try #require(try await Bench.assignment(bench.coordinator, clients[1]))
        #expect(abs(second.deadlineInS - 40) < 0.01, "\(second.deadlineInS)")
    }

    /// What the slow ones have not taken by half of the window goes to whoever comes.
    @Test func placesKeptForATierAreKeptForHalfOfTheWindow() async throws {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(
            try Bench.exactSpecification(rounds: 2) {
                $0.cohort += ["goal": 4, "minimum": 1, "tiers": 2]
            },
            clients: 8
        )
        for (index, client) in clients.enumerated() {
            guard let id = try await Bench.assignment(bench.coordinator, client)?.id else { continue }
            bench.clock.advance(by: index < 2 ? 1 : 20)
            _ = try await Bench.submit(bench.coordinator, client, id, value: 1)
            if index == 3 { break }
        }
        _ = try await Bench.untilSettled(bench.coordinator, run)
        // Make every client but one as fast as the fast ones are: they have their half of the places.
        let fast = try await bench.coordinator.perform { coordinator in
            for client in clients where client != clients[2] {
                coordinator.clients[client]?.secondsPerAssignment = 1
            }
            return clients.filter { $0 != clients[2] }
        }
        var taken = 0
        for client in fast where try await checkIn(bench, client).assignment != nil { taken += 1 }
        #expect(taken == 2)
        bench.clock.advance(by: 26)
        for client in fast where try await checkIn(bench, client).assignment != nil { taken += 1 }
        #expect(taken == 2 + 4, "those who have work get the same again, and two more their first")
    }

    /// A run that is always as empty as another one has its turn too.
    @Test func runsThatAreAlikeTakeTurns() async throws {
        let bench = try await Bench(.memory)
        let (first, clients) = try await bench.startRun(
            try Bench.exactSpecification(rounds: 9) { $0.cohort += ["goal": 1, "minimum": 1] },
            clients: 1
        )
        let second = try await secondRun(
            bench,
            try Bench.exactSpecification(rounds: 9) { $0.cohort += ["goal": 1, "minimum": 1] }
        )
        var counts = [first: 0, second: 0]
        for _ in 0..<6 {
            let work = try #require(try await Bench.assignment(bench.coordinator, clients[0]))
            counts[work.run, default: 0] += 1
            _ = try await Bench.submit(bench.coordinator, clients[0], work.id, value: 1)
            _ = try await Bench.untilSettled(bench.coordinator, work.run)
        }
        #expect(counts == [first: 3, second: 3])
    }

    /// Two runs want twenty and five: each is as full as the other at any time.
    @Test func runsOfDifferentSizesFillAlike() async throws {
        let bench = try await Bench(.memory)
        let (large, clients) = try await bench.startRun(
            try Bench.exactSpecification { $0.cohort += ["goal": 20, "minimum": 1] },
            clients: 15
        )
        let small = try await secondRun(bench, try Bench.exactSpecification { $0.cohort += ["goal": 5, "minimum": 1] })
        for client in clients { _ = try await checkIn(bench, client) }
        #expect(try await bench.coordinator.round(run: large, number: 1).assigned == 12)
        #expect(try await bench.coordinator.round(run: small, number: 1).assigned == 3)
    }

    // MARK: - When to come again

    @Test func whoComesBetweenAttemptsIsAskedForTheNextOne() async throws {
        let bench = try await Bench(.memory)
        let (_, clients) = try await bench.startRun(
            try Bench.exactSpecification { $0.cohort += ["goal": 2, "retry_backoff_s": 40] },
            clients: 2
        )
        bench.clock.advance(by: 51)
        try await bench.coordinator.tick()
        let answer = try await checkIn(bench, clients[0])
        #expect(answer.reason == "between_attempts")
        let window = try #require(answer.retryWindow)
        #expect(abs(window.minS - 40) < 0.01 && abs(window.maxS - 44) < 0.01, "\(window)")
    }

    /// 300 clients in the last minutes for a round that wants one: spread over six seconds, fifty a second.
    @Test func aLargePopulationIsSpreadByWhoWasSeen() async throws {
        let bench = try await Bench(.memory)
        let (_, clients) = try await bench.startRun(
            try Bench.exactSpecification { $0.cohort += ["goal": 1, "minimum": 1] },
            clients: 300
        )
        for client in clients { _ = try await checkIn(bench, client) }
        let window = try #require(try await checkIn(bench, clients[9]).retryWindow)
        #expect(abs(window.maxS - window.minS - 6) < 0.01, "\(window)")
        // Those who have not come for a quarter of an hour are not counted on.
        bench.clock.advance(by: 1000)
        let quiet = try #require(try await checkIn(bench, clients[9]).retryWindow)
        #expect(abs(quiet.maxS - quiet.minS - 4) < 0.01, "\(quiet)")
    }

    /// Whoever has had its part everywhere need not come again; as long as one run may want it, it should.
    @Test func onlyWhoIsDoneEverywhereIsSentAwayForGood() async throws {
        let bench = try await Bench(.memory)
        let cohort = #""goal": 1, "minimum": 1, "max_participations": 1"#
        let (run, clients) = try await bench.startRun(
            try Bench.exactSpecification(rounds: 2) {
                $0.cohort += ["goal": 1, "minimum": 1, "max_participations": 1]
            },
            clients: 3
        )
        let work = try #require(try await Bench.assignment(bench.coordinator, clients[0]))
        _ = try await Bench.submit(bench.coordinator, clients[0], work.id, value: 1)
        _ = try await Bench.untilSettled(bench.coordinator, run)
        let done = try await checkIn(bench, clients[0])
        #expect(done.reason == "participation_limit" && done.retryWindow == nil)
        // Another run, whose only place is taken: there may be one later.
        _ = try await secondRun(
            bench,
            try Bench.exactSpecification { $0.cohort += ["goal": 1, "minimum": 1, "max_participations": 1] }
        )
        for client in clients.suffix(2) { #expect(try await checkIn(bench, client).assignment != nil) }
        let later = try await checkIn(bench, clients[0])
        #expect(later.reason == "no_open_slot" && later.retryWindow != nil, "\(later)")
    }

    /// Who has trained as often as it may can still be asked to measure.
    @Test func theParticipationLimitOfTrainingIsNoneOfMeasuring() async throws {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(
            try Bench.exactSpecification {
                $0.cohort += ["goal": 1, "minimum": 1, "max_participations": 1]
                $0.evaluation += ["every": 2, "cohort_goal": 1, "minimum": 1]
            },
            clients: 2
        )
        for client in clients {
            let work = try #require(try await Bench.assignment(bench.coordinator, client))
            #expect(work.kind == .train)
            _ = try await Bench.submit(bench.coordinator, client, work.id, value: 1)
            _ = try await Bench.untilSettled(bench.coordinator, run)
            guard client == clients[0] else { continue }
            let answer = try await checkIn(bench, client)
            #expect(answer.reason == "no_open_slot" && answer.retryWindow != nil, "\(answer)")
        }
        #expect(try await Bench.assignment(bench.coordinator, clients[0])?.kind == .evaluate)
    }
}
