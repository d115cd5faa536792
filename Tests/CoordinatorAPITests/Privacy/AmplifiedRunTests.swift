import Coordination
import DifferentialPrivacy
import Foundation
import Tensors
import TestSupport
import Testing
import WireFormat

/// Runs whose cost counts on secret Poisson samples.
@Suite(.timeLimit(.minutes(1)))
struct AmplifiedRunTests {
    private static let privacy = #"{"mode": "central", "noise_multiplier": 1, "amplification": "poisson"}"#
    private static let cohort = #"{"goal": 6, "policy": "poisson", "sampling_rate": 0.5, "report_timeout_s": 100}"#
    private static let zeros = [Float](repeating: 0, count: 4)

    @Test func theCostIsTheSampledOneAndNothingTellsWhoWasDrawn() async throws {
        let bench = try await PrivateBench()
        try await bench.begin(privacy: Self.privacy, cohort: Self.cohort, rounds: 2, clients: 12)
        var drawn: [Int] = []
        for client in 0..<12 {
            let answer = try await bench.checkIn(client)
            guard let assignment = answer["assignment"] as? [String: Any] else {
                #expect(answer["reason"] as? String == "no_open_slot")
                continue
            }
            drawn.append(client)
            #expect(try await bench.upload(client, assignment, Self.zeros).status == 200)
        }
        // Everyone who was drawn has reported, and the round goes on as long as it would without them.
        try await bench.coordinator.tick()
        #expect(try await bench.coordinator.run(bench.run).committedRounds == 0)
        for client in drawn {
            #expect(try await bench.checkIn(client)["reason"] as? String == "no_open_slot")
        }
        bench.clock.advance(by: 101)
        try await bench.coordinator.tick()
        _ = try await bench.settled()
        #expect(try await bench.coordinator.run(bench.run).committedRounds == 1)
        // A round without any update is published too: that none came must not show.
        bench.clock.advance(by: 101)
        try await bench.coordinator.tick()
        let model = try await bench.settled()
        #expect(try await bench.coordinator.run(bench.run).state == "completed" && model.allSatisfy { $0 != 0 })
        let charges = try await bench.charges()
        #expect(charges.count == 2)
        #expect(
            charges.allSatisfy { $0["kind"] as? String == "poisson_gaussian" && $0["samplingRate"] as? Double == 0.5 }
        )
        var accountant = LossDistributionAccountant()
        try accountant.add(.poissonGaussian(samplingRate: 0.5, noiseMultiplier: 1), count: 2)
        let expected = try accountant.epsilon(delta: 1e-5)
        #expect(abs(try await bench.spent() / expected - 1) < 1e-3)
        #expect(expected < GaussianAccountant.epsilon(delta: 1e-5, noiseMultiplier: 0.5.squareRoot()))
        let audit = try LedgerAudit(WireCoding.encode(await bench.coordinator.ledgerAudit(population: "p")))
        #expect(audit.problems.isEmpty && audit.epsilons.map(\.accountant) == [.pld, .rdp])
    }

    /// What counts rounds, updates or check-ins is for staff; other clients and whoever has no token are told nothing.
    @Test func nobodyButStaffSeesWhoTookPartOrHowMany() async throws {
        let bench = try await PrivateBench()
        try await bench.begin(privacy: Self.privacy, cohort: Self.cohort, clients: 3)
        let run = "/v1/runs/\(bench.run)"
        let paths = [
            "/metrics", "/v1/audit", "/v1/clients", "/v1/events", "/v1/ledger", "/v1/overview", "/v1/populations",
            "/v1/populations/p", "/v1/populations/p/ledger", "/v1/runs", run, run + "/curves", run + "/evaluations",
            run + "/metrics", run + "/rounds", run + "/rounds/1", run + "/rounds/1/history", run + "/rounds/1/updates",
        ]
        var found = 0
        for path in paths {
            if try await bench.call("GET", path).status == 200 { found += 1 }
            for token in [bench.clients[0], "unknown"] {
                let status = try await bench.call("GET", path, token: token).status
                #expect([401, 403].contains(status), "\(path): \(status)")
            }
        }
        // A client sees its own counters, and nobody else's.
        let page = try await bench.call("GET", "/v1/clients").json["items"] as? [[String: Any]] ?? []
        var seen = 0
        for id in page.compactMap({ $0["id"] as? String }) {
            for path in ["/v1/clients/\(id)", "/v1/clients/\(id)/updates"] {
                if try await bench.call("GET", path, token: bench.clients[0]).status == 200 { seen += 1 }
            }
        }
        #expect(page.count == 3 && seen <= 2)
        #expect(found == paths.count)
    }

    @Test func aLateComerIsNotOnTheListThatIsDrawnFrom() async throws {
        let bench = try await PrivateBench()
        try await bench.begin(
            privacy: Self.privacy,
            cohort: Self.cohort.replacing("0.5", with: "1"),
            clients: 3
        )
        bench.clock.advance(by: 1)
        let enrollment = try #require(
            try await bench.post("/v1/populations/p/enrollment-tokens", #"{"max_uses": 1}"#).json["token"] as? String
        )
        let late = try #require(try await bench.post("/v1/clients", token: enrollment).json["token"] as? String)
        #expect(try await bench.post("/v1/checkins", token: late).json["reason"] as? String == "no_open_slot")
        #expect(try await bench.checkIn(0)["assignment"] != nil)
    }
}
