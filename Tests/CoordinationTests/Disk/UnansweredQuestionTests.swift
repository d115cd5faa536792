import Foundation
import Logging
import TestBenches
import TestSupport
import Testing
import WireFormat

@testable import Coordination

/// A file that the disk does not tell of is neither there nor absent: nothing is decided by it.
@Suite(.timeLimit(.minutes(10)))
struct UnansweredQuestionTests {
    /// Makes every question about a path fail: it is a link to itself (ELOOP).
    private func silence(_ path: String) throws {
        try FileManager.default.createSymbolicLink(atPath: path, withDestinationPath: path)
    }

    @Test func aQuestionHasThreeAnswers() throws {
        let directory = try TemporaryDirectory()
        let path = directory.path + "/file"
        #expect(try !DurableFiles.exists(path) && DurableFiles.byteCount(path) == nil)
        #expect(try DurableFiles.readIfPresent(path) == nil && DurableFiles.names(in: path) == nil)
        try silence(path)
        #expect(throws: CoordinationError.self) { try DurableFiles.exists(path) }
        #expect(throws: CoordinationError.self) { try DurableFiles.byteCount(path) }
        #expect(throws: CoordinationError.self) { try DurableFiles.readIfPresent(path) }
        #expect(throws: CoordinationError.self) { try DurableFiles.names(in: path) }
        try FileManager.default.removeItem(atPath: path)
        try Data([1, 2]).write(to: URL(fileURLWithPath: path))
        #expect(try DurableFiles.exists(path) && DurableFiles.byteCount(path) == 2)
        #expect(try DurableFiles.readIfPresent(path) == Data([1, 2]))
        #expect(try DurableFiles.names(in: directory.path) == ["file"])
        // A file in the place of a directory is no absent directory.
        #expect(throws: CoordinationError.self) { try DurableFiles.names(in: path) }
    }

    // MARK: - The note of a restore

    private func started(_ bench: Bench) async throws -> (run: String, clients: [String]) {
        try await bench.startRun(
            try Bench.exactSpecification {
                $0.cohort += ["goal": 2, "minimum": 2, "max_participations": 9]
                $0.privacy += ["mode": "local", "noise_multiplier": 4]
            },
            budget: BudgetSpecification(epsilon: 50, delta: 1e-5),
            clients: 2
        )
    }

