/// What a run's protection would come to.
package struct ProtectionPlan: Codable, Equatable, Sendable {
    package var kind: ProtectionKind
    package var domain: String
    /// b.
    package var bits: Int
    /// Bytes of one masked update.
    package var updateBytes: Int
    /// The grid's step, in parameter units: no coordinate is rounded by more than half of it.
    package var step: Double
    /// The largest coordinate that one update may have, in parameter units.
    package var largestValue: Double
    /// The same over the clipping norm; absent without privacy.
    package var largestShare: Double?
    /// The least and the most updates of one sum.
    package var minimum: Int
    package var maximum: Int
    /// z at each party; absent without privacy, as all that follow.
    package var noiseMultiplier: Double?
    /// ε towards the server, also a malicious one, and towards the helper: each knows its own noise.
    package var epsilonOfEachParty: Double?
    /// ε towards readers of models, who know neither noise.
    package var epsilonOfReaders: Double?
    /// What holds, in words.
    package var claim: String

    package init(
        kind: ProtectionKind,
        domain: String,
        bits: Int,
        updateBytes: Int,
        step: Double,
        largestValue: Double,
        largestShare: Double?,
        minimum: Int,
        maximum: Int,
        noiseMultiplier: Double?,
        epsilonOfEachParty: Double?,
        epsilonOfReaders: Double?,
        claim: String
    ) {
        self.kind = kind
        self.domain = domain
        self.bits = bits
        self.updateBytes = updateBytes
        self.step = step
        self.largestValue = largestValue
        self.largestShare = largestShare
        self.minimum = minimum
        self.maximum = maximum
        self.noiseMultiplier = noiseMultiplier
        self.epsilonOfEachParty = epsilonOfEachParty
        self.epsilonOfReaders = epsilonOfReaders
        self.claim = claim
    }
}
