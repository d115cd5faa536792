import Coordination
import Foundation
import Logging
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

/// The ledger's second record fails closed.
@Suite(.timeLimit(.minutes(10)))
struct LedgerRecordTests {
    private static let privacy: RunFile = ["mode": "central", "noise_multiplier": 8]

    private func coordinator(
        _ bench: Bench,
        _ change: (inout CoordinatorConfiguration) -> Void = { _ in }
    ) async throws -> Coordinator {
        try await bench.restarted {
            $0.ledgerHeadPath = bench.directory.path + "/other/head"
            change(&$0)
        }
    }

    /// A private run of two rounds whose record lies on "another disk".
    private func started(_ bench: Bench) async throws -> (run: String, clients: [String], Coordinator) {
        let (run, clients) = try await bench.startRun(
            try Bench.specification(goal: 1, rounds: 3) { $0.privacy = Self.privacy },
            budget: BudgetSpecification(epsilon: 8, delta: 1e-5),
            clients: 3
        )
        try FileManager.default.createDirectory(
            atPath: bench.directory.path + "/other",
            withIntermediateDirectories: true
        )
        return (run, clients, try await coordinator(bench) { $0.mayMakeLedgerHead = true })
    }

    private func problems(_ coordinator: Coordinator) async throws -> [String] {
        try await coordinator.overview(role: .viewer).problems.map(\.code)
    }

    @Test func aRecordThatIsConfiguredAndMissingIsAnAlarmButTheFirstTime() async throws {
        let bench = try await Bench(.memory)
        let (_, _, first) = try await started(bench)
        #expect(await first.ledgerRecordState == "kept")
        #expect(try await coordinator(bench).ledgerState().alarm == nil)
        let path = bench.directory.path + "/other/head"
        try FileManager.default.moveItem(atPath: path, toPath: path + ".away")
        let without = try await coordinator(bench)
        let alarm = try #require(await without.ledgerState().alarm)
        #expect(alarm.contains("--new-ledger-head"), "\(alarm)")
        #expect(try await problems(without).contains("ledger_alarm"))
        #expect(await without.metricsExposition().contains("martlet_ledger_alarm 1"))
        #expect(!FileManager.default.fileExists(atPath: path), "evidence is not made up")
        try FileManager.default.moveItem(atPath: path + ".away", toPath: path)
        #expect(try await coordinator(bench).ledgerState().alarm == nil)
    }

    /// A start writes the record before the first row: where it is gone, somebody took it, and a backup could be put back unseen.
    @Test func aRecordThatIsMissingAtItsUsualPlaceIsAnAlarmToo() async throws {
        let bench = try await Bench(.memory)
        let path = bench.directory.path + "/ledger.head"
        #expect(FileManager.default.fileExists(atPath: path), "before anything is charged")
        let (run, clients) = try await bench.startRun(
            try Bench.specification(goal: 1, rounds: 3) { $0.privacy = Self.privacy },
            budget: BudgetSpecification(epsilon: 8, delta: 1e-5),
            clients: 2
        )
        let before = try Data(contentsOf: URL(fileURLWithPath: path))
        try FileManager.default.removeItem(atPath: path)
        let without = try await bench.restarted()
        let alarm = try #require(await without.ledgerState().alarm)
        #expect(alarm.contains("ledger.head in the data directory") && alarm.contains("--new-ledger-head"), "\(alarm)")
        #expect(!alarm.contains(bench.directory.path), "no path for strangers")
        #expect(try await Bench.assignment(without, clients[0]) == nil)
        #expect(try await without.run(run).waitingFor.contains("an administrator"))
        #expect(!FileManager.default.fileExists(atPath: path), "evidence is not made up")
        // Three ways out: put back, said to be the first time, acknowledged.
        try before.write(to: URL(fileURLWithPath: path))
        #expect(try await bench.restarted().ledgerState().alarm == nil)
        try FileManager.default.removeItem(atPath: path)
        let usual: (inout CoordinatorConfiguration) -> Void = { $0.ledgerHeadPath = path }
        let first = try await coordinator(bench) {
            usual(&$0)
            $0.mayMakeLedgerHead = true
        }
        #expect(await first.ledgerState().alarm == nil)
        #expect(try Data(contentsOf: URL(fileURLWithPath: path)) == before)
        try FileManager.default.removeItem(atPath: path)
        #expect(try await bench.restarted().acknowledgeRollback(reason: "a test").alarm == nil)
        #expect(try await bench.restarted().ledgerState().alarm == nil)
    }

