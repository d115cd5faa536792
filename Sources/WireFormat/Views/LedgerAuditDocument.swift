/// A population's ledger for an outside accountant: schema `martlet-ledger/2`, of which `martlet-ledger/1` had no heads.
package struct LedgerAuditDocument: Codable, Sendable {
    package struct Budget: Codable, Equatable, Sendable {
        package var epsilon: Double
        package var delta: Double
        package var accountant: String

        package init(
            epsilon: Double,
            delta: Double,
            accountant: String
        ) {
            self.epsilon = epsilon
            self.delta = delta
            self.accountant = accountant
        }
    }

    /// A row; of other populations only its place in the chain.
    package struct Row: Codable, Equatable, Sendable {
        package var sequence: Int
        package var previousHash: String
        package var rowHash: String
        package var populationId: String?
        package var runId: String?
        package var round: Int?
        package var attempt: Int?
        package var state: String?
        package var event: String?
        package var epsilonAfter: Double?
        /// Milliseconds since 1970, as they are hashed.
        package var createdAtMs: Int?
        /// 2 where the row has a place among those of its population; absent: 1.
        package var format: Int?
        package var populationNumber: Int?
        package var populationPreviousHash: String?

        package init(
            sequence: Int,
            previousHash: String,
            rowHash: String,
            populationId: String? = nil,
            runId: String? = nil,
            round: Int? = nil,
            attempt: Int? = nil,
            state: String? = nil,
            event: String? = nil,
            epsilonAfter: Double? = nil,
            createdAtMs: Int? = nil,
            format: Int? = nil,
            populationNumber: Int? = nil,
            populationPreviousHash: String? = nil
        ) {
            self.sequence = sequence
            self.previousHash = previousHash
            self.rowHash = rowHash
            self.populationId = populationId
            self.runId = runId
            self.round = round
            self.attempt = attempt
            self.state = state
            self.event = event
            self.epsilonAfter = epsilonAfter
            self.createdAtMs = createdAtMs
            self.format = format
            self.populationNumber = populationNumber
            self.populationPreviousHash = populationPreviousHash
        }
    }

    package var schema = "martlet-ledger/2"
    package var population: String
    package var name: String
    package var unit = BudgetUnit.client
    package var relation = NeighbouringRelation.zeroOut.rawValue
    /// What is proven, with what it rests on.
    package var claim: PrivacyClaim?
    package var budget: Budget
    package var isAdaptive: Bool
    package var spentEpsilon: Double
    package var reservedEpsilon: Double
    package var remainingEpsilon: Double
    package var roundsThatFit: [String: Int?]
    /// By run: how many clients were assigned so and so often; without runs whose cost counts on a secret draw.
    package var participations: [String: [String: Int]]
    package var head: String
    /// Where the population's own chain stands.
    package var populationHead: PopulationLedgerHead?
    package var rows: [Row]

    package init(
        schema: String = "martlet-ledger/2",
        population: String,
        name: String,
        unit: BudgetUnit = .client,
        relation: String = NeighbouringRelation.zeroOut.rawValue,
        claim: PrivacyClaim? = nil,
        budget: Budget,
        isAdaptive: Bool,
        spentEpsilon: Double,
        reservedEpsilon: Double,
        remainingEpsilon: Double,
        roundsThatFit: [String: Int?],
        participations: [String: [String: Int]],
        head: String,
        populationHead: PopulationLedgerHead? = nil,
        rows: [Row]
    ) {
        self.schema = schema
        self.population = population
        self.name = name
        self.unit = unit
        self.relation = relation
        self.claim = claim
        self.budget = budget
        self.isAdaptive = isAdaptive
        self.spentEpsilon = spentEpsilon
        self.reservedEpsilon = reservedEpsilon
        self.remainingEpsilon = remainingEpsilon
        self.roundsThatFit = roundsThatFit
        self.participations = participations
        self.head = head
        self.populationHead = populationHead
        self.rows = rows
    }
}
