import Coordination
import Foundation
import Logging
import TestBenches
import TestSupport
import Testing
import WireFormat

/// Deadlines that pass while nobody could deliver cost nothing.
@Suite(.timeLimit(.minutes(10)))
struct LostTimeTests {
    private func coordinator(_ bench: Bench) async throws -> Coordinator {
        try await bench.restarted { $0.awayAfterSeconds = 5 }
    }

    /// One of two updates accepted, 90 s before the deadline.
    private func begun(_ bench: Bench) async throws -> (Coordinator, run: String, clients: [String], open: String) {
        let (run, clients) = try await bench.startRun(
            try Bench.exactSpecification(rounds: 1) { $0.cohort += ["goal": 2, "minimum": 2] },
            clients: 2
        )
        let coordinator = try await coordinator(bench)
        let first = try #require(try await Bench.assignment(coordinator, clients[0])).id
        let open = try #require(try await Bench.assignment(coordinator, clients[1])).id
        try await coordinator.tick()
        for _ in 0..<10 {
            bench.clock.advance(by: 1)
            try await coordinator.tick()
        }
        _ = try await Bench.submit(coordinator, clients[0], first, value: 1)
        return (coordinator, run, clients, open)
    }

    @Test func theTimeThatTheServerWasDownIsGivenBack() async throws {
        let bench = try await Bench(.memory)
        let (_, run, clients, open) = try await begun(bench)
        bench.clock.advance(by: 3600)
        let restarted = try await coordinator(bench)
        try await restarted.tick()
        let round = try await restarted.round(run: run, number: 1)
        #expect(round.state == .reporting && round.accepted == 1)
        let told = try await restarted.heartbeat(
            assignment: open,
            client: clients[1],
            HeartbeatRequest(phase: .training)
        )
        #expect((85...92).contains(told.deadlineInS), "\(told.deadlineInS)")
        let causes = try await restarted.roundHistory(run: run, number: 1).map(\.cause)
        #expect(causes.contains { $0.contains("the server was down") }, "\(causes)")
        // What was moved is stored: another stop takes nothing.
        let again = try await coordinator(bench)
        _ = try await Bench.submit(again, clients[1], open, value: 1)
        #expect(try await Bench.untilSettled(again, run).state == .completed)
    }

    /// A machine that was suspended: the clock jumps between two ticks, and a request may come before the tick.
    @Test(arguments: [true, false])
    func aClockThatJumpsForwardEndsNothing(_ tickComesFirst: Bool) async throws {
        let bench = try await Bench(.memory)
        let (coordinator, run, clients, open) = try await begun(bench)
        bench.clock.advance(by: 7200)
        if tickComesFirst { try await coordinator.tick() }
        _ = try await Bench.submit(coordinator, clients[1], open, value: 1)
        #expect(try await Bench.untilSettled(coordinator, run).state == .completed)
        #expect(try await coordinator.rounds(run: run).map(\.attempt) == [1])
    }

    /// An alarm that ends because the record is put back costs no accepted work: the clock stood still meanwhile, in whole pauses and in
    /// what a stop left of one.
    @Test(arguments: [true, false])
    func theTimeOfAnAlarmIsGivenBack(_ stopsInOrder: Bool) async throws {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(
            try Bench.exactSpecification(rounds: 1) {
                $0.cohort += ["goal": 2, "minimum": 2, "max_participations": 2]
                $0.privacy += ["mode": "central", "noise_multiplier": 8]
            },
            budget: BudgetSpecification(epsilon: 8, delta: 1e-5),
            clients: 2
        )
        let first = try await coordinator(bench)
        let ids = [
            try #require(try await Bench.assignment(first, clients[0])).id,
            try #require(try await Bench.assignment(first, clients[1])).id,
        ]
        _ = try await Bench.submit(first, clients[0], ids[0], value: 1)
        let path = bench.directory.path + "/ledger.head"
        try FileManager.default.moveItem(atPath: path, toPath: path + ".away")
        let alarmed = try await coordinator(bench)
        #expect(await alarmed.ledgerState().alarm != nil)
        // Ten times the report time-out.
        try await alarmed.tick()
        for _ in 0..<250 {
            bench.clock.advance(by: 4)
            try await alarmed.tick()
        }
        // A client that asks meanwhile keeps its work and its update.
        for _ in 0..<2 {
            let refused = await refusal { try await Bench.submit(alarmed, clients[1], ids[1], value: 1) }
            #expect(
                refused?.code == "ledger_rolled_back" && refused?.kind == .unavailable,
                "\(String(describing: refused))"
            )
            bench.clock.advance(by: 3)
        }
        if stopsInOrder { await alarmed.stopServing() }
        try FileManager.default.moveItem(atPath: path + ".away", toPath: path)
        let restarted = try await coordinator(bench)
        try await restarted.tick()
        #expect(await restarted.ledgerState().alarm == nil)
        let told = try await restarted.heartbeat(
            assignment: ids[1],
            client: clients[1],
            HeartbeatRequest(phase: .training)
        )
        // A process that is killed loses less than one portion of what its hold has taken.
        #expect((stopsInOrder ? 95...101 : 65...101).contains(told.deadlineInS), "\(told.deadlineInS)")
        _ = try await Bench.submit(restarted, clients[1], ids[1], value: 1)
        #expect(try await Bench.untilSettled(restarted, run).state == .completed)
        #expect(try await restarted.rounds(run: run).map(\.attempt) == [1])
    }

    /// Tokens end by the clock on the wall, whatever the server did meanwhile.
    @Test func tokensGetNoTimeBack() async throws {
        let bench = try await Bench(.memory)
        _ = try await begun(bench)
        let token = try await bench.coordinator.createEnrollmentToken(
            population: "p",
            EnrollmentTokenRequest(maxUses: 1, expiresInS: 60)
        )
        bench.clock.advance(by: 3600)
        let restarted = try await coordinator(bench)
        await #expect(throws: (any Error).self) {
            guard case .enrollment(_, let hash) = await restarted.principal(token: token) else {
                throw CoordinationError(.unauthorized, "unauthorized", "it has ended")
            }
            _ = try await restarted.register(
                enrollmentTokenHash: hash,
                RegistrationRequest(name: nil),
                idempotencyKey: "late"
            )
        }
    }
}
