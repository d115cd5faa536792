import Coordination
import Foundation
import SQLiteStorage
import TestBenches
import TestSupport
import Testing
import WireFormat

@Suite(.timeLimit(.minutes(10)))
struct RecoveryTests {
    /// A run with two of three updates accepted, and the store closed.
    private func halfARound(_ bench: Bench) async throws -> (run: String, clients: [String], ids: [String]) {
        let (run, clients) = try await bench.startRun(try Bench.specification(goal: 3), clients: 4)
        var ids: [String] = []
        for client in clients.prefix(3) {
            ids.append(try #require(try await Bench.assignment(bench.coordinator, client)).id)
        }
        for index in 0..<2 { _ = try await Bench.submit(bench.coordinator, clients[index], ids[index], value: 1) }
        return (run, clients, ids)
    }

    private func findings(_ bench: Bench, isDeep: Bool = true) throws -> [String: String] {
        let inspection = try SQLiteInspection(path: bench.directory.path + "/martlet.sqlite")
        let state = try #require(try inspection.state())
        let check = DataDirectoryCheck(
            state: state,
            blobs: DirectoryBlobStore(existing: bench.directory.path),
            ledgerHeadPath: bench.directory.path + "/ledger.head"
        )
        let all = try inspection.findings() + check.findings(isDeep: isDeep)
        try inspection.close()
        return Dictionary(all.map { ($0.code, $0.severity.rawValue) }) { first, _ in first }
    }

    @Test func aWholeDirectoryPassesAndLeftoversGo() async throws {
        let bench = try await Bench(.sqlite)
        _ = try await halfARound(bench)
        // A stop came while they were written, before they were removed, or before their attempt was written down.
        let strays = ["asg_x-up_y.part", "asg_x.update", "run_x-1-1.result", "run_x-1-1.result.optimizer"]
        for name in strays { try Data([1]).write(to: URL(fileURLWithPath: bench.directory.path + "/spool/" + name)) }
        let found = try findings(bench)
        #expect(found.values.allSatisfy { $0 == "ok" || $0 == "notice" }, "\(found)")
        #expect(
            Set(found.keys).isSuperset(of: ["database", "ledger", "models", "updates", "rounds", "spool_leftovers"])
        )
        let kept = try await bench.restarted().blobs.spoolNames()
        #expect(kept.count == 2 && kept.allSatisfy { $0.hasSuffix(".update") && !strays.contains($0) }, "\(kept)")
    }

    @Test(arguments: [true, false])
    func anAcknowledgedUpdateThatWasLostEndsItsAttempt(_ isMissing: Bool) async throws {
        let bench = try await Bench(.sqlite)
        let (run, clients, ids) = try await halfARound(bench)
        let path = bench.directory.path + "/spool/" + ids[0] + ".update"
        if isMissing {
            try FileManager.default.removeItem(atPath: path)
        } else {
            var bytes = try Data(contentsOf: URL(fileURLWithPath: path))
            bytes[bytes.count - 1] ^= 1
            try bytes.write(to: URL(fileURLWithPath: path))
        }
        #expect(try findings(bench)["update_lost"] == "error")
        let restarted = try await bench.restarted()
        let rounds = try await restarted.rounds(run: run)
        #expect(rounds[0].state == .abandoned && rounds[0].reason?.contains("1 acknowledged updates") == true)
        // The next attempt goes on as if nothing had been.
        bench.clock.advance(by: 1)
        try await restarted.tick()
        for client in clients.prefix(3) {
            let id = try #require(try await Bench.assignment(restarted, client)).id
            _ = try await Bench.submit(restarted, client, id, value: 1)
        }
        #expect(try await Bench.untilSettled(restarted, run).state == .completed)
        #expect(try findings(bench)["updates"] == "ok")
    }

