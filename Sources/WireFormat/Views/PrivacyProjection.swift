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

        package init(
            round: Int,
            epsilon: Double
        ) {
            self.round = round
            self.epsilon = epsilon
        }
    }

    package init(
        mode: PrivacyMode,
        mechanism: MechanismWord,
        noiseMultiplier: Double,
        rounds: Int,
        participations: Int,
        threshold: Double? = nil,
        samplingRate: Double? = nil,
        delta: Double,
        accountant: String,
        claim: PrivacyClaim,
        endingPart: BudgetPart? = nil,
        epsilon: Double,
        epsilonRdp: Double,
        epsilonByRound: [RoundCost],
        populationEpsilon: Double? = nil,
        budgetEpsilon: Double? = nil,
        roundsThatFit: Int,
        noiseOfMean: Double,
        noiseToSignal: Double? = nil
    ) {
        self.mode = mode
        self.mechanism = mechanism
        self.noiseMultiplier = noiseMultiplier
        self.rounds = rounds
        self.participations = participations
        self.threshold = threshold
        self.samplingRate = samplingRate
        self.delta = delta
        self.accountant = accountant
        self.claim = claim
        self.endingPart = endingPart
        self.epsilon = epsilon
        self.epsilonRdp = epsilonRdp
        self.epsilonByRound = epsilonByRound
        self.populationEpsilon = populationEpsilon
        self.budgetEpsilon = budgetEpsilon
        self.roundsThatFit = roundsThatFit
        self.noiseOfMean = noiseOfMean
        self.noiseToSignal = noiseToSignal
    }
}
