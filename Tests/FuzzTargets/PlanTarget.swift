import Coordination
import DifferentialPrivacy
import Foundation
import StrictJSON
package import Tensors
import WireFormat

/// The arithmetic of privacy over the whole domain of run files and command lines: an answer or a refusal by name, never a trap.
///
/// Half of the cases are run files that are planned as `martlet privacy plan` and a dry run do; the others are questions to accountants,
/// some with absurd numbers.
package struct PlanTarget: FuzzTarget {
    package static let name = "plan"
    package static let testCaseCount = 100

    package init() {}

    package mutating func run(_ generator: inout Xoshiro256StarStar) throws -> Bool {
        #if DEBUG
        // Transforms are some fifty times slower here; small ones take the same ways.
        let cellLimit = 1 << 9
        #else
        let cellLimit = generator.oneIn(16) ? 1 << 21 : 1 << 15
        #endif
        return try ComposedLoss.$cellLimit.withValue(cellLimit) {
            try generator.oneIn(2) ? Self.plan(&generator) : Self.ask(&generator)
        }
    }

    private static func spread(_ generator: inout Xoshiro256StarStar, _ low: Double, _ high: Double) -> Double {
        pow(10, low + (high - low) * Double(generator.nextUniform()))
    }

    // MARK: - Run files

    private static func plan(_ generator: inout Xoshiro256StarStar) throws -> Bool {
        func pick(_ words: String...) -> String { generator.pick(words) }
        func number(_ low: Double, _ high: Double) -> String { String(Float(spread(&generator, low, high))) }
        let goal = 1 + Int(spread(&generator, 0, 5))
        let mode = pick("central", "central", "local")
        let mechanism = pick("gaussian", "gaussian", "gaussian", "discrete_gaussian", "laplace", "banded_matrix")
        let isDrawn = generator.oneIn(2)
        var privacy = #""mode": "\#(mode)", "mechanism": "\#(mechanism)", "clipping": {"norm": \#(number(-3, 3))"#
        if generator.oneIn(4) { privacy += #", "policy": "adaptive""# }
        privacy += "}"
        if isDrawn && generator.oneIn(2) { privacy += #", "amplification": "poisson""# }
        privacy +=
            generator.oneIn(2)
            ? #", "target": {"epsilon": \#(number(-3, 3))}"# : #", "noise_multiplier": \#(number(-1, 4))"#
        var cohort =
            #""goal": \#(goal), "max_participations": \#(generator.oneIn(2) ? 0 : Int(spread(&generator, 0, 4)))"#
        if isDrawn { cohort += #", "policy": "poisson", "sampling_rate": \#(number(-9, 0))"# }
        if mechanism == "banded_matrix" { cohort += #", "min_separation_rounds": \#(Int(spread(&generator, 0, 3)))"# }
        var document = #"""
            {"population": "p", "rounds": \#(Int(spread(&generator, 0, 6))), "model": {"architecture": "external"},
             "cohort": {\#(cohort)}, "privacy": {\#(privacy)}
            """#
        if generator.oneIn(4) {
            document +=
                #", "evaluation": {"every": \#(Int(spread(&generator, 0, 2))), "noise_multiplier": \#(number(-1, 2))}"#
            if generator.oneIn(2) { document += #", "stop": {"metric": "top1", "at_least": 0.5}"# }
        }
        if generator.oneIn(4) {
            document +=
                #", "aggregation": {"weighting": "examples", "example_cap": \#(Int(spread(&generator, 0, 12)))}"#
        }
        document += "}"
        let bytes = Array(document.utf8)
        guard let specification = try? RunSpecification.read(JSONValue.parse(bytes)) else { return false }
        let delta = spread(&generator, -12, -1)
        let budget = generator.oneIn(3) ? nil : spread(&generator, -3, 3)
        let count: Int? =
            generator.oneIn(4)
            ? nil
            : generator.oneIn(8)
                ? generator.pick([.max, .max - 1, .min, -1, 0, 1 << 41]) : Int(spread(&generator, 0, 10))
        let planned = Result { () throws(PrivacyError) in
            try LossAllowance.limited { () throws(PrivacyError) in
                let resolved = try PrivacyCalibration.resolve(specification, parameterCount: count, delta: delta)
                let plan = try PrivacyProjection(of: resolved, parameterCount: count, delta: delta, budget: budget)
                return (resolved, plan)
            }
        }
        guard case .success(let (resolved, plan)) = planned else { return false }
        if let target = resolved.privacy.target {
            try expect(plan.epsilon <= target.epsilon * (1 + 1e-9), "the plan has epsilon \(plan.epsilon)", bytes)
            try expect(resolved.privacy.noiseMultiplier >= 0.1, "z is \(resolved.privacy.noiseMultiplier)", bytes)
        }
        try expect(plan.epsilon >= 0 && !plan.epsilonRdp.isNaN, "epsilon is \(plan.epsilon)", bytes)
        try expect((0...specification.rounds).contains(plan.roundsThatFit), "\(plan.roundsThatFit) rounds fit", bytes)
        return true
    }

    // MARK: - Questions

    private static func ask(_ generator: inout Xoshiro256StarStar) throws -> Bool {
        let isWild = generator.oneIn(4)
        let noise = isWild ? spread(&generator, -300, 300) : spread(&generator, -2, 3)
        let rate =
            generator.oneIn(8) ? 1 : isWild ? spread(&generator, -300, 0.3) : spread(&generator, -6, 0)
        let count = Int(spread(&generator, 0, 9))
        let delta = isWild ? spread(&generator, -320, 0.2) : spread(&generator, -12, -2)
        let epsilon = isWild ? spread(&generator, -300, 300) : spread(&generator, -3, 3)
        let kind = generator.pick(AccountantKind.allCases)
        let question = generator.nextIndex(below: 5)
        let event: PrivacyEvent =
            generator.oneIn(6)
            ? .laplace(scale: noise)
            : rate == 1
                ? .gaussian(noiseMultiplier: noise) : .poissonGaussian(samplingRate: rate, noiseMultiplier: noise)
        func answer() throws(PrivacyError) -> Double {
            switch question {
            case 0: return try kind.accountant(of: [(event, count)]).epsilon(delta: delta)
            case 1: return try kind.accountant(of: [(event, count)]).delta(epsilon: epsilon)
            case 2:
                return try NoiseCalibration.noiseMultiplier(
                    epsilon: epsilon,
                    delta: delta,
                    samplingRate: rate,
                    steps: count,
                    accountant: kind
                )
            case 3:
                return Double(
                    try NoiseCalibration.roundsThatFit(event, epsilon: epsilon, delta: delta, accountant: kind)
                )
            default:
                let release = CappedRelease(event, count: count, cap: count / 2, coordinateCount: 1_000_000)
                return try BudgetArithmetic.epsilon(of: [release], delta: delta, accountant: kind)
            }
        }
        guard
            case .success(let value) = Result(catching: { () throws(PrivacyError) in
                try LossAllowance.limited { () throws(PrivacyError) in try answer() }
            })
        else { return false }
        let text =
            "\(kind) question \(question): z=\(noise) q=\(rate) T=\(count) delta=\(delta) epsilon=\(epsilon) gives \(value)"
        try expect(!value.isNaN && value >= 0, text, Array(text.utf8))
        return true
    }
}
