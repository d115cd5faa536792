package import DifferentialPrivacy
import Foundation
package import WireFormat

/// The least noise multiplier with which all rounds of a run meet its target.
package enum PrivacyCalibration {
    /// The specification with its `privacy.target` turned into a noise multiplier; unchanged where it has none.
    ///
    /// The accountant that will enforce has found the answer within the target, for the run alone: what the population has
    /// been charged with before is not counted.
    ///
    /// - Parameters:
    ///   - specification: A run; with a target that is not calibrated yet its noise multiplier is 0.
    ///   - parameterCount: d; as good as unknown for the cost, but not for the sampler's own share of δ.
    ///   - delta: The population's δ; a target with another one is refused.
    /// - Returns: The specification with its noise multiplier.
    /// - Throws: ``PrivacyError``.
    package static func resolve(
        _ specification: RunSpecification,
        parameterCount: Int?,
        delta: Double
    ) throws(PrivacyError) -> RunSpecification {
        guard let target = specification.privacy.target, !target.calibrated else { return specification }
        if let wanted = target.delta, wanted != delta {
            throw .invalidParameter(name: "target.delta", value: wanted, allowed: "the budget's delta, \(delta)")
        }
        func epsilon(_ z: Double) throws(PrivacyError) -> Double {
            var trial = specification
            trial.privacy.noiseMultiplier = z
            // Evaluations have a noise multiplier of their own: the rounds get what they leave.
            let releases = try PrivacyCharge.releases(
                of: trial,
                parameterCount: parameterCount ?? 0,
                rounds: trial.rounds
            )
            let charge = PrivacyCharge(of: trial, parameterCount: parameterCount ?? 0)
            let rule = BudgetArithmetic.enforcingRule(
                of: releases,
                isAdaptive: trial.followsItsOutputs,
                isFiltered: charge.startsFiltered
            )
            return try BudgetArithmetic.epsilon(of: releases, delta: delta, rule: rule)
        }
        var (lower, upper) = (0.1, 0.1)
        while try epsilon(upper) > target.epsilon {
            lower = upper
            upper *= 2
            guard upper <= 10_000 else { throw .unreachableTarget(epsilon: target.epsilon, delta: delta) }
        }
        while upper / lower > 1 + 1e-4 {
            let middle = (lower * upper).squareRoot()
            if try epsilon(middle) > target.epsilon { lower = middle } else { upper = middle }
        }
        var resolved = specification
        // Four digits more than the search is exact to, rounded up so that the target holds.
        resolved.privacy.noiseMultiplier = (upper * 1e6).rounded(.up) / 1e6
        resolved.privacy.target?.calibrated = true
        return resolved
    }
}
