import Coordination
import Foundation
import Logging
import TestBenches
import TestSupport
import Testing
import WireFormat

@Suite(.timeLimit(.minutes(10)))
struct EventTests {
    @Test(arguments: Bench.StoreKind.allCases)
    func everyChangeOfPhaseIsAnEventInItsTransactionAndSurvivesARestart(_ kind: Bench.StoreKind) async throws {
        let bench = try await Bench(kind)
        let (run, clients) = try await bench.startRun(
            try Bench.specification { $0.privacy += ["mode": "central", "noise_multiplier": 1] },
            budget: BudgetSpecification(epsilon: 8, delta: 1e-5)
        )
        var ids: [String] = []
        for client in clients.prefix(3) {
            ids.append(try #require(try await Bench.assignment(bench.coordinator, client)).id)
        }
        for (client, id) in zip(clients, ids) {
            _ = try await Bench.submit(bench.coordinator, client, id, value: 0)
        }
        _ = try await Bench.untilSettled(bench.coordinator, run)
        let events = try await bench.coordinator.events(after: 0, limit: 1000)
        #expect(events.map(\.id) == Array(1...events.count))
        func states(_ type: String) throws -> [String] {
            try events.filter { $0.type == type && $0.runId == run }.map { row in
                let data = try JSONSerialization.jsonObject(with: Data(row.data.utf8)) as? [String: Any]
                return data?["state"] as? String ?? ""
            }
        }
        #expect(try states("run") == ["created", "running", "completed"])
        // The clock stands still, so the counters' changes of one phase are gathered.
        #expect(try states("round") == ["selecting", "reporting", "aggregating", "committed"])
        #expect(try states("budget") == ["reserved", "committed"])
        #expect(events.filter { $0.type == "model" }.count == 2)
        let restarted = try await bench.restarted()
        #expect(try await restarted.events(after: 0, limit: 1000) == events)
        _ = try await restarted.createRun(
            try Bench.specification { $0.privacy += ["mode": "central", "noise_multiplier": 1] },
            initialModel: nil
        )
        #expect(try await restarted.events(after: events.count, limit: 9).map(\.id) == [events.count + 1])
    }

    @Test func countersAreToldWhenTimePassesAndClientsOnceASecond() async throws {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(try Bench.specification(goal: 4), clients: 4)
        _ = try await Bench.assignment(bench.coordinator, clients[0])
        _ = try await Bench.assignment(bench.coordinator, clients[1])
        let before = try await bench.coordinator.events(after: 0, limit: 1000)
        try await bench.coordinator.tick()
        #expect(try await bench.coordinator.events(after: 0, limit: 1000).count == before.count)
        bench.clock.advance(by: 1)
        try await bench.coordinator.tick()
        let fresh = try await bench.coordinator.events(after: before.count, limit: 1000)
        #expect(fresh.map(\.type) == ["round", "clients"])
        #expect(fresh[0].data.contains("\"assigned\":2"), "\(fresh[0].data)")
        #expect(fresh[1].data.contains(#""clients":{"active":2,"registered":2}"#), "\(fresh[1].data)")
        #expect(fresh[0].runId == run)
    }

    @Test func aListenerHearsWhatHappensAndASlowOneLosesItsStream() async throws {
        let bench = try await Bench(.memory)
        let coordinator = try await bench.restarted {
            $0.eventQueueLimit = 3
            $0.eventListenerLimit = 2
        }
        _ = try await coordinator.createPopulation(PopulationRequest(name: "p", budget: nil))
        let listener = try await coordinator.subscribe()
        let slow = try await coordinator.subscribe()
        await #expect(throws: CoordinationError.self) { try await coordinator.subscribe() }
        var heard: [Int] = []
        var iterator = listener.live.makeAsyncIterator()
        for index in 0..<5 {
            _ = try await coordinator.createRun(try Bench.specification(), initialModel: nil)
            guard case .event(let row)? = await iterator.next() else { continue }
            heard.append(row.id)
            #expect(row.type == "run" && index < 5)
        }
        #expect(heard == Array((listener.headID + 1)...(listener.headID + 5)))
        // Three are queued, the fourth ended the stream.
        var count = 0
        for await _ in slow.live { count += 1 }
        #expect(count == 3)
        await coordinator.stopServing()
        #expect(await iterator.next() == nil)
    }

    @Test func oneTokenHasAQuarterOfTheStreams() async throws {
        let bench = try await Bench(.memory)
        let coordinator = try await bench.restarted { $0.eventListenerLimit = 12 }
        var held: [EventSubscription] = []
        for _ in 0..<3 { held.append(try await coordinator.subscribe(token: "one")) }
        let error = await #expect(throws: CoordinationError.self) { try await coordinator.subscribe(token: "one") }
        #expect(error?.code == "too_many_listeners" && error?.message.contains("3 streams") == true)
        held.append(try await coordinator.subscribe(token: "another"))
        #expect(await coordinator.listenerCount == 4 && held.count == 4)
    }

    @Test func oldEventsAreDropped() async throws {
        let bench = try await Bench(.memory)
        let coordinator = try await bench.restarted { $0.eventRetention = 20 }
        _ = try await coordinator.createPopulation(PopulationRequest(name: "p", budget: nil))
        for _ in 0..<50 { _ = try await coordinator.createRun(try Bench.specification(), initialModel: nil) }
        try await coordinator.tick()
        #expect(try await coordinator.events(after: 0, limit: 100).map(\.id) == Array(31...50))
        #expect(await coordinator.eventRange == (31, 50))
    }
}
