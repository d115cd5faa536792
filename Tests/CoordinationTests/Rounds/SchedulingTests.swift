import Coordination
import Foundation
import StrictJSON
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

/// Selection, leases, evaluation and asynchronous rounds through the coordinator.
@Suite(.timeLimit(.minutes(10)))
struct SchedulingTests {
    private func checkIn(_ bench: Bench, _ client: String, examples: Int? = nil) async throws -> CheckInResponse {
        try await bench.coordinator.checkIn(client: client, CheckInRequest(numExamples: examples), wait: .zero)
    }

    // MARK: - Policies

    @Test(arguments: Bench.StoreKind.allCases)
    func aUniformCohortIsChosenWhenTheWindowEnds(_ kind: Bench.StoreKind) async throws {
        let bench = try await Bench(kind)
        let (run, clients) = try await bench.startRun(
            try Bench.timedSpecification {
                $0.cohort += ["goal": 4, "over_selection": 1.5, "policy": "uniform"]
            },
            clients: 30
        )
        for client in clients {
            let answer = try await checkIn(bench, client)
            #expect(answer.reason == "in_selection" && answer.assignment == nil)
            // Everyone is asked to come back when the choice is made.
            #expect(abs(try #require(answer.retryWindow).minS - 50) < 0.01)
        }
        #expect(try await bench.coordinator.run(run).waitingFor.contains("30 checked in"))
        bench.clock.advance(by: 51)
        try await bench.coordinator.tick()
        #expect(try await bench.coordinator.round(run: run, number: 1).state == .reporting)
        var chosen = 0
        for client in clients where try await checkIn(bench, client).assignment != nil { chosen += 1 }
        #expect(chosen == 6)
    }

