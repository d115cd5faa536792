package import StrictJSON

/// `POST /v1/tokens`.
package struct TokenRequest: Codable, Equatable, Sendable {
    package var role: StaffRole
    package var name: String
    package var expiresInS: Double?

    package init(role: StaffRole, name: String, expiresInS: Double? = nil) {
        self.role = role
        self.name = name
        self.expiresInS = expiresInS
    }

    package static func read(_ document: JSONValue) throws(DocumentError) -> Self {
        try FieldReader.read(document) { fields in
            if !fields.has("role") { fields.report("role", "is required") }
            return Self(
                role: fields.choice("role", default: .viewer),
                name: fields.name("name"),
                expiresInS: fields.optionalNumber("expires_in_s", in: 1...315_360_000)
            )
        }
    }
}

/// `POST /v1/tokens/{token}/rotate`.
package struct TokenRotationRequest: Codable, Equatable, Sendable {
    /// Seconds for which the old text goes on working.
    package var gracePeriodS: Double

    package init(gracePeriodS: Double = 0) {
        self.gracePeriodS = gracePeriodS
    }

    package static func read(_ document: JSONValue) throws(DocumentError) -> Self {
        try FieldReader.read(document) { fields in
            Self(gracePeriodS: fields.number("grace_period_s", default: 0, in: 0...2_592_000))
        }
    }
}

/// A token as it is shown: everything but its text.
package struct TokenView: Codable, Equatable, Sendable {
    package var id: String
    package var role: TokenRole
    package var name: String?
    package var population: String?
    package var client: String?
    package var usesLeft: Int?
    package var createdAt: String
    package var createdBy: String?
    package var expiresAt: String?
    /// Since the server started.
    package var lastUsedAt: String?

    package init(
        id: String,
        role: TokenRole,
        name: String? = nil,
        population: String? = nil,
        client: String? = nil,
        usesLeft: Int? = nil,
        createdAt: String,
        createdBy: String? = nil,
        expiresAt: String? = nil,
        lastUsedAt: String? = nil
    ) {
        self.id = id
        self.role = role
        self.name = name
        self.population = population
        self.client = client
        self.usesLeft = usesLeft
        self.createdAt = createdAt
        self.createdBy = createdBy
        self.expiresAt = expiresAt
        self.lastUsedAt = lastUsedAt
    }
}

/// A new token: its text is shown this once.
public struct IssuedToken: Codable, Equatable, Sendable {
    /// Its id; it stays when the text is renewed.
    public var id: String
    /// The text, which proves who asks.
    public var token: String
    /// What it is for.
    public var role: TokenRole
    /// What its maker calls it.
    public var name: String?
    /// RFC 3339 in UTC.
    public var createdAt: String
    /// RFC 3339 in UTC; `nil` where it does not expire.
    public var expiresAt: String?

    package init(token: String, view: TokenView) {
        self.token = token
        id = view.id
        role = view.role
        name = view.name
        createdAt = view.createdAt
        expiresAt = view.expiresAt
    }
}
