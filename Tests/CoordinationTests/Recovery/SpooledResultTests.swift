import DifferentialPrivacy
import Foundation
import Logging
import StrictJSON
import Synchronization
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

@testable import Coordination

/// A result in the spool is believed only if it is whole, and was made of what the database says.
@Suite(.timeLimit(.minutes(10)))
struct SpooledResultTests {
    // MARK: - The arithmetic

    /// What a stop, a disk, a backup or an earlier version may have done to a result.
    enum Change: String, CaseIterable, Sendable {
        case nothing, otherUpdates, otherHash, otherBase, noManifest, damagedManifest, noModel, damagedModel, noMemory,
            damagedMemory, noNorm, damagedNorm
    }

    @Test(arguments: Change.allCases)
    func aResultIsTakenIfAllOfItIsThereAndOfTheSameUpdates(_ change: Change) throws {
        let text = """
            {"population": "p", "model": {"architecture": "external"}, "rounds": 1, "cohort": {"goal": 2, "minimum": 1},
             "aggregation": {"optimizer": {"name": "fedadam"}},
             "privacy": {"mode": "central", "noise_multiplier": 1, "clipping": {"policy": "adaptive"}}}
            """
        let directory = try TemporaryDirectory()
        let base = directory.path + "/base"
        try SafetensorsWriter.encode(ParameterVector(zeros: Bench.layout)).write(to: URL(fileURLWithPath: base))
        var job = AggregationJob(
            specification: try RunSpecification.read(JSONValue.parse(Array(text.utf8))),
            updates: try ["asg_a", "asg_b"].map { try update($0, in: directory) },
            basePath: base,
            resultPath: directory.path + "/run_x-1-1.result"
        )
        let first = try job.run()
        let names = Set(first.spoolPaths.map { ($0 as NSString).lastPathComponent.dropFirst("run_x-1-1.result".count) })
        #expect(names == ["", ".optimizer", ".norm", ".manifest"])
        let path = job.resultPath
        switch change {
        case .nothing: break
        case .otherUpdates: job.updates[1] = try update("asg_c", in: directory)
        case .otherHash: job.updates[1].assignment.updateSha256 = String(repeating: "0", count: 64)
        case .otherBase:
            try FileManager.default.copyItem(atPath: base, toPath: base + "-2")
            job.basePath += "-2"
        case .noManifest: try FileManager.default.removeItem(atPath: path + ".manifest")
        case .damagedManifest: try Data("torn".utf8).write(to: URL(fileURLWithPath: path + ".manifest"))
        case .noModel: try FileManager.default.removeItem(atPath: path)
        case .damagedModel: try flip(path)
        case .noMemory: try FileManager.default.removeItem(atPath: path + ".optimizer")
        case .damagedMemory: try flip(path + ".optimizer")
        case .noNorm: try FileManager.default.removeItem(atPath: path + ".norm")
        case .damagedNorm: try flip(path + ".norm")
        }
        // Another process draws another key.
        job.noiseKey = NoiseKey()
        let second = try job.run()
        #expect((second.model?.sha256 == first.model?.sha256) == (change == .nothing), "\(change)")
        #expect((second.optimizer?.sha256 == first.optimizer?.sha256) == (change == .nothing))
        #expect((second.nextNorm == first.nextNorm) == (change == .nothing))
        #expect(Set(second.spoolPaths) == Set(first.spoolPaths))
        // And what stands now is whole again.
        job.noiseKey = NoiseKey()
        #expect(try job.run().model?.sha256 == second.model?.sha256)
    }

    private func update(_ id: String, in directory: TemporaryDirectory) throws -> AggregationJob.Update {
        let path = directory.path + "/" + id + ".update"
        let vector = ParameterVector(layout: Bench.layout, values: [0.5, -0.5, 0.25, 0.5])
        try SafetensorsWriter.encode(vector).write(to: URL(fileURLWithPath: path))
        let round = RoundRecord(
            runId: "run_x",
            number: 1,
            attempt: 1,
            opening: .reporting,
            at: SampleRun.start,
            deadline: SampleRun.start
        )
        return AggregationJob.Update(
            assignment: AssignmentRecord(id: id, of: round, client: id, at: SampleRun.start, deadline: SampleRun.start),
            path: path
        )
    }

