import Aggregation
import Foundation
import StrictJSON
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

@testable import Coordination

/// Each optimiser that a run file may name is the one that takes the step.
struct ServerOptimizerChoiceTests {
    @Test(arguments: ServerOptimizerName.allCases)
    func theNamedOptimiserTakesTheStep(_ name: ServerOptimizerName) throws {
        let specification = try Bench.specification { $0.aggregation.optimizer += ["name": name] }
        let optimizer = specification.aggregation.optimizer
        #expect(optimizer.name == name)
        let expected =
            switch name {
            case .sgd: "FedAvg"
            case .momentum: "FedAvgM"
            case .adagrad: "FedAdagrad"
            case .adam: "FedAdam"
            case .yogi: "FedYogi"
            }
        #expect("\(type(of: optimizer.serverOptimizer))" == expected)
    }

    /// What a charge is the event of follows from the terms alone.
    @Test func everyMechanismHasItsOwnCharge() throws {
        let kinds = SampleRunFiles.all.compactMap { _, text -> ChargeKind? in
            guard let run = try? RunSpecification.read(.parse(Array(text.utf8))), run.isPrivate else { return nil }
            let charge = PrivacyCharge(of: run, parameterCount: 10)
            #expect(charge.kind.rawValue == run.privacy.mechanism.name.rawValue || run.privacy.isAmplified)
            return charge.kind
        }
        #expect(Set(kinds) == Set(ChargeKind.allCases).subtracting([.approximate]))
    }

    @Test(.slow, arguments: Bench.StoreKind.allCases, ["momentum", "adam", "yogi", "adagrad"])
    func anOptimizerContinuesToTheBitOverARestart(_ kind: Bench.StoreKind, _ name: String) async throws {
        let values: [[Float]] = [[0.1, 0.2, 0.3], [-0.3, 0.1, 0.5], [0.2, 0.2, -0.4]]
        var models: Set<[Float]> = []
        for restarts in [false, true] {
            let bench = try await Bench(kind)
            let (run, clients) = try await bench.startRun(
                try Bench.specification(rounds: 3) { $0.aggregation.optimizer += ["name": name, "learning_rate": 0.1] }
            )
            var coordinator = bench.coordinator
            for round in values {
                try await Bench.playRound(coordinator, run, clients, round)
                if restarts { coordinator = try await bench.restarted() }
            }
            let last = try await coordinator.model(run: run, version: "latest")
            #expect(last.version == 3 && last.optimizerSha256 != nil)
            #expect(try await coordinator.model(run: run, version: "0").optimizerSha256 == nil)
            models.insert(try await Bench.model(coordinator, run))
        }
        #expect(models.count == 1)
    }
}
