/// A population as it is shown.
public struct PopulationView: Codable, Equatable, Sendable {
    /// The id, such as `pop_51c0`.
    public var id: String
    /// What it is called; commands and run files take id or name.
    public var name: String
    /// How many clients are in each state.
    public var clients: [String: Int]
    /// What is left of its privacy budget; `nil` where it has none.
    public var budget: BudgetStatus?
    /// RFC 3339 in UTC.
    public var createdAt: String

    package init(
        id: String,
        name: String,
        clients: [String: Int],
        budget: BudgetStatus? = nil,
        createdAt: String
    ) {
        self.id = id
        self.name = name
        self.clients = clients
        self.budget = budget
        self.createdAt = createdAt
    }
}

/// What a population has of its budget.
public struct BudgetStatus: Codable, Equatable, Sendable {
    /// ε that may be spent in all.
    public var epsilon: Double
    /// δ at which ε is counted.
    public var delta: Double
    /// Whose data the budget protects: `client`.
    public var unit = "client"
    /// Of everything that was charged; several are joined by commas.
    public var relation = "zero_out"
    /// What is proven of everything that was charged; `null` before the first charge.
    package var claim: PrivacyClaim?
    /// Who enforces: `gaussian`, `pld`, `rdp` or `filter`.
    public var accountant = "gaussian"
    /// Whether a plan began after another run had published, so that only filters may enforce.
    public var isAdaptive = false
    /// ε of what was published.
    public var spentEpsilon: Double
    /// ε that open rounds would add.
    public var reservedEpsilon: Double
    /// ε that is left.
    public var remainingEpsilon: Double
    /// For each run that has not ended: how many more rounds the budget admits, `null` where the number has no bound.
    public var roundsThatFit: [String: Int?]

    package init(
        epsilon: Double,
        delta: Double,
        unit: String = "client",
        relation: String = "zero_out",
        claim: PrivacyClaim? = nil,
        accountant: String = "gaussian",
        isAdaptive: Bool = false,
        spentEpsilon: Double,
        reservedEpsilon: Double,
        remainingEpsilon: Double,
        roundsThatFit: [String: Int?]
    ) {
        self.epsilon = epsilon
        self.delta = delta
        self.unit = unit
        self.relation = relation
        self.claim = claim
        self.accountant = accountant
        self.isAdaptive = isAdaptive
        self.spentEpsilon = spentEpsilon
        self.reservedEpsilon = reservedEpsilon
        self.remainingEpsilon = remainingEpsilon
        self.roundsThatFit = roundsThatFit
    }
}
