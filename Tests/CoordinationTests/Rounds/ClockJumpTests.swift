import Coordination
import Foundation
import StrictJSON
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

/// What waits for a time that was set before the server's clock was put back; deadlines and leases are in `SchedulingTests`.
@Suite(.timeLimit(.minutes(10)))
struct ClockJumpTests {
    @Test func aResultThatCouldNotBePublishedIsTriedAgain() async throws {
        let bench = try await Bench(.memory)
        let faulty = FaultyStore(bench.store, commitLimit: .max)
        let (run, clients) = try await bench.startRun(try Bench.specification(goal: 1), clients: 1)
        let coordinator = try await Bench.start(bench.directory, bench.clock, faulty)
        let id = try #require(try await Bench.assignment(coordinator, clients[0])).id
        // The update and the end of the round are stored, its result is not.
        faulty.dieAfter(commits: 2)
        _ = try await Bench.submit(coordinator, clients[0], id, value: 1)
        try await wait(for: "the transaction that fails") {
            coordinator.metrics.value("martlet_store_commit_failures_total") ?? 0 > 0
        }
        #expect(try await coordinator.round(run: run, number: 1).state == .aggregating)
        faulty.dieAfter(commits: .max)
        bench.clock.advance(by: -86_400)
        try await coordinator.tick()
        try await wait(for: "the second try") { try await coordinator.run(run).state == .completed }
        #expect(try await Bench.model(coordinator, run)[0] == 1)
    }

    @Test func uploadsThatNobodyFinishesAreLookedForAgain() async throws {
        let bench = try await Bench(.memory)
        let path = bench.directory.path + "/spool/asg_gone.partial"
        func leave() { _ = FileManager.default.createFile(atPath: path, contents: Data([1])) }
        var isThere: Bool { FileManager.default.fileExists(atPath: path) }
        try await bench.coordinator.tick()
        leave()
        // Once a minute.
        try await bench.coordinator.tick()
        #expect(isThere)
        bench.clock.advance(by: 61)
        try await bench.coordinator.tick()
        #expect(!isThere)
        leave()
        bench.clock.advance(by: -86_400)
        try await bench.coordinator.tick()
        #expect(!isThere)
    }

    @Test func aClockThatWentBackStartsTheWaitAnew() async throws {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(
            try Bench.timedSpecification { $0.cohort += ["goal": 2, "minimum": 1] },
            clients: 2
        )
        let id = try #require(try await Bench.assignment(bench.coordinator, clients[0])).id
        _ = try await Bench.submit(bench.coordinator, clients[0], id, value: 1)
        bench.clock.advance(by: -86_400)
        let coordinator = try await bench.restarted()
        bench.clock.advance(by: 51)
        try await coordinator.tick()
        #expect(try await coordinator.round(run: run, number: 1).state == .reporting)
        bench.clock.advance(by: 101)
        try await coordinator.tick()
        _ = try await Bench.untilSettled(coordinator, run)
        #expect(try await coordinator.run(run).committedRounds == 1)
        let causes = try await coordinator.roundHistory(run: run, number: 1).map(\.cause)
        #expect(causes.contains { $0.hasPrefix("the clock went back") })
    }

    /// A client that died before the clock was put back holds its place no longer than one that dies after it.
    @Test(arguments: ["synchronous", "buffered"])
    func aClockThatWentBackGivesNobodyMoreTime(_ mode: String) async throws {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(
            try Bench.timedSpecification {
                $0.cohort += ["goal": 2, "minimum": 1, "over_selection": 1, "lease_s": 10]
                if mode == "buffered" {
                    $0.aggregation.mode = "buffered"
                    $0.aggregation.buffered.concurrency = 2
                }
            },
            clients: 4
        )
        var ids: [String] = []
        for client in clients.prefix(2) {
            ids.append(try #require(try await Bench.assignment(bench.coordinator, client)).id)
        }
        // The second one is at work on its upload, which has no lease: its deadline counts.
        #expect(await bench.coordinator.beginUploadRequest(assignment: ids[1], client: clients[1]))
        _ = try await bench.coordinator.beginUpdate(assignment: ids[1], client: clients[1])
        bench.clock.advance(by: -86_400)
        try await bench.coordinator.tick()
        #expect(try await bench.checkIn(clients[2]).assignment == nil)
        bench.clock.advance(by: 11)
        try await bench.coordinator.tick()
        #expect(try await bench.coordinator.round(run: run, number: 1).expired == 1)
        #expect(try await bench.checkIn(clients[2]).assignment != nil)
        let history = try await bench.coordinator.roundHistory(run: run, number: 1, assignments: true)
        #expect(history.count { $0.cause.hasPrefix("the clock went back: its time") } == 2, "\(history)")
        bench.clock.advance(by: 91)
        try await bench.coordinator.tick()
        let late = await refusal { try await bench.coordinator.beginUpdate(assignment: ids[1], client: clients[1]) }
        #expect(late?.kind == .gone, "\(String(describing: late))")
    }

    /// What waits for a time that a clock which was put back would only reach much later does not wait.
    @Test func aBackoffEndsWhenTheClockWentBack() async throws {
        let bench = try await Bench(.memory)
        let (run, _) = try await bench.startRun(
            try Bench.timedSpecification { $0.cohort += ["goal": 2, "retry_backoff_s": 10] },
            clients: 2
        )
        bench.clock.advance(by: 51)
        try await bench.coordinator.tick()
        #expect(try await bench.coordinator.round(run: run, number: 1).state == .abandoned)
        try await bench.coordinator.tick()
        #expect(try await bench.coordinator.round(run: run, number: 1).attempt == 1)
        bench.clock.advance(by: -86_400)
        try await bench.coordinator.tick()
        let again = try await bench.coordinator.round(run: run, number: 1)
        #expect(again.attempt == 2 && again.state == .selecting)
    }

    @Test func aDeadlineLongPastIsMetAtOnceAfterAJumpForward() async throws {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(
            try Bench.timedSpecification { $0.cohort += ["goal": 2, "minimum": 1] },
            clients: 2
        )
        let id = try #require(try await Bench.assignment(bench.coordinator, clients[0])).id
        bench.clock.advance(by: 86_400)
        let error = await refusal { try await Bench.submit(bench.coordinator, clients[0], id, value: 1) }
        #expect(error?.kind == .gone)
        try await bench.coordinator.tick()
        #expect(try await bench.coordinator.rounds(run: run).first?.state == .abandoned)
    }
}