    /// Contents that no ledger can have made stop neither the start nor anything that has no privacy to lose.
    @Test(arguments: [
        "", "no JSON", "{}", #"{"sequence": -1, "rowHash": "HASH", "groups": []}"#,
        #"{"sequence": 1, "rowHash": "short", "groups": []}"#,
        #"{"sequence": 9223372036854775808, "rowHash": "HASH", "groups": []}"#,
    ])
    func aRecordThatIsNoneIsAnAlarmWithItsWayOut(_ text: String) async throws {
        let bench = try await Bench(.memory)
        let (_, clients, coordinator) = try await started(bench)
        let path = bench.directory.path + "/other/head"
        let before = try Data(contentsOf: URL(fileURLWithPath: path))
        let torn = Data(text.replacing("HASH", with: String(repeating: "0", count: 64)).utf8)
        // While it runs: any charge finds it out, and writes nothing over it.
        try torn.write(to: URL(fileURLWithPath: path))
        _ = try await coordinator.changeBudget(population: "p", .init(epsilon: 7))
        for alarmed in [coordinator, try await self.coordinator(bench)] {
            let alarm = try #require(await alarmed.ledgerState().alarm)
            #expect(alarm.contains("put a whole copy in its place"), "\(alarm)")
            #expect(try await problems(alarmed).contains("ledger_alarm"))
            #expect(try await Bench.assignment(alarmed, clients[0]) == nil)
        }
        #expect(try Data(contentsOf: URL(fileURLWithPath: path)) == torn)
        // A copy of before is behind by what was charged since: brought up without an alarm.
        try before.write(to: URL(fileURLWithPath: path))
        #expect(try await self.coordinator(bench).ledgerState().alarm == nil)
        // An administrator ends it too, and what was there is kept.
        try torn.write(to: URL(fileURLWithPath: path))
        let last = try await self.coordinator(bench)
        #expect(try await last.acknowledgeRollback(reason: "a test").alarm == nil)
        let names = try FileManager.default.contentsOfDirectory(atPath: bench.directory.path + "/other")
        #expect(names.contains { $0.hasPrefix("head.overruled-") }, "\(names)")
        #expect(try await self.coordinator(bench).ledgerState().alarm == nil)
    }

    /// A directory lies in the record's place: it can be neither read nor written.
    @Test func privateRunsWaitWhileTheRecordCannotBeKeptAndLoseNothing() async throws {
        let bench = try await Bench(.memory)
        let (run, clients, coordinator) = try await started(bench)
        let path = bench.directory.path + "/other/head"
        let early = try #require(try await Bench.assignment(coordinator, clients[0])).id
        try FileManager.default.moveItem(atPath: path, toPath: path + ".away")
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
        // The round that is open holds its reservation; it ends, and the next one waits.
        _ = try await Bench.submit(coordinator, clients[0], early, value: 1)
        try await wait(for: "the first round") { try await coordinator.models(run: run).count == 2 }
        for _ in 0..<5 {
            bench.clock.advance(by: 11)
            try await coordinator.tick()
            #expect(try await Bench.assignment(coordinator, clients[1]) == nil)
        }
        #expect(await coordinator.ledgerRecordState == "unwritable")
        #expect(try await problems(coordinator).contains("ledger_record_unwritable"))
        #expect(try await coordinator.run(run).waitingFor.contains("the ledger's second record"))
        #expect(try await coordinator.run(run).state == .running)
        #expect(await coordinator.metricsExposition().contains("martlet_ledger_record_behind 1"))
        try FileManager.default.removeItem(atPath: path)
        try FileManager.default.moveItem(atPath: path + ".away", toPath: path)
        bench.clock.advance(by: 11)
        try await coordinator.tick()
        #expect(await coordinator.ledgerRecordState == "kept")
        try await coordinator.tick()
        let work = try #require(try await Bench.assignment(coordinator, clients[1]))
        _ = try await Bench.submit(coordinator, clients[1], work.id, value: 1)
        try await wait(for: "the second round") { try await coordinator.models(run: run).count == 3 }
        #expect(try await coordinator.rounds(run: run).allSatisfy { $0.attempt == 1 && $0.state != .abandoned })
    }

