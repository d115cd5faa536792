import Coordination
import DifferentialPrivacy
import Foundation
import Tensors
import TestSupport
import Testing
import WireFormat

/// Runs whose cost counts on secret Poisson samples.
@Suite(.timeLimit(.minutes(10)))
struct AmplifiedRunTests {
    private static let privacy = #"{"mode": "central", "noise_multiplier": 1, "amplification": "poisson"}"#
    private static let cohort = #"{"goal": 6, "policy": "poisson", "sampling_rate": 0.5, "report_timeout_s": 100}"#
    private static let zeros = [Float](repeating: 0, count: 4)

    @Test(.slow) func theCostIsTheSampledOneAndNothingTellsWhoWasDrawn() async throws {
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
        #expect(try await bench.coordinator.run(bench.run).state == .completed && model.allSatisfy { $0 != 0 })
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
        // Who took part may fetch the archive: its card names what was charged, and no number of those who were drawn.
        let participant = try #require(drawn.first)
        let card = try await bench.text("/v1/runs/\(bench.run)/models/2/archive", token: bench.clients[participant])
        #expect(
            card.contains("relation `add_remove`, amplified by poisson sampling, by the accountant `pld`"),
            "\(card)"
        )
        #expect(
            card.contains("(ε = \(try await bench.spent()), δ = 1e-05)") && card.contains("how many were is not told")
        )
        #expect(
            !card.contains("the last one had")
                && card.contains("secret: the claim does not hold against the server's staff")
        )
        // Nor does the document that is made for outsiders.
        let document = try await bench.call("GET", "/v1/populations/p/ledger?format=audit").json
        #expect((document["participations"] as? [String: Any])?.isEmpty == true)
        #expect(document["relation"] as? String == "add_remove")
        let round = try await bench.call("GET", "/v1/runs/\(bench.run)/rounds/1").json
        #expect(round["is_secret"] as? Bool == true)
    }

    /// Each opening of a round would hold up everybody.
    @Test(.slow) func aRunThatTakesTooMuchArithmeticIsRefusedByName() async throws {
        let bench = try await PrivateBench()
        _ = try await bench.post("/v1/populations", #"{"name": "p", "budget": {"epsilon": 500, "delta": 1e-5}}"#)
        let refused = try await bench.post(
            "/v1/runs",
            RunFile.sample {
                $0.rounds = 1_000_000
                $0.cohort += ["goal": 100, "policy": "poisson", "sampling_rate": 0.01]
                $0.privacy += ["mode": "central", "amplification": "poisson"]
                $0.privacy.target.epsilon = 500
            }.text
        )
        #expect(refused.status == 422 && refused.json["code"] as? String == "privacy_too_costly", "\(refused.json)")
    }

    /// What the dashboard is made of is the same however many were drawn, have sent, or have failed.
    @Test(.slow) func theOverviewDoesNotTellHowManyWereDrawn() async throws {
        let bench = try await PrivateBench()
        try await bench.begin(privacy: Self.privacy, cohort: Self.cohort, rounds: 2, clients: 30)
        func overview() async throws -> (clients: [String: Any], waiting: String, problems: [String]) {
            let json = try await bench.call("GET", "/v1/overview").json
            let problems = try #require(json["problems"] as? [[String: Any]])
            let run = try #require((json["runs"] as? [[String: Any]])?.first)
            return (
                try #require(json["clients"] as? [String: Any]), try #require(run["waiting_for"] as? String),
                problems.map { "\($0["code"] ?? ""): \($0["detail"] ?? "") \($0["count"] ?? "-")" }
            )
        }
        let before = try await overview()
        #expect((before.clients["by_state"] as? [String: Int]) == ["enrolled": 30])
        #expect(!before.waiting.contains("at work") && !before.waiting.contains("accepted"), "\(before.waiting)")
        var drawn: [[String: Any]] = []
        for client in 0..<30 {
            guard var work = try await bench.checkIn(client)["assignment"] as? [String: Any] else { continue }
            work["client"] = client
            drawn.append(work)
        }
        // Of 30 at a rate of 1/2 fewer than four are drawn with a chance of 4e-6.
        guard drawn.count >= 4 else { return }
        var problems: [[String]] = []
        for (place, work) in drawn.enumerated() {
            let now = try await overview()
            #expect(NSDictionary(dictionary: now.clients) == NSDictionary(dictionary: before.clients))
            #expect(now.waiting == before.waiting)
            let client = try #require(work["client"] as? Int)
            if place % 2 == 0 {
                #expect(try await bench.upload(client, work, Self.zeros).status == 200)
            } else {
                let id = try #require(work["id"] as? String)
                let failure = #"{"code": "training_failed"}"#
                _ = try await bench.post("/v1/assignments/\(id)/failure", token: bench.clients[client], failure)
                problems.append(try await overview().problems)
            }
        }
        // Not even that some did not deliver: whoever knows one that never does would learn whether it was drawn.
        #expect(Set(problems).count == 1 && !problems[0].contains { $0.contains("did not deliver") })
    }

    /// Rényi would end the plan two rounds early: what is shown is what the accountant that enforces admits.
    @Test(.slow) func theRoundsThatFitAreThoseOfTheAccountantThatEnforces() async throws {
        func epsilon(_ rounds: Int, _ kind: AccountantKind) throws -> Double {
            try BudgetArithmetic.epsilon(
                of: [.init(.poissonGaussian(samplingRate: 0.5, noiseMultiplier: 1), count: rounds, coordinateCount: 4)],
                delta: 1e-5,
                accountant: kind
            )
        }
        let budget = try epsilon(6, .pld) * 1.0001
        #expect(try epsilon(6, .rdp) > budget && epsilon(7, .pld) > budget)
        let bench = try await PrivateBench()
        try await bench.begin(privacy: Self.privacy, cohort: Self.cohort, rounds: 9, clients: 2, epsilon: budget)
        func fitting() async throws -> Int? {
            let budget = try await bench.call("GET", "/v1/populations/p").json["budget"] as? [String: Any]
            return (budget?["rounds_that_fit"] as? [String: Any])?[bench.run] as? Int
        }
        // The first round is reserved.
        #expect(try await fitting() == 5)
        for left in [4, 3] {
            bench.clock.advance(by: 101)
            try await bench.coordinator.tick()
            _ = try await bench.settled()
            #expect(try await fitting() == left)
        }
    }

    /// What counts rounds, updates or check-ins is for staff; other clients and whoever has no token are told nothing.
    @Test(.slow) func nobodyButStaffSeesWhoTookPartOrHowMany() async throws {
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
