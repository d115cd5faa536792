import Coordination
import Foundation
import StrictJSON
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

/// What the updates of a round become: by rule, by what they are, and held to public terms.
@Suite(.timeLimit(.minutes(10)))
struct UpdateCombinationTests {
    @Test(arguments: ["median", "geometric_median", "trimmed_mean", "krum", "multi_krum"])
    func aRobustRuleMakesTheModelInAnyOrder(_ rule: String) async throws {
        var models: Set<[Float]> = []
        for order in [[0, 1, 2, 3, 4], [4, 2, 1, 0, 3]] {
            let bench = try await Bench(.memory)
            let specification = try RunSpecification.sample {
                $0.cohort += ["goal": 5, "minimum": 5, "max_participations": 0]
                $0.aggregation += ["rule": rule]
            }
            let (run, clients) = try await bench.startRun(specification, clients: 5)
            let values: [Float] = [0.1, 0.15, 0.2, 0.25, 30]
            try await Bench.playRound(bench.coordinator, run, clients, order.map { values[$0] })
            models.insert(try await Bench.model(bench.coordinator, run))
        }
        #expect(models.count == 1 && models.allSatisfy { abs($0[0] - 0.18) < 0.1 }, "\(models)")
    }

    @Test func weightsAndGradientsGiveTheSameModelAsDeltas() async throws {
        var models: [[Float]] = []
        for (submit, sign) in [(Submission.delta, Float(1)), (.weights, 1), (.gradient, -1)] {
            let bench = try await Bench(.memory)
            let (run, clients) = try await bench.startRun(try Bench.specification { $0.training += ["submit": submit] })
            let assignment = try #require(try await Bench.assignment(bench.coordinator, clients[0]))
            #expect(assignment.training.submit == submit)
            let terms = try await bench.coordinator.beginUpdate(assignment: assignment.id, client: clients[0])
            #expect(terms.kind == submit)
            // The base is zero, so that weights are deltas; the fixed coordinate of `submit` keeps its sign.
            try await Bench.playRound(bench.coordinator, run, clients, [0.25, 0.5, 0.75].map { $0 * sign })
            models.append(Array(try await Bench.model(bench.coordinator, run)[1...]))
        }
        #expect(models[0] == models[1])
        #expect(models[0][0] == models[2][0] && models[0][1] == models[2][1])
    }

    /// A client of mode `local` that does not clip counts for as much as an honest one with its noise at most.
    @Test(arguments: ["gaussian", "laplace"])
    func anUpdateThatIsNotClippedIsHeldToPublicTermsInModeLocal(_ mechanism: String) async throws {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(
            try Bench.specification(goal: 2) {
                $0.privacy += ["mode": "local", "mechanism": mechanism, "noise_multiplier": 1]
                $0.privacy.clipping.norm = 0.01
            },
            budget: BudgetSpecification(epsilon: 100, delta: 1e-5),
            clients: 2
        )
        for (client, value) in zip(clients, [Float(30), 0.01]) {
            let id = try #require(try await Bench.assignment(bench.coordinator, client)).id
            _ = try await Bench.submit(bench.coordinator, client, id, value: value)
        }
        #expect(try await Bench.untilSettled(bench.coordinator, run).state == .completed)
        let model = try await Bench.model(bench.coordinator, run)
        // C + 2Cz(√4 + 7), and for Laplace noise C + 2Cz(2√4 + 64); half of it is the mean's.
        let bound: Float = mechanism == "laplace" ? 0.01 + 0.02 * 68 : 0.01 + 0.02 * 9
        let norm = model.reduce(Float(0)) { $0 + $1 * $1 }.squareRoot()
        #expect(norm < bound / 2 + 0.3 && norm > bound / 4, "\(norm)")
    }
}
