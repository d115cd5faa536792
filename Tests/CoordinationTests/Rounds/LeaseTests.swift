import Coordination
import Foundation
import StrictJSON
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

/// An assignment is held by signs of life, to its deadline at most, and by its own client only.
@Suite(.timeLimit(.minutes(10)))
struct LeaseTests {
    @Test(arguments: Bench.StoreKind.allCases)
    func aClientThatFallsSilentIsReplacedAndToldSo(_ kind: Bench.StoreKind) async throws {
        let bench = try await Bench(kind)
        let (run, clients) = try await bench.startRun(
            try Bench.timedSpecification {
                $0.cohort += ["goal": 1, "minimum": 1, "over_selection": 1, "lease_s": 10]
            },
            clients: 2
        )
        let coordinator = bench.coordinator
        let work = try #require(try await Bench.assignment(coordinator, clients[0]))
        #expect(work.leaseS == 10)
        #expect(try await bench.checkIn(clients[1]).assignment == nil)
        bench.clock.advance(by: 9)
        let answer = try await coordinator.heartbeat(
            assignment: work.id,
            client: clients[0],
            HeartbeatRequest(phase: .training, progress: 0.5)
        )
        #expect(answer.state == .training && abs(answer.leaseS - 10) < 0.01)
        #expect(try await coordinator.round(run: run, number: 1).live == ["training": 1])
        bench.clock.advance(by: 9)
        try await coordinator.tick()
        #expect(try await Bench.assignment(coordinator, clients[0])?.id == work.id)
        bench.clock.advance(by: 2)
        try await coordinator.tick()
        #expect(try await coordinator.round(run: run, number: 1).expired == 1)
        #expect(try await bench.checkIn(clients[1]).assignment != nil)
        for attempt in [
            await refusal {
                try await coordinator.heartbeat(
                    assignment: work.id,
                    client: clients[0],
                    HeartbeatRequest(phase: .training)
                )
            }, await refusal { try await coordinator.beginUpdate(assignment: work.id, client: clients[0]) },
        ] {
            #expect(attempt?.kind == .gone && attempt?.code == "lease_expired")
        }
        let history = try await coordinator.roundHistory(run: run, number: 1, assignments: true)
        #expect(history.filter { $0.assignmentId == work.id }.map(\.state) == ["assigned", "training", "expired"])
        #expect(try await coordinator.roundHistory(run: run, number: 1).allSatisfy { $0.assignmentId == nil })
    }

    @Test func heartbeatsWithoutEndEndAtTheDeadline() async throws {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(
            try Bench.timedSpecification { $0.cohort += ["goal": 1, "minimum": 1, "over_selection": 1] },
            clients: 1
        )
        let id = try #require(try await Bench.assignment(bench.coordinator, clients[0])).id
        var beats = 0
        while beats < 100 {
            let error = await refusal {
                try await bench.coordinator.heartbeat(
                    assignment: id,
                    client: clients[0],
                    HeartbeatRequest(phase: .training)
                )
            }
            if let error {
                #expect(error.kind == .gone)
                break
            }
            beats += 1
            bench.clock.advance(by: 5)
            try await bench.coordinator.tick()
        }
        #expect((19...21).contains(beats))
        #expect(try await bench.coordinator.rounds(run: run).first?.reason?.contains("too few updates") == true)
    }

    @Test func anUploadForAnothersAssignmentAndARevokedClientAreRefused() async throws {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(
            try Bench.timedSpecification { $0.cohort += ["goal": 2, "over_selection": 1] },
            clients: 3
        )
        let id = try #require(try await Bench.assignment(bench.coordinator, clients[0])).id
        _ = try await Bench.assignment(bench.coordinator, clients[1])
        #expect(
            await refusal { try await bench.coordinator.beginUpdate(assignment: id, client: clients[1]) }?.code
                == "not_found"
        )
        try await bench.coordinator.revokeClient(clients[0])
        let error = await refusal { try await bench.coordinator.beginUpdate(assignment: id, client: clients[0]) }
        #expect(error?.code == "client_revoked" && error?.kind == .gone)
        #expect(await refusal { try await bench.checkIn(clients[0]) }?.code == "client_revoked")
        // Its place is another's.
        #expect(try await bench.checkIn(clients[2]).assignment != nil)
        // It gave nothing back: it may still be at work.
        #expect(try await bench.coordinator.round(run: run, number: 1).expired == 1)
    }
}
