import Coordination
import Foundation
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

/// Further turns of a client whose work in an attempt ended without an accepted update.
@Suite(.timeLimit(.minutes(10)))
struct TurnTests {
    private func fail(_ bench: Bench, _ client: String, _ id: String, _ code: FailureCode = .noData) async throws {
        try await bench.coordinator.reportFailure(assignment: id, client: client, FailureReport(code: code))
    }

    /// Three clients, goal 3: one bad update must not throw the other two away.
    @Test(arguments: Bench.StoreKind.allCases)
    func aRefusedClientGetsItsPlaceBack(_ kind: Bench.StoreKind) async throws {
        let bench = try await Bench(kind)
        let (run, clients) = try await bench.startRun(
            try Bench.exactSpecification(rounds: 1) {
                $0.cohort += ["goal": 3, "minimum": 3, "max_participations": 1]
            },
            clients: 3
        )
        var coordinator = bench.coordinator
        for client in clients.dropFirst() {
            let id = try #require(try await Bench.assignment(coordinator, client)).id
            _ = try await Bench.submit(coordinator, client, id, value: 1)
        }
        var ids: [String] = []
        for turn in 1...3 {
            let id = try #require(try await Bench.assignment(coordinator, clients[0]), "turn \(turn)").id
            ids.append(id)
            if turn == 1 { try await coordinator.rejectUpdate(assignment: id, client: clients[0], code: "not_finite") }
            if turn == 2 {
                // What was had survives a restart, with the number of turns.
                coordinator = try await bench.restarted()
                #expect(try await Bench.assignment(coordinator, clients[0])?.id == id)
                try await coordinator.reportFailure(
                    assignment: id,
                    client: clients[0],
                    FailureReport(code: .trainingFailed)
                )
                coordinator = try await bench.restarted()
            }
        }
        #expect(Set(ids).count == 3)
        _ = try await Bench.submit(coordinator, clients[0], ids[2], value: 4)
        #expect(try await Bench.untilSettled(coordinator, run).state == .completed)
        #expect(try await Bench.model(coordinator, run).first == 2)
        let round = try await coordinator.round(run: run, number: 1)
        #expect(round.attempt == 1 && round.accepted == 3 && round.rejected == 1 && round.failed == 1)
    }

    @Test func aClientHasThreeTurnsAndNoneAfterNotEligible() async throws {
        let bench = try await Bench(.memory)
        let (_, clients) = try await bench.startRun(
            try Bench.exactSpecification { $0.cohort += ["goal": 3, "minimum": 3] },
            clients: 3
        )
        for _ in 0..<3 {
            let id = try #require(try await Bench.assignment(bench.coordinator, clients[0])).id
            try await fail(bench, clients[0], id)
        }
        #expect(try await Bench.assignment(bench.coordinator, clients[0]) == nil)
        let id = try #require(try await Bench.assignment(bench.coordinator, clients[1])).id
        try await fail(bench, clients[1], id, .notEligible)
        #expect(try await Bench.assignment(bench.coordinator, clients[1]) == nil)
    }

    /// What privacy is charged by: how often a client takes part, whatever the number of its turns.
    @Test(arguments: Bench.StoreKind.allCases)
    func turnsAreOneParticipation(_ kind: Bench.StoreKind) async throws {
        let bench = try await Bench(kind)
        let (run, clients) = try await bench.startRun(
            try Bench.exactSpecification(rounds: 3) {
                $0.cohort += ["goal": 2, "minimum": 1, "max_participations": 2]
            },
            clients: 2
        )
        for client in clients {
            for _ in 0..<2 {
                let id = try #require(try await Bench.assignment(bench.coordinator, client)).id
                try await fail(bench, client, id)
            }
            let id = try #require(try await Bench.assignment(bench.coordinator, client)).id
            _ = try await Bench.submit(bench.coordinator, client, id, value: 1)
        }
        _ = try await Bench.untilSettled(bench.coordinator, run)
        let restarted = try await bench.restarted()
        for client in clients {
            #expect(try await Bench.assignment(restarted, client) != nil, "one of two participations is spent")
        }
    }

    /// A draw is replaced by nobody, and its members have one turn.
    @Test(arguments: [["policy": "all"], ["policy": "poisson", "sampling_rate": 1]] as [RunFile])
    func aDrawnClientHasOneTurn(_ policy: RunFile) async throws {
        let bench = try await Bench(.memory)
        let (_, clients) = try await bench.startRun(
            try Bench.exactSpecification {
                $0.cohort += ["goal": 2, "minimum": 1]
                $0.cohort.add(policy)
            },
            clients: 3
        )
        let id = try #require(try await Bench.assignment(bench.coordinator, clients[0])).id
        try await fail(bench, clients[0], id)
        #expect(try await Bench.assignment(bench.coordinator, clients[0]) == nil)
    }

