import Foundation
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

@testable import Coordination

/// What is counted in parts, beside the requests, where there are more clients than are looked at in one go.
@Suite(.timeLimit(.minutes(10)))
struct LargePopulationTests {
    private static let count = 2500

    /// A coordinator that starts with many clients, put straight into its store, and a run that is not started.
    private func bench(
        _ change: (inout RunFile) throws -> Void
    ) async throws -> (bench: Bench, coordinator: Coordinator, run: String) {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(try Bench.exactSpecification(change), clients: 1)
        _ = try await bench.coordinator.cancelRun(run)
        let first = try #require(try bench.store.load().clients.first { $0.id == clients[0] })
        try bench.store.commit(
            (0..<Self.count).map { index in
                var clone = first
                clone.id = "clt_\(index)"
                clone.registrationKey = nil
                clone.capabilities = "{\"memory_bytes\": \(index)}"
                clone.secondsPerAssignment = Double(1 + index % 100)
                if index.isMultiple(of: 10) { clone.state = .revoked }
                return .client(clone)
            }
        )
        let coordinator = try await bench.restarted()
        let next = try await coordinator.createRun(
            try Bench.exactSpecification(change),
            initialModel: ParameterVector(zeros: Bench.layout)
        )
        _ = try await coordinator.startRun(next.id)
        return (bench, coordinator, next.id)
    }

    @Test func aDrawIsCountedBesideTheRequestsAndTakesWhomItsCoinsTake() async throws {
        let (_, coordinator, run) = try await bench {
            $0.cohort += ["policy": "poisson", "sampling_rate": 0.1, "goal": 10, "minimum": 1, "max_participations": 0]
        }
        try await wait(for: "the count of the draw") { await coordinator.runs[run]?.round?.drawn != nil }
        let state = try #require(await coordinator.runs[run])
        let round = try #require(state.round)
        let key = try #require(round.drawKey)
        let clients = await coordinator.clients.part(from: 0, limit: .max)
        let drawn = clients.filter {
            $0.state != .revoked && PoissonDraw.includes($0.id, key: key, rate: 0.1)
        }
        #expect(round.drawn == drawn.count && drawn.count > 100)
        // Whoever comes is told by its own coin.
        let ids = Set(drawn.map(\.id))
        for client in clients.prefix(300) where client.state != .revoked {
            let work = try await coordinator.checkIn(client: client.id, CheckInRequest(), wait: .zero).assignment
            #expect((work != nil) == ids.contains(client.id))
        }
    }

    /// Work may be given before the drawn are counted: a round does not end because of that.
    @Test func aRoundWhoseDrawIsNotCountedYetGoesOn() async throws {
        var round = RoundRecord(
            runId: "r",
            number: 1,
            attempt: 1,
            opening: .reporting,
            at: Date(timeIntervalSince1970: 0),
            deadline: Date(timeIntervalSince1970: 100)
        )
        let terms = RoundTerms(
            try Bench.exactSpecification {
                $0.cohort += ["policy": "poisson", "sampling_rate": 0.1, "goal": 10, "minimum": 1]
            }
        )
        let time = Date(timeIntervalSince1970: 1)
        _ = try round.apply(.assigned, at: time, terms: terms)
        _ = try round.apply(.accepted(bytes: 1, examples: 1), at: time, terms: terms)
        #expect(try round.apply(.tick(live: 0), at: time, terms: terms).isEmpty)
        _ = try round.apply(.drawn(1), at: time, terms: terms)
        #expect(try round.apply(.tick(live: 0), at: time, terms: terms).contains(.aggregate))
    }

    @Test func everyoneIsCountedWithoutALook() async throws {
        let (_, coordinator, run) = try await bench {
            $0.cohort += ["policy": "all", "goal": 10, "minimum": 1, "max_participations": 0]
        }
        let present = await coordinator.clients.presentCount(population: coordinator.populations.order[0])
        #expect(await coordinator.runs[run]?.round?.drawn == present && present > 2000)
    }

