import Coordination
import DifferentialPrivacy
import Foundation
import StrictJSON
import Synchronization
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

/// A week in the life of a budget.
// Seconds; ten times as many under ThreadSanitizer.
@Suite(.timeLimit(.minutes(60)))
struct CrashTests {
    /// 500 rounds over three runs; the process dies at every write to the ledger, before it or after it in turn.
    @Test(.slow) func spentIsNeverLessThanWhatWasReleasedAndRound501IsRefused() async throws {
        let z = 100.0
        func cost(_ rounds: Int) throws -> Double {
            try BudgetArithmetic.epsilon(
                of: [CappedRelease(.gaussian(noiseMultiplier: z), count: rounds, cap: 1_000_000, coordinateCount: 4)],
                delta: 1e-5,
                accountant: .gaussian
            )
        }
        let bench = try await Bench(.memory)
        let budget = try cost(500) * (1 + 1e-9)
        _ = try await bench.coordinator.createPopulation(
            PopulationRequest(name: "p", budget: BudgetSpecification(epsilon: budget, delta: 1e-5))
        )
        let client = try #require(try await bench.enroll(1).first)
        var runs: [String] = []
        for rounds in [167, 167, 167] {
            runs.append(
                try await bench.coordinator.createRun(
                    RunSpecification.sample {
                        $0 += ["rounds": rounds]
                        $0.cohort += ["goal": 1, "minimum": 1, "over_selection": 1, "max_participations": 1_000_000]
                        $0.privacy += ["mode": "central", "noise_multiplier": z]
                    },
                    initialModel: ParameterVector(zeros: Bench.layout)
                ).id
            )
        }
        var deaths = 0
        var store = CrashingStore(bench.store, diesBefore: true)
        var coordinator = try await Bench.start(bench.directory, bench.clock, store)
        func restart() async throws {
            deaths += 1
            // A start can die too: what it finds open may have to be charged.
            while store.isDead {
                store = CrashingStore(bench.store, diesBefore: deaths.isMultiple(of: 2))
                coordinator = try await Bench.start(bench.directory, bench.clock, store)
                if store.isDead { deaths += 1 }
            }
            var released = 0
            for run in runs { released += try await coordinator.run(run).committedRounds }
            let status = try #require(try await coordinator.population("p").budget)
            #expect(status.spentEpsilon + status.reservedEpsilon >= (try cost(released)) - 1e-12)
            #expect(status.spentEpsilon + status.reservedEpsilon <= budget)
        }
        for run in runs {
            var patience = Patience("167 rounds among deaths", seconds: 3600)
            while true {
                do {
                    let view = try await coordinator.run(run)
                    if view.state == .created { _ = try await coordinator.startRun(run) }
                    if [.completed, .failed].contains(view.state) { break }
                    if let work = try await Bench.assignment(coordinator, client) {
                        _ = try await Bench.submit(coordinator, client, work.id, value: 0.25)
                    }
                    try await wait(for: "the end of the aggregation") {
                        if store.isDead { return true }
                        try await bench.passStall(coordinator, run)
                        return try await coordinator.rounds(run: run, last: 1).last?.state != .aggregating
                    }
                } catch let error as CoordinationError where error.code == "storage_failed" {
                    // The process is gone; its last words reached nobody.
                } catch let error as CoordinationError where error.code == "budget_exhausted" {
                    #expect(run == runs[2] && error.message.contains("round 167"))
                    #expect(error.message.contains("\(try cost(501))") && error.message.contains("\(budget)"))
                }
                if store.isDead { try await restart() }
                try await patience.pause()
            }
        }
        #expect(deaths >= 1000)
        #expect(try await coordinator.run(runs[0]).committedRounds == 167)
        #expect(try await coordinator.run(runs[1]).committedRounds == 167)
        let last = try await coordinator.run(runs[2])
        #expect(last.committedRounds == 166 && last.state == .failed && last.reason == "budget_exhausted")
        let audit = try LedgerAudit(WireCoding.encode(await coordinator.ledgerAudit(population: "p")))
        #expect(audit.problems.isEmpty && audit.committed == 500 && audit.reserved == 0)
    }
}

/// A store whose process dies at the first write that holds a row of the ledger: before it is durable, or after.
final class CrashingStore: ForwardingRunStore {
    let inner: any RunStore
    private let diesBefore: Bool
    private let dead = Mutex(false)

    init(_ inner: any RunStore, diesBefore: Bool) {
        self.inner = inner
        self.diesBefore = diesBefore
    }

    var isDead: Bool { dead.withLock { $0 } }

    func commit(_ changes: [StoreChange]) throws {
        let isLedger = changes.contains { if case .ledger = $0 { true } else { false } }
        let mayWrite = dead.withLock { dead in
            guard !dead else { return false }
            dead = isLedger
            return !(isLedger && diesBefore)
        }
        if mayWrite { try inner.commit(changes) }
        if isDead { throw CoordinationError(.unavailable, "storage_failed", "dead") }
    }
}