    private func startLocal(_ kind: Bench.StoreKind) async throws -> (Bench, [String]) {
        let bench = try await Bench(kind)
        let (_, clients) = try await bench.startRun(
            try Bench.exactSpecification(rounds: 1) {
                $0.cohort += ["goal": 2, "minimum": 1, "max_participations": 1]
                $0.privacy += ["mode": "local", "noise_multiplier": 4]
                $0.privacy.clipping.norm = 1
            },
            budget: .init(epsilon: 50, delta: 1e-5),
            clients: 3
        )
        return (bench, clients)
    }

    private static let digests = [[UInt8](repeating: 1, count: 32), [UInt8](repeating: 2, count: 32)]

    /// A cut upload costs no place: the same bytes are the same release, in a further turn too.
    @Test(arguments: ["begun", "not begun"])
    func aLocalReleaseMayComeAgain(_ upload: String) async throws {
        let (bench, clients) = try await startLocal(.memory)
        let coordinator = bench.coordinator
        for turn in 1...3 {
            let id = try #require(try await Bench.assignment(coordinator, clients[0]), "turn \(turn)").id
            if upload == "begun" {
                _ = try await coordinator.beginUpdate(assignment: id, client: clients[0], digest: Self.digests[0])
            }
            try await fail(bench, clients[0], id, .cancelled)
        }
        #expect(try await Bench.assignment(coordinator, clients[0]) == nil)
    }