    @Test func eligibleClientsAreCountedBesideTheRequests() async throws {
        let (_, coordinator, run) = try await bench {
            $0.cohort += ["goal": 10, "minimum": 1, "requirements": "memory_bytes >= 2495", "max_participations": 0]
        }
        try await wait(for: "the count") { try await coordinator.perform { $0.runs[run]?.eligible?.count == 5 } }
        #expect(try await coordinator.run(run).waitingFor.contains("Only 5 clients meet the run's requirements"))
    }

    /// Against counting all of them, as they register, change, work, are quarantined and revoked.
    @Test func whatIsKeptIsWhatACountGives() async throws {
        let (bench, coordinator, _) = try await bench {
            $0.cohort += ["goal": 400, "minimum": 1, "max_participations": 0]
        }
        for index in 0..<60 where !(index * 3 + 1).isMultiple(of: 10) {
            _ = try await coordinator.checkIn(client: "clt_\(index * 3 + 1)", CheckInRequest(), wait: .zero)
            if index.isMultiple(of: 7) { try await coordinator.revokeClient("clt_\(index * 3 + 1)") }
            if index.isMultiple(of: 5) {
                let change = ClientChange(labels: ["tier": "\(index % 3)"])
                _ = try await coordinator.changeClient("clt_\(180 + index)1", change)
            }
            if index == 30 { bench.clock.advance(by: 3600) }
        }
        let all = await coordinator.clients.part(from: 0, limit: .max)
        let counts = await coordinator.countClients()
        #expect(counts.total == all.count)
        var states: [String: Int] = [:]
        var tiers: [String: Int] = [:]
        let horizon = bench.clock.now.addingTimeInterval(-900)
        let presence = await coordinator.clients.presence
        for record in all {
            let seen = presence.lastSeen(record.id).map { $0 > horizon } ?? false
            let state: String =
                switch record.kind {
                case .revoked: "revoked"
                case .quarantined: "quarantined"
                case .registered: "registered"
                case .worker: seen ? "active" : "offline"
                }
            states[state, default: 0] += 1
            if record.state != .revoked, let tier = ClientProfileCache.parse(record).labels["tier"] {
                tiers[tier, default: 0] += 1
            }
        }
        #expect(counts.byState == states && counts.byTier == tiers)
        // Tiers of speed are cut as sorting everyone would, to the width of a bin.
        let seconds = all.filter { $0.state != .revoked }.compactMap(\.secondsPerAssignment).sorted(by: >)
        let bounds = await coordinator.clients.speeds(population: coordinator.populations.order[0]).bounds(tiers: 4)
        #expect(bounds.count == 3)
        for (place, bound) in bounds.enumerated() {
            let exact = seconds[(place + 1) * seconds.count / 4]
            #expect(bound >= exact * 0.999 && bound < exact * 1.03)
        }
    }

    /// The lists are cut where they are kept, and page by page they are the whole.
    @Test func pagesOfClientsAreTheWholeList() async throws {
        let (_, coordinator, _) = try await bench { $0.cohort += ["goal": 10, "minimum": 1, "max_participations": 0] }
        var (seen, cursor): ([String], Int?) = ([], 0)
        while let place = cursor {
            let page = try await coordinator.listClients(from: place, limit: 337)
            #expect(page.count <= 337)
            seen += page.map(\.id)
            cursor = page.next
        }
        #expect(await seen == coordinator.clients.order)
        #expect(try await coordinator.listClients(from: 1_000_000, limit: 5).isEmpty)
    }

    @Test func anOverviewHasNoMoreRunsThanItShows() async throws {
        let bench = try await Bench(.memory)
        let (run, _) = try await bench.startRun(try Bench.specification(), clients: 1)
        let record = try #require(try bench.store.load().runs.first)
        try bench.store.commit(
            (0..<450).map { index in
                var clone = record
                clone.id = "run_\(index)"
                clone.createdAt = record.createdAt.addingTimeInterval(Double(index + 1))
                clone.state = .completed
                return .run(clone)
            }
        )
        let coordinator = try await bench.restarted()
        let overview = try await coordinator.overview(role: .viewer)
        #expect(overview.runs.count == 200 && overview.moreRuns == 251)
        // What has not ended is there whatever its age, and the newest of the others.
        #expect(overview.runs.first?.id == run && overview.runs.last?.id == "run_449")
        #expect(try await coordinator.listRuns(limit: 1000).count == 451)
    }
}