    @Test func theReservoirGivesEveryArrivalTheSameChance() {
        // 20,000 draws of 5 from 20: each client is in 5,000 times, standard deviation 61; 7 of them: under 1e-10 for all 20.
        var generator = Xoshiro256StarStar(seed: 7)
        var counts: [String: Int] = [:]
        for _ in 0..<20_000 {
            var reservoir = Reservoir(capacity: 5)
            for client in 0..<20 { reservoir.offer("\(client)", using: &generator) }
            for client in reservoir.chosen { counts[client, default: 0] += 1 }
        }
        for client in 0..<20 { #expect(abs((counts["\(client)"] ?? 0) - 5000) < 430) }
    }

    @Test func aPoissonRoundTakesWhoWasDrawnAndReplacesNobody() async throws {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(
            try Bench.timedSpecification {
                $0.cohort += ["goal": 10, "minimum": 1, "policy": "poisson", "sampling_rate": 0.3]
            },
            clients: 60
        )
        bench.clock.advance(by: 1)
        let late = try await bench.enroll(1, prefix: "late")
        var drawn: [(client: String, id: String)] = []
        for client in clients + late {
            let answer = try await checkIn(bench, client)
            if let assignment = answer.assignment {
                drawn.append((client, assignment.id))
            } else {
                // As for any client that finds no place.
                #expect(answer.reason == "no_open_slot")
            }
        }
        // Binomial(60, 0.3): mean 18, standard deviation 3.5; the chance to leave 1...45 is under 1e-9.
        #expect((1...45).contains(drawn.count) && !drawn.contains { late.contains($0.client) })
        let view = try await bench.coordinator.round(run: run, number: 1)
        let document = String(decoding: try WireCoding.encode(view), as: UTF8.self)
        #expect(!document.contains("draw_key") && !document.contains("drawn"))
        try await bench.coordinator.reportFailure(
            assignment: drawn[0].id,
            client: drawn[0].client,
            FailureReport(code: .noData)
        )
        let again = try await checkIn(bench, drawn[0].client)
        #expect(again.assignment == nil)
        // The draw survives a restart.
        let restarted = try await bench.restarted()
        for (client, id) in drawn.dropFirst() {
            #expect(try await Bench.assignment(restarted, client)?.id == id)
            _ = try await Bench.submit(restarted, client, id, value: 1)
        }
        _ = try await Bench.untilSettled(restarted, run)
        #expect(try await restarted.round(run: run, number: 1).state == (drawn.count > 1 ? .committed : .abandoned))
    }

    @Test func policyAllWaitsForEveryone() async throws {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(
            try Bench.timedSpecification { $0.cohort += ["goal": 5, "minimum": 2, "policy": "all"] },
            clients: 5
        )
        for (index, client) in clients.enumerated() {
            let id = try #require(try await Bench.assignment(bench.coordinator, client)).id
            if index == 4 {
                try await bench.coordinator.reportFailure(
                    assignment: id,
                    client: client,
                    FailureReport(code: .noData)
                )
            } else {
                _ = try await Bench.submit(bench.coordinator, client, id, value: 1)
                #expect(try await bench.coordinator.round(run: run, number: 1).state == .reporting)
            }
        }
        try await bench.coordinator.tick()
        _ = try await Bench.untilSettled(bench.coordinator, run)
        #expect(try await bench.coordinator.round(run: run, number: 1).accepted == 4)
        #expect(try await bench.coordinator.run(run).committedRounds == 1)
    }

    // MARK: - Eligibility

    @Test func requirementsVersionsAndLabelsDecideWhoIsAsked() async throws {
        let bench = try await Bench(.memory)
        let rule = #"memory_bytes >= 2e9 && labels.locale == 'zh' && num_examples > 10"#
        let (run, clients) = try await bench.startRun(
            try Bench.timedSpecification {
                $0.cohort += ["goal": 2, "requirements": rule, "minimum_client_version": "1.10"]
            },
            clients: 2
        )
        #expect(try await checkIn(bench, clients[0], examples: 50).reason == "client_too_old")
        _ = try await bench.coordinator.changeClient(
            clients[0],
            ClientChange(capabilities: .init(memoryBytes: 4_000_000_000, runtimeVersion: "1.9.9"))
        )
        #expect(try await checkIn(bench, clients[0], examples: 50).reason == "client_too_old")
        _ = try await bench.coordinator.changeClient(
            clients[0],
            ClientChange(capabilities: .init(memoryBytes: 4_000_000_000, runtimeVersion: "1.10"))
        )
        #expect(try await checkIn(bench, clients[0], examples: 50).reason == "not_eligible")
        _ = try await bench.coordinator.changeClient(clients[0], ClientChange(labels: ["locale": "zh"]))
        #expect(try await checkIn(bench, clients[0]).reason == "not_eligible")
        #expect(try await checkIn(bench, clients[0], examples: 50).assignment != nil)
        #expect(try await bench.coordinator.run(run).waitingFor.contains("meet the run's requirements"))
        // What a client says at check-in replaces what it said before, also after a restart.
        let said = CheckInRequest(capabilities: .init(runtimeVersion: "3"))
        _ = try await bench.coordinator.checkIn(client: clients[1], said, wait: .zero)
        #expect(try await bench.restarted().client(clients[1]).capabilities.runtimeVersion == "3")
    }

    @Test func aClientWaitsOutItsSeparation() async throws {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(
            try Bench.timedSpecification(rounds: 5) {
                $0.cohort += ["goal": 1, "minimum": 1, "min_separation_rounds": 2]
            },
            clients: 2
        )
        for (round, client) in [(1, clients[0]), (2, clients[1]), (3, clients[0])] {
            for other in clients where other != client {
                if round > 1 { #expect(try await checkIn(bench, other).reason == "too_soon") }
            }
            let work = try #require(try await Bench.assignment(bench.coordinator, client))
            #expect(work.round == round)
            _ = try await Bench.submit(bench.coordinator, client, work.id, value: 1)
            _ = try await Bench.untilSettled(bench.coordinator, run)
        }
    }

    @Test func slowTiersHaveTheirShare() async throws {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(
            try Bench.timedSpecification(rounds: 2) {
                $0.cohort += ["goal": 4, "minimum": 1, "over_selection": 1, "tiers": 2]
            },
            clients: 8
        )
        // The first round measures: half of the clients need a second, the others a minute.
        for (index, client) in clients.prefix(4).enumerated() {
            let id = try #require(try await Bench.assignment(bench.coordinator, client)).id
            bench.clock.advance(by: index < 2 ? 1 : 20)
            _ = try await Bench.submit(bench.coordinator, client, id, value: 1)
        }
        _ = try await Bench.untilSettled(bench.coordinator, run)
        // The fast ones come first, but half of the places are kept for the slow ones.
        var taken: [String] = []
        for client in [clients[0], clients[1], clients[2], clients[3]] {
            if try await checkIn(bench, client).assignment != nil { taken.append(client) }
        }
        #expect(taken.count == 4)
        let tiers = try await bench.coordinator.round(run: run, number: 2).tiers
        #expect(tiers.map(\.assigned) == [2, 2], "\(tiers)")
        // What was heard of each is reported beside it.
        let id = try #require(try await Bench.assignment(bench.coordinator, clients[2])).id
        _ = try await Bench.submit(bench.coordinator, clients[2], id, value: 1)
        #expect(try await bench.coordinator.round(run: run, number: 2).tiers.map(\.accepted) == [1, 0])
    }

    // MARK: - Leases

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
        #expect(try await checkIn(bench, clients[1]).assignment == nil)
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
        #expect(try await checkIn(bench, clients[1]).assignment != nil)
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
        #expect(await refusal { try await checkIn(bench, clients[0]) }?.code == "client_revoked")
        // Its place is another's.
        #expect(try await checkIn(bench, clients[2]).assignment != nil)
        // It gave nothing back: it may still be at work.
        #expect(try await bench.coordinator.round(run: run, number: 1).expired == 1)
    }

    // MARK: - Waiting in vain, clocks

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

    // MARK: - Different devices

    @Test(arguments: Bench.StoreKind.allCases)
    func stepsAndSecondsFollowFromTheMeasuredSpeed(_ kind: Bench.StoreKind) async throws {
        let bench = try await Bench(kind)
        let (run, clients) = try await bench.startRun(
            try Bench.timedSpecification(rounds: 2) {
                $0.cohort += ["goal": 2, "minimum": 2, "over_selection": 1, "target_seconds": 8]
            },
            clients: 2
        )
        var coordinator = bench.coordinator
        for (client, steps) in zip(clients, [400.0, 8.0]) {
            let work = try #require(try await Bench.assignment(coordinator, client))
            // Nothing is known yet: time alone bounds the work.
            #expect(work.training.limits.maxSteps == 1000 && work.training.limits.maxSeconds == 8)
            let terms = try await coordinator.beginUpdate(assignment: work.id, client: client)
            try SafetensorsWriter.encode(ParameterVector(zeros: Bench.layout)).write(
                to: URL(fileURLWithPath: terms.spoolPath)
            )
            _ = try await coordinator.finishUpdate(
                assignment: work.id,
                client: client,
                ReceivedUpdate(
                    path: terms.spoolPath,
                    sha256: "s\(client)",
                    byteCount: 9,
                    exampleCount: 5,
                    metrics: ["steps": steps, "seconds": 4]
                )
            )
        }
        _ = try await Bench.untilSettled(coordinator, run)
        // 100 steps a second, and 2: what each does in eight seconds, also after a restart.
        coordinator = try await bench.restarted()
        let fast = try #require(try await Bench.assignment(coordinator, clients[0]))
        let slow = try #require(try await Bench.assignment(coordinator, clients[1]))
        #expect(fast.training.limits.maxSteps == 800 && slow.training.limits.maxSteps == 16)
        #expect(fast.training.limits.maxSeconds == 16)
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
        #expect(try await checkIn(bench, clients[2]).assignment == nil)
        bench.clock.advance(by: 11)
        try await bench.coordinator.tick()
        #expect(try await bench.coordinator.round(run: run, number: 1).expired == 1)
        #expect(try await checkIn(bench, clients[2]).assignment != nil)
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

    // MARK: - Several runs, long polls

    @Test func twoRunsShareAPopulationAlike() async throws {
        let bench = try await Bench(.memory)
        let (first, clients) = try await bench.startRun(
            try Bench.timedSpecification { $0.cohort += ["goal": 20, "over_selection": 1] },
            clients: 20
        )
        let second = try await bench.coordinator.createRun(
            try Bench.timedSpecification { $0.cohort += ["goal": 20, "over_selection": 1] },
            initialModel: ParameterVector(zeros: Bench.layout)
        ).id
        _ = try await bench.coordinator.startRun(second)
        for client in clients { _ = try await checkIn(bench, client) }
        #expect(try await bench.coordinator.round(run: first, number: 1).assigned == 10)
        #expect(try await bench.coordinator.round(run: second, number: 1).assigned == 10)
        // A paused run hands out nothing; the other one takes all.
        _ = try await bench.coordinator.pauseRun(first)
        for client in try await bench.enroll(6, prefix: "more") { _ = try await checkIn(bench, client) }
        #expect(try await bench.coordinator.round(run: second, number: 1).assigned == 16)
    }

    @Test func onlyAsManyLongPollsWakeAsThereIsWork() async throws {
        let bench = try await Bench(.memory)
        let (_, clients) = try await bench.startRun(
            try Bench.timedSpecification { $0.cohort += ["goal": 2, "over_selection": 1] },
            clients: 42
        )
        var ids: [String] = []
        for client in clients.prefix(2) {
            ids.append(try #require(try await Bench.assignment(bench.coordinator, client)).id)
        }
        let coordinator = bench.coordinator
        try await withThrowingTaskGroup(of: Bool.self) { group in
            for client in clients.dropFirst(2) {
                group.addTask {
                    let answer = try? await coordinator.checkIn(client: client, CheckInRequest(), wait: .seconds(50))
                    return answer?.assignment != nil
                }
            }
            try await wait(for: "40 long polls") { await coordinator.waiterCount == 40 }
            try? await coordinator.reportFailure(assignment: ids[0], client: clients[0], FailureReport(code: .noData))
            #expect(try await group.next() == true)
            // The other 39 sleep on.
            #expect(await coordinator.waiterCount == 39)
            await coordinator.stopServing()
            var served = 0
            for try await hasWork in group where hasWork { served += 1 }
            #expect(served == 0)
        }
    }

    // MARK: - Evaluation

    @Test(arguments: Bench.StoreKind.allCases)
    func evaluationRoundsMeasureVersionsAndStopTheRun(_ kind: Bench.StoreKind) async throws {
        let bench = try await Bench(kind)
        let (run, clients) = try await bench.startRun(
            try Bench.timedSpecification(rounds: 9) {
                $0.cohort += ["goal": 2, "minimum": 2, "over_selection": 1]
                $0.evaluation += ["every": 1, "cohort_goal": 2]
                $0.stop += ["metric": "loss", "patience": 2]
            },
            clients: 2
        )
        var coordinator = bench.coordinator
        // The loss of version 2 is the best; two worse ones end the run.
        let losses = [3.0, 2.0, 2.5, 2.5]
        var measured = 0
        var patience = Patience("the end of the run")
        while try await coordinator.run(run).state == .running {
            try await patience.pause()
            for client in clients {
                guard let work = try await Bench.assignment(coordinator, client) else { continue }
                if work.kind == .train {
                    _ = try await Bench.submit(coordinator, client, work.id, value: 0.1)
                    continue
                }
                #expect(work.round == work.model.version)
                let terms = try await coordinator.beginUpdate(assignment: work.id, client: client)
                #expect(terms.isEvaluation)
                let sum = losses[work.round - 1] * 10
                let update = ReceivedUpdate(
                    path: "",
                    sha256: "s\(work.id)",
                    byteCount: 9,
                    exampleCount: 10,
                    metrics: ["nll": client == clients[0] ? sum - 1 : sum + 1, "loss_tokens": 10]
                )
                for _ in 0..<3 {
                    // However often it is sent, it counts once.
                    _ = try await coordinator.finishUpdate(assignment: work.id, client: client, update)
                }
                measured += 1
                if measured == 3 { coordinator = try await bench.restarted() }
            }
            _ = try await Bench.untilSettled(coordinator, run)
        }
        let view = try await coordinator.run(run)
        #expect(view.state == .completed && view.committedRounds == 4 && view.bestVersion == 2)
        let history = try await coordinator.roundHistory(run: run, number: 0)
        #expect(history.last?.cause.contains("no better value than version 2's for 2 measurements") == true)
        let evaluations = try await coordinator.evaluations(run: run)
        #expect(evaluations.map(\.number) == [1, 2, 3, 4] && evaluations.allSatisfy { $0.kind == .evaluation })
        #expect(evaluations.map { $0.metrics?["federated"]?["loss"] } == losses)
        #expect(try await coordinator.models(run: run).filter(\.isBest).map(\.version) == [2])
        #expect(try await coordinator.rounds(run: run).map(\.number) == [1, 2, 3, 4])
        // Taking part in evaluations is no participation in training.
        #expect(try await coordinator.client(clients[0]).participations[run] == 4)
    }

    // MARK: - Asynchronous

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
        #expect(try await checkIn(bench, clients[4]).assignment == nil)
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

    @Test func cancellingWhileTheSumIsMadePublishesNothing() async throws {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(
            try Bench.timedSpecification {
                $0.cohort += ["goal": 1, "minimum": 1]
                $0.privacy += ["mode": "central", "noise_multiplier": 1]
            },
            budget: BudgetSpecification(epsilon: 8, delta: 1e-5),
            clients: 1
        )
        let id = try #require(try await Bench.assignment(bench.coordinator, clients[0])).id
        _ = try await Bench.submit(bench.coordinator, clients[0], id, value: 1)
        // The arithmetic reports to the actor: either it was first, or the run is cancelled before.
        let view = try await bench.coordinator.cancelRun(run)
        _ = try await Bench.untilSettled(bench.coordinator, run)
        #expect(view.state == .cancelled)
        let state = try await bench.coordinator.round(run: run, number: 1).state
        let ledger = try await bench.coordinator.ledgerRows(population: "p").filter { $0.runId == run }.map(\.state)
        // Nothing that may have been noised is ever given back.
        #expect(ledger.prefix(2) == [.reserved, .committed])
        #expect(try await bench.coordinator.models(run: run).count == (state == .committed ? 2 : 1))
    }
}

/// What one administrator's mistake may cost everybody's check-ins.
@Suite(.timeLimit(.minutes(10)))
struct OpenRunTests {
    @Test func aRunBeyondTheLimitIsRefusedUntilAnotherHasEnded() async throws {
        let bench = try await Bench(.memory)
        let coordinator = try await bench.restarted { $0.openRunLimit = 2 }
        _ = try await coordinator.createPopulation(PopulationRequest(name: "p", budget: nil))
        let specification = try Bench.specification()
        let first = try await coordinator.createRun(specification, initialModel: nil).id
        _ = try await coordinator.createRun(specification, initialModel: nil)
        let error = await #expect(throws: CoordinationError.self) {
            _ = try await coordinator.createRun(specification, initialModel: nil)
        }
        #expect(error?.code == "too_many_runs" && error?.kind == .conflict)
        #expect(error?.message.contains("/cancel") == true)
        _ = try await coordinator.cancelRun(first)
        _ = try await coordinator.createRun(specification, initialModel: nil)
    }
}