    /// A record that no start could read may know of more than the ledger: no private work goes on, none is lost.
    @Test func aRecordThatCannotBeReadAtStartHaltsPrivateRuns() async throws {
        let bench = try await Bench(.memory)
        let (run, clients, before) = try await started(bench)
        let id = try #require(try await Bench.assignment(before, clients[0])).id
        let path = bench.directory.path + "/other/head"
        try FileManager.default.moveItem(atPath: path, toPath: path + ".away")
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
        let coordinator = try await coordinator(bench)
        #expect(await coordinator.ledgerRecordState == "unread")
        #expect(try await problems(coordinator).contains("ledger_record_unread"))
        for client in clients { #expect(try await Bench.assignment(coordinator, client) == nil) }
        let refusal = await refusal { try await Bench.submit(coordinator, clients[0], id, value: 1) }
        #expect(
            refusal?.kind == .unavailable && refusal?.code == "ledger_record_unread",
            "\(refusal?.code ?? "accepted")"
        )
        #expect(try await coordinator.models(run: run).count == 1)
        // A run that is started meanwhile waits, as those do that run already.
        let later = try await coordinator.createRun(
            try Bench.specification(goal: 1) { $0.privacy = Self.privacy },
            initialModel: ParameterVector(zeros: Bench.layout)
        ).id
        #expect(try await coordinator.startRun(later).state == .running)
        #expect(try await coordinator.rounds(run: later).isEmpty)
        try FileManager.default.removeItem(atPath: path)
        try FileManager.default.moveItem(atPath: path + ".away", toPath: path)
        bench.clock.advance(by: 11)
        try await coordinator.tick()
        #expect(await coordinator.ledgerRecordState == "kept")
        _ = try await Bench.submit(coordinator, clients[0], id, value: 1)
        try await wait(for: "the first round") { try await coordinator.models(run: run).count == 2 }
    }

    /// No work is handed out under a reservation that the record does not hold, and the deadline waits too.
    @Test func aRoundThatOpenedWhileTheRecordFailedHandsOutNothing() async throws {
        let bench = try await Bench(.memory)
        let (run, clients, coordinator) = try await started(bench)
        let path = bench.directory.path + "/other/head"
        let first = try #require(try await Bench.assignment(coordinator, clients[0]))
        try FileManager.default.moveItem(atPath: path, toPath: path + ".away")
        bench.clock.advance(by: 10)
        // Any charge finds it out, such as another budget.
        _ = try await coordinator.changeBudget(population: "p", .init(epsilon: 7))
        #expect(await coordinator.ledgerRecordState == "unwritable")
        try await coordinator.tick()
        #expect(try await Bench.assignment(coordinator, clients[1]) == nil)
        // Twice the report time-out of 100 s.
        for _ in 0..<20 {
            bench.clock.advance(by: 10)
            try await coordinator.tick()
        }
        #expect(try await coordinator.rounds(run: run).map(\.state) == [.selecting])
        let told = try await coordinator.heartbeat(
            assignment: first.id,
            client: clients[0],
            HeartbeatRequest(phase: .training)
        )
        #expect(told.deadlineInS > 80, "\(told.deadlineInS)")
        // What comes in is accepted, and not published: a server that is restored would not know of it.
        _ = try await Bench.submit(coordinator, clients[0], first.id, value: 1)
        for _ in 0..<5 {
            bench.clock.advance(by: 61)
            try await coordinator.tick()
            #expect(try await coordinator.rounds(run: run).map(\.state) == [.aggregating])
        }
        #expect(try await coordinator.models(run: run).count == 1)
        try FileManager.default.moveItem(atPath: path + ".away", toPath: path)
        bench.clock.advance(by: 61)
        try await coordinator.tick()
        bench.clock.advance(by: 61)
        try await coordinator.tick()
        try await wait(for: "the first round") { try await coordinator.models(run: run).count == 2 }
        try await coordinator.tick()
        #expect(try await Bench.assignment(coordinator, clients[1]) != nil)
        #expect(try await problems(coordinator).allSatisfy { !$0.hasPrefix("ledger") })
    }

