import Coordination
import Foundation
import Logging
import StrictJSON
import Synchronization
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

/// Long polls wake at once when there is something for them: no tick of the clock is needed.
@Suite(.timeLimit(.minutes(10)))
struct WakingTests {
    /// A check-in that would wait for an hour.
    private struct Poll: Sendable {
        let task: Task<CheckInResponse, any Error>

        init(_ bench: Bench, _ client: String) {
            let coordinator = bench.coordinator
            task = Task { try await coordinator.checkIn(client: client, CheckInRequest(), wait: .seconds(3600)) }
        }
    }

    /// Long polls of these clients, once all of them wait.
    private func polls(_ bench: Bench, _ clients: some Sequence<String>) async throws -> [Poll] {
        let before = await bench.coordinator.waiterCount
        let polls = clients.map { Poll(bench, $0) }
        try await wait(for: "the long polls") { await bench.coordinator.waiterCount == before + polls.count }
        return polls
    }

    /// Waits until only so many long polls are left, and gives them up when that does not come.
    private func expect(_ bench: Bench, left: Int, of polls: [Poll]) async throws {
        do {
            try await wait(for: "long polls to wake") { await bench.coordinator.waiterCount == left }
        } catch {
            for poll in polls { poll.task.cancel() }
            throw error
        }
    }

    @Test func whenTheNextRoundOpens() async throws {
        let bench = try await Bench(.memory)
        let (_, clients) = try await bench.startRun(
            try Bench.exactSpecification(rounds: 2) { $0.cohort += ["goal": 1, "minimum": 1] },
            clients: 2
        )
        let id = try #require(try await Bench.assignment(bench.coordinator, clients[0])).id
        let polls = try await polls(bench, clients.suffix(1))
        _ = try await Bench.submit(bench.coordinator, clients[0], id, value: 1)
        try await expect(bench, left: 0, of: polls)
        #expect(try await polls[0].task.value.assignment?.round == 2)
    }

    /// Each transaction waits for the disk: the last update, the end of the round, the model, the next round, the assignment.
    @Test func betweenTheLastUpdateAndTheNextAssignmentLieFiveTransactions() async throws {
        let bench = try await Bench(.memory)
        let store = CountingStore(bench.store)
        let (run, clients) = try await bench.startRun(
            try Bench.exactSpecification(rounds: 2) { $0.cohort += ["goal": 2, "minimum": 1] },
            clients: 3
        )
        let coordinator = try await Bench.start(bench.directory, bench.clock, store)
        for client in clients.prefix(2) {
            let id = try #require(try await Bench.assignment(coordinator, client)).id
            if client == clients[1] { store.count = 0 }
            _ = try await Bench.submit(coordinator, client, id, value: 1)
        }
        try await wait(for: "the next round") { try await coordinator.rounds(run: run).count == 2 }
        #expect(try await Bench.assignment(coordinator, clients[2])?.round == 2)
        #expect(store.count == 5)
    }

    @Test func whenARunIsStartedAndResumed() async throws {
        let bench = try await Bench(.memory)
        let coordinator = bench.coordinator
        _ = try await coordinator.createPopulation(PopulationRequest(name: "p", budget: nil))
        let run = try await coordinator.createRun(
            try Bench.exactSpecification(rounds: 2) { $0.cohort += ["goal": 2, "minimum": 1] },
            initialModel: .init(zeros: Bench.layout)
        ).id
        let clients = try await bench.enroll(2)
        let first = try await polls(bench, clients.prefix(1))
        _ = try await coordinator.startRun(run)
        try await expect(bench, left: 0, of: first)
        #expect(try await first[0].task.value.assignment?.run == run)
        _ = try await coordinator.pauseRun(run)
        let second = try await polls(bench, clients.suffix(1))
        _ = try await coordinator.resumeRun(run)
        try await expect(bench, left: 0, of: second)
        #expect(try await second[0].task.value.assignment?.round == 1)
    }

    /// Who waited before the round opened takes part in the choice without asking again; who is not chosen waits on.
    @Test func whenTheyAreChosenAndNotBefore() async throws {
        let bench = try await Bench(.memory)
        let coordinator = bench.coordinator
        _ = try await coordinator.createPopulation(PopulationRequest(name: "p", budget: nil))
        let run = try await coordinator.createRun(
            try Bench.exactSpecification(rounds: 2) {
                $0.cohort += ["goal": 2, "minimum": 1, "policy": "uniform"]
            },
            initialModel: .init(zeros: Bench.layout)
        ).id
        let clients = try await bench.enroll(5)
        let early = try await polls(bench, clients.prefix(3))
        _ = try await coordinator.startRun(run)
        #expect(try await coordinator.run(run).waitingFor.contains("3 checked in"))
        let late = try await polls(bench, clients.suffix(2))
        #expect(try await coordinator.run(run).waitingFor.contains("5 checked in"))
        bench.clock.advance(by: 51)
        try await coordinator.tick()
        let all = early + late
        try await expect(bench, left: 3, of: all)
        var chosen = 0
        await coordinator.stopServing()
        for poll in all where try await poll.task.value.assignment != nil { chosen += 1 }
        #expect(chosen == 2)
    }

