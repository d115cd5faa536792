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

/// Evaluation of runs with central privacy: charged like rounds, noised once, and ended by the budget with its reason.
@Suite(.timeLimit(.minutes(10)))
struct PrivateEvaluationTests {
    /// So many that the noise leaves their number far from 0: 1 is more than eight standard deviations away in every test.
    private static let clientCount = 16

    private static func specification(
        rounds: Int,
        _ change: (inout RunFile) throws -> Void
    ) throws -> RunSpecification {
        try RunSpecification.sample {
            $0 += ["rounds": rounds]
            $0.cohort += [
                "goal": 2, "minimum": 2, "over_selection": 1, "max_participations": 9, "selection_timeout_s": 50,
            ]
            $0.privacy += ["mode": "central", "noise_multiplier": 50]
            $0.evaluation += ["every": 1, "cohort_goal": clientCount, "minimum": clientCount]
            try change(&$0)
        }
    }

    private static func epsilon(rounds: Int, evaluations: Int, z: Double = 1) throws -> Double {
        var releases = [CappedRelease(.gaussian(noiseMultiplier: 50), count: rounds, cap: 9, coordinateCount: 4)]
        if evaluations > 0 {
            releases.append(
                CappedRelease(.gaussian(noiseMultiplier: z), count: evaluations, cap: 9, coordinateCount: 3)
            )
        }
        return try BudgetArithmetic.epsilon(of: releases, delta: 1e-5, accountant: .gaussian)
    }

    /// Sends a client's sums as intake would.
    private func measure(
        _ coordinator: Coordinator,
        _ client: String,
        _ id: String,
        top1: Double = 1
    ) async throws -> UpdateReceipt {
        let terms = try await coordinator.beginUpdate(assignment: id, client: client)
        #expect(terms.isEvaluation && !terms.releasedMetrics.isEmpty)
        let result = EvaluationResult(
            numExamples: 10,
            metrics: ["nll": 30, "loss_tokens": 10, "tokens": 10, "hit1": 10 * top1]
        )
        return try await coordinator.finishUpdate(
            assignment: id,
            client: client,
            Bench.written(WireCoding.encode(result), by: terms, examples: 10, metrics: result.metrics)
        )
    }

    /// Does whatever work there is, once for each client; returns whether there was any.
    @discardableResult private func turn(
        _ coordinator: Coordinator,
        _ clients: [String],
        _ run: String,
        settling: Bool = true
    ) async throws -> Bool {
        var worked = false
        for client in clients {
            guard let work = try await Bench.assignment(coordinator, client) else { continue }
            worked = true
            if work.kind == .train {
                _ = try await Bench.submit(coordinator, client, work.id, value: 0.1)
            } else {
                _ = try await measure(coordinator, client, work.id)
            }
        }
        if settling { try await settle(coordinator, run) }
        return worked
    }

    /// Waits for the arithmetic.
    private func settle(_ coordinator: Coordinator, _ run: String) async throws {
        try await wait(for: "the end of the aggregation") {
            let training = try await coordinator.rounds(run: run).last?.state
            let evaluation = try await coordinator.evaluations(run: run).last?.state
            return training != .aggregating && evaluation != .aggregating
        }
    }

