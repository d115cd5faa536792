import Coordination
import Foundation
import StrictJSON
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

/// Mode `buffered` beyond the weights: what is in the buffer or on its way outlives restarts, measurements and the run's end.
@Suite(.timeLimit(.minutes(10)))
struct BufferedTests {
    private func specification(
        rounds: Int = 3,
        _ change: (inout RunFile) throws -> Void
    ) throws -> RunSpecification {
        try Bench.timedSpecification(rounds: rounds) {
            $0.aggregation.mode = "buffered"
            $0.aggregation.buffered += ["concurrency": 6, "max_staleness": 2]
            try change(&$0)
        }
    }

    private func code<Result>(_ body: () async throws -> Result) async -> String? {
        await refusal(body)?.code
    }

    private func assignments(_ bench: Bench, _ clients: some Sequence<String>) async throws -> [String] {
        var ids: [String] = []
        for client in clients { ids.append(try #require(try await Bench.assignment(bench.coordinator, client)).id) }
        return ids
    }

    private func measure(_ coordinator: Coordinator, _ client: String, _ work: AssignmentBody) async throws {
        _ = try await coordinator.beginUpdate(assignment: work.id, client: client)
        _ = try await coordinator.finishUpdate(
            assignment: work.id,
            client: client,
            ReceivedUpdate(
                path: "",
                sha256: "s\(work.id)",
                byteCount: 9,
                exampleCount: 10,
                metrics: ["nll": 20, "loss_tokens": 10]
            )
        )
    }

    /// A measurement takes no place and no update of those who still train, and they none of its own.
    @Test(arguments: Bench.StoreKind.allCases)
    func whoTrainsGoesOnWhileOthersMeasure(_ kind: Bench.StoreKind) async throws {
        let bench = try await Bench(kind)
        let (run, clients) = try await bench.startRun(
            try specification {
                $0.cohort += ["goal": 2, "minimum": 2]
                $0.evaluation += ["every": 1, "cohort_goal": 2, "minimum": 2]
            },
            clients: 10
        )
        let coordinator = bench.coordinator
        let ids = try await assignments(bench, clients.prefix(6))
        bench.clock.advance(by: 60)
        for index in 0..<2 { _ = try await Bench.submit(coordinator, clients[index], ids[index], value: 1) }
        _ = try await Bench.untilSettled(coordinator, run)
        // Version 1 is measured, while four clients train on from version 0.
        try await coordinator.tick()
        let said = try await coordinator.run(run).waitingFor
        #expect(said.contains("0 at work, 0 of 2 measurements of version 1"), "\(said)")
        var measuring: [(client: String, work: AssignmentBody)] = []
        for client in clients[6...7] {
            let work = try #require(try await Bench.assignment(coordinator, client))
            #expect(work.kind == .evaluate)
            measuring.append((client, work))
        }
        // One fails meanwhile, one is revoked, one is ready: the measurement counts none of them.
        try await coordinator.revokeClient(clients[4])
        try await coordinator.reportFailure(assignment: ids[2], client: clients[2], FailureReport(code: .noData))
        #expect(await code { try await Bench.submit(coordinator, clients[3], ids[3], value: 1) } == "round_opening")
        try await coordinator.tick()
        let view = try #require(try await coordinator.evaluations(run: run).last)
        #expect(view.failed == 0 && view.state == .reporting)
        // A restart in between forgets nobody.
        let restarted = try await bench.restarted()
        #expect(try await Bench.assignment(restarted, clients[3])?.id == ids[3])
        for (client, work) in measuring { try await measure(restarted, client, work) }
        #expect(try await restarted.evaluations(run: run).map(\.state) == [.committed])
        _ = try await Bench.submit(restarted, clients[3], ids[3], value: 1)
        #expect(try await restarted.round(run: run, number: 2).accepted == 1)
    }

    /// Whoever trains beyond its time while others measure is no loss of the measurement.
    @Test func whoTrainsTooLongWhileOthersMeasureIsNotCounted() async throws {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(
            try specification {
                $0.cohort += ["goal": 1, "minimum": 1]
                $0.evaluation += ["every": 1, "cohort_goal": 2, "minimum": 2]
            },
            clients: 4
        )
        let ids = try await assignments(bench, clients.prefix(2))
        bench.clock.advance(by: 60)
        _ = try await Bench.submit(bench.coordinator, clients[0], ids[0], value: 1)
        _ = try await Bench.untilSettled(bench.coordinator, run)
        bench.clock.advance(by: 41)
        try await bench.coordinator.tick()
        let late = await code { try await bench.coordinator.beginUpdate(assignment: ids[1], client: clients[1]) }
        #expect(late == "lease_expired")
        let view = try #require(try await bench.coordinator.evaluations(run: run).last)
        #expect(view.expired == 0 && view.state == .selecting)
    }

    /// An update that started from an older version belongs to the buffer that it came to, also after a restart.
    @Test(arguments: Bench.StoreKind.allCases)
    func theBufferSurvivesARestart(_ kind: Bench.StoreKind) async throws {
        let bench = try await Bench(kind)
        let (run, clients) = try await bench.startRun(
            try specification { $0.cohort += ["goal": 2, "minimum": 2] },
            clients: 5
        )
        let ids = try await assignments(bench, clients.prefix(4))
        for index in 0..<3 {
            _ = try await Bench.submit(bench.coordinator, clients[index], ids[index], value: index < 2 ? 1 : 3)
            if index == 1 { _ = try await Bench.untilSettled(bench.coordinator, run) }
        }
        let restarted = try await bench.restarted()
        #expect(try await restarted.round(run: run, number: 2).accepted == 1)
        _ = try await Bench.submit(restarted, clients[3], ids[3], value: 1)
        _ = try await Bench.untilSettled(restarted, run)
        // Both were one version old: 1 + (3 + 1) / 2 · 181/256, the weight 1/√2 on its grid.
        #expect(abs(Double(try await Bench.model(restarted, run)[0]) - (1 + 2 * 181.0 / 256)) < 1e-6)
    }

    /// Nobody holds work of a run that is over: it would get the same again whenever it asks for some.
    @Test(arguments: [RunPhase.completed, .cancelled, .failed])
    func theEndOfTheRunEndsWhatIsOnItsWay(_ end: RunPhase) async throws {
        let bench = try await Bench(.memory)
        let isPrivate = end == .failed
        let (run, clients) = try await bench.startRun(
            try specification(rounds: end == .completed ? 1 : 3) {
                $0.cohort += ["goal": 2, "minimum": 2, "max_participations": 2]
                if isPrivate { $0.privacy += ["mode": "central", "noise_multiplier": 1] }
            },
            // One release of z = 1 costs 4.38: a second one is not admitted.
            budget: isPrivate ? BudgetSpecification(epsilon: 4.5, delta: 1e-5) : nil,
            clients: 4
        )
        let coordinator = bench.coordinator
        let ids = try await assignments(bench, clients)
        if end == .cancelled {
            _ = try await coordinator.cancelRun(run)
        } else {
            for index in 0..<2 { _ = try await Bench.submit(coordinator, clients[index], ids[index], value: 1) }
            try await wait(for: "the end of the run") { try await coordinator.run(run).state != .running }
        }
        #expect(try await coordinator.run(run).state == end)
        #expect(await code { try await coordinator.beginUpdate(assignment: ids[3], client: clients[3]) } == "run_ended")
        let answer = try await coordinator.checkIn(client: clients[3], CheckInRequest(), wait: .zero)
        #expect(answer.assignment == nil && answer.reason == "no_run")
    }

    @Test(arguments: Bench.StoreKind.allCases)
    func bufferedUpdatesCountByTheirStaleness(_ kind: Bench.StoreKind) async throws {
        let bench = try await Bench(kind)
        let (run, clients) = try await bench.startRun(
            try Bench.timedSpecification(rounds: 3) {
                $0.cohort += ["goal": 2, "minimum": 2]
                $0.aggregation.mode = "buffered"
                $0.aggregation.buffered += ["concurrency": 4, "max_staleness": 1]
            },
            clients: 6
        )
        var coordinator = bench.coordinator
        var ids: [String] = []
        for client in clients.prefix(4) {
            ids.append(try #require(try await Bench.assignment(coordinator, client)).id)
        }
        #expect(try await bench.checkIn(clients[4]).assignment == nil)
        for index in 0..<2 { _ = try await Bench.submit(coordinator, clients[index], ids[index], value: 1) }
        _ = try await Bench.untilSettled(coordinator, run)
        #expect(try await Bench.model(coordinator, run)[0] == 1)
        // Two of the four are still at work from version 0; a fresh one starts from version 1. A restart loses none.
        coordinator = try await bench.restarted()
        let fresh = try #require(try await Bench.assignment(coordinator, clients[4]))
        #expect(fresh.model.version == 1 && fresh.round == 2)
        _ = try await Bench.submit(coordinator, clients[2], ids[2], value: 1)
        _ = try await Bench.submit(coordinator, clients[4], fresh.id, value: 1)
        _ = try await Bench.untilSettled(coordinator, run)
        // (1/√2 + 1) / 2 on the grid of 1/256: (181 + 256) / 512.
        let values = try await Bench.model(coordinator, run)
        #expect(abs(Double(values[0]) - (1 + 437.0 / 512)) < 1e-6, "\(values)")
        // The last one is two versions behind: more than it may.
        let error = await refusal { try await Bench.submit(coordinator, clients[3], ids[3], value: 1) }
        #expect(error?.code == "too_stale" && error?.kind == .gone)
        #expect(try await coordinator.run(run).committedRounds == 2)
        #expect(coordinator.blobs.spoolNames().isEmpty)
    }
}
