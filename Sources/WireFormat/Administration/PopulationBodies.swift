/// A budget as an administrator sets it.
package struct BudgetSpecification: Codable, Equatable, Sendable {
    package var epsilon: Double
    package var delta: Double
    package var unit: String
    package var accountant: String

    package init(epsilon: Double, delta: Double) {
        self.epsilon = epsilon
        self.delta = delta
        unit = "client"
        accountant = "gaussian_capped"
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
            let name = fields.string("name")
            guard fields.has("budget") else {
                _ = fields.object("budget") { _ in }
                return Self(name: name, budget: nil)
            }
            let budget = fields.object("budget") { budget in
                _ = budget.choice("unit", of: ["client"], default: "client")
                _ = budget.choice("accountant", of: ["gaussian_capped"], default: "gaussian_capped")
                return BudgetSpecification(
                    epsilon: budget.number("epsilon", in: 0...1000, excludingLower: true),
                    delta: budget.number("delta", in: 1e-12...0.1)
                )
            }
            return Self(name: name, budget: budget)
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
