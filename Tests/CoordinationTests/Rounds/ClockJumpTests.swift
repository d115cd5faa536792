import Coordination
import Foundation
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
}
