import DifferentialPrivacy
import Foundation
import TestBenches
import TestSupport
import Testing
import WireFormat

@testable import Coordination

/// A database that was rolled back and has gone on, held to the record of the history that was lost: every release of either counts.
@Suite(.timeLimit(.minutes(10)))
struct LedgerHistoryTests {
    private static let charge = PrivacyCharge(
        mode: .central,
        noiseMultiplier: 2,
        participationCap: 9,
        parameterCount: 4
    )

    private static func add(
        _ ledger: inout PrivacyLedger,
        _ round: Int,
        _ states: [ChargeState],
        run: String = "run_1"
    ) throws {
        for state in states {
            _ = try ledger.append(
                population: "p",
                run: run,
                round: round,
                attempt: 1,
                state: state,
                event: charge.canonical,
                epsilonAfter: 0,
                // Rows of two histories differ in their times at least.
                at: Date(timeIntervalSince1970: Double(ledger.rows.count) + (run == "run_1" ? 0 : 0.5))
            )
        }
    }

    private static func ledger(
        rounds: Int,
        run: String = "run_1",
        from start: PrivacyLedger = .init()
    ) throws -> PrivacyLedger {
        var ledger = start
        let first = ledger.account("p").count(run: run, charge: charge) + 1
        for round in first..<(first + rounds) { try add(&ledger, round, [.reserved, .committed], run: run) }
        return ledger
    }

    private static func again(_ head: LedgerHead) throws -> LedgerHead {
        let directory = try TemporaryDirectory()
        try head.write(path: directory.path + "/head")
        return try #require(try LedgerHead.read(path: directory.path + "/head"))
    }

    /// Both histories have three rounds in common; the lost one had `lost` more and an open attempt, the other one `more`.
    @Test(arguments: [1, 5, 40], [0, 1, 5, 60])
    func whatWasChargedBeyondTheCommonBeginningIsLost(_ lost: Int, _ more: Int) throws {
        let common = try Self.ledger(rounds: 3)
        var first = try Self.ledger(rounds: lost, from: common)
        try Self.add(&first, 99, [.reserved])
        let head = try Self.again(LedgerHead(first))
        // The same run goes on: its plan is the same one in both.
        var second = common
        for round in 4..<(4 + more) {
            _ = try second.append(
                population: "p",
                run: "run_1",
                round: round,
                attempt: 2,
                state: .reserved,
                event: Self.charge.canonical,
                epsilonAfter: 0,
                at: Date(timeIntervalSince1970: 5000)
            )
            _ = try second.append(
                population: "p",
                run: "run_1",
                round: round,
                attempt: 2,
                state: .committed,
                event: Self.charge.canonical,
                epsilonAfter: 0,
                at: Date(timeIntervalSince1970: 5000)
            )
        }
        #expect(head.contradiction(of: second) != nil)
        // Where the parting is more than 64 rows back, less than a thirty-second of the way is charged twice.
        let found = head.commonSequence(with: second)
        #expect(found <= 6 && (2 * lost + 1 >= 58 || found == 6))
        let charged = head.lost(from: second).reduce(0) { $0 + $1.count }
        #expect(charged == lost + 1 + 3 - found / 2)
    }

    @Test func aRecordOfAnEarlierVersionProvesNoCommonRow() throws {
        let first = try Self.ledger(rounds: 5)
        var head = LedgerHead(first)
        (head.checkpoints, head.budgets) = (nil, nil)
        head = try Self.again(head)
        #expect(head.contradiction(of: first) == nil)
        let second = try Self.ledger(rounds: 9, run: "run_2")
        #expect(head.contradiction(of: second)?.contains("another history") == true)
        #expect(head.lost(from: second).map(\.count) == [5])
    }