    @Test(
        "Updates that an abandoned attempt of a buffered run had taken are no part of the next one, however often the server starts."
    )
    func abandonedBuffer() async throws {
        let bench = try await Bench(.sqlite)
        let (run, clients) = try await bench.startRun(
            try Bench.exactSpecification(rounds: 1) {
                $0.cohort += ["goal": 3, "minimum": 2]
                $0.aggregation.mode = "buffered"
                $0.aggregation.buffered += ["concurrency": 5, "max_staleness": 3]
            },
            clients: 5
        )
        var ids: [String] = []
        for client in clients.prefix(2) {
            let id = try #require(try await Bench.assignment(bench.coordinator, client)).id
            _ = try await Bench.submit(bench.coordinator, client, id, value: 1)
            ids.append(id)
        }
        // What a stop before the removal leaves: the first attempt's files are there when it is over.
        let spool = bench.directory.path + "/spool/"
        let saved = try ids.map { try Data(contentsOf: URL(fileURLWithPath: spool + $0 + ".update")) }
        try FileManager.default.removeItem(atPath: spool + ids[0] + ".update")
        var restarted = try await bench.restarted()
        #expect(try await restarted.rounds(run: run)[0].state == .abandoned)
        bench.clock.advance(by: 10)
        try await restarted.tick()
        let third = try #require(try await Bench.assignment(restarted, clients[2])).id
        _ = try await Bench.submit(restarted, clients[2], third, value: 4)
        for isLeft in [true, false] {
            for (id, bytes) in zip(ids, saved) where isLeft {
                try bytes.write(to: URL(fileURLWithPath: spool + id + ".update"))
            }
            restarted = try await bench.restarted()
            let open = try #require(try await restarted.rounds(run: run).items.last)
            #expect(open.attempt == 2 && open.accepted == 1 && [.selecting, .reporting].contains(open.state))
            #expect(try findings(bench).values.allSatisfy { $0 == "ok" || $0 == "notice" })
        }
        for client in clients[3...] {
            let id = try #require(try await Bench.assignment(restarted, client)).id
            _ = try await Bench.submit(restarted, client, id, value: 4)
        }
        #expect(try await Bench.untilSettled(restarted, run).state == .completed)
        #expect(try await Bench.model(restarted, run) == [4, -4, 8, 0.5])
    }

    @Test func damagedAndMissingModelFilesAreNamed() async throws {
        let bench = try await Bench(.sqlite)
        let (run, _, _) = try await halfARound(bench)
        let sha256 = try await bench.coordinator.model(run: run, version: "0").sha256
        let path = bench.coordinator.blobs.path(sha256: sha256)
        var bytes = try Data(contentsOf: URL(fileURLWithPath: path))
        bytes[bytes.count - 1] ^= 1
        try bytes.write(to: URL(fileURLWithPath: path))
        #expect(try findings(bench, isDeep: false)["models"] == "ok")
        #expect(try findings(bench, isDeep: true)["blob_damaged"] == "error")
        try FileManager.default.removeItem(atPath: path)
        #expect(try findings(bench, isDeep: false)["blob_missing"] == "error")
    }

