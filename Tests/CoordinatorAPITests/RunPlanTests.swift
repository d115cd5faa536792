import Foundation
import TestBenches
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(10)))
struct RunPlanTests {
    @Test func aDryRunSaysTheCostAndStoresNothing() async throws {
        let service = try await Service()
        let population = #"{"name": "p", "budget": {"epsilon": 8, "delta": 1e-5}}"#
        #expect(try await service.post("/v1/populations", token: service.admin, population).status == 201)
        let file = RunFile.sample {
            $0.rounds = 40
            $0.cohort += ["goal": 277, "max_participations": 2]
            $0.privacy += ["mode": "central", "noise_multiplier": 0.86]
        }
        let specification = file.text
        let answer = try await service.post("/v1/runs?dry_run=true", token: service.admin, specification)
        #expect(answer.status == 200, "\(answer.json)")
        let privacy = try #require(answer.json["privacy"] as? [String: Any])
        // Two releases at 0.86 are one at 0.608.
        #expect(abs((privacy["epsilon"] as? Double ?? 0) - 7.875) < 0.001, "\(privacy)")
        #expect(privacy["rounds_that_fit"] as? Int == 40)
        let warnings = try #require(answer.json["warnings"] as? [String])
        #expect(warnings.count == 2 && warnings[1].contains("want 11080 participations"), "\(warnings)")
        let runs = try await service.call("GET", "/v1/runs", token: service.admin).json["items"] as? [[String: Any]]
        #expect(runs?.isEmpty == true)
        let costly = specification.replacing("0.86", with: "0.7")
        let refused = try await service.post("/v1/runs?dry_run=true", token: service.admin, costly).json
        #expect((refused["privacy"] as? [String: Any])?["rounds_that_fit"] as? Int == 1)
        #expect((refused["warnings"] as? [String])?.first?.contains("admits 1 of 40 rounds") == true)
        // A thousand participations cost more than anyone would allow, and that is told, too: ρ = 676.
        let endless = RunFile.sample(of: file) {
            $0.rounds = 1000
            $0.cohort.max_participations = 1000
        }.text
        let told = try await service.post("/v1/runs?dry_run=true", token: service.admin, endless)
        #expect(told.status == 200, "\(told.json)")
        let cost = try #require((told.json["privacy"] as? [String: Any])?["epsilon"] as? Double)
        #expect(cost > 800 && cost < 860)
    }

    @Test func aDryRunChecksAsMuchAsACreation() async throws {
        let service = try await Service()
        _ = try await service.post("/v1/populations", token: service.admin, #"{"name": "p"}"#)
        let specification = RunFile.sample {
            $0.cohort.goal = 2
            $0.privacy += ["mode": "central", "noise_multiplier": 1]
        }.text
        let answer = try await service.post("/v1/runs?dry_run=true", token: service.admin, specification)
        #expect(answer.status == 422 && answer.code == "population_without_budget")
    }
}
