package import DifferentialPrivacy
import Foundation
package import WireFormat

extension PrivacyProjection {
    /// Projects a specification.
    ///
    /// - Parameters:
    ///   - specification: A run with privacy.
    ///   - parameterCount: d; `nil` where the model is not known, then no noise-to-signal ratio is given.
    ///   - delta: Where ε is computed.
    ///   - budget: The population's ε.
    ///   - earlier: What the population has been charged with already.
    ///   - earlierCharges: The charges of `earlier`.
    ///   - isAdaptive: Whether outputs were seen before this plan was made.
    ///   - start: How the population's first charge decided that δ is divided; `nil` where this run is the first.
    /// - Throws: ``PrivacyError``.
    package init(
        of specification: RunSpecification,
        parameterCount: Int?,
        delta: Double,
        budget: Double?,
        earlier: [CappedRelease] = [],
        earlierCharges: [PrivacyCharge] = [],
        isAdaptive: Bool = false,
        start: BudgetStart? = nil
    ) throws(PrivacyError) {
        if let parameterCount, !(0...PrivacyCharge.parameterLimit).contains(parameterCount) {
            throw .invalidParameter(
                name: "parameters",
                value: Double(parameterCount),
                allowed: "0 to \(PrivacyCharge.parameterLimit)"
            )
        }
        let isAdaptive = isAdaptive || specification.followsItsOutputs
        let charge = PrivacyCharge(of: specification, parameterCount: parameterCount ?? 0)
        let start = start ?? charge.start
        func releases(_ rounds: Int) throws(PrivacyError) -> [CappedRelease] {
            try PrivacyCharge.releases(of: specification, parameterCount: parameterCount ?? 0, rounds: rounds)
        }
        func rule(_ releases: [CappedRelease]) -> EnforcingRule {
            BudgetArithmetic.enforcingRule(of: releases, isAdaptive: isAdaptive, start: start)
        }
        func cost(
            _ rounds: Int,
            alone: Bool,
            _ kind: AccountantKind? = nil,
            grid: LossDistributionAccountant.Grid = .standard
        ) throws(PrivacyError) -> Double {
            let releases = (alone ? [] : earlier) + (try releases(rounds))
            if let kind {
                return try BudgetArithmetic.epsilon(of: releases, delta: delta, accountant: kind, grid: grid)
            }
            return try BudgetArithmetic.epsilon(of: releases, delta: delta, rule: rule(releases), grid: grid)
        }
        let z = specification.privacy.noiseMultiplier
        let cap = specification.cohort.maxParticipations
        let mode = specification.privacy.mode
        let all = earlier + (try releases(specification.rounds))
        let enforcing = rule(all)
        let rounds = specification.rounds
        let epsilon = try cost(rounds, alone: true)
        let evaluation = PrivacyCharge.evaluation(of: specification)
        let claim = PrivacyClaim(
            charges: earlierCharges + [charge]
                + (specification.evaluationCount(rounds: rounds) > 0 ? evaluation.map { [$0] } ?? [] : []),
            releases: all,
            epsilon: earlier.isEmpty ? epsilon : try cost(rounds, alone: false),
            delta: delta,
            rule: enforcing
        )
        let epsilonRdp = try cost(rounds, alone: true, .rdp)
        var epsilonByRound: [RoundCost] = []
        var last = 0
        for tenth in 1...10 {
            let round = rounds * tenth / 10
            guard round > last else { continue }
            last = round
            // A curve for eyes; its end is the exact figure.
            let epsilon = round == rounds ? epsilon : try cost(round, alone: true, grid: .coarse)
            epsilonByRound.append(.init(round: round, epsilon: epsilon))
        }
        var roundsThatFit = rounds
        var endingPart: BudgetPart?
        if let budget {
            let good = try PlanSearch.rounds(upTo: rounds) { rounds, grid throws(PrivacyError) in
                try cost(rounds, alone: false, grid: grid) <= budget
            }
            roundsThatFit = good
            if good < rounds {
                let next = earlier + (try releases(good + 1))
                let isShort = BudgetArithmetic.shortage(of: next, delta: delta, rule: rule(next)) != nil
                endingPart = isShort ? .delta : .epsilon
            }
        }
        let goal = Double(specification.cohort.goal)
        let sensitivity = (mode == .local ? 2 : 1) * specification.privacy.clipping.norm
        self.init(
            mode: mode,
            mechanism: specification.privacy.mechanism.name,
            noiseMultiplier: z,
            rounds: rounds,
            participations: cap > 0 ? min(cap, rounds) : rounds,
            threshold: specification.privacy.threshold,
            samplingRate: charge.kind == .poissonGaussian ? charge.samplingRate : nil,
            delta: delta,
            accountant: enforcing.accountant.rawValue,
            claim: claim,
            endingPart: endingPart,
            epsilon: epsilon,
            epsilonRdp: epsilonRdp,
            epsilonByRound: epsilonByRound,
            populationEpsilon: earlier.isEmpty ? nil : claim.epsilon,
            budgetEpsilon: budget,
            roundsThatFit: roundsThatFit,
            noiseOfMean: z * sensitivity / (mode == .local ? goal.squareRoot() : goal),
            noiseToSignal: parameterCount.map {
                let norm = specification.privacy.clipping.norm
                return z * sensitivity * Double($0).squareRoot()
                    / ((mode == .local ? goal.squareRoot() : goal) * norm)
            }
        )
    }
}

extension PrivacyCharge {
    /// What a run is charged with for each of its rounds.
    package init(of specification: RunSpecification, parameterCount: Int) {
        let privacy = specification.privacy
        self.init(
            kind: ChargeKind(of: privacy),
            mode: privacy.mode,
            noiseMultiplier: privacy.noiseMultiplier,
            participationCap: specification.cohort.maxParticipations,
            // The noisy count of clipped updates is one coordinate more. Of votes one client changes one count, and only that
            // has to be like the noise that it is charged for.
            parameterCount: privacy.mechanism.name == .gaussianSparseHistogram
                ? 1 : min(parameterCount, .max - 1) + (privacy.isAdaptive ? 1 : 0)
        )
        if specification.followsItsOutputs { isAdaptive = true }
        switch kind {
        case .gaussian, .laplace, .discreteGaussian, .approximate: break
        case .poissonGaussian: samplingRate = specification.cohort.samplingRate
        case .bandedMatrix:
            band = BandedReleases.coefficients(band: specification.noiseBand)
            minSeparation = specification.cohort.minSeparationRounds
        case .sampleAndThreshold:
            samplingRate = specification.cohort.samplingRate
            threshold = specification.analytics?.voteThreshold.map { Double($0) }
        case .gaussianSparseHistogram: threshold = privacy.threshold ?? .infinity
        }
    }
}
