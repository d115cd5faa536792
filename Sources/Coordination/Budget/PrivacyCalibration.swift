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
    ///   - failureDelta: What all votes may fail with together; absent: what a population without charges sets aside.
    /// - Returns: The specification with its noise multiplier, and of votes with its threshold.
    /// - Throws: ``PrivacyError``.
    package static func resolve(
        _ specification: RunSpecification,
        parameterCount: Int?,
        delta: Double,
        failureDelta: Double? = nil
    ) throws(PrivacyError) -> RunSpecification {
        var resolved = try noised(specification, parameterCount: parameterCount, delta: delta)
        guard resolved.privacy.mechanism == .gaussianSparseHistogram(threshold: nil) else { return resolved }
        let votes = max(1, min(resolved.cohort.maxParticipations, resolved.rounds))
        let allowed = failureDelta ?? EnforcingRule.thresholded.failureShare * delta
        let threshold = try GaussianSparseHistogram.threshold(
            noiseMultiplier: resolved.privacy.noiseMultiplier,
            // What is left for rounding of sums.
            failureDelta: max(allowed, 1e-300) / Double(votes) * (1 - 1e-6)
        )
        resolved.privacy.mechanism = .gaussianSparseHistogram(threshold: threshold)
        return resolved
    }

    /// Refuses a run whose rounds, composed by loss distributions, take more arithmetic than the present question may.
    static func checkCost(
        of specification: RunSpecification,
        parameterCount: Int?,
        delta: Double
    ) throws(PrivacyError) {
        let releases = try PrivacyCharge.releases(
            of: specification,
            parameterCount: parameterCount ?? 0,
            rounds: specification.rounds
        )
        let rule = BudgetArithmetic.enforcingRule(
            of: releases,
            isAdaptive: specification.followsItsOutputs,
            start: PrivacyCharge(of: specification, parameterCount: parameterCount ?? 0).start
        )
        guard rule.accountant == .pld else { return }
        _ = try BudgetArithmetic.epsilon(of: releases, delta: delta, rule: rule)
    }

    private static func noised(
        _ specification: RunSpecification,
        parameterCount: Int?,
        delta: Double
    ) throws(PrivacyError) -> RunSpecification {
        guard let target = specification.privacy.target, !target.calibrated else { return specification }
        if let wanted = target.delta, wanted != delta {
            throw .invalidParameter(name: "target.delta", value: wanted, allowed: "the budget's delta, \(delta)")
        }
        func epsilon(_ z: Double, _ grid: LossDistributionAccountant.Grid) throws(PrivacyError) -> Double {
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
                start: charge.start
            )
            return try BudgetArithmetic.epsilon(of: releases, delta: delta, rule: rule, grid: grid)
        }
        // A coarse grid's ε is an upper bound too, and quick; the one on which charges are computed has the last word.
        let range = 0.1...10_000
        var found = try NoiseCalibration.search(target.epsilon, delta: delta, width: 1e-4, from: 1, in: range) {
            z throws(PrivacyError) in try epsilon(z, .coarse)
        }
        var stride = 1.0002
        while try epsilon(found, .standard) > target.epsilon {
            found *= stride
            stride *= stride
            guard found <= range.upperBound else {
                throw .unreachableTarget(epsilon: target.epsilon, delta: delta, limit: range.upperBound)
            }
        }
        // Where the coarse grid saw much more than there is, some steps back towards less noise.
        var (low, steps) = (max(0.1, found / 1.25), 0)
        while steps < 6, found > low * 1.001, try epsilon(found, .standard) < 0.995 * target.epsilon {
            let middle = (low * found).squareRoot()
            if try epsilon(middle, .standard) <= target.epsilon { found = middle } else { low = middle }
            steps += 1
        }
        var resolved = specification
        // Four digits more than the search is exact to, rounded up so that the target holds.
        resolved.privacy.noiseMultiplier = (found * 1e6).rounded(.up) / 1e6
        resolved.privacy.target?.calibrated = true
        return resolved
    }
}
