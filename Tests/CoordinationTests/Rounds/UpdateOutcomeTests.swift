import Coordination
import Foundation
import StrictJSON
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

/// A device asks what became of an update.
@Suite(.timeLimit(.minutes(10)))
struct UpdateOutcomeTests {
    /// A device asks what became of an accepted update: open, abandoned, or a model version; also after a restart.
    @Test func aClientIsToldWhatBecameOfItsAcceptedUpdate() async throws {
        let bench = try await Bench(.sqlite)
        let (run, clients) = try await bench.startRun(try Bench.specification(goal: 2), clients: 2)
        let coordinator = bench.coordinator
        let lost = try #require(try await Bench.assignment(coordinator, clients[0])).id
        #expect(try await coordinator.assignment(lost, client: clients[0]).roundCommitted == nil)
        _ = try await Bench.submit(coordinator, clients[0], lost, value: 1)
        #expect(try await coordinator.assignment(lost, client: clients[0]).roundCommitted == nil)
        // Nobody else comes: the attempt is abandoned.
        bench.clock.advance(by: 200)
        try await coordinator.tick()
        #expect(try await coordinator.assignment(lost, client: clients[0]).roundCommitted == false)
        bench.clock.advance(by: 200)
        try await coordinator.tick()
        var ids: [String] = []
        for client in clients {
            let id = try #require(try await Bench.assignment(coordinator, client)).id
            _ = try await Bench.submit(coordinator, client, id, value: 1)
            ids.append(id)
        }
        _ = try await Bench.untilSettled(coordinator, run)
        for server in [coordinator, try await bench.restarted()] {
            #expect(try await server.assignment(ids[0], client: clients[0]).roundCommitted == true)
            #expect(try await server.assignment(lost, client: clients[0]).roundCommitted == false)
        }
    }
}
