import Foundation
import StrictJSON
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

@testable import Coordination

/// While the ledger may have forgotten charges, nothing of a private run moves; and what an attempt costs when it ends.
@Suite(.timeLimit(.minutes(10)))
struct LedgerAlarmTests {
    private static func specification(_ privacy: RunFile, goal: Int = 2) throws -> RunSpecification {
        try RunSpecification.sample {
            $0.rounds = 4
            $0.privacy = privacy
            $0.cohort += [
                "goal": goal, "minimum": 1, "over_selection": 1, "selection_timeout_s": 50, "report_timeout_s": 50,
                "max_participations": 4,
            ]
        }
    }

    private static let central: RunFile = ["mode": "central", "noise_multiplier": 2]
    private static let local: RunFile = ["mode": "local", "noise_multiplier": 4]

    private func begin(_ privacy: RunFile) async throws -> (bench: Bench, run: String, clients: [String]) {
        let bench = try await Bench(.sqlite)
        let (run, clients) = try await bench.startRun(
            try Self.specification(privacy),
            budget: BudgetSpecification(epsilon: 50, delta: 1e-5),
            clients: 3
        )
        return (bench, run, clients)
    }

    /// The second record of a server that went on after this database was copied.
    private func rollBack(_ bench: Bench) throws {
        let path = bench.directory.path + "/ledger.head"
        var head = try #require(try LedgerHead.read(path: path))
        head.sequence += 3
        try head.write(path: path)
    }

    private func states(_ coordinator: Coordinator, _ run: String) async throws -> [ChargeState] {
        try await coordinator.ledgerRows(population: "p").filter { $0.runId == run }.map(\.state)
    }

    @Test func anAlarmStopsHandingOutTakingAggregatingAndPublishing() async throws {
        let (bench, run, clients) = try await begin(Self.central)
        let first = try #require(try await Bench.assignment(bench.coordinator, clients[0]))
        _ = try await Bench.submit(bench.coordinator, clients[0], first.id, value: 1)
        let second = try #require(try await Bench.assignment(bench.coordinator, clients[1]))
        try rollBack(bench)

        let coordinator = try await bench.restarted()
        #expect(await coordinator.ledgerState().alarm != nil)
        // Neither new work nor what had been handed out, and nothing comes in.
        #expect(try await Bench.assignment(coordinator, clients[2]) == nil)
        #expect(try await Bench.assignment(coordinator, clients[1]) == nil)
        let refused = await refusal { try await Bench.submit(coordinator, clients[1], second.id, value: 1) }
        #expect(refused?.code == "ledger_rolled_back" && refused?.kind == .unavailable)
        // Time closes no round: its minimum is there, and its deadline is over.
        for _ in 0..<4 {
            bench.clock.advance(by: 60)
            try await coordinator.tick()
        }
        let open = try #require(try await coordinator.rounds(run: run).last)
        #expect([.selecting, .reporting].contains(open.state) && open.attempt == 1 && open.accepted == 1)
        #expect(try await coordinator.run(run).committedRounds == 0)

        _ = try await coordinator.acknowledgeRollback(reason: "the disk was lost")
        let ended = try #require(try await coordinator.rounds(run: run).last)
        #expect(ended.state == .abandoned && ended.reason?.contains("rolled back") == true)
        // It collected: nothing of it had been noised. What the record knew and the database did not is another row.
        #expect(try await states(coordinator, run).filter { $0 == .released }.count == 1)
        bench.clock.advance(by: 60)
        try await coordinator.tick()
        #expect(try await Bench.assignment(coordinator, clients[2]) != nil)
    }

    /// What the restored database does not have cannot be charged again; whoever acknowledges is told.
    @Test func aPopulationThatWasMadeAfterTheBackupIsNamed() async throws {
        let (bench, _, _) = try await begin(Self.central)
        let backup = try bench.store.load()
        let later = try await bench.coordinator.createPopulation(
            PopulationRequest(name: "later", budget: BudgetSpecification(epsilon: 3, delta: 1e-5))
        )
        let restored = try await Bench.start(bench.directory, bench.clock, try InMemoryRunStore(restoring: backup))
        let alarm = try #require(await restored.ledgerState().alarm)
        #expect(alarm.contains("does not have \(later.id) with a budget of epsilon 3.0"), "\(alarm)")
        _ = try await restored.acknowledgeRollback(reason: "a test")
        let rows = try await restored.ledgerRows(population: "p")
        #expect(rows.contains { $0.event.contains(later.id) })
    }