    /// A record that could not be read at the start and is gone later: what it said nobody knows, so that none is made in its place.
    @Test(arguments: [false, true])
    func aRecordThatWasNeverReadIsNotMadeAnew(mayMake: Bool) async throws {
        let bench = try await Bench(.memory)
        let (_, clients, _) = try await started(bench)
        let path = bench.directory.path + "/other/head"
        try FileManager.default.moveItem(atPath: path, toPath: path + ".away")
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
        let coordinator = try await coordinator(bench) { $0.mayMakeLedgerHead = mayMake }
        #expect(await coordinator.ledgerRecordState == "unread")
        try FileManager.default.removeItem(atPath: path)
        // Any row, before the next try.
        _ = try await coordinator.changeBudget(population: "p", .init(epsilon: 7))
        #expect(!FileManager.default.fileExists(atPath: path), "evidence is not made up")
        #expect(await coordinator.ledgerState().alarm != nil)
        #expect(try await problems(coordinator).contains("ledger_alarm"))
        #expect(try await Bench.assignment(coordinator, clients[0]) == nil)
    }

    /// The disk comes back, and a row is written before the next try: the runs go on.
    @Test func aRecordThatCanBeReadAgainEndsTheHaltWithTheNextRow() async throws {
        let bench = try await Bench(.memory)
        let (_, clients, _) = try await started(bench)
        let path = bench.directory.path + "/other/head"
        try FileManager.default.moveItem(atPath: path, toPath: path + ".away")
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
        let coordinator = try await coordinator(bench)
        try FileManager.default.removeItem(atPath: path)
        try FileManager.default.moveItem(atPath: path + ".away", toPath: path)
        _ = try await coordinator.changeBudget(population: "p", .init(epsilon: 7))
        #expect(await coordinator.ledgerRecordState == "kept")
        #expect(try await problems(coordinator).allSatisfy { !$0.hasPrefix("ledger") })
        bench.clock.advance(by: 1)
        try await coordinator.tick()
        #expect(try await Bench.assignment(coordinator, clients[0]) != nil)
    }

