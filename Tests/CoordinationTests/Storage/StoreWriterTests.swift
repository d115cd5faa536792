import Foundation
import Logging
import Synchronization
import TestSupport
import Testing
import WireFormat

@testable import Coordination

struct StoreWriterTests {
    /// A store whose transactions fail, and which says what has become of them.
    private final class DoubtfulStore: RunStore {
        let memory = InMemoryRunStore()
        let failure = Mutex<StoreFailure?>(nil)
        /// `nil`: it cannot be asked.
        let wasStored = Mutex<Bool?>(nil)

        func commit(_ changes: [StoreChange]) throws {
            if let failure = failure.withLock({ $0 }) { throw failure }
            try memory.commit(changes)
        }

        func wasLastCommitStored() throws -> Bool {
            guard let answer = wasStored.withLock({ $0 }) else { throw StoreFailure(.other, detail: "gone") }
            return answer
        }

        func load() throws -> StoredState { try memory.load() }
        func participations(clients: [String]) throws -> [ParticipationRecord] { [] }
        func assignment(_ id: String) throws -> AssignmentRecord? { nil }
        func history(run: String, round: Int, assignments: Bool, from: Int, limit: Int) throws -> [HistoryRow] { [] }
        func recentHistory(limit: Int) throws -> [HistoryRow] { [] }
        func audit(_ query: AuditQuery) throws -> [AuditRow] { [] }
        func events(after id: Int, limit: Int, run: String?) throws -> [EventRow] { [] }
        func updateScores(run: String, round: Int) throws -> [UpdateScoreRecord] { [] }
        func updateScores(client: String, limit: Int) throws -> [UpdateScoreRecord] { [] }
    }

    private let store = DoubtfulStore()
    private let directory: TemporaryDirectory
    private let files: UpdateFiles
    private let metrics = MetricsRegistry.server()

    init() throws {
        directory = try TemporaryDirectory()
        files = UpdateFiles(blobs: try DirectoryBlobStore(dataDirectory: directory.path))
    }

    private func writer() -> StoreWriter {
        let logger = Logger(label: "test")
        let storage = StorageHealth(logger: logger, metrics: metrics) { SampleRun.start }
        return StoreWriter(store, storage: storage, metrics: metrics, logger: logger)
    }

    @Test("A transaction that failed and is stored all the same is a success.")
    func storedAllTheSame() throws {
        var writer = writer()
        store.failure.withLock { $0 = StoreFailure(.other, detail: "no") }
        store.wasStored.withLock { $0 = true }
        try writer.write([])
        #expect(!writer.isInDoubt)
        store.wasStored.withLock { $0 = false }
        #expect(refusalCode { try writer.write([]) } == "storage_failed")
        #expect(!writer.isInDoubt)
    }

    @Test("While the store cannot say, everything waits; a transaction that is not stored takes its files with it.")
    func notStored() throws {
        var writer = writer()
        store.failure.withLock { $0 = StoreFailure(.other, detail: "no") }
        let path = files.blobs.spoolPath("upload")
        try Data([1]).write(to: URL(fileURLWithPath: path))
        try files.accept(path, of: "asg_1", receipt: SpooledReceipt(sha256: "s", byteCount: 1, exampleCount: 1))
        #expect(refusalCode { try writer.write([]) } == "storage_failed")
        writer.noteMoved("asg_1")
        #expect(writer.isInDoubt)
        #expect(refusalCode { _ = try writer.settle(files) } == "storage_failed")
        #expect(files.blobs.spoolNames().count == 2)
        store.wasStored.withLock { $0 = false }
        let isWhole = try writer.settle(files)
        #expect(isWhole && !writer.isInDoubt && files.blobs.spoolNames().isEmpty)
    }

    @Test("A transaction that turns out to be stored makes the state be read again.")
    func readAgain() throws {
        var writer = writer()
        store.failure.withLock { $0 = StoreFailure(.unsettled, detail: "no") }
        #expect(refusalCode { try writer.write([]) } == "storage_failed")
        store.wasStored.withLock { $0 = true }
        for _ in 0..<2 {
            let isWhole = try writer.settle(files)
            #expect(!isWhole && writer.isInDoubt, "until it was read")
        }
        writer.noteRead()
        let isWhole = try writer.settle(files)
        #expect(isWhole)
    }
}
