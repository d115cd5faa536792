/// How many clients of a round were held back, and at what.
///
/// The numbers of clients are for everyone who sees the round. The limits are functions of single clients' counts and norms: they
/// are for staff.
struct CohortCuts: Codable, Equatable, Sendable {
    /// What one client weighed at most; `nil` without a limit.
    var weightCap: Int?
    /// Clients that said more.
    var cappedWeights = 0
    /// L2 norm that updates were scaled down to; `nil` without a limit.
    var normBound: Double?
    /// Updates that were longer.
    var cappedNorms = 0
}

extension RoundRecord {
    /// Keeps what the round's arithmetic did to single clients.
    mutating func note(_ cuts: CohortCuts) {
        if let cap = cuts.weightCap { (cappedWeights, weightCap) = (cuts.cappedWeights, cap) }
        if let bound = cuts.normBound { (cappedNorms, normBound) = (cuts.cappedNorms, bound) }
    }
}