    /// A refused start changes nothing.
    @Test func aRunThatIsStartedUnderAnAlarmStaysCreated() async throws {
        let (bench, run, _) = try await begin(Self.central)
        let specification = try await bench.coordinator.run(run).specification
        let other = try await bench.coordinator.createRun(
            specification,
            initialModel: ParameterVector(zeros: Bench.layout)
        )
        try rollBack(bench)
        let restored = try await bench.restarted()
        let refused = await refusal { try await restored.startRun(other.id) }
        #expect(refused?.code == "ledger_rolled_back")
        #expect(try await restored.run(other.id).state == .created)
        _ = try await restored.acknowledgeRollback(reason: "a test")
        #expect(try await restored.startRun(other.id).state == .running)
    }

    @Test func anAggregationThatAStopInterruptedDoesNotPublishUnderAnAlarmAndKeepsItsCharge() async throws {
        let (bench, run, clients) = try await begin(Self.central)
        let assignment = try #require(try await Bench.assignment(bench.coordinator, clients[0]))
        _ = try await Bench.submit(bench.coordinator, clients[0], assignment.id, value: 1)
        var round = try #require(try bench.store.load().rounds.last)
        round.phase = .aggregating
        try bench.store.commit([.round(round)])
        try rollBack(bench)

        let coordinator = try await bench.restarted()
        for _ in 0..<4 {
            bench.clock.advance(by: 60)
            try await coordinator.tick()
        }
        #expect(try await coordinator.run(run).committedRounds == 0)
        #expect(try await states(coordinator, run) == [.reserved])
        _ = try await coordinator.acknowledgeRollback(reason: "the disk was lost")
        #expect(try await coordinator.rounds(run: run).last?.state == .abandoned)
        let row = try #require(
            try await coordinator.ledgerRows(population: "p").last { $0.runId == run && $0.round == 1 }
        )
        #expect(row.state == .committed)
    }

    /// A backup holds no updates of private runs: what it lost, another server may have published.
    @Test func anAttemptThatARestoredBackupLostKeepsItsCharge() async throws {
        let (bench, run, clients) = try await begin(Self.central)
        let assignment = try #require(try await Bench.assignment(bench.coordinator, clients[0]))
        _ = try await Bench.submit(bench.coordinator, clients[0], assignment.id, value: 1)
        let check = DataDirectoryCheck(
            state: try bench.store.load(),
            blobs: bench.coordinator.blobs,
            isBackup: true
        )
        #expect(check.spoolNamesForBackup().isEmpty && check.lostUpdates().isEmpty)
        for name in bench.coordinator.blobs.spoolNames() {
            try FileManager.default.removeItem(atPath: bench.coordinator.blobs.spoolPath(name))
        }
        let coordinator = try await bench.restarted()
        let round = try #require(try await coordinator.rounds(run: run).first)
        #expect(round.state == .abandoned && round.reason?.contains("missing") == true)
        // A charge of its own: this server does not know who took part on the other one.
        #expect(try await states(coordinator, run).prefix(3) == [.reserved, .released, .committed])
    }

    @Test func aBackupHoldsWhatAnOpenRoundWithoutPrivacyNeeds() async throws {
        let bench = try await Bench(.sqlite)
        let (_, clients) = try await bench.startRun(try Bench.specification())
        let assignment = try #require(try await Bench.assignment(bench.coordinator, clients[0]))
        _ = try await Bench.submit(bench.coordinator, clients[0], assignment.id, value: 1)
        let check = DataDirectoryCheck(state: try bench.store.load(), blobs: bench.coordinator.blobs, isBackup: true)
        #expect(check.spoolNamesForBackup() == [assignment.id + ".update"])
    }

    /// Whatever became of the bytes: the client has released them.
    @Test(arguments: [false, true])
    func aLocalAttemptThatWasSentAnyByteKeepsItsCharge(isCut: Bool) async throws {
        let (bench, run, clients) = try await begin(Self.local)
        let assignment = try #require(try await Bench.assignment(bench.coordinator, clients[0]))
        let question = try await bench.coordinator.beginUpdate(
            assignment: assignment.id,
            client: clients[0],
            isReceiving: false
        )
        #expect(question.accepted == nil)
        #expect(try bench.store.load().rounds.last?.hasReceived == false)
        _ = try await bench.coordinator.beginUpdate(assignment: assignment.id, client: clients[0])
        // Durable before the first byte: a stop in the middle of the body forgets it no more than a refusal does.
        #expect(try bench.store.load().rounds.last?.hasReceived == true)
        var coordinator = bench.coordinator
        if isCut {
            coordinator = try await bench.restarted()
        } else {
            try await coordinator.rejectUpdate(assignment: assignment.id, client: clients[0], code: "not_finite")
        }
        _ = try await coordinator.cancelRun(run)
        #expect(try await states(coordinator, run) == [.reserved, .committed])
    }

    /// A device that was handed work sends it when nobody waits for it any more, also to a server that is being restarted.
    @Test func aLocalAttemptKeepsItsChargeWhileBytesMayComeLate() async throws {
        let (bench, run, clients) = try await begin(Self.local)
        let late = try #require(try await Bench.assignment(bench.coordinator, clients[0]))
        _ = try await bench.coordinator.cancelRun(run)
        #expect(try await states(bench.coordinator, run) == [.reserved, .committed])
        let refusal = await #expect(throws: CoordinationError.self) {
            try await bench.coordinator.beginUpdate(assignment: late.id, client: clients[0])
        }
        #expect(refusal?.code == "assignment_ended" || refusal?.code == "run_ended", "\(String(describing: refusal))")
    }

    @Test func aLocalAttemptWhoseClientsGaveTheWorkBackCostsNothing() async throws {
        let (bench, run, clients) = try await begin(Self.local)
        let work = try #require(try await Bench.assignment(bench.coordinator, clients[0]))
        try await bench.coordinator.reportFailure(
            assignment: work.id,
            client: clients[0],
            FailureReport(code: .privacyRefused)
        )
        _ = try await bench.coordinator.cancelRun(run)
        #expect(try await states(bench.coordinator, run) == [.reserved, .released])
    }

    /// Noise may have been drawn, however the arithmetic ended.
    @Test func anAttemptThatFailsWhileItsSumIsMadeKeepsItsCharge() async throws {
        let (bench, run, clients) = try await begin(Self.central)
        var ids: [String] = []
        for client in clients.prefix(2) {
            ids.append(try #require(try await Bench.assignment(bench.coordinator, client)).id)
        }
        _ = try await Bench.submit(bench.coordinator, clients[0], ids[0], value: 1)
        try FileManager.default.removeItem(atPath: bench.coordinator.blobs.updatePath(of: ids[0]))
        _ = try await Bench.submit(bench.coordinator, clients[1], ids[1], value: 1)
        _ = try await Bench.untilSettled(bench.coordinator, run)
        #expect(try await bench.coordinator.rounds(run: run).first?.state == .abandoned)
        #expect(try await states(bench.coordinator, run).prefix(2) == [.reserved, .committed])
    }

    @Test func aBudgetLoweredUnderWhatIsReservedAbandonsWhatIsOpen() async throws {
        let (bench, run, clients) = try await begin(Self.central)
        let assignment = try #require(try await Bench.assignment(bench.coordinator, clients[0]))
        _ = try await Bench.submit(bench.coordinator, clients[0], assignment.id, value: 1)
        let reserved = try #require(try await bench.coordinator.population("p").budget).reservedEpsilon
        // Above what is reserved nothing happens.
        _ = try await bench.coordinator.changeBudget(population: "p", .init(epsilon: reserved * 1.01, reason: nil))
        #expect(try await bench.coordinator.rounds(run: run).last?.state != .abandoned)
        _ = try await bench.coordinator.changeBudget(population: "p", .init(epsilon: reserved * 0.99, reason: nil))
        let round = try #require(try await bench.coordinator.rounds(run: run).last)
        #expect(round.state == .abandoned && round.reason?.contains("budget was lowered") == true)
        #expect(try await states(bench.coordinator, run) == [.reserved, .released])
        bench.clock.advance(by: 60)
        try await bench.coordinator.tick()
        let view = try await bench.coordinator.run(run)
        #expect(view.state == .failed && view.reason?.contains("budget_exhausted") == true)
        #expect(view.committedRounds == 0)
    }
}
