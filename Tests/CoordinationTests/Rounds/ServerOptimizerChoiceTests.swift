import Aggregation
import StrictJSON
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
}