    @Test(arguments: Bench.StoreKind.allCases)
    func evaluationsAreChargedUntilTheBudgetEndsThemAndTrainingGoesOn(_ kind: Bench.StoreKind) async throws {
        let bench = try await Bench(kind)
        let two = try Self.epsilon(rounds: 4, evaluations: 2)
        let three = try Self.epsilon(rounds: 4, evaluations: 3)
        let (run, clients) = try await bench.startRun(
            try Self.specification(rounds: 4) {
                $0.evaluation += ["noise_multiplier": 1, "max_participations": 9, "metrics": ["loss", "top1"]]
            },
            budget: BudgetSpecification(epsilon: (two + three) / 2, delta: 1e-5),
            clients: Self.clientCount
        )
        var coordinator = bench.coordinator
        #expect(try await coordinator.population("p").budget?.roundsThatFit[run] == 2)
        var restarts = 0
        for _ in 0..<50 where try await coordinator.run(run).state == .running {
            if restarts == 0, try await coordinator.evaluations(run: run).last?.state == .selecting {
                // One of two has measured: its sums are a file, and nothing of them is in the database.
                let work = try #require(try await Bench.assignment(coordinator, clients[0]))
                #expect(work.kind == .evaluate && work.privacy.noiseMultiplier == 1 && work.maxParticipations == 9)
                #expect(work.release == .init(metrics: ["loss", "top1"], lossBound: 10))
                for _ in 0..<3 { _ = try await measure(coordinator, clients[0], work.id) }
                #expect(FileManager.default.fileExists(atPath: coordinator.blobs.spoolPath(work.id + ".update")))
                coordinator = try await bench.restarted()
                restarts += 1
            }
            if try await !turn(coordinator, clients, run) {
                bench.clock.advance(by: 2)
                try await coordinator.tick()
            }
        }
        let view = try await coordinator.run(run)
        #expect(view.state == .completed && view.committedRounds == 4 && restarts == 1)
        let evaluations = try await coordinator.evaluations(run: run)
        #expect(evaluations.map(\.number) == [1, 2, 3, 4])
        #expect(evaluations.map(\.state) == [.committed, .committed, .abandoned, .abandoned])
        #expect(evaluations.map(\.accepted) == [16, 16, 0, 0] && evaluations.map(\.assigned) == [16, 16, 0, 0])
        for refused in evaluations.suffix(2) {
            #expect(refused.reason?.hasPrefix("budget_exhausted: the evaluation of version") == true)
        }
        for measured in evaluations.prefix(2) {
            let rates = try #require(measured.metrics?["federated"])
            #expect(Set(rates.keys) == ["loss", "top1"])
            #expect(rates.allSatisfy { $0.value >= 0 && $0.value <= ($0.key == "loss" ? 10 : 1) })
            let history = try await coordinator.roundHistory(run: run, number: -measured.number)
            #expect(
                history.last?.cause.contains("16 clients measured version \(measured.number)") == true,
                "\(history)"
            )
        }
        let rows = try await coordinator.ledgerRows(population: "p").filter { $0.event.contains("evaluation") }
        #expect(rows.map(\.state) == [.reserved, .committed, .reserved, .committed])
        #expect(rows.map(\.round) == [1, 1, 2, 2])
        let spent = try #require(try await coordinator.population("p").budget?.spentEpsilon)
        #expect(abs(spent - two) < 1e-9)
        let audit = try LedgerAudit(WireCoding.encode(await coordinator.ledgerAudit(population: "p")))
        #expect(audit.problems.isEmpty && audit.committed == 6 && audit.reserved == 0)
        // A version's claim is of what was measured of it, too; its round alone had cost less.
        let trained = try #require(try await coordinator.rounds(run: run).first?.epsilon)
        let first = try #require(try await coordinator.claim(run: run, version: 1))
        #expect(abs(first.epsilon - (try Self.epsilon(rounds: 1, evaluations: 1))) < 1e-9 && first.epsilon > trained)
        #expect(first.relations == [.zeroOut] && first.delta == 1e-5 && first.assumptions == [.serverAddsNoise])
        #expect(try await coordinator.claim(run: run, version: 4)?.epsilon == spent)
        #expect(try await coordinator.claim(run: run, version: 0) == nil)
        let stored = try bench.store.load().assignments
        #expect(stored.count == 40 && stored.allSatisfy { $0.metrics == nil && $0.exampleCount ?? 1 == 1 })
        let spool = coordinator.blobs.spoolNames()
        #expect(spool.isEmpty, "\(spool)")
        // What the ledger says is what a start finds.
        #expect(try await bench.restarted().population("p").budget?.spentEpsilon == spent)
    }

    @Test func aClientMeasuresAsOftenAsTheCostCountsOnAndTheRunSaysWhoIsMissing() async throws {
        let bench = try await Bench(.sqlite)
        let (run, clients) = try await bench.startRun(
            try Self.specification(rounds: 2) {
                $0.evaluation += ["noise_multiplier": 5, "max_participations": 1]
            },
            budget: BudgetSpecification(epsilon: 20, delta: 1e-5),
            clients: Self.clientCount
        )
        try await turn(bench.coordinator, clients, run)
        try await turn(bench.coordinator, clients, run)
        try await turn(bench.coordinator, clients, run)
        let coordinator = try await bench.restarted()
        let states = try await coordinator.evaluations(run: run).map(\.state)
        // Nobody could join the next attempt either, so this one waits for whoever enrolls.
        #expect(states == [.committed, .selecting])
        for client in clients {
            let answer = try await coordinator.checkIn(client: client, CheckInRequest(), wait: .zero)
            // It may still be wanted: it is not sent away for good.
            #expect(answer.assignment == nil && answer.reason == "no_open_slot" && answer.retryWindow != nil)
        }
        let reason = try await coordinator.run(run).waitingFor
        #expect(
            reason.contains("No other client may measure") && reason.contains("max_participations"),
            "\(reason)"
        )
        for _ in 0..<12 where try await coordinator.run(run).state == .running {
            bench.clock.advance(by: 60)
            try await coordinator.tick()
        }
        #expect(try await coordinator.run(run).state == .completed)
        let attempts = try await coordinator.evaluations(run: run).filter { $0.number == 2 }
        #expect(attempts.map(\.state) == [.abandoned, .abandoned, .abandoned])
        // What was reserved for them is given back: nothing was noised.
        let rows = try await coordinator.ledgerRows(population: "p").filter { $0.event.contains("evaluation") }
        #expect(rows.filter { $0.state == .reserved }.count == 4 && rows.filter { $0.state == .released }.count == 3)
        let late = try await bench.coordinator.population("p").budget?.reservedEpsilon
        #expect(late != nil)
    }

    /// top1 is 1 for all, and the noise has a standard deviation of 0.04: 0.5 is twelve of them away.
    @Test func aRuleToStopTakesTheNoisedRate() async throws {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(
            try Self.specification(rounds: 9) {
                $0.evaluation += ["noise_multiplier": 0.5, "max_participations": 9, "metrics": ["top1"]]
                $0.stop += ["metric": "top1", "at_least": 0.5]
            },
            budget: BudgetSpecification(epsilon: 22, delta: 1e-5),
            clients: Self.clientCount
        )
        try await turn(bench.coordinator, clients, run)
        try await turn(bench.coordinator, clients, run)
        let view = try await bench.coordinator.run(run)
        #expect(view.state == .completed && view.committedRounds == 1 && view.bestVersion == 1)
    }

    @Test func aFailedTransactionIsTriedAgainWithTheSameNoise() async throws {
        let directory = try TemporaryDirectory()
        let store = RefusingStore(InMemoryRunStore())
        let clock = TestClock()
        let coordinator = try await Bench.start(directory, clock, store)
        _ = try await coordinator.createPopulation(
            PopulationRequest(name: "p", budget: BudgetSpecification(epsilon: 20, delta: 1e-5))
        )
        let specification = try Self.specification(rounds: 1) {
            $0.evaluation += ["noise_multiplier": 0.8, "metrics": ["top1"]]
        }
        let run = try await coordinator.createRun(
            specification,
            initialModel: .init(zeros: Bench.layout)
        ).id
        let clients = try await enroll(coordinator, Self.clientCount)
        _ = try await coordinator.startRun(run)
        try await turn(coordinator, clients, run)
        try await turn(coordinator, clients, run, settling: false)
        try await wait(for: "three attempts") {
            if store.attempts.count >= 3 { return true }
            clock.advance(by: 6)
            try await coordinator.tick()
            return false
        }
        try await settle(coordinator, run)
        #expect(try await coordinator.evaluations(run: run).last?.state == .committed)
        let attempts = store.attempts
        #expect(attempts.count == 3 && Set(attempts).count == 1, "\(attempts)")
        let rows = try await coordinator.ledgerRows(population: "p").filter { $0.event.contains("evaluation") }
        #expect(rows.map(\.state) == [.reserved, .committed])
    }

    private func enroll(_ coordinator: Coordinator, _ count: Int) async throws -> [String] {
        let token = try await coordinator.createEnrollmentToken(population: "p", EnrollmentTokenRequest(maxUses: count))
        guard case .enrollment(_, let hash) = await coordinator.principal(token: token) else { return [] }
        var clients: [String] = []
        for index in 0..<count {
            let request = RegistrationRequest(name: nil)
            clients.append(
                try await coordinator.register(
                    enrollmentTokenHash: hash,
                    request,
                    idempotencyKey: "k\(index)"
                ).clientId
            )
        }
        return clients
    }

    @Test func aLostReportEndsTheAttemptAndKeepsItsCost() async throws {
        let bench = try await Bench(.sqlite)
        let (run, clients) = try await bench.startRun(
            try Self.specification(rounds: 1) { $0.evaluation.noise_multiplier = 5 },
            budget: BudgetSpecification(epsilon: 20, delta: 1e-5),
            clients: Self.clientCount
        )
        try await turn(bench.coordinator, clients, run)
        let work = try #require(try await Bench.assignment(bench.coordinator, clients[0]))
        _ = try await measure(bench.coordinator, clients[0], work.id)
        try FileManager.default.removeItem(atPath: bench.coordinator.blobs.spoolPath(work.id + ".update"))
        let coordinator = try await bench.restarted()
        let first = try #require(try await coordinator.evaluations(run: run).first)
        #expect(first.state == .abandoned && first.reason?.contains("missing or damaged") == true)
        let rows = try await coordinator.ledgerRows(population: "p").filter { $0.event.contains("evaluation") }
        // A charge of its own: what is lost here another server may have, with measurements of clients that this one does not know.
        #expect(rows.map(\.state) == [.reserved, .released, .committed])
    }

    @Test(.slow, arguments: [true, false])
    func aDeathAtAnyChargeLeavesEveryReleaseChargedOnce(diesBefore: Bool) async throws {
        let bench = try await Bench(.sqlite)
        let (run, clients) = try await bench.startRun(
            try Self.specification(rounds: 3) {
                $0.evaluation += ["noise_multiplier": 5, "max_participations": 9]
            },
            budget: BudgetSpecification(epsilon: 50, delta: 1e-5),
            clients: Self.clientCount
        )
        var store = CrashingStore(bench.store, diesBefore: diesBefore)
        var coordinator = try await Bench.start(bench.directory, bench.clock, store)
        var deaths = 0
        for _ in 0..<400 where try bench.store.load().runs.first?.state == .running {
            _ = try? await turn(coordinator, clients, run, settling: false)
            // The arithmetic ends, or its process dies on the way.
            var patience = Patience("the arithmetic to end")
            while !store.isDead {
                let rounds = try await coordinator.rounds(run: run).items + coordinator.evaluations(run: run).items
                if rounds.allSatisfy({ $0.state != .aggregating }) { break }
                try await patience.pause()
            }
            guard store.isDead else { continue }
            deaths += 1
            store = CrashingStore(bench.store, diesBefore: diesBefore)
            // Every other process outlives its charges, and dies after them.
            if deaths % 2 == 1 {
                let mortal = MortalStore(bench.store)
                _ = try await turn(Bench.start(bench.directory, bench.clock, mortal), clients, run)
                mortal.die()
            }
            coordinator = try await Bench.start(bench.directory, bench.clock, store)
        }
        let last = try await bench.restarted()
        #expect(try await last.run(run).state == .completed && deaths > 2)
        #expect(try await last.evaluations(run: run).filter { $0.state == .committed }.map(\.number) == [1, 2, 3])
        let audit = try LedgerAudit(WireCoding.encode(await last.ledgerAudit(population: "p")))
        #expect(audit.problems.isEmpty && audit.committed == 6 && audit.reserved == 0, "\(audit.problems)")
    }

    @Test func aTargetLeavesRoomForEvaluationsAndAProjectionCountsThem() throws {
        func resolve(_ evaluation: RunFile) throws -> RunSpecification {
            try PrivacyCalibration.resolve(
                try RunSpecification.sample {
                    $0.rounds = 10
                    $0.cohort += ["goal": 2, "max_participations": 10]
                    $0.privacy.mode = "central"
                    $0.privacy.target.epsilon = 4
                    $0.evaluation = evaluation
                },
                parameterCount: 4,
                delta: 1e-5
            )
        }
        let alone = try resolve([:])
        let measured = try resolve(["every": 2, "noise_multiplier": 5, "max_participations": 5])
        #expect(measured.privacy.noiseMultiplier > alone.privacy.noiseMultiplier * 1.01)
        let projection = try PrivacyProjection(of: measured, parameterCount: 4, delta: 1e-5, budget: 4)
        #expect(projection.epsilon <= 4 && projection.epsilon > 3.99 && projection.roundsThatFit == 10)
        // 1/z² adds up: ten rounds and five evaluations are one Gaussian.
        let z = (10 / pow(measured.privacy.noiseMultiplier, 2) + 5 / 25.0).squareRoot()
        #expect(abs(projection.epsilon - GaussianAccountant.epsilon(delta: 1e-5, noiseMultiplier: 1 / z)) < 1e-3)
    }
}

/// A store that refuses the first two transactions with measurements.
private final class RefusingStore: ForwardingRunStore {
    let inner: any RunStore
    private let seen = Mutex<[String]>([])

    init(_ inner: any RunStore) { self.inner = inner }

    /// The measurements of each try.
    var attempts: [String] { seen.withLock { $0 } }

    func commit(_ changes: [StoreChange]) throws {
        for case .modelMetrics(let record) in changes {
            let count = seen.withLock { seen in
                seen.append(record.metrics)
                return seen.count
            }
            if count <= 2 { throw CoordinationError(.unavailable, "storage_failed", "the disk is full") }
        }
        try inner.commit(changes)
    }
}

/// A store whose process dies when it is told to.
private final class MortalStore: ForwardingRunStore {
    let inner: any RunStore
    private let dead = Mutex(false)

    init(_ inner: any RunStore) { self.inner = inner }

    func die() { dead.withLock { $0 = true } }

    func commit(_ changes: [StoreChange]) throws {
        try dead.withLock { dead in
            guard !dead else { throw CoordinationError(.unavailable, "storage_failed", "dead") }
            try inner.commit(changes)
        }
    }
}
