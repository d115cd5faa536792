package import DifferentialPrivacy
import Foundation
package import WireFormat

/// What a run will cost if all its rounds are published.
package struct PrivacyProjection: Codable, Equatable, Sendable {
    package var mode: String
    package var mechanism: String
    package var noiseMultiplier: Double
    package var rounds: Int
    /// Rounds that one client is in at most.
    package var participations: Int
    /// q, where the cost counts on secret Poisson samples.
    package var samplingRate: Double?
    package var delta: Double
    package var accountant: String
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
    ///   - isAdaptive: Whether outputs were seen before this plan was made.
    ///   - isFiltered: Whether filters have judged the population from its first charge on; `nil` where this run is the first.
    /// - Throws: ``PrivacyError``.
    package init(
        of specification: RunSpecification,
        parameterCount: Int?,
        delta: Double,
        budget: Double?,
        earlier: [CappedRelease] = [],
        isAdaptive: Bool = false,
        isFiltered: Bool? = nil
    ) throws(PrivacyError) {
        let isAdaptive = isAdaptive || specification.followsItsOutputs
        let charge = PrivacyCharge(of: specification, parameterCount: parameterCount ?? 0)
        let isFiltered = isFiltered ?? charge.startsFiltered
        func releases(_ rounds: Int) throws(PrivacyError) -> [CappedRelease] {
            try PrivacyCharge.releases(of: specification, parameterCount: parameterCount ?? 0, rounds: rounds)
        }
        func rule(_ releases: [CappedRelease]) -> EnforcingRule {
            BudgetArithmetic.enforcingRule(of: releases, isAdaptive: isAdaptive, isFiltered: isFiltered)
        }
        func cost(_ rounds: Int, alone: Bool, _ kind: AccountantKind? = nil) throws(PrivacyError) -> Double {
            let releases = (alone ? [] : earlier) + (try releases(rounds))
            let judge = kind.map { EnforcingRule($0) } ?? rule(releases)
            return try BudgetArithmetic.epsilon(of: releases, delta: delta, rule: judge)
        }
        let z = specification.privacy.noiseMultiplier
        let cap = specification.cohort.maxParticipations
        mode = specification.privacy.mode
        mechanism = specification.privacy.mechanism
        noiseMultiplier = z
        rounds = specification.rounds
        participations = cap > 0 ? min(cap, rounds) : rounds
        samplingRate = charge.kind == "poisson_gaussian" ? charge.samplingRate : nil
        self.delta = delta
        accountant = rule(earlier + (try releases(rounds))).accountant.rawValue
        epsilon = try cost(rounds, alone: true)
        epsilonRdp = try cost(rounds, alone: true, .rdp)
        epsilonByRound = []
        var last = 0
        for tenth in 1...10 {
            let round = rounds * tenth / 10
            guard round > last else { continue }
            last = round
            epsilonByRound.append(.init(round: round, epsilon: try cost(round, alone: true)))
        }
        populationEpsilon = earlier.isEmpty ? nil : try cost(rounds, alone: false)
        budgetEpsilon = budget
        roundsThatFit = rounds
        if let budget {
            var (good, bad) = (0, rounds + 1)
            while bad - good > 1 {
                let middle = (good + bad) / 2
                if try cost(middle, alone: false) <= budget { good = middle } else { bad = middle }
            }
            roundsThatFit = good
        }
        let goal = Double(specification.cohort.goal)
        let sensitivity = (mode == "local" ? 2 : 1) * specification.privacy.clipping.norm
        noiseOfMean = z * sensitivity / (mode == "local" ? goal.squareRoot() : goal)
        noiseToSignal = parameterCount.map {
            let norm = specification.privacy.clipping.norm
            return z * sensitivity * Double($0).squareRoot()
                / ((specification.privacy.mode == "local" ? goal.squareRoot() : goal) * norm)
        }
    }
}

extension PrivacyCharge {
    /// What a run is charged with for each of its rounds.
    package init(of specification: RunSpecification, parameterCount: Int) {
        let privacy = specification.privacy
        self.init(
            kind: privacy.isAmplified ? "poisson_gaussian" : privacy.mechanism,
            mode: privacy.mode,
            noiseMultiplier: privacy.noiseMultiplier,
            participationCap: specification.cohort.maxParticipations,
            // The noisy count of clipped updates is one coordinate more.
            parameterCount: parameterCount + (privacy.isAdaptive ? 1 : 0)
        )
        if specification.followsItsOutputs { isAdaptive = true }
        if privacy.isAmplified { samplingRate = specification.cohort.samplingRate }
        if privacy.mechanism == "banded_matrix" {
            band = BandedReleases.coefficients(band: specification.noiseBand)
            minSeparation = specification.cohort.minSeparationRounds
        }
        if kind == RunSpecification.Privacy.sampleAndThreshold {
            samplingRate = specification.cohort.samplingRate
            threshold = specification.analytics?.threshold
        }
    }
}

extension Coordinator {
    /// What a specification would cost its population, with everything charged before.
    ///
    /// - Throws: ``CoordinationError``: no privacy, no budget, or parameters that no accountant takes.
    package func projection(of specification: RunSpecification, parameterCount: Int?) throws -> PrivacyProjection {
        let population = try populationRecord(specification.population)
        guard specification.privacy.mode != "none", let delta = population.budgetDelta else {
            throw CoordinationError(
                .unprocessable,
                "no_privacy",
                "the run has no privacy mode, or its population no budget"
            )
        }
        let account = ledger.account(population.id)
        do {
            return try PrivacyProjection(
                of: specification,
                parameterCount: parameterCount,
                delta: delta,
                budget: population.budgetEpsilon,
                earlier: account.releases(),
                isAdaptive: account.isAdaptive || !account.planOrder.isEmpty,
                isFiltered: account.wouldBeFiltered(
                    charge: PrivacyCharge(of: specification, parameterCount: parameterCount ?? 0)
                )
            )
        } catch {
            throw CoordinationError(.unprocessable, "privacy_invalid", "the cost cannot be computed: \(error)")
        }
    }
}
