import Coordination
import Foundation
import StrictJSON
import TestBenches
import TestSupport
import Testing
import WireFormat

@Suite(.timeLimit(.minutes(10)))
struct OverviewStateTests {
    @Test(arguments: Bench.StoreKind.allCases)
    func phasesRefusalsAndMeasurementsAreTheSameAfterARestart(_ kind: Bench.StoreKind) async throws {
        let bench = try await Bench(kind)
        let (run, clients) = try await bench.startRun(try Bench.specification(goal: 2, rounds: 2))
        bench.clock.advance(by: 7)
        var work: [AssignmentBody] = []
        for client in clients.prefix(2) {
            work.append(try #require(try await Bench.assignment(bench.coordinator, client)))
        }
        await bench.coordinator.noteDownload(run: run, version: 0, byteCount: 200)
        try await bench.coordinator.tick()
        bench.clock.advance(by: 5)
        await bench.coordinator.noteDownload(run: run, version: 0, byteCount: 100)
        // A version that the round does not start from is somebody looking.
        await bench.coordinator.noteDownload(run: run, version: 1, byteCount: 5000)
        try await bench.coordinator.rejectUpdate(assignment: work[0].id, client: clients[0], code: "not_finite")
        let third = try #require(try await Bench.assignment(bench.coordinator, clients[2]))
        _ = try await Bench.submit(bench.coordinator, clients[1], work[1].id, value: 1)
        _ = try await Bench.submit(bench.coordinator, clients[2], third.id, value: 1)
        _ = try await Bench.untilSettled(bench.coordinator, run)
        _ = try await bench.coordinator.reportMetrics(
            run: run,
            version: "1",
            MetricsReport(metrics: ["accuracy": 0.5])
        )
        for coordinator in [bench.coordinator, try await bench.restarted()] {
            let round = try await coordinator.round(run: run, number: 1)
            #expect(round.bytesDown == 300)
            #expect(round.phaseSeconds == ["selecting": 7, "reporting": 5, "aggregating": 0])
            #expect(round.refusals == ["not_finite": 1])
            #expect(round.metrics == ["held-out": ["accuracy": 0.5]])
            let overview = try await coordinator.overview(role: .viewer)
            #expect(overview.runs.first?.metrics == ["held-out": ["accuracy": 0.5]])
            #expect(overview.problems.contains { $0.code == "updates_refused:not_finite" && $0.count == 1 })
        }
    }

    @Test func problemsNameTheBudgetTheAbandonedAttemptsAndSilence() async throws {
        let bench = try await Bench(.memory)
        let (run, _) = try await bench.startRun(
            try RunSpecification.sample {
                $0.rounds = 9
                $0.cohort += ["goal": 3, "selection_timeout_s": 50, "max_participations": 9]
                $0.privacy += ["mode": "central", "noise_multiplier": 2]
            },
            budget: BudgetSpecification(epsilon: 5, delta: 1e-5)
        )
        func codes() async throws -> [String: Int?] {
            let problems = try await bench.coordinator.overview(role: .viewer).problems
            return Dictionary(problems.map { ($0.code, $0.count) }) { first, _ in first }
        }
        let first = try await codes()
        #expect(first["budget_too_small"] != nil && first["attempts_abandoned"] == nil, "\(first)")
        bench.clock.advance(by: 30)
        #expect(try await codes()["nobody_checks_in"] != nil)
        bench.clock.advance(by: 30)
        try await bench.coordinator.tick()
        #expect(try await codes()["attempts_abandoned"] == 1)
        _ = try await bench.coordinator.cancelRun(run)
        #expect(try await codes().isEmpty)
    }

    @Test func quarantinedClientsAreCountedAndAProblem() async throws {
        let bench = try await Bench(.sqlite)
        let (_, enrolled) = try await bench.startRun(try Bench.specification())
        var record = try #require(try bench.store.load().clients.first { $0.id == enrolled[1] })
        record.quarantinedAt = bench.clock.now
        record.quarantineReason = "round 1: too long"
        try bench.store.commit([.client(record)])
        let coordinator = try await bench.restarted()
        let overview = try await coordinator.overview(role: .viewer)
        #expect(overview.clients.byState["quarantined"] == 1)
        #expect(overview.problems.contains { $0.code == "clients_quarantined" && $0.count == 1 })
        try await coordinator.releaseClient(enrolled[1])
        bench.clock.advance(by: 2)
        #expect(try await coordinator.overview(role: .viewer).problems.isEmpty)
    }

    @Test func clientsAreCountedByStateAndTier() async throws {
        let bench = try await Bench(.memory)
        let (_, enrolled) = try await bench.startRun(try Bench.specification())
        let token = try await bench.coordinator.createEnrollmentToken(
            population: "p",
            EnrollmentTokenRequest(maxUses: 2)
        )
        guard case .enrollment(_, let hash) = await bench.coordinator.principal(token: token) else { return }
        for tier in ["1", "2"] {
            _ = try await bench.coordinator.register(
                enrollmentTokenHash: hash,
                RegistrationRequest(name: nil, labels: ["tier": tier, "locale": "en"]),
                idempotencyKey: nil
            )
        }
        let client = try #require(enrolled.first)
        _ = try #require(try await Bench.assignment(bench.coordinator, client))
        try await bench.coordinator.revokeClient(client)
        bench.clock.advance(by: 1)
        let clients = try await bench.coordinator.overview(role: .viewer).clients
        #expect(clients.total == 6 && clients.working == 0)
        #expect(clients.byState == ["revoked": 1, "registered": 5])
        let tiers = clients.byTier.filter { Int($0.key) != nil }
        #expect(tiers == ["1": 1, "2": 1])
    }
}
