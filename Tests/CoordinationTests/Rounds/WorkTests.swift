import Coordination
import Foundation
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

/// One assignment from its beginning to its end: signs of life, uploads, budgets, and what is said twice.
@Suite(.timeLimit(.minutes(10)))
struct WorkTests {
    /// While a body arrives its client can give no sign of life: the upload itself is one, until the deadline.
    @Test func anUploadKeepsItsLease() async throws {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(
            try Bench.exactSpecification { $0.cohort += ["goal": 1, "minimum": 1, "lease_s": 10] },
            clients: 1
        )
        let id = try #require(try await Bench.assignment(bench.coordinator, clients[0])).id
        #expect(await bench.coordinator.beginUploadRequest(assignment: id, client: clients[0]))
        _ = try await bench.coordinator.beginUpdate(assignment: id, client: clients[0])
        bench.clock.advance(by: 60)
        try await bench.coordinator.tick()
        let round = try await bench.coordinator.round(run: run, number: 1)
        #expect(round.expired == 0 && round.live == ["uploading": 1])
        #expect(try await Bench.submit(bench.coordinator, clients[0], id, value: 1).state == .accepted)
    }

    /// Whatever the last request was, and however it ended: a client that vanishes in its upload has its lease left and no more.
    @Test func aLeaseBeginsAnewWhenTheLastUploadRequestEnds() async throws {
        let bench = try await Bench(.memory)
        let coordinator = bench.coordinator
        let (run, clients) = try await bench.startRun(
            try Bench.exactSpecification { $0.cohort += ["goal": 1, "minimum": 1, "lease_s": 10] },
            clients: 2
        )
        let id = try #require(try await Bench.assignment(coordinator, clients[0])).id
        #expect(!(await coordinator.beginUploadRequest(assignment: id, client: clients[1])))
        // A newer request takes over while the older one's connection still stands.
        for _ in 0..<2 { #expect(await coordinator.beginUploadRequest(assignment: id, client: clients[0])) }
        _ = try await coordinator.beginUpdate(assignment: id, client: clients[0])
        await coordinator.endUploadRequest(assignment: id)
        bench.clock.advance(by: 30)
        try await coordinator.tick()
        #expect(try await coordinator.round(run: run, number: 1).expired == 0)
        await coordinator.endUploadRequest(assignment: id)
        bench.clock.advance(by: 9)
        try await coordinator.tick()
        #expect(try await coordinator.round(run: run, number: 1).expired == 0)
        // To ask how much has come is one sign of life.
        _ = try await coordinator.beginUpdate(assignment: id, client: clients[0])
        bench.clock.advance(by: 9)
        try await coordinator.tick()
        #expect(try await coordinator.round(run: run, number: 1).expired == 0)
        bench.clock.advance(by: 2)
        try await coordinator.tick()
        #expect(try await coordinator.round(run: run, number: 1).expired == 1)
        #expect(try await Bench.assignment(coordinator, clients[1]) != nil)
    }

    /// Before its body: a client need not send what cannot count.
    @Test func anUploadAfterTheDeadlineIsRefusedBeforeItsBody() async throws {
        let bench = try await Bench(.memory)
        let (_, clients) = try await bench.startRun(
            try Bench.exactSpecification { $0.cohort += ["goal": 1, "minimum": 1] },
            clients: 1
        )
        let id = try #require(try await Bench.assignment(bench.coordinator, clients[0])).id
        bench.clock.advance(by: 100.1)
        let error = await refusal { try await bench.coordinator.beginUpdate(assignment: id, client: clients[0]) }
        #expect(error?.kind == .gone && error?.code == "round_closed")
    }

    /// A client that did not hear the answer says it again: failures and sums count once, and a sign of life too many is none.
    @Test func whatIsSaidTwiceCountsOnce() async throws {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(
            try Bench.exactSpecification { $0.cohort += ["goal": 2, "minimum": 1] },
            clients: 3
        )
        let coordinator = bench.coordinator
        var ids: [String] = []
        for client in clients.prefix(2) {
            ids.append(try #require(try await Bench.assignment(coordinator, client)).id)
        }
        for _ in 0..<3 {
            try await coordinator.reportFailure(
                assignment: ids[0],
                client: clients[0],
                FailureReport(code: .noData)
            )
            try await coordinator.rejectUpdate(assignment: ids[1], client: clients[1], code: "not_finite")
        }
        #expect(try await coordinator.round(run: run, number: 1).failed == 1)
        #expect(try await coordinator.round(run: run, number: 1).rejected == 1)
        let other = await refusal {
            try await coordinator.reportFailure(
                assignment: ids[0],
                client: clients[0],
                FailureReport(code: .trainingFailed)
            )
        }
        #expect(other?.code == "assignment_ended")
        let id = try #require(try await Bench.assignment(coordinator, clients[2])).id
        _ = try await Bench.submit(coordinator, clients[2], id, value: 1)
        let answer = try await coordinator.heartbeat(
            assignment: id,
            client: clients[2],
            HeartbeatRequest(phase: .uploading)
        )
        #expect(answer.state == .accepted && answer.leaseS == 0)
    }

    /// The target gives a device less than the run's limits allow, never more; its speed is smoothed over its updates.
    @Test func aTargetNeverGivesMoreThanTheRunsLimits() async throws {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(
            try Bench.exactSpecification {
                $0.cohort += ["goal": 1, "minimum": 1, "target_seconds": 10]
                $0.training.limits += ["max_steps": 500, "max_seconds": 15]
            },
            clients: 1
        )
        let coordinator = bench.coordinator
        var limits: [(steps: Int, seconds: Double?)] = []
        for steps in [400.0, 40, 4] {
            let work = try #require(try await Bench.assignment(coordinator, clients[0]))
            limits.append((work.training.limits.maxSteps, work.training.limits.maxSeconds))
            let terms = try await coordinator.beginUpdate(assignment: work.id, client: clients[0])
            try SafetensorsWriter.encode(ParameterVector(zeros: Bench.layout)).write(
                to: URL(fileURLWithPath: terms.spoolPath)
            )
            _ = try await coordinator.finishUpdate(
                assignment: work.id,
                client: clients[0],
                ReceivedUpdate(
                    path: terms.spoolPath,
                    sha256: "s\(steps)",
                    byteCount: 9,
                    exampleCount: 5,
                    metrics: ["steps": steps, "seconds": 4]
                )
            )
            _ = try await Bench.untilSettled(coordinator, run)
        }
        // Nothing is known; then 100 steps a second, 1,000 in ten; then 0.7 · 100 + 0.3 · 10 = 73.
        #expect(limits.map(\.steps) == [500, 500, 500])
        #expect(limits.map(\.seconds) == [10, 15, 15])
        let speed = try bench.store.load().clients.first { $0.id == clients[0] }?.stepsPerSecond
        #expect(abs((speed ?? 0) - (0.7 * 73 + 0.3 * 1)) < 1e-9, "\(String(describing: speed))")
    }

    // MARK: - The end of the round

    /// The arithmetic's end is a step of its own on the coordinator, so a cancellation in the step that starts it is always first.
    @Test func aRunThatIsCancelledWhileItsSumIsMadePublishesNothingAndPaysForIt() async throws {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(
            try Bench.exactSpecification {
                $0.cohort += ["goal": 1, "minimum": 1]
                $0.privacy += ["mode": "central", "noise_multiplier": 1]
            },
            budget: BudgetSpecification(epsilon: 8, delta: 1e-5),
            clients: 1
        )
        let id = try #require(try await Bench.assignment(bench.coordinator, clients[0])).id
        let ones = ParameterVector(layout: Bench.layout, values: [1, 1, 1, 1])
        let update = try await Bench.received(bench.coordinator, clients[0], id, ones)
        let view = try await bench.coordinator.perform { coordinator in
            _ = try coordinator.finishUpdate(assignment: id, client: clients[0], update)
            return try coordinator.cancelRun(run)
        }
        #expect(view.state == .cancelled)
        _ = try await Bench.untilSettled(bench.coordinator, run)
        #expect(try await bench.coordinator.round(run: run, number: 1).state == .abandoned)
        #expect(try await bench.coordinator.models(run: run).map(\.version) == [0])
        let ledger = try await bench.coordinator.ledgerRows(population: "p").filter { $0.runId == run }.map(\.state)
        #expect(ledger == [.reserved, .committed], "noise may have been drawn")
        // Files are removed beside the coordinator.
        let spool = bench.directory.path + "/spool"
        var patience = Patience("an empty spool")
        while try !FileManager.default.contentsOfDirectory(atPath: spool).isEmpty { try await patience.pause() }
    }
}