    /// Other bytes would be a second release: they are refused before one of them is read, and the client is out.
    @Test func aSecondLocalReleaseIsNotTaken() async throws {
        let (bench, clients) = try await startLocal(.memory)
        let coordinator = bench.coordinator
        let first = try #require(try await Bench.assignment(coordinator, clients[0])).id
        for _ in 0..<2 {
            _ = try await coordinator.beginUpdate(assignment: first, client: clients[0], digest: Self.digests[0])
        }
        try await fail(bench, clients[0], first, .cancelled)
        let second = try #require(try await Bench.assignment(coordinator, clients[0])).id
        let error = await #expect(throws: CoordinationError.self) {
            try await coordinator.beginUpdate(assignment: second, client: clients[0], digest: Self.digests[1])
        }
        #expect(error?.code == "update_differs")
        #expect(try await Bench.assignment(coordinator, clients[0]) == nil)
        let round = try await coordinator.round(run: bench.coordinator.listRuns(limit: 1).items[0].id, number: 1)
        #expect(round.rejected == 1)
    }

    @Test(arguments: ["refused", "without a digest", "restart"], Bench.StoreKind.allCases)
    func aLocalReleaseIsNotFollowedByAnother(_ end: String, _ kind: Bench.StoreKind) async throws {
        let (bench, clients) = try await startLocal(kind)
        let id = try #require(try await Bench.assignment(bench.coordinator, clients[0])).id
        _ = try await bench.coordinator.beginUpdate(
            assignment: id,
            client: clients[0],
            digest: end == "without a digest" ? nil : Self.digests[0]
        )
        if end == "refused" {
            try await bench.coordinator.rejectUpdate(assignment: id, client: clients[0], code: "not_finite")
        } else {
            try await fail(bench, clients[0], id, .cancelled)
        }
        if end != "restart" { #expect(try await Bench.assignment(bench.coordinator, clients[0]) == nil) }
        let restarted = try await bench.restarted()
        if end == "restart" {
            // What was begun is known after a restart too: the same bytes may come again, others are refused unread.
            let second = try #require(try await Bench.assignment(restarted, clients[0])).id
            let error = await refusal {
                try await restarted.beginUpdate(assignment: second, client: clients[0], digest: Self.digests[1])
            }
            #expect(error?.code == "update_differs")
        }
        #expect(try await Bench.assignment(restarted, clients[0]) == nil)
    }

    /// Work that goes on over a restart is held to what was begun, and so is the client once the work has ended.
    @Test(arguments: [true, false])
    func aLocalReleaseBindsOverARestart(_ isSaid: Bool) async throws {
        let (bench, clients) = try await startLocal(.sqlite)
        let id = try #require(try await Bench.assignment(bench.coordinator, clients[0])).id
        let digest = isSaid ? Self.digests[0] : nil
        _ = try await bench.coordinator.beginUpdate(assignment: id, client: clients[0], digest: digest)
        let restarted = try await bench.restarted()
        if isSaid {
            let error = await refusal {
                try await restarted.beginUpdate(assignment: id, client: clients[0], digest: Self.digests[1])
            }
            #expect(error?.code == "update_differs")
        } else {
            try await restarted.rejectUpdate(assignment: id, client: clients[0], code: "not_finite")
        }
        #expect(try await Bench.assignment(restarted, clients[0]) == nil)
    }

    /// With central privacy a buffer holds one update of a client: a late failure of older work must not let in a second one.
    @Test func aBufferHoldsOneUpdateOfAClient() async throws {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(
            try Bench.exactSpecification {
                $0.cohort += ["goal": 2, "minimum": 2]
                $0.aggregation.mode = "buffered"
                $0.aggregation.buffered += ["concurrency": 3, "max_staleness": 5]
            },
            clients: 3
        )
        let coordinator = bench.coordinator
        let slow = try #require(try await Bench.assignment(coordinator, clients[0])).id
        for client in clients.dropFirst() {
            let id = try #require(try await Bench.assignment(coordinator, client)).id
            _ = try await Bench.submit(coordinator, client, id, value: 1)
        }
        _ = try await Bench.untilSettled(coordinator, run)
        // Of the first round, in the second one's buffer.
        _ = try await Bench.submit(coordinator, clients[0], slow, value: 1)
        #expect(try await Bench.assignment(coordinator, clients[0]) == nil)
        let again = try #require(try await Bench.assignment(coordinator, clients[1])).id
        try await fail(bench, clients[1], again)
        #expect(try await Bench.assignment(coordinator, clients[1]) != nil)
    }

    // MARK: - Nobody left

    @Test(arguments: [(2, "aggregated"), (3, "abandoned")])
    func anAttemptThatNobodyMayJoinEndsAtOnce(_ minimum: Int, _ end: String) async throws {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(
            try Bench.exactSpecification(rounds: 1) { $0.cohort += ["goal": 3, "minimum": minimum] },
            clients: 3
        )
        let coordinator = bench.coordinator
        for client in clients.dropFirst() {
            let id = try #require(try await Bench.assignment(coordinator, client)).id
            _ = try await Bench.submit(coordinator, client, id, value: 1)
        }
        for _ in 0..<3 {
            try await coordinator.tick()
            #expect(try await coordinator.rounds(run: run).last?.attempt == 1)
            let id = try #require(try await Bench.assignment(coordinator, clients[0])).id
            try await fail(bench, clients[0], id)
        }
        try await coordinator.tick()
        _ = try await Bench.untilSettled(coordinator, run)
        let round = try await coordinator.round(run: run, number: 1)
        #expect(round.state == (end == "abandoned" ? .abandoned : .committed))
        let history = try await coordinator.roundHistory(run: run, number: 1, assignments: false)
        #expect(history.contains { $0.cause.contains("no enrolled client is left") }, "\(history.map(\.cause))")
    }

    /// Somebody who is not there may come; somebody may enroll where the population is smaller than the minimum.
    @Test func anAttemptWaitsForClientsThatMayCome() async throws {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(
            try Bench.exactSpecification(rounds: 1) {
                $0.cohort += ["goal": 3, "minimum": 3, "max_participations": 1]
            },
            clients: 2
        )
        let coordinator = bench.coordinator
        for client in clients {
            let id = try #require(try await Bench.assignment(coordinator, client)).id
            _ = try await Bench.submit(coordinator, client, id, value: 1)
        }
        try await coordinator.tick()
        #expect(try await coordinator.round(run: run, number: 1).state == .selecting)
        let late = try await bench.enroll(1, prefix: "late")
        for _ in 0..<3 { try await coordinator.tick() }
        #expect(try await coordinator.round(run: run, number: 1).state == .selecting)
        try await coordinator.revokeClient(late[0])
        for _ in 0..<3 { try await coordinator.tick() }
        #expect(try await coordinator.round(run: run, number: 1).state == .selecting, "two are fewer than the minimum")
    }

    /// The search goes on where it ended, and looks again at whoever has changed.
    @Test func aClientThatChangesIsLookedAtAgain() async throws {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(
            try Bench.exactSpecification(rounds: 1) {
                $0.cohort += ["goal": 2, "minimum": 2, "requirements": "network == 'wifi'"]
            },
            clients: 2
        )
        let coordinator = bench.coordinator
        func say(_ client: String, _ network: String) async throws -> CheckInResponse {
            var capabilities = ClientCapabilities()
            capabilities.network = network
            return try await coordinator.checkIn(
                client: client,
                CheckInRequest(capabilities: capabilities),
                wait: .zero
            )
        }
        let first = try #require(try await say(clients[0], "wifi").assignment).id
        _ = try await say(clients[1], "wifi")
        _ = try await Bench.submit(coordinator, clients[0], first, value: 1)
        let second = try #require(try await Bench.assignment(coordinator, clients[1])).id
        try await fail(bench, clients[1], second)
        try await coordinator.tick()
        #expect(try await coordinator.round(run: run, number: 1).attempt == 1)
        #expect(try await coordinator.round(run: run, number: 1).state != .abandoned)
        #expect(try await say(clients[1], "wifi").assignment != nil)
    }
}
