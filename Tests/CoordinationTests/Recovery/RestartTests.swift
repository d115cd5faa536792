import Coordination
import Foundation
import StrictJSON
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

/// What lives in memory only, after a restart in the middle of a round: it begins anew, and nobody is worse off.
@Suite(.timeLimit(.minutes(10)))
struct RestartTests {
    private func reason(_ coordinator: Coordinator, _ client: String) async throws -> String? {
        try await coordinator.checkIn(client: client, CheckInRequest(), wait: .zero).reason
    }

    /// Signs of life are not stored: who gave one just before the stop must not be taken for dead after it.
    @Test(arguments: Bench.StoreKind.allCases)
    func everyClientHasItsWholeLeaseAgain(_ kind: Bench.StoreKind) async throws {
        let bench = try await Bench(kind)
        let (run, clients) = try await bench.startRun(
            try Bench.exactSpecification(rounds: 2) {
                $0.cohort += ["goal": 1, "minimum": 1, "lease_s": 10]
            },
            clients: 1
        )
        let work = try #require(try await Bench.assignment(bench.coordinator, clients[0]))
        for _ in 0..<2 {
            bench.clock.advance(by: 9)
            _ = try await bench.coordinator.heartbeat(
                assignment: work.id,
                client: clients[0],
                HeartbeatRequest(phase: .training)
            )
        }
        bench.clock.advance(by: 9)
        let restarted = try await bench.restarted()
        bench.clock.advance(by: 9)
        try await restarted.tick()
        #expect(try await restarted.round(run: run, number: 1).expired == 0)
        #expect(try await Bench.assignment(restarted, clients[0])?.id == work.id)
        // Who does not come back is replaced all the same.
        bench.clock.advance(by: 2)
        try await restarted.tick()
        #expect(try await restarted.round(run: run, number: 1).expired == 1)
    }

    /// Who had checked in was told to come again at the end of the window; there is another one then.
    @Test(arguments: Bench.StoreKind.allCases)
    func aCohortThatWasBeingChosenIsChosenAnew(_ kind: Bench.StoreKind) async throws {
        let bench = try await Bench(kind)
        let (run, clients) = try await bench.startRun(
            try Bench.exactSpecification(rounds: 2) { $0.cohort += ["goal": 2, "policy": "uniform"] },
            clients: 6
        )
        for client in clients.prefix(4) {
            #expect(try await reason(bench.coordinator, client) == "in_selection")
        }
        bench.clock.advance(by: 40)
        let restarted = try await bench.restarted()
        let said = try await restarted.run(run).waitingFor
        #expect(said.contains("0 checked in") && said.contains("50 s left"), "\(said)")
        let causes = try await restarted.roundHistory(run: run, number: 1).map(\.cause)
        #expect(causes == ["opened", "the server was restarted: the selection began anew"])
        bench.clock.advance(by: 11)
        try await restarted.tick()
        for client in clients.prefix(4) { #expect(try await reason(restarted, client) == "in_selection") }
        bench.clock.advance(by: 40)
        try await restarted.tick()
        var chosen = 0
        for client in clients where try await Bench.assignment(restarted, client) != nil { chosen += 1 }
        #expect(chosen == 2)
        // A cohort that has been chosen stays the one it is.
        _ = try await bench.restarted()
        #expect(
            try await restarted.roundHistory(run: run, number: 1).map(\.state) == [
                "selecting", "selecting", "reporting",
            ]
        )
    }

    @Test func tiersAndTheCountOfThoseWhoMayTakePartAreKnown() async throws {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(
            try Bench.exactSpecification(rounds: 2) {
                $0.cohort += ["goal": 4, "minimum": 1, "tiers": 2]
            },
            clients: 4
        )
        for (index, client) in clients.enumerated() {
            let id = try #require(try await Bench.assignment(bench.coordinator, client)).id
            bench.clock.advance(by: index < 2 ? 1 : 20)
            _ = try await Bench.submit(bench.coordinator, client, id, value: 1)
        }
        _ = try await Bench.untilSettled(bench.coordinator, run)
        let picky = try await bench.coordinator.createRun(
            try Bench.exactSpecification(rounds: 2) {
                $0.cohort += ["goal": 2, "minimum": 1]
                $0.cohort.requirements = "labels.locale == 'zh'"
            },
            initialModel: .init(zeros: Bench.layout)
        ).id
        _ = try await bench.coordinator.startRun(picky)
        let restarted = try await bench.restarted()
        #expect(try await restarted.run(picky).waitingFor.contains("Only 0 clients meet the run's requirements"))
        for client in clients { #expect(try await Bench.assignment(restarted, client) != nil) }
        #expect(try await restarted.round(run: run, number: 2).tiers.map(\.assigned) == [2, 2])
    }

    @Test(
        "A receipt waits for no file of a model: the client of a run that is over is answered though its models are gone."
    )
    func receiptsWaitForNoModel() async throws {
        let bench = try await Bench(.sqlite)
        let (run, clients) = try await bench.startRun(
            try Bench.exactSpecification(rounds: 1) { $0.cohort += ["goal": 1, "minimum": 1] },
            clients: 1
        )
        let work = try #require(try await Bench.assignment(bench.coordinator, clients[0]))
        let receipt = try await Bench.submit(bench.coordinator, clients[0], work.id, value: 1)
        #expect(try await Bench.untilSettled(bench.coordinator, run).state == .completed)
        for version in try await bench.coordinator.models(run: run).items {
            try FileManager.default.removeItem(atPath: bench.coordinator.blobs.path(sha256: version.sha256))
        }
        let restarted = try await bench.restarted()
        for isReceiving in [true, false] {
            let terms = try await restarted.beginUpdate(
                assignment: work.id,
                client: clients[0],
                isReceiving: isReceiving
            )
            #expect(terms.accepted?.sha256 == receipt.sha256 && terms.byteLimit >= receipt.bytes)
        }
        let again = try await Bench.submit(restarted, clients[0], work.id, value: 1)
        #expect(again.sha256 == receipt.sha256)
    }

    /// A sum over other updates than those that were acknowledged would be published as if it were theirs.
    @Test("An attempt whose count is not that of its assignments publishes nothing.", arguments: [-1, 1])
    func countsThatDifferPublishNothing(_ difference: Int) async throws {
        let bench = try await Bench(.sqlite)
        let (run, clients) = try await bench.startRun(
            try Bench.exactSpecification(rounds: 1) { $0.cohort += ["goal": 3, "minimum": 1] },
            clients: 3
        )
        for client in clients.prefix(2) {
            let work = try #require(try await Bench.assignment(bench.coordinator, client))
            _ = try await Bench.submit(bench.coordinator, client, work.id, value: 1)
        }
        var round = try #require(try bench.store.load().rounds.last)
        round.accepted += difference
        try bench.store.commit([.round(round)])
        let restarted = try await bench.restarted()
        // In steps: a clock that jumps gives the time back.
        for _ in 0..<100 {
            bench.clock.advance(by: 2)
            try await restarted.tick()
        }
        _ = try await Bench.untilSettled(restarted, run)
        let first = try await restarted.rounds(run: run).first { $0.attempt == 1 }
        #expect(first?.state == .abandoned, "\(String(describing: first))")
        #expect(first?.reason?.contains("changed from outside") == true)
        #expect(try await restarted.models(run: run).items.count == 1)
    }
}
