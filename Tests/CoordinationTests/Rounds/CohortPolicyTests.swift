import Coordination
import Foundation
import StrictJSON
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

/// Who is in a round: chosen when the window ends, drawn, or everyone.
@Suite(.timeLimit(.minutes(10)))
struct CohortPolicyTests {
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
            let answer = try await bench.checkIn(client)
            #expect(answer.reason == "in_selection" && answer.assignment == nil)
            // Everyone is asked to come back when the choice is made.
            #expect(abs(try #require(answer.retryWindow).minS - 50) < 0.01)
        }
        #expect(try await bench.coordinator.run(run).waitingFor.contains("30 checked in"))
        bench.clock.advance(by: 51)
        try await bench.coordinator.tick()
        #expect(try await bench.coordinator.round(run: run, number: 1).state == .reporting)
        var chosen = 0
        for client in clients where try await bench.checkIn(client).assignment != nil { chosen += 1 }
        #expect(chosen == 6)
    }

    @Test func theReservoirGivesEveryArrivalTheSameChance() {
        // 20,000 draws of 5 from 20: each client is in 5,000 times, standard deviation 61; 7 of them: under 1e-10 for all 20.
        var generator = Xoshiro256StarStar(seed: 7)
        var counts: [String: Int] = [:]
        for _ in 0..<20_000 {
            let reservoir = Reservoir(capacity: 5)
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
            let answer = try await bench.checkIn(client)
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
        let again = try await bench.checkIn(drawn[0].client)
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
}
