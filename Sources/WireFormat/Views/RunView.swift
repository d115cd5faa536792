/// A run as it is shown.
public struct RunView: Codable, Equatable, Sendable {
    /// The id, such as `run_7f3a`.
    public var id: String
    /// What its operator calls it.
    public var name: String
    /// The id of the population whose clients take part.
    public var population: String
    /// Where it stands.
    public var state: RunPhase
    /// Why it is paused or has ended; `nil` otherwise.
    public var reason: String?
    /// When it was created, RFC 3339 in UTC.
    public var createdAt: String
    /// The round that is open, or the last one; 0 before the first.
    public var round: Int
    /// Rounds that have published a version.
    public var committedRounds: Int
    /// The newest version; `nil` before the first.
    public var modelVersion: Int?
    /// The newest version's SHA-256, in hexadecimal.
    public var modelSha256: String?
    /// ε that its population had spent when its last round was published; `nil` without privacy.
    public var epsilon: Double?
    /// The version to take: the best by the rule to stop, or by what operators or clients measured.
    public var bestVersion: Int?
    /// What has to happen next, in plain words.
    public var waitingFor: String
    package var specification: RunSpecification

    package init(
        id: String,
        name: String,
        population: String,
        state: RunPhase,
        reason: String? = nil,
        createdAt: String,
        round: Int,
        committedRounds: Int,
        modelVersion: Int? = nil,
        modelSha256: String? = nil,
        epsilon: Double? = nil,
        bestVersion: Int? = nil,
        waitingFor: String,
        specification: RunSpecification
    ) {
        self.id = id
        self.name = name
        self.population = population
        self.state = state
        self.reason = reason
        self.createdAt = createdAt
        self.round = round
        self.committedRounds = committedRounds
        self.modelVersion = modelVersion
        self.modelSha256 = modelSha256
        self.epsilon = epsilon
        self.bestVersion = bestVersion
        self.waitingFor = waitingFor
        self.specification = specification
    }
}