    /// Else one client could hold the places of many, and take an opening's wake-up with each of its polls.
    @Test func aClientHasOneLongPoll() async throws {
        let bench = try await Bench(.memory)
        let (_, clients) = try await bench.startRun(
            try Bench.exactSpecification(rounds: 2) { $0.cohort += ["goal": 1, "minimum": 1] },
            clients: 3
        )
        let coordinator = bench.coordinator
        _ = try await Bench.assignment(coordinator, clients[0])
        func poll(_ client: String) -> Task<CheckInResponse, any Error> {
            Task { try await coordinator.checkIn(client: client, CheckInRequest(), wait: .seconds(3600)) }
        }
        let other = poll(clients[2])
        try await wait(for: "the other client's poll") { await coordinator.waiterCount == 1 }
        var polls = [poll(clients[1])]
        try await wait(for: "the first poll") { await coordinator.waiterCount == 2 }
        for _ in 0..<3 {
            polls.append(poll(clients[1]))
            // The newer one waits, and the older one is answered.
            #expect(try await polls.removeFirst().value.reason == "no_open_slot")
            #expect(await coordinator.waiterCount == 2)
        }
        await coordinator.stopServing()
        #expect(try await polls[0].value.reason == "no_open_slot")
        #expect(try await other.value.reason == "no_open_slot")
    }

    @Test func whenTheyHaveWaitedLongEnoughOrMayNotWait() async throws {
        let bench = try await Bench(.memory)
        let (_, clients) = try await bench.startRun(
            try Bench.exactSpecification(rounds: 2) { $0.cohort += ["goal": 1, "minimum": 1] },
            clients: 4
        )
        _ = try await Bench.assignment(bench.coordinator, clients[0])
        let short = try await bench.coordinator.checkIn(
            client: clients[1],
            CheckInRequest(),
            wait: .milliseconds(20)
        )
        #expect(short.reason == "no_open_slot")
        // As many wait as the configuration says; the others are answered at once, as everybody is when the server stops.
        let coordinator = try await bench.restarted { $0.waiterLimit = 1 }
        let waiting = Task {
            try await coordinator.checkIn(client: clients[1], CheckInRequest(), wait: .seconds(3600))
        }
        try await wait(for: "the long poll") { await coordinator.waiterCount == 1 }
        for client in [clients[2], clients[3]] {
            let answer = try await coordinator.checkIn(client: client, CheckInRequest(), wait: .seconds(3600))
            #expect(answer.reason == "no_open_slot")
            // From the first answer on the server stops, and there is room.
            await coordinator.stopServing()
        }
        #expect(try await waiting.value.reason == "no_open_slot")
    }

    /// The one place that becomes free goes to a client that may have it.
    @Test func whenTheyAreRevokedWithoutTakingAPlace() async throws {
        let bench = try await Bench(.memory)
        let (_, clients) = try await bench.startRun(
            try Bench.exactSpecification(rounds: 2) { $0.cohort += ["goal": 1, "minimum": 1] },
            clients: 3
        )
        let id = try #require(try await Bench.assignment(bench.coordinator, clients[0])).id
        let revoked = try await polls(bench, [clients[1]])
        let waiting = try await polls(bench, [clients[2]])
        try await bench.coordinator.revokeClient(clients[1])
        try await expect(bench, left: 1, of: revoked + waiting)
        let refusal = await #expect(throws: CoordinationError.self) { try await revoked[0].task.value }
        #expect(refusal?.code == "client_revoked")
        try await bench.coordinator.reportFailure(
            assignment: id,
            client: clients[0],
            FailureReport(code: .noData)
        )
        try await expect(bench, left: 0, of: waiting)
        #expect(try await waiting[0].task.value.assignment != nil)
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
}

/// Counts the transactions that another store takes.
private final class CountingStore: ForwardingRunStore {
    let inner: any RunStore
    private let commits = Mutex(0)

    init(_ inner: any RunStore) { self.inner = inner }

    var count: Int {
        get { commits.withLock { $0 } }
        set { commits.withLock { $0 = newValue } }
    }

    func commit(_ changes: [StoreChange]) throws {
        commits.withLock { $0 += 1 }
        try inner.commit(changes)
    }
}
