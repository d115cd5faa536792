import Coordination
import Foundation
import StrictJSON
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

/// Updates that stand out are left out, and their clients asked no more; a round keeps enough good ones or is tried again.
@Suite(.timeLimit(.minutes(10)))
struct AnomalyTests {
    @Test(arguments: Bench.StoreKind.allCases)
    func aPoisonedUpdateIsLeftOutItsClientQuarantinedAndTheReasonShown(_ kind: Bench.StoreKind) async throws {
        let bench = try await Bench(kind)
        let (run, clients) = try await bench.startRun(
            try Bench.specification(goal: 4, rounds: 2) {
                $0.aggregation.anomalies += ["action": "quarantine", "norm_ratio": 5]
            },
            clients: 5
        )
        let coordinator = bench.coordinator
        try await Bench.playRound(coordinator, run, clients, [0.1, 0.1, 0.1, 20])
        let shown = try await coordinator.round(run: run, number: 1)
        #expect(shown.state == .committed && shown.excluded == 1 && shown.accepted == 4)
        let model = try await Bench.model(coordinator, run)
        #expect(abs(model[0] - 0.1) < 1e-6)
        let scores = try await coordinator.updateScores(run: run, round: 1)
        #expect(scores.count == 4 && scores[0].client == clients[3] && !scores[0].counted)
        #expect(scores[0].reason?.contains("times the cohort's median") == true)
        #expect(scores.dropFirst().allSatisfy { $0.counted && $0.reason == nil && ($0.cosine ?? 0) > 0.999 })
        #expect(try await coordinator.updateScores(client: clients[3]).count == 1)
        let client = try await coordinator.client(clients[3])
        #expect(client.quarantineReason?.contains("round 1") == true && client.quarantinedAt != nil)

        // It gets no work, also after a restart, until an operator lets it.
        let again = try await bench.restarted()
        let answer = try await again.checkIn(client: clients[3], CheckInRequest(), wait: .zero)
        #expect(answer.assignment == nil && answer.reason == "quarantined")
        try await again.releaseClient(clients[3])
        #expect(try await Bench.assignment(again, clients[3]) != nil)
        #expect(try await again.client(clients[3]).quarantineReason == nil)
    }

    @Test func aRoundThatLosesTooManyIsAbandonedAndTriedAgainWithoutThem() async throws {
        let bench = try await Bench(.sqlite)
        let (run, clients) = try await bench.startRun(
            try Bench.specification(goal: 3) {
                $0.aggregation.anomalies += ["action": "quarantine", "norm_ratio": 5, "min_cosine": 0]
            },
            clients: 5
        )
        let coordinator = bench.coordinator
        try await Bench.playRound(coordinator, run, clients, [0.1, -3, 25])
        let rounds = try await coordinator.rounds(run: run)
        #expect(rounds[0].state == .abandoned && rounds[0].attempt == 1)
        #expect(rounds[0].reason?.contains("stood out") == true, "\(String(describing: rounds[0].reason))")
    }

    /// One large update turns the mean, and honest clients would stand out beside it; it cannot turn the median.
    @Test func underAMeanDirectionsAreJudgedByTheMedian() async throws {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(
            try Bench.specification(goal: 4) {
                $0.aggregation.anomalies += ["action": "exclude", "norm_ratio": 1000, "min_cosine": 0]
            },
            clients: 4
        )
        try await Bench.playRound(bench.coordinator, run, clients, [1, 1, 1, -20])
        let shown = try await bench.coordinator.round(run: run, number: 1)
        #expect(shown.state == .committed && shown.excluded == 1)
        #expect(abs(try await Bench.model(bench.coordinator, run)[0] - 1) < 1e-6)
        let scores = try await bench.coordinator.updateScores(run: run, round: 1)
        #expect(scores.filter { !$0.counted }.map(\.client) == [clients[3]])
        #expect(scores.first { !$0.counted }?.reason?.contains("cohort's median") == true)
    }

    /// The same clients come again and stand out again: each attempt waits twice as long, and says why, until there were enough.
    @Test func aRoundThatIsAlwaysShortOfGoodUpdatesBacksOffSaysWhyAndEnds() async throws {
        let bench = try await Bench(.sqlite)
        let specification = try RunSpecification.sample {
            $0.rounds = 2
            $0.cohort += ["goal": 3, "minimum": 3, "over_selection": 1, "max_attempts": 4]
            $0.aggregation.anomalies += ["action": "exclude", "norm_ratio": 5]
        }
        let (run, clients) = try await bench.startRun(specification, clients: 3)
        var coordinator = bench.coordinator
        for attempt in 1...4 {
            try await Bench.playRound(coordinator, run, clients, [0.1, 0.1, 20])
            let shown = try #require(try await coordinator.rounds(run: run).last)
            #expect(shown.attempt == attempt && shown.state == .abandoned)
            if attempt == 2 { coordinator = try await bench.restarted() }
            let waiting = try await coordinator.run(run).waitingFor
            let seconds = 1 << (attempt - 1)
            #expect(waiting.contains("attempt \(attempt + 1) to open in \(seconds) s"), "\(waiting)")
            #expect(waiting.contains("1 of 3 updates stood out") && waiting.contains("minimum of 3"), "\(waiting)")
            // Nobody gets work meanwhile; a pause is possible, and holds.
            let answer = try await coordinator.checkIn(client: clients[0], CheckInRequest(), wait: .zero)
            #expect(answer.reason == "between_attempts")
            if attempt == 3 {
                #expect(try await coordinator.pauseRun(run).waitingFor == "the run to be resumed")
                bench.clock.advance(by: 1000)
                try await coordinator.tick()
                #expect(try await coordinator.rounds(run: run).count == 3)
                _ = try await coordinator.resumeRun(run)
            } else {
                bench.clock.advance(by: Double(seconds) + 0.01)
                try await coordinator.tick()
            }
        }
        let view = try await coordinator.run(run)
        #expect(view.state == .failed && view.reason?.contains("attempts_exhausted") == true)
        let cause = try #require(try await coordinator.roundHistory(run: run, number: 0).last?.cause)
        #expect(cause.contains("failed in 4 attempts") && cause.contains("stood out"), "\(cause)")
    }
}