    /// Until it is known whether this is a restored directory, no private work is handed out; then the attempt is abandoned, or goes on.
    @Test(arguments: [true, false])
    func aNoteThatCannotBeReadStopsPrivateRuns(_ isRestored: Bool) async throws {
        let bench = try await Bench(.memory)
        let (run, clients) = try await started(bench)
        _ = try await Bench.assignment(bench.coordinator, clients[0])
        let note = bench.directory.path + "/restored.json"
        try silence(note)
        let coordinator = try await bench.restarted()
        #expect(await coordinator.ledgerRecordState == "unread")
        for _ in 0..<3 {
            bench.clock.advance(by: 11)
            try await coordinator.tick()
            #expect(try await Bench.assignment(coordinator, clients[1]) == nil)
        }
        let problems = try await coordinator.overview(role: .viewer).problems
        let problem = try #require(problems.first { $0.code == "ledger_record_unread" })
        #expect(problem.detail.contains("note of the restore"), "\(problem)")
        #expect(try await coordinator.rounds(run: run).map(\.state) == [.selecting])
        try FileManager.default.removeItem(atPath: note)
        if isRestored { try Data(#"{"ledger_rows": 2}"#.utf8).write(to: URL(fileURLWithPath: note)) }
        // Any row, before the next try: nobody is given work of the attempt in between.
        _ = try await coordinator.changeBudget(population: "p", .init(epsilon: 49))
        if isRestored { #expect(try await Bench.assignment(coordinator, clients[1]) == nil) }
        bench.clock.advance(by: 11)
        try await coordinator.tick()
        #expect(await coordinator.ledgerRecordState == "kept")
        #expect(!FileManager.default.fileExists(atPath: note))
        let round = try #require(try await coordinator.rounds(run: run).first)
        let states = try await coordinator.ledgerRows(population: "p").filter { $0.runId == run }.map(\.state)
        guard isRestored else {
            #expect(round.state == .selecting && states == [.reserved])
            return #expect(try await Bench.assignment(coordinator, clients[1]) != nil)
        }
        #expect(round.state == .abandoned && round.reason?.contains("restored from a backup") == true)
        #expect(states.prefix(3) == [.reserved, .released, .committed])
        bench.clock.advance(by: 10)
        try await coordinator.tick()
        #expect(try await Bench.assignment(coordinator, clients[1]) != nil)
        #expect(try await coordinator.rounds(run: run).map(\.state) == [.abandoned, .selecting], "once")
    }

    /// It does not say how much the backup's ledger knew, so that nobody can say whether the second record is older.
    @Test func aDamagedNoteIsAnAlarm() async throws {
        let bench = try await Bench(.memory)
        let (_, clients) = try await started(bench)
        let note = bench.directory.path + "/restored.json"
        try Data(#"{"ledger_rows": 2"#.utf8).write(to: URL(fileURLWithPath: note))
        let coordinator = try await bench.restarted()
        #expect(try #require(await coordinator.ledgerState().alarm).contains("restored.json, is damaged"))
        #expect(try await Bench.assignment(coordinator, clients[0]) == nil)
        #expect(try await coordinator.acknowledgeRollback(reason: "a test").alarm == nil)
        #expect(!FileManager.default.fileExists(atPath: note))
        #expect(try await bench.restarted().ledgerState().alarm == nil)
    }

    // MARK: - Lists

    private func makeNoiseFiles(_ directory: TemporaryDirectory) throws -> NoiseStateFiles {
        let logger = Logger(label: "test")
        return NoiseStateFiles(
            blobs: try DirectoryBlobStore(dataDirectory: directory.path),
            keys: NoiseKeys(sharedPath: directory.path + "/keys/noise.key"),
            storage: StorageHealth(logger: logger, metrics: .server(), now: { SampleRun.start }),
            logger: logger
        )
    }

    /// A list that cannot be read is not an empty one: what has to go goes later, and a key that may be needed stays.
    @Test func whatCannotBeListedIsDeletedLaterAndKeepsItsKey() throws {
        let directory = try TemporaryDirectory()
        var files = try makeNoiseFiles(directory)
        let (noise, keys) = (directory.path + "/noise", directory.path + "/keys")
        try FileManager.default.createDirectory(atPath: keys, withIntermediateDirectories: false)
        for path in [keys + "/noise.key", keys + "/noise.key.run_a"] {
            try Data(count: 32).write(to: URL(fileURLWithPath: path))
        }
        try Data("MARTLET-NOISE-1\n".utf8).write(to: URL(fileURLWithPath: noise + "/run_a-1.state"))
        func names() throws -> [String] {
            try ["/noise", "/keys"].flatMap { try DurableFiles.names(in: directory.path + $0) ?? [] }.sorted()
        }
        for path in [noise, keys] {
            try FileManager.default.moveItem(atPath: path, toPath: path + "-away")
            try silence(path)
            // A run that is not known, while an alarm stands: its state is kept, and so is what opens it.
            files.dropUnneeded(RunTable(), isWhole: false)
            #expect(files.isLeft)
            try FileManager.default.removeItem(atPath: path)
            try FileManager.default.moveItem(atPath: path + "-away", toPath: path)
            files.retry(RunTable(), isWhole: false)
            #expect(try !files.isLeft && names() == ["noise.key", "noise.key.run_a", "run_a-1.state"])
        }
        files.dropUnneeded(RunTable(), isWhole: true)
        #expect(try names().isEmpty)
    }

    @Test func aSpoolThatCannotBeListedHasNoKnownContents() async throws {
        let bench = try await Bench(.memory)
        let blobs = bench.coordinator.blobs
        try FileManager.default.removeItem(atPath: blobs.spoolDirectory)
        try silence(blobs.spoolDirectory)
        let check = DataDirectoryCheck(state: try bench.store.load(), blobs: blobs)
        #expect(throws: CoordinationError.self) { try check.leftovers() }
        #expect(check.findings(isDeep: false).contains { $0.code == "storage_failed" && $0.severity == .error })
        #expect(throws: CoordinationError.self) { try UpdateFiles(blobs: blobs).sweep { _ in true } }
        #expect(throws: CoordinationError.self) { try UpdateFiles(blobs: blobs).recover { _ in true } }
        await #expect(throws: (any Error).self) { try await bench.restarted() }
    }

    /// What `doctor` says of a file decides whether somebody restores it.
    @Test(arguments: [true, false])
    func aModelThatTheDiskDoesNotGiveIsNotCalledMissing(_ isDeep: Bool) async throws {
        let bench = try await Bench(.memory)
        let (run, _) = try await bench.startRun(try Bench.specification())
        let path = bench.coordinator.blobs.path(
            sha256: try await bench.coordinator.model(run: run, version: "0").sha256
        )
        try FileManager.default.removeItem(atPath: path)
        try silence(path)
        let check = DataDirectoryCheck(state: try bench.store.load(), blobs: bench.coordinator.blobs)
        let codes = check.findings(isDeep: isDeep).filter { $0.severity == .error }.map(\.code)
        #expect(codes == ["storage_failed"])
    }

    // MARK: - One place

    /// Files of the server that may ask the disk otherwise, and why that is no question about what is there.
    private static let exceptions = [
        "Coordination/Storage/DurableFiles+Questions.swift": "the place",
        "Coordination/Storage/DurableFiles.swift": "publishContents: a failure is an error",
        "Coordination/Storage/BlobVerifier.swift": "stamps: no answer is no verified file",
        "Coordination/Storage/DirectoryBlobStore.swift": "isSameFile: no answer links the file again",
        "Coordination/Recovery/SignOfLife.swift": "no answer gives no time back, and costs no privacy",
        "Coordination/Observability/ProcessMeasurements.swift": "/proc",
        "HelperService/Storage/SecretFile.swift": "no answer is a file, which is erased",
        "SQLiteStorage/GuardedDatabase.swift": "no answer is an error",
        "SQLiteStorage/OwnerOnlyFile.swift": "errors show when the database is opened",
        "martlet/Serving/ServeCommand.swift": "the words of an error",
        "martlet/Serving/ServerPlan.swift": "no answer is an error",
    ]

    @Test func nothingElseOfTheServerAsksWhetherAFileIsThere() throws {
        let sources =
            URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().deletingLastPathComponent().path + "/Sources/"
        let questions = [
            "fileExists(", "access(", "contents(atPath", "attributesOfItem(", "contentsOfDirectory(",
            "subpathsOfDirectory(",
            "subpaths(", "enumerator(at", " stat(", "lstat(", "try? SpooledFile.", "FileHandle(forReadingAtPath",
        ]
        var found: Set<String> = []
        for folder in [
            "Coordination", "HelperService", "SQLiteStorage", "martlet/Helper", "martlet/Maintenance",
            "martlet/Serving",
        ] {
            let files = try #require(FileManager.default.enumerator(atPath: sources + folder))
            for case let name as String in files where name.hasSuffix(".swift") {
                let text = try String(contentsOfFile: sources + folder + "/" + name, encoding: .utf8)
                let lines = text.split(separator: "\n").filter { line in
                    !line.drop { $0 == " " }.hasPrefix("//") && questions.contains { line.contains($0) }
                }
                if !lines.isEmpty { found.insert(folder + "/" + name) }
            }
        }
        #expect(
            found.subtracting(Self.exceptions.keys) == [],
            "use DurableFiles.exists, byteCount, readIfPresent or names"
        )
        #expect(Set(Self.exceptions.keys).subtracting(found) == [], "exceptions that are not needed any more")
    }
}
