package import StrictJSON

/// A budget as an administrator sets it.
package struct BudgetSpecification: Codable, Equatable, Sendable {
    package var epsilon: Double
    package var delta: Double
    package var unit: BudgetUnit
    package var accountant: AccountantChoice

    package init(epsilon: Double, delta: Double) {
        self.epsilon = epsilon
        self.delta = delta
        unit = .client
        accountant = .auto
    }

    /// Reads ε, and says of zero and of what is without bound why they are no budget.
    static func epsilon(_ fields: FieldReader) -> Double {
        // What is missing or no number comes back as an end of the range, and has been reported.
        let value = fields.number("epsilon", in: -.infinity ... .infinity)
        guard value.isFinite else { return 1000 }
        guard value > 0, value <= 1000 else {
            fields.report(
                "epsilon",
                value > 0
                    ? "\(value) is over 1000 and would promise nothing: 2 to 8 is usual; a population without a promise is one "
                        + "without a budget"
                    : "\(value) admits no round: give more than 0, 1 is strong and 2 to 8 is usual; to end private rounds, stop "
                        + "the runs"
            )
            return 1000
        }
        return value
    }
}

/// `POST /v1/populations`.
package struct PopulationRequest: Codable, Equatable, Sendable {
    package var name: String
    package var budget: BudgetSpecification?

    package init(name: String, budget: BudgetSpecification?) {
        self.name = name
        self.budget = budget
    }

    package static func read(_ document: JSONValue) throws(DocumentError) -> Self {
        try FieldReader.read(document) { fields in
            let name = fields.name("name")
            fields.allowNull("budget")
            guard fields.has("budget") else {
                fields.object("budget") { _ in }
                return Self(name: name, budget: nil)
            }
            let budget = fields.object("budget") { budget in
                _ = budget.choice("unit", default: BudgetUnit.client)
                let accountant: AccountantChoice = budget.choice("accountant", default: .auto)
                var specification = BudgetSpecification(
                    epsilon: BudgetSpecification.epsilon(budget),
                    delta: budget.number("delta", in: 1e-12...0.1)
                )
                specification.accountant = accountant
                return specification
            }
            return Self(name: name, budget: budget)
        }
    }
}

/// `PATCH /v1/populations/{id}/budget`.
package struct BudgetChangeRequest: Codable, Equatable, Sendable {
    package var epsilon: Double
    /// Needed to raise ε; stays in the ledger.
    package var reason: String?

    package init(epsilon: Double, reason: String? = nil) {
        self.epsilon = epsilon
        self.reason = reason
    }

    package static func read(_ document: JSONValue) throws(DocumentError) -> Self {
        try FieldReader.read(document) { fields in
            if fields.has("delta") {
                _ = fields.optionalNumber("delta", in: -.infinity ... .infinity)
                fields.report("delta", "is fixed for a population's life; create another one")
            }
            return Self(
                epsilon: BudgetSpecification.epsilon(fields),
                reason: fields.optionalString("reason", lengthLimit: 1000)
            )
        }
    }
}

/// `POST /v1/ledger/acknowledgement`.
package struct AcknowledgementRequest: Encodable, Equatable, Sendable {
    package var reason: String
    /// Heads that devices or auditors hold and the ledger does not lead to, beside those that the server knows of.
    package var lostHeads: [PopulationLedgerHead]

    package init(reason: String, lostHeads: [PopulationLedgerHead] = []) {
        self.reason = reason
        self.lostHeads = lostHeads
    }

    private enum CodingKeys: String, CodingKey { case reason, lostHeads }

    /// Writes heads as texts, as the server reads them.
    package func encode(to encoder: any Encoder) throws {
        var fields = encoder.container(keyedBy: CodingKeys.self)
        try fields.encode(reason, forKey: .reason)
        if !lostHeads.isEmpty { try fields.encode(lostHeads.map(\.text), forKey: .lostHeads) }
    }

    package static func read(_ document: JSONValue) throws(DocumentError) -> Self {
        try FieldReader.read(document) { fields in
            let heads = (fields.stringList("lost_heads", countLimit: 1000) ?? []).compactMap { text in
                let head = PopulationLedgerHead(text: text)
                if head == nil { fields.report("lost_heads", "must be texts of the form POPULATION:NUMBER:HASH") }
                return head
            }
            return Self(reason: fields.string("reason", lengthLimit: 1000), lostHeads: heads)
        }
    }
}

/// `POST /v1/populations/{id}/enrollment-tokens`.
package struct EnrollmentTokenRequest: Codable, Equatable, Sendable {
    package var maxUses: Int
    package var expiresInS: Double?

    package init(maxUses: Int, expiresInS: Double? = nil) {
        self.maxUses = maxUses
        self.expiresInS = expiresInS
    }

    package static func read(_ document: JSONValue) throws(DocumentError) -> Self {
        try FieldReader.read(document) { fields in
            Self(
                maxUses: fields.integer("max_uses", in: 1...100_000_000),
                expiresInS: fields.optionalNumber("expires_in_s", in: 1...315_360_000)
            )
        }
    }
}