    /// The record was ahead all the time: an acknowledgement of lost heads does not overrule what nobody has read.
    @Test func aRecordThatWasNeverReadIsNotOverruled() async throws {
        let bench = try await Bench(.memory)
        let (_, _, _) = try await started(bench)
        let path = bench.directory.path + "/other/head"
        let text = try String(contentsOfFile: path, encoding: .utf8)
        let ahead = text.replacing(/"sequence":\d+/, with: #""sequence":99"#)
        try FileManager.default.removeItem(atPath: path)
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
        let coordinator = try await coordinator(bench)
        let lost = PopulationLedgerHead(
            population: try await coordinator.population("p").id,
            number: 50,
            hash: String(repeating: "1", count: 64)
        )
        let refused = await refusal { try await coordinator.acknowledgeRollback(reason: "a test", lostHeads: [lost]) }
        #expect(refused?.code == "ledger_record_unread", "\(refused?.code ?? "accepted")")
        try FileManager.default.removeItem(atPath: path)
        try ahead.write(toFile: path, atomically: true, encoding: .utf8)
        let view = try await coordinator.acknowledgeRollback(reason: "a test", lostHeads: [lost])
        #expect(view.alarm == nil && view.record == "kept")
        let rows = try await coordinator.ledgerRows(population: "p").items
        #expect(rows.contains { $0.event.contains("row 99") })
    }

    /// Each record that is overruled is kept, also where two are in one second.
    @Test func everyOverruledRecordIsKept() async throws {
        let bench = try await Bench(.memory)
        let (_, _, coordinator) = try await started(bench)
        let path = bench.directory.path + "/other/head"
        for (count, epsilon) in [7.0, 6, 5].enumerated() {
            let text = try String(contentsOfFile: path, encoding: .utf8)
            try text.replacing(/"sequence":\d+/, with: "\"sequence\":\(90 + count)")
                .write(toFile: path, atomically: true, encoding: .utf8)
            _ = try await coordinator.changeBudget(population: "p", .init(epsilon: epsilon))
            #expect(try await coordinator.acknowledgeRollback(reason: "a test").alarm == nil)
        }
        let directory = bench.directory.path + "/other/"
        let kept = try FileManager.default.contentsOfDirectory(atPath: directory)
            .filter { $0.hasPrefix("head.overruled-") }
        let texts = try kept.map { try String(contentsOfFile: directory + $0, encoding: .utf8) }
        for number in 90...92 { #expect(texts.contains { $0.contains("\"sequence\":\(number)") }, "\(kept)") }
    }

    /// What a backup does not know is not made good by the word of who starts the server.
    @Test func aNewRecordIsNotMadeForARestoredBackup() async throws {
        let bench = try await Bench(.memory)
        let (_, clients, _) = try await started(bench)
        try FileManager.default.removeItem(atPath: bench.directory.path + "/other/head")
        try Data("{}".utf8).write(to: URL(fileURLWithPath: bench.directory.path + "/restored.json"))
        let restored = try await coordinator(bench) { $0.mayMakeLedgerHead = true }
        #expect(try #require(await restored.ledgerState().alarm).contains("was made of a backup"))
        #expect(try await Bench.assignment(restored, clients[0]) == nil)
    }

    @Test func aRecordThatIsAheadIsNeverOverwritten() async throws {
        let bench = try await Bench(.memory)
        let (_, clients, coordinator) = try await started(bench)
        let path = bench.directory.path + "/other/head"
        let text = try String(contentsOfFile: path, encoding: .utf8)
        let ahead = text.replacing(/"sequence":\d+/, with: #""sequence":99"#)
        try ahead.write(toFile: path, atomically: true, encoding: .utf8)
        _ = try await Bench.assignment(coordinator, clients[0])
        _ = try await coordinator.changeBudget(population: "p", .init(epsilon: 7))
        #expect(try #require(await coordinator.ledgerState().alarm).contains("row 99"))
        #expect(try String(contentsOfFile: path, encoding: .utf8) == ahead)
        // Who acknowledges it finds it afterwards under another name.
        #expect(try await coordinator.acknowledgeRollback(reason: "a test").alarm == nil)
        let names = try FileManager.default.contentsOfDirectory(atPath: bench.directory.path + "/other")
        let kept = try #require(names.first { $0.hasPrefix("head.overruled-") })
        #expect(try String(contentsOfFile: bench.directory.path + "/other/" + kept, encoding: .utf8) == ahead)
        #expect(try await self.coordinator(bench).ledgerState().alarm == nil)
    }

    /// A kill between a transaction and the record.
    @Test func aRecordThatIsBehindIsBroughtUpWithoutAnAlarm() async throws {
        let bench = try await Bench(.memory)
        let (_, _, coordinator) = try await started(bench)
        let path = bench.directory.path + "/other/head"
        let before = try Data(contentsOf: URL(fileURLWithPath: path))
        _ = try await coordinator.changeBudget(population: "p", .init(epsilon: 7))
        let after = try Data(contentsOf: URL(fileURLWithPath: path))
        #expect(before != after)
        try before.write(to: URL(fileURLWithPath: path))
        let restarted = try await self.coordinator(bench)
        #expect(await restarted.ledgerState().alarm == nil)
        #expect(try Data(contentsOf: URL(fileURLWithPath: path)) == after)
    }
}
