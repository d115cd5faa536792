import Coordination
import Foundation
import StrictJSON
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

/// Who is asked at all: requirements, versions, labels, separation, and the shares of slow devices.
@Suite(.timeLimit(.minutes(10)))
struct EligibilityTests {
    @Test func requirementsVersionsAndLabelsDecideWhoIsAsked() async throws {
        let bench = try await Bench(.memory)
        let rule = #"memory_bytes >= 2e9 && labels.locale == 'zh' && num_examples > 10"#
        let (run, clients) = try await bench.startRun(
            try Bench.timedSpecification {
                $0.cohort += ["goal": 2, "requirements": rule, "minimum_client_version": "1.10"]
            },
            clients: 2
        )
        #expect(try await bench.checkIn(clients[0], examples: 50).reason == "client_too_old")
        _ = try await bench.coordinator.changeClient(
            clients[0],
            ClientChange(capabilities: .init(memoryBytes: 4_000_000_000, runtimeVersion: "1.9.9"))
        )
        #expect(try await bench.checkIn(clients[0], examples: 50).reason == "client_too_old")
        _ = try await bench.coordinator.changeClient(
            clients[0],
            ClientChange(capabilities: .init(memoryBytes: 4_000_000_000, runtimeVersion: "1.10"))
        )
        #expect(try await bench.checkIn(clients[0], examples: 50).reason == "not_eligible")
        _ = try await bench.coordinator.changeClient(clients[0], ClientChange(labels: ["locale": "zh"]))
        #expect(try await bench.checkIn(clients[0]).reason == "not_eligible")
        #expect(try await bench.checkIn(clients[0], examples: 50).assignment != nil)
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
                if round > 1 { #expect(try await bench.checkIn(other).reason == "too_soon") }
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
            if try await bench.checkIn(client).assignment != nil { taken.append(client) }
        }
        #expect(taken.count == 4)
        let tiers = try await bench.coordinator.round(run: run, number: 2).tiers
        #expect(tiers.map(\.assigned) == [2, 2], "\(tiers)")
        // What was heard of each is reported beside it.
        let id = try #require(try await Bench.assignment(bench.coordinator, clients[2])).id
        _ = try await Bench.submit(bench.coordinator, clients[2], id, value: 1)
        #expect(try await bench.coordinator.round(run: run, number: 2).tiers.map(\.accepted) == [1, 0])
    }
}
