package import DifferentialPrivacy
import Foundation
package import WireFormat

/// What a run will cost if all its rounds are published.
package struct PrivacyProjection: Codable, Equatable, Sendable {
    package var mode: PrivacyMode
    package var mechanism: MechanismWord
    package var noiseMultiplier: Double
    package var rounds: Int
    /// Rounds that one client is in at most.
    package var participations: Int
    /// Of votes: from which noised count on a prefix is published.
    package var threshold: Double?
    /// q, where the cost counts on secret Poisson samples.
    package var samplingRate: Double?
    package var delta: Double
    package var accountant: String
    /// What would be proven of everything together, with the relation and the amplification that are charged.
    package var claim: PrivacyClaim
    /// Which part of the budget ends before the run does: `epsilon` or `delta`; `null` where neither does.
    package var endingPart: BudgetPart?
    /// ε of this run alone.
    package var epsilon: Double
    /// The same by Rényi divergences at the best order, which most other libraries give.
    package var epsilonRdp: Double
    /// ε after each tenth of the rounds.
    package var epsilonByRound: [RoundCost]
    /// ε of the population with this run, where it is known.
    package var populationEpsilon: Double?
    package var budgetEpsilon: Double?
    /// Rounds that the budget admits, `rounds` at most.
    package var roundsThatFit: Int
    /// Standard deviation of the noise on one coordinate of the mean update, in parameter units.
    package var noiseOfMean: Double
    /// `z·C·√d/(M·C)`: noise over signal when every update has the clipping norm and all agree.
    package var noiseToSignal: Double?

    package struct RoundCost: Codable, Equatable, Sendable {
        package var round: Int
        package var epsilon: Double
    }

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
        mode = specification.privacy.mode
        mechanism = specification.privacy.mechanism.name
        noiseMultiplier = z
        rounds = specification.rounds
        participations = cap > 0 ? min(cap, rounds) : rounds
        threshold = specification.privacy.threshold
        samplingRate = charge.kind == .poissonGaussian ? charge.samplingRate : nil
        self.delta = delta
        let all = earlier + (try releases(rounds))
        let enforcing = rule(all)
        accountant = enforcing.accountant.rawValue
        epsilon = try cost(rounds, alone: true)
        let evaluation = PrivacyCharge.evaluation(of: specification)
        claim = PrivacyClaim(
            charges: earlierCharges + [charge]
                + (specification.evaluationCount(rounds: rounds) > 0 ? evaluation.map { [$0] } ?? [] : []),
            releases: all,
            epsilon: earlier.isEmpty ? epsilon : try cost(rounds, alone: false),
            delta: delta,
            rule: enforcing
        )
        epsilonRdp = try cost(rounds, alone: true, .rdp)
        epsilonByRound = []
        var last = 0
        for tenth in 1...10 {
            let round = rounds * tenth / 10
            guard round > last else { continue }
            last = round
            // A curve for eyes; its end is the exact figure.
            let epsilon = round == rounds ? epsilon : try cost(round, alone: true, grid: .coarse)
            epsilonByRound.append(.init(round: round, epsilon: epsilon))
        }
        populationEpsilon = earlier.isEmpty ? nil : claim.epsilon
        budgetEpsilon = budget
        roundsThatFit = rounds
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
        noiseOfMean = z * sensitivity / (mode == .local ? goal.squareRoot() : goal)
        noiseToSignal = parameterCount.map {
            let norm = specification.privacy.clipping.norm
            return z * sensitivity * Double($0).squareRoot()
                / ((specification.privacy.mode == .local ? goal.squareRoot() : goal) * norm)
        }
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