    @Test func whatTheOptimiserRemembersIsCheckedToo() async throws {
        let bench = try await Bench(.sqlite)
        let (run, clients) = try await bench.startRun(
            try Bench.specification(goal: 2, rounds: 2) { $0.aggregation.optimizer.name = "fedadam" },
            clients: 2
        )
        for client in clients {
            let id = try #require(try await Bench.assignment(bench.coordinator, client)).id
            _ = try await Bench.submit(bench.coordinator, client, id, value: 1)
        }
        _ = try await Bench.untilSettled(bench.coordinator, run)
        let version = try await bench.coordinator.model(run: run, version: "1")
        let path = bench.coordinator.blobs.path(sha256: try #require(version.optimizerSha256))
        #expect(try findings(bench)["models"] == "ok")
        var bytes = try Data(contentsOf: URL(fileURLWithPath: path))
        bytes[bytes.count - 1] ^= 1
        try bytes.write(to: URL(fileURLWithPath: path))
        #expect(try findings(bench)["blob_damaged"] == "error")
        try FileManager.default.removeItem(atPath: path)
        #expect(try findings(bench, isDeep: false)["blob_missing"] == "error")
    }

    @Test func theSecondRecordOfTheLedgerIsChecked() async throws {
        let bench = try await Bench(.sqlite)
        _ = try await bench.startRun(
            try Bench.specification { $0.privacy += ["mode": "central", "noise_multiplier": 8] },
            budget: BudgetSpecification(epsilon: 8, delta: 1e-5)
        )
        let path = bench.directory.path + "/ledger.head"
        #expect(try findings(bench)["ledger_head"] == "ok")
        let text = try String(contentsOfFile: path, encoding: .utf8)
        try text.replacing("\"sequence\":2", with: "\"sequence\":9").write(
            toFile: path,
            atomically: true,
            encoding: .utf8
        )
        #expect(try findings(bench)["ledger_rolled_back"] == "error")
        try FileManager.default.removeItem(atPath: path)
        #expect(try findings(bench)["ledger_head_missing"] == "error")
        try Data("torn".utf8).write(to: URL(fileURLWithPath: path))
        #expect(try findings(bench)["ledger_record_damaged"] == "error")
    }

    @Test func aCorruptDatabaseIsRefusedClearly() async throws {
        let bench = try await Bench(.sqlite)
        _ = try await halfARound(bench)
        let copy = bench.directory.path + "/copy.sqlite"
        let inspection = try SQLiteInspection(path: bench.directory.path + "/martlet.sqlite")
        try inspection.backUp(to: copy)
        try inspection.close()
        var bytes = try Data(contentsOf: URL(fileURLWithPath: copy))
        // The second page and the ones after it hold the tables.
        for index in stride(from: 4096 + 100, to: bytes.count, by: 7) { bytes[index] ^= 0x5a }
        try bytes.write(to: URL(fileURLWithPath: copy))
        #expect(throws: (any Error).self) {
            let damaged = try SQLiteInspection(path: copy)
            let found = try damaged.findings()
            guard !found.contains(where: { $0.severity == .error }) else {
                throw CoordinationError(.unavailable, "database_damaged", "found")
            }
        }
        #expect(throws: (any Error).self) { try SQLiteRunStore(path: copy).load() }
        try Data("this is no database, however long it may be".utf8).write(to: URL(fileURLWithPath: copy))
        #expect(throws: (any Error).self) { try SQLiteRunStore(path: copy) }
    }

    /// As when the disk is full or another process holds the database: refused, nothing lost, and it goes on by itself.
    @Test func aStoreThatCannotWriteLosesNothingAndRecovers() async throws {
        let bench = try await Bench(.memory)
        let faulty = FaultyStore(bench.store, commitLimit: .max)
        let (run, clients) = try await bench.startRun(try Bench.specification(goal: 3), clients: 3)
        let coordinator = try await Bench.start(bench.directory, bench.clock, faulty)
        let first = try #require(try await Bench.assignment(coordinator, clients[0])).id
        _ = try await Bench.submit(coordinator, clients[0], first, value: 1)
        let second = try #require(try await Bench.assignment(coordinator, clients[1])).id
        faulty.dieAfter(commits: 0)
        for _ in 0..<3 {
            let error = await #expect(throws: CoordinationError.self) {
                try await Bench.submit(coordinator, clients[1], second, value: 2)
            }
            #expect(error?.kind == .unavailable && error?.code == "storage_failed")
        }
        let refused = await #expect(throws: CoordinationError.self) {
            try await Bench.assignment(coordinator, clients[2])
        }
        #expect(refused?.code == "storage_failed")
        #expect(try await coordinator.round(run: run, number: 1).accepted == 1)
        faulty.dieAfter(commits: .max)
        _ = try await Bench.submit(coordinator, clients[1], second, value: 2)
        let third = try #require(try await Bench.assignment(coordinator, clients[2])).id
        _ = try await Bench.submit(coordinator, clients[2], third, value: 3)
        #expect(try await Bench.untilSettled(coordinator, run).state == .completed)
        #expect(try await coordinator.round(run: run, number: 1).accepted == 3)
        #expect(abs(try await Bench.model(coordinator, run)[0] - 2) < 1e-6)
    }
}