    @Test func theRowsThatARecordNamesAreFewAndReachTheBeginning() {
        for count in [0, 1, 64, 65, 1000, 200_000] {
            let places = LedgerHead.places(of: count)
            #expect(places == places.sorted() && Set(places).count == places.count)
            #expect(places.suffix(64) == Array(max(1, count - 63)...max(1, count)).suffix(count)[...])
            #expect(places.allSatisfy { (1...max(1, count)).contains($0) } && places.count < 900)
            for (left, right) in zip(places, places.dropFirst()) {
                #expect((right - left) * 32 <= max(32, count - left))
            }
        }
    }

    /// Such a record once ended every start.
    @Test(arguments: [#""sequence":-1"#, #""sequence":9223372036854775807"#])
    func aRecordWhoseNumbersCannotBeIsDamaged(_ sequence: String) throws {
        let directory = try TemporaryDirectory()
        let path = directory.path + "/head"
        try LedgerHead(Self.ledger(rounds: 1)).write(path: path)
        let text = try String(contentsOfFile: path, encoding: .utf8)
        #expect(text.hasSuffix(#""sequence":2}"#))
        for damaged in [
            String(text.dropLast(#""sequence":2}"#.count)) + sequence + "}",
            text.replacing(#""count":1"#, with: #""count":-1"#),
        ] {
            #expect(damaged != text)
            try damaged.write(toFile: path, atomically: true, encoding: .utf8)
            let error = #expect(throws: CoordinationError.self) { try LedgerHead.read(path: path) }
            #expect(error?.code == LedgerHead.damaged)
        }
    }

    private static func specification() throws -> RunSpecification {
        try Bench.exactSpecification(rounds: 40) {
            $0.cohort += ["goal": 1, "minimum": 1, "max_participations": 50]
            $0.privacy += ["mode": "central", "noise_multiplier": 20]
        }
    }

    private func play(_ coordinator: Coordinator, _ run: String, _ clients: [String], rounds: Int) async throws {
        let start = try await coordinator.run(run).committedRounds
        for round in start..<(start + rounds) {
            let client = clients[round % clients.count]
            let work = try #require(try await Bench.assignment(coordinator, client))
            _ = try await Bench.submit(coordinator, client, work.id, value: 0)
            #expect(try await Bench.untilSettled(coordinator, run).committedRounds == round + 1)
        }
    }

    private static func releases(_ coordinator: Coordinator) async throws -> Int {
        let population = try #require(await coordinator.populations.order.first)
        return await coordinator.budgets.ledger.account(population).count
    }

    /// Restored without the second record, acknowledged, gone on; then the old record turns up.
    ///
    /// It once charged nothing again.
    @Test func anOldRecordThatComesBackChargesWhatItsHistoryPublished() async throws {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(
            try Self.specification(),
            budget: BudgetSpecification(epsilon: 50, delta: 1e-5),
            clients: 2
        )
        try await play(bench.coordinator, run, clients, rounds: 3)
        let backup = try bench.store.load()
        // A budget that is lowered after the backup.
        _ = try await bench.coordinator.changeBudget(population: "p", .init(epsilon: 40))
        try await play(bench.coordinator, run, clients, rounds: 4)
        let record = bench.directory.path + "/ledger.head"
        try FileManager.default.moveItem(atPath: record, toPath: record + ".old")
        try Data("{}".utf8).write(to: URL(fileURLWithPath: bench.directory.path + "/restored.json"))
        let store = try InMemoryRunStore(restoring: backup)
        let second = try await Bench.start(bench.directory, bench.clock, store)
        #expect(await second.ledgerState().alarm != nil)
        _ = try await second.acknowledgeRollback(reason: "the record is gone")
        bench.clock.advance(by: 10)
        try await second.tick()
        try await play(second, run, clients, rounds: 6)
        #expect(try await second.population("p").budget?.epsilon == 50)
        try FileManager.default.removeItem(atPath: record)
        try FileManager.default.moveItem(atPath: record + ".old", toPath: record)
        let third = try await Bench.start(bench.directory, bench.clock, store)
        #expect(try #require(await third.ledgerState().alarm).contains("another history"))
        _ = try await third.acknowledgeRollback(reason: "the record is back")
        // Three rounds of both, four of the one and six of the other, and what was open.
        #expect(try await Self.releases(third) >= 13)
        #expect(try await third.population("p").budget?.epsilon == 40)
        let audit = try LedgerAudit(WireCoding.encode(await third.ledgerAudit(population: "p")))
        #expect(audit.problems.isEmpty, "\(audit.problems)")
        #expect(try await Bench.start(bench.directory, bench.clock, store).ledgerState().alarm == nil)
    }

    /// The record agrees, and yet devices may have had work of the open attempt from the server that is gone.
    @Test(arguments: ["local", "central"])
    func aRestoreAbandonsOpenPrivateAttemptsWhateverTheRecordSays(_ mode: String) async throws {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(
            try Bench.exactSpecification {
                $0.cohort += ["goal": 2, "minimum": 2, "max_participations": 9]
                $0.privacy += ["mode": mode, "noise_multiplier": 4]
            },
            budget: BudgetSpecification(epsilon: 50, delta: 1e-5),
            clients: 2
        )
        let work = try #require(try await Bench.assignment(bench.coordinator, clients[0]))
        let note = bench.directory.path + "/restored.json"
        try Data("{}".utf8).write(to: URL(fileURLWithPath: note))
        let restored = try await bench.restarted()
        #expect(await restored.ledgerState().alarm == nil)
        let round = try #require(try await restored.rounds(run: run).first)
        #expect(round.state == .abandoned && round.reason?.contains("restored from a backup") == true)
        let states = try await restored.ledgerRows(population: "p").filter { $0.runId == run }.map(\.state)
        // A charge of its own: who had work of it there may have work here.
        #expect(states.prefix(3) == [.reserved, .released, .committed])
        await #expect(throws: CoordinationError.self) {
            try await Bench.submit(restored, clients[0], work.id, value: 1)
        }
        // Once: the next start abandons nothing.
        #expect(!FileManager.default.fileExists(atPath: note))
        bench.clock.advance(by: 10)
        try await restored.tick()
        #expect(try await Bench.assignment(restored, clients[0]) != nil)
        #expect(try await bench.restarted().rounds(run: run).last?.state == .selecting)
    }

    /// A note that is still needed to raise the alarm stays until that is acknowledged.
    @Test func aNoteStaysUntilTheAlarmThatItRaisedIsAcknowledged() async throws {
        let bench = try await Bench(.memory)
        _ = try await bench.startRun(
            try Self.specification(),
            budget: BudgetSpecification(epsilon: 50, delta: 1e-5),
            clients: 1
        )
        let note = bench.directory.path + "/restored.json"
        try Data("{}".utf8).write(to: URL(fileURLWithPath: note))
        try FileManager.default.removeItem(atPath: bench.directory.path + "/ledger.head")
        for _ in 0..<2 {
            let restored = try await bench.restarted()
            #expect(await restored.ledgerState().alarm != nil && FileManager.default.fileExists(atPath: note))
        }
        _ = try await bench.restarted().acknowledgeRollback(reason: "a test")
        #expect(!FileManager.default.fileExists(atPath: note))
    }

    /// A number that this database has not given is one that it has forgotten.
    @Test func aClientThatIsAheadOfTheDatabaseIsAProblem() async throws {
        let bench = try await Bench(.memory)
        let (_, clients) = try await bench.startRun(try Bench.specification())
        func codes() async throws -> [String] {
            try await bench.coordinator.overview(role: .viewer).problems.map(\.code)
        }
        let first = try await bench.coordinator.checkIn(
            client: clients[0],
            CheckInRequest(stateGeneration: 0),
            wait: .zero
        )
        #expect(first.assignment?.stateGeneration == 1)
        _ = try await bench.coordinator.checkIn(client: clients[0], CheckInRequest(stateGeneration: 1), wait: .zero)
        #expect(try await !codes().contains("clients_ahead"))
        _ = try await bench.coordinator.checkIn(client: clients[1], CheckInRequest(stateGeneration: 7), wait: .zero)
        #expect(try await codes().contains("clients_ahead"))
    }
}
