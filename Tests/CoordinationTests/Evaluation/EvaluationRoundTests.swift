import Coordination
import Foundation
import StrictJSON
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

/// Which versions are measured by how many, and what follows from it; without privacy.
@Suite(.timeLimit(.minutes(10)))
struct EvaluationRoundTests {
    private func start(
        rounds: Int,
        clients: Int = 3,
        _ change: (inout RunFile) throws -> Void
    ) async throws -> (bench: Bench, run: String, clients: [String]) {
        let bench = try await Bench(.memory)
        let specification = try Bench.exactSpecification(rounds: rounds) {
            $0.cohort += ["goal": 1, "minimum": 1]
            try change(&$0)
        }
        let (run, clients) = try await bench.startRun(specification, clients: clients)
        return (bench, run, clients)
    }

    /// Does whatever a client is given; measures what `sums` say of the version.
    private func work(
        _ bench: Bench,
        _ client: String,
        _ run: String,
        sums: (_ version: Int) -> [String: Double] = { _ in ["nll": 10, "loss_tokens": 10] }
    ) async throws {
        let coordinator = bench.coordinator
        guard let work = try await Bench.assignment(coordinator, client) else { return }
        if work.kind == .train {
            _ = try await Bench.submit(coordinator, client, work.id, value: 1)
        } else {
            _ = try await coordinator.beginUpdate(assignment: work.id, client: client)
            _ = try await coordinator.finishUpdate(
                assignment: work.id,
                client: client,
                ReceivedUpdate(
                    path: "",
                    sha256: "s\(work.id)",
                    byteCount: 9,
                    exampleCount: 10,
                    metrics: sums(work.round)
                )
            )
        }
        _ = try await Bench.untilSettled(coordinator, run)
    }

    @Test func aCohortOfItsOwnMeasuresInItsOwnTime() async throws {
        let (bench, run, clients) = try await start(rounds: 1) {
            $0.evaluation += ["every": 1, "cohort_goal": 3, "minimum": 2, "report_timeout_s": 30]
        }
        for client in clients.prefix(1) + clients.prefix(2) { try await work(bench, client, run) }
        // Two of three: more than training wants, enough for the evaluation, and no more time than it gives.
        var view = try #require(try await bench.coordinator.evaluations(run: run).last)
        #expect(view.goal == 3 && view.minimum == 2 && view.accepted == 2 && view.state == .selecting)
        bench.clock.advance(by: 51)
        try await bench.coordinator.tick()
        let late = try #require(try await Bench.assignment(bench.coordinator, clients[2]))
        #expect(late.kind == .evaluate && abs(late.deadlineInS - 30) < 0.01 && late.cohortMinimum == 2)
        bench.clock.advance(by: 31)
        try await bench.coordinator.tick()
        view = try #require(try await bench.coordinator.evaluations(run: run).last)
        #expect(view.state == .committed && view.expired == 1)
        #expect(try await bench.coordinator.run(run).state == .completed)
    }

    @Test func versionsAreMeasuredAtIntervalsAndTheLastOneAlways() async throws {
        let (bench, run, clients) = try await start(rounds: 5) {
            $0.evaluation += ["every": 2, "cohort_goal": 1, "minimum": 1]
        }
        for _ in 0..<8 { try await work(bench, clients[0], run) }
        #expect(try await bench.coordinator.run(run).state == .completed)
        #expect(try await bench.coordinator.evaluations(run: run).map(\.number) == [2, 4, 5])
    }

    @Test func aVersionThatNobodyMeasuresIsLeftOutAfterThreeAttempts() async throws {
        let (bench, run, clients) = try await start(rounds: 2) {
            $0.evaluation += ["every": 1, "cohort_goal": 1, "minimum": 1]
        }
        try await work(bench, clients[0], run)
        for attempt in 1...3 {
            #expect(try await bench.coordinator.evaluations(run: run).map(\.attempt) == Array(1...attempt))
            bench.clock.advance(by: 51)
            try await bench.coordinator.tick()
            // Past every backoff so far.
            bench.clock.advance(by: 10)
            try await bench.coordinator.tick()
        }
        #expect(
            try await bench.coordinator.evaluations(run: run).map(\.state) == [.abandoned, .abandoned, .abandoned]
        )
        #expect(try await bench.coordinator.round(run: run, number: 2).state == .selecting)
    }

    /// Each rule, by the versions' values, and where it stops; of equals the first is the best.
    @Test(
        arguments: [
            (["metric": "top1", "at_least": 0.5], [0.2, 0.4, 0.5, 0.9], 3, 3, "at least 0.5"),
            (["metric": "loss", "at_most": 1], [0.2, 0.4, 1.0, 1.2].map { 3 - 2 * $0 }, 3, 3, "at most 1"),
            (["metric": "top1", "patience": 2], [0.2, 0.4, 0.4, 0.3], 4, 2, "no better value than version 2"),
            (["metric": "loss", "patience": 2], [0.4, 0.2, 0.2, 0.3], 4, 2, "no better value than version 2"),
        ] as [(RunFile, [Double], Int, Int, String)]
    )
    func eachRuleStopsWhereItSays(
        _ rule: RunFile,
        _ values: [Double],
        _ last: Int,
        _ best: Int,
        _ words: String
    ) async throws {
        let (bench, run, clients) = try await start(rounds: 9) {
            $0.stop = rule
            $0.evaluation += ["every": 1, "cohort_goal": 1, "minimum": 1]
        }
        for _ in 0..<(2 * last) {
            try await work(bench, clients[0], run) { version in
                let value = values[version - 1] * 100
                return ["nll": value, "loss_tokens": 100, "hit1": value, "tokens": 100]
            }
        }
        let view = try await bench.coordinator.run(run)
        #expect(view.state == .completed && view.committedRounds == last && view.bestVersion == best, "\(view)")
        let causes = try bench.store.history(run: run, round: 0, assignments: false, from: 0, limit: .max).map(\.cause)
        #expect(causes.last?.contains(words) == true, "\(causes)")
    }

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
}
