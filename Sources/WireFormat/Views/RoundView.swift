/// A round attempt as it is shown.
public struct RoundView: Codable, Equatable, Sendable {
    /// The id of its run.
    public var run: String
    /// Of an evaluation the number is the version that is measured.
    public var kind: RoundKind
    /// From 1.
    public var number: Int
    /// From 1; an abandoned attempt is followed by another.
    public var attempt: Int
    /// Where it stands.
    public var state: RoundPhase
    /// Why it was abandoned; `nil` otherwise.
    public var reason: String?
    /// Updates that are wanted.
    public var goal: Int
    /// Updates without which nothing is published.
    public var minimum: Int
    /// Clients that were given work.
    public var assigned: Int
    /// Updates that count.
    public var accepted: Int
    /// Updates that were refused.
    public var rejected: Int
    /// Clients that said that they could not do it.
    public var failed: Int
    /// Assignments whose lease or deadline ended.
    public var expired: Int
    /// Accepted updates that stood out and did not count.
    public var excluded: Int
    /// Clients that said they stand for more than one may weigh, and what one weighed at most.
    public var cappedWeights: Int?
    /// See ``cappedWeights``.
    public var weightCap: Int?
    /// Updates that were scaled down, and to what L2 norm.
    public var cappedNorms: Int?
    /// See ``cappedNorms``.
    public var normBound: Double?
    /// Of accepted updates; with privacy their planned size times their number.
    ///
    /// `nil` where their number is secret.
    public var bytesUp: Int?
    /// Bytes of models that were sent while the attempt was open; `nil` where an older server did not count, or the number of
    /// clients is secret.
    public var bytesDown: Int?
    /// RFC 3339 in UTC.
    public var openedAt: String
    /// When waiting ends, RFC 3339 in UTC; `nil` where it has none.
    public var deadline: String?
    /// RFC 3339 in UTC; `nil` while it is open.
    public var closedAt: String?
    /// From its opening to its end, or until now.
    public var seconds: Double
    /// By phase: `selecting`, `reporting`, `aggregating`.
    public var phaseSeconds: [String: Double]
    /// Of the version that it published, in hexadecimal.
    public var modelSha256: String?
    /// ε of the population with this round; `nil` without privacy.
    public var epsilon: Double?
    /// Updates refused and clients failed, by code.
    public var refusals: [String: Int]
    /// What was measured of the model that the round published, by source and name.
    public var metrics: [String: [String: Double]]?
    /// The open attempt's assignments that may still deliver, by state.
    public var live: [String: Int]?
    /// Whether the cost counts on that nobody learns who was drawn, or how many: counts and bytes are for the server's staff alone.
    public var isSecret: Bool
    /// Shares of the tiers of speed, slowest first; empty where the run has none.
    public var tiers: [TierView]
    /// What has to happen next, in plain words.
    public var waitingFor: String

    package init(
        run: String,
        kind: RoundKind,
        number: Int,
        attempt: Int,
        state: RoundPhase,
        reason: String? = nil,
        goal: Int,
        minimum: Int,
        assigned: Int,
        accepted: Int,
        rejected: Int,
        failed: Int,
        expired: Int,
        excluded: Int,
        cappedWeights: Int? = nil,
        weightCap: Int? = nil,
        cappedNorms: Int? = nil,
        normBound: Double? = nil,
        bytesUp: Int? = nil,
        bytesDown: Int? = nil,
        openedAt: String,
        deadline: String? = nil,
        closedAt: String? = nil,
        seconds: Double,
        phaseSeconds: [String: Double],
        modelSha256: String? = nil,
        epsilon: Double? = nil,
        refusals: [String: Int],
        metrics: [String: [String: Double]]? = nil,
        live: [String: Int]? = nil,
        isSecret: Bool,
        tiers: [TierView],
        waitingFor: String
    ) {
        self.run = run
        self.kind = kind
        self.number = number
        self.attempt = attempt
        self.state = state
        self.reason = reason
        self.goal = goal
        self.minimum = minimum
        self.assigned = assigned
        self.accepted = accepted
        self.rejected = rejected
        self.failed = failed
        self.expired = expired
        self.excluded = excluded
        self.cappedWeights = cappedWeights
        self.weightCap = weightCap
        self.cappedNorms = cappedNorms
        self.normBound = normBound
        self.bytesUp = bytesUp
        self.bytesDown = bytesDown
        self.openedAt = openedAt
        self.deadline = deadline
        self.closedAt = closedAt
        self.seconds = seconds
        self.phaseSeconds = phaseSeconds
        self.modelSha256 = modelSha256
        self.epsilon = epsilon
        self.refusals = refusals
        self.metrics = metrics
        self.live = live
        self.isSecret = isSecret
        self.tiers = tiers
        self.waitingFor = waitingFor
    }
}

/// What one tier of speed had of a round.
public struct TierView: Codable, Equatable, Sendable {
    /// From 0, the slowest.
    public var tier: Int
    /// Clients that were given work.
    public var assigned: Int
    /// Updates that count.
    public var accepted: Int

    package init(
        tier: Int,
        assigned: Int,
        accepted: Int
    ) {
        self.tier = tier
        self.assigned = assigned
        self.accepted = accepted
    }
}