    private func flip(_ path: String) throws {
        var bytes = try Data(contentsOf: URL(fileURLWithPath: path))
        bytes[bytes.count - 1] ^= 1
        try bytes.write(to: URL(fileURLWithPath: path))
    }

    // MARK: - Backups

    /// A store that takes no published version, and gives another store what it took up to a moment.
    private final class HeldStore: ForwardingRunStore {
        let inner: any RunStore
        let copy = InMemoryRunStore()
        private let isCopying = Mutex(true)
        private let isHeld = Mutex(true)

        init(_ inner: any RunStore) { self.inner = inner }

        func stopCopying() { isCopying.withLock { $0 = false } }
        func release() { isHeld.withLock { $0 = false } }

        func commit(_ changes: [StoreChange]) throws {
            let publishes = changes.contains {
                if case .modelVersion(let version) = $0 { version.version > 0 } else { false }
            }
            if publishes, isHeld.withLock({ $0 }) {
                throw StoreFailure(.refused, detail: "held", code: ENOSPC, action: .write)
            }
            try inner.commit(changes)
            if isCopying.withLock({ $0 }) { try copy.commit(changes) }
        }

        func wasLastCommitStored() throws -> Bool { false }
    }

    /// A run whose first round has a result that cannot be published yet.
    private func held(
        _ change: @Sendable (inout RunFile) throws -> Void,
        values: [Float]
    ) async throws -> (Bench, HeldStore, Coordinator, run: String) {
        let bench = try await Bench(.memory)
        let store = HeldStore(InMemoryRunStore())
        let coordinator = try await Bench.start(bench.directory, bench.clock, store)
        let (run, clients) = try await startRun(coordinator, change, goal: values.count, clients: values.count + 1)
        var ids: [String] = []
        for client in clients.prefix(values.count) {
            ids.append(try #require(try await Bench.assignment(coordinator, client)).id)
        }
        for (index, id) in ids.enumerated() {
            _ = try await Bench.submit(coordinator, clients[index], id, value: values[index])
        }
        try await wait(for: "the result") { try await coordinator.run(run).waitingFor.contains("tried again in") }
        return (bench, store, coordinator, run)
    }

    private func startRun(
        _ coordinator: Coordinator,
        _ change: @Sendable (inout RunFile) throws -> Void = { _ in },
        goal: Int,
        clients count: Int
    ) async throws -> (run: String, clients: [String]) {
        _ = try await coordinator.createPopulation(PopulationRequest(name: "p", budget: nil))
        let run = try await coordinator.createRun(
            Bench.specification(goal: goal, rounds: 2, change),
            initialModel: ParameterVector(zeros: Bench.layout)
        ).id
        let token = try await coordinator.createEnrollmentToken(population: "p", EnrollmentTokenRequest(maxUses: count))
        guard case .enrollment(_, let hash) = await coordinator.principal(token: token) else { return (run, []) }
        var clients: [String] = []
        for index in 0..<count {
            let request = RegistrationRequest(name: nil)
            let client = try await coordinator.register(
                enrollmentTokenHash: hash,
                request,
                idempotencyKey: "k\(index)"
            )
            clients.append(client.clientId)
        }
        _ = try await coordinator.startRun(run)
        return (run, clients)
    }

    private static let adam: @Sendable (inout RunFile) -> Void = { $0.aggregation.optimizer.name = "fedadam" }

    @Test func aBackupHoldsAResultWithAllItsFilesOrNoneOfThem() async throws {
        let (bench, store, coordinator, run) = try await held(Self.adam, values: [1, 3])
        let state = try store.load()
        func names(_ state: StoredState) -> Set<String> {
            let check = DataDirectoryCheck(state: state, blobs: coordinator.blobs, isBackup: true)
            return Set(check.spoolNamesForBackup().filter { $0.contains(".result") })
        }
        let stem = "\(run)-1-1.result"
        #expect(names(state) == [stem, stem + ".optimizer", stem + ".manifest"])
        for name in names(state) {
            let path = coordinator.blobs.spoolPath(name)
            try FileManager.default.moveItem(atPath: path, toPath: path + "-away")
            #expect(names(state).isEmpty, "without \(name)")
            try FileManager.default.moveItem(atPath: path + "-away", toPath: path)
        }
        // A database of another moment: another set of updates, or a round that is not closed.
        var earlier = state
        let place = try #require(earlier.assignments.firstIndex { $0.state == .accepted })
        earlier.assignments.remove(at: place)
        #expect(names(earlier).isEmpty)
        var open = state
        open.rounds[0].phase = .reporting
        #expect(names(open).isEmpty)
        let check = DataDirectoryCheck(state: open, blobs: coordinator.blobs, isBackup: true)
        #expect(try Set(check.unusableResultNames()) == [stem, stem + ".optimizer", stem + ".manifest"])
        #expect(try check.leftovers().contains(stem))
        // The version has the optimiser's memory, also after a restart.
        store.release()
        let restarted = try await Bench.start(bench.directory, bench.clock, store)
        try await wait(for: "the version") { try await restarted.run(run).committedRounds == 1 }
        #expect(try await restarted.model(run: run, version: "1").optimizerSha256 != nil)
    }

    /// The round closed between the copy of the database and the links: the backup holds the result of {1, 5}, and its database one of them.
    @Test func aResultOfAnotherMomentIsNotPublished() async throws {
        let bench = try await Bench(.memory)
        let store = HeldStore(InMemoryRunStore())
        let coordinator = try await Bench.start(bench.directory, bench.clock, store)
        let (run, clients) = try await startRun(coordinator, goal: 2, clients: 3)
        var ids: [String] = []
        for client in clients { ids.append(try #require(try await Bench.assignment(coordinator, client)).id) }
        _ = try await Bench.submit(coordinator, clients[0], ids[0], value: 1)
        store.stopCopying()
        _ = try await Bench.submit(coordinator, clients[1], ids[1], value: 5)
        try await wait(for: "the result") { try await coordinator.run(run).waitingFor.contains("tried again in") }
        let restored = try TemporaryDirectory()
        for name in ["blobs", "spool"] {
            try FileManager.default.copyItem(
                atPath: bench.directory.path + "/" + name,
                toPath: restored.path + "/" + name
            )
        }
        let second = try await Bench.start(restored, bench.clock, store.copy)
        _ = try await Bench.submit(second, clients[2], ids[2], value: 3)
        try await wait(for: "the version") { try await second.run(run).committedRounds == 1 }
        #expect(try await Bench.model(second, run) == [2, -2, 4, 0.5])
    }

    /// A result excuses updates that are gone only where it was made of them.
    @Test(arguments: [true, false])
    func lostUpdatesAreExcusedByAResultThatStands(_ stands: Bool) async throws {
        let (bench, store, coordinator, run) = try await held(Self.adam, values: [1, 3])
        store.release()
        let spool = coordinator.blobs.spoolDirectory
        for name in try FileManager.default.contentsOfDirectory(atPath: spool) where name.hasSuffix(".update") {
            try FileManager.default.removeItem(atPath: spool + "/" + name)
        }
        if !stands { try FileManager.default.removeItem(atPath: spool + "/\(run)-1-1.result.optimizer") }
        let check = DataDirectoryCheck(state: try store.load(), blobs: coordinator.blobs)
        #expect(check.lostUpdates().isEmpty == stands)
        let restarted = try await Bench.start(bench.directory, bench.clock, store)
        try await wait(for: "the end of the attempt") {
            try await restarted.rounds(run: run).first.map { [.committed, .abandoned].contains($0.state) } ?? false
        }
        #expect(try await restarted.rounds(run: run).first?.state == (stands ? .committed : .abandoned))
    }
}
