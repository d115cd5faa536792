import Coordination
import Crypto
import Foundation
import TestBenches
import TestSupport
import Testing
import WireFormat

/// What only memory holds, after a transaction of which nobody knew whether it was stored, and memory was read anew.
@Suite(.timeLimit(.minutes(10)))
struct ReadBackTests {
    /// A run of one client, and a server on a store that can fail.
    private func served(
        lease: Double? = nil,
        budget: BudgetSpecification? = nil,
        privacy: (inout RunFile) throws -> Void = { _ in }
    ) async throws -> (bench: Bench, run: String, client: String, store: DoubtfulStore, coordinator: Coordinator) {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(
            try Bench.exactSpecification(rounds: 2) {
                $0.cohort += ["goal": 1, "minimum": 1]
                if let lease { $0.cohort += ["lease_s": lease] }
                try privacy(&$0)
            },
            budget: budget,
            clients: 1
        )
        let store = DoubtfulStore(bench.store)
        let coordinator = try await Bench.start(bench.directory, bench.clock, store)
        return (bench, run, clients[0], store, coordinator)
    }

    @Test("What a request brings for work that the doubtful transaction ended is cut and removed.")
    func uploadsOfEndedWorkAreCut() async throws {
        let (bench, run, client, store, coordinator) = try await served()
        let work = try #require(try await Bench.assignment(coordinator, client))
        let terms = try await coordinator.beginUpdate(assignment: work.id, client: client)
        try terms.permit.begin(terms.spoolPath)
        try Data("half of an update".utf8).write(to: URL(fileURLWithPath: terms.spoolPath))
        store.arm(1, isStored: true, silence: 1)
        _ = try? await coordinator.cancelRun(run)
        bench.clock.advance(by: 2)
        try? await coordinator.tick()
        #expect(try await coordinator.run(run).state == .cancelled)
        #expect(terms.permit.refusal != nil)
        try await wait(for: "the file to go") { !FileManager.default.fileExists(atPath: terms.spoolPath) }
    }

    @Test("What a request brings for work that goes on is not touched, and its lease does not run out meanwhile.")
    func uploadsOfOpenWorkGoOn() async throws {
        let (bench, run, client, store, coordinator) = try await served(lease: 10)
        let work = try #require(try await Bench.assignment(coordinator, client))
        #expect(await coordinator.beginUploadRequest(assignment: work.id, client: client))
        let terms = try await coordinator.beginUpdate(assignment: work.id, client: client)
        try terms.permit.begin(terms.spoolPath)
        try Data("half of an update".utf8).write(to: URL(fileURLWithPath: terms.spoolPath))
        store.arm(1, isStored: false, silence: 1)
        _ = try? await coordinator.pauseRun(run)
        bench.clock.advance(by: 2)
        try? await coordinator.tick()
        for _ in 0..<3 {
            bench.clock.advance(by: 9)
            try? await coordinator.tick()
        }
        try terms.permit.require()
        #expect(FileManager.default.fileExists(atPath: terms.spoolPath))
        #expect(try await coordinator.round(run: run, number: 1).expired == 0)
        await coordinator.endUploadRequest(assignment: work.id)
        bench.clock.advance(by: 11)
        try? await coordinator.tick()
        #expect(try await coordinator.round(run: run, number: 1).expired == 1)
    }

    @Test("Exact sums of correlated noise go with the run that the doubtful transaction ended.")
    func sumsOfEndedRunsGo() async throws {
        let (bench, run, client, store, coordinator) = try await served(
            budget: BudgetSpecification(epsilon: 50, delta: 1e-5)
        ) {
            $0.privacy += ["mode": "central", "mechanism": "banded_matrix", "noise_multiplier": 8, "band": 2]
            $0.cohort.min_separation_rounds = 2
            $0.rounds = 4
        }
        let work = try #require(try await Bench.assignment(coordinator, client))
        _ = try await Bench.submit(coordinator, client, work.id, value: 0.1)
        _ = try await Bench.untilSettled(coordinator, run)
        func sums() throws -> [String] {
            try FileManager.default.contentsOfDirectory(atPath: bench.directory.path + "/noise").filter {
                $0.contains(run)
            }
        }
        #expect(try await coordinator.models(run: run).items.count == 2)
        #expect(try !sums().isEmpty)
        store.arm(1, isStored: true, silence: 1)
        _ = try? await coordinator.cancelRun(run)
        bench.clock.advance(by: 2)
        try? await coordinator.tick()
        #expect(try await coordinator.run(run).state == .cancelled)
        try await wait(for: "the sums to go") { try sums().isEmpty }
    }
}
