package import StrictJSON

/// What the helper of a domain admits, whatever a server asks for.
package struct HelperPolicy: Codable, Equatable, Sendable {
    /// The least number of updates in a sum that a session may name.
    package var minimum: Int
    /// The largest n_max that a session may name.
    package var maximum: Int
    /// The least Σ*/K; 0 in a domain without a budget, whose sums have no noise.
    package var leastNoise: Double
    /// The largest `max_participations` that a session may name.
    package var maxParticipations: Int
    /// The most coordinates d of a sum.
    package var maxCoordinates: Int
    /// How many sessions may be open at a time.
    package var openSessions: Int
    /// How many sessions the domain may have in its life: each leaves rows for ever.
    package var sessions: Int

    package static let cohortLimit = 100_000
    package static let coordinateLimit = 1 << 32

    package init(
        minimum: Int = 20,
        maximum: Int = 1000,
        leastNoise: Double = 0,
        maxParticipations: Int = 1000,
        maxCoordinates: Int = 1 << 27,
        openSessions: Int = 4,
        sessions: Int = 100_000
    ) {
        self.minimum = minimum
        self.maximum = maximum
        self.leastNoise = leastNoise
        self.maxParticipations = maxParticipations
        self.maxCoordinates = maxCoordinates
        self.openSessions = openSessions
        self.sessions = sessions
    }

    /// Reads the fields that are there over those of another policy.
    static func read(_ fields: FieldReader, over known: HelperPolicy, hasBudget: Bool) -> HelperPolicy {
        let policy = HelperPolicy(
            minimum: fields.integer("minimum", default: known.minimum, in: 2...cohortLimit),
            maximum: fields.integer("maximum", default: known.maximum, in: 2...cohortLimit),
            leastNoise: hasBudget
                ? fields.number("least_noise", default: known.leastNoise, in: 0.1...10_000)
                : fields.number("least_noise", default: 0, in: 0...0),
            maxParticipations: fields.integer(
                "max_participations",
                default: known.maxParticipations,
                in: 1...Int(UInt32.max)
            ),
            maxCoordinates: fields.integer("max_coordinates", default: known.maxCoordinates, in: 1...coordinateLimit),
            openSessions: fields.integer("open_sessions", default: known.openSessions, in: 1...1000),
            sessions: fields.integer("sessions", default: known.sessions, in: 1...10_000_000)
        )
        if policy.minimum > policy.maximum { fields.report("minimum", "must not be more than maximum") }
        return policy
    }
}

/// What a domain's people may be charged in all.
package struct HelperBudget: Codable, Equatable, Sendable {
    package var epsilon: Double
    package var delta: Double

    package init(epsilon: Double, delta: Double) {
        self.epsilon = epsilon
        self.delta = delta
    }
}

/// `POST /v1/helper/domains`.
package struct HelperDomainRequest: Codable, Equatable, Sendable {
    package var name: String
    /// Absent: sums of the domain have no noise and no (ε, δ).
    package var budget: HelperBudget?
    package var policy: HelperPolicy

    package init(name: String, budget: HelperBudget?, policy: HelperPolicy) {
        self.name = name
        self.budget = budget
        self.policy = policy
    }

    package static func read(_ document: JSONValue) throws(DocumentError) -> Self {
        try FieldReader.read(document) { fields in
            let hasBudget = fields.has("budget")
            let budget = fields.object("budget") { budget -> HelperBudget? in
                guard hasBudget else { return nil }
                return HelperBudget(
                    epsilon: budget.number("epsilon", in: 0...1e6, excludingLower: true),
                    delta: budget.number("delta", default: 1e-5, in: 0...0.1, excludingLower: true)
                )
            }
            return Self(
                name: fields.helperWord("name"),
                budget: budget,
                policy: fields.object("policy") {
                    HelperPolicy.read($0, over: HelperPolicy(leastNoise: hasBudget ? 0.5 : 0), hasBudget: hasBudget)
                }
            )
        }
    }
}

/// `PATCH /v1/helper/domains/{domain}`: what is absent stays.
package struct HelperDomainChange: Codable, Sendable {
    /// The new ε.
    package var epsilon: Double?
    /// Why ε is raised; stays in the ledger.
    package var reason: String?
    /// The fields of the policy that change.
    package var policy: JSONValue?

    package init(epsilon: Double? = nil, reason: String? = nil, policy: JSONValue? = nil) {
        self.epsilon = epsilon
        self.reason = reason
        self.policy = policy
    }

    package static func read(_ document: JSONValue) throws(DocumentError) -> Self {
        try FieldReader.read(document) { fields in
            Self(
                epsilon: fields.optionalNumber("epsilon", in: 0...1e6),
                reason: fields.optionalString("reason", lengthLimit: 1000),
                policy: fields.rawObject("policy")
            )
        }
    }

    /// The policy with the changes.
    ///
    /// - Throws: ``DocumentError``.
    package func policy(over known: HelperPolicy, hasBudget: Bool) throws(DocumentError) -> HelperPolicy {
        guard let policy else { return known }
        return try FieldReader.read(.object(["policy": policy])) { fields in
            fields.object("policy") { HelperPolicy.read($0, over: known, hasBudget: hasBudget) }
        }
    }
}

/// A domain as it is shown.
package struct HelperDomainView: Codable, Equatable, Sendable {
    package struct Budget: Codable, Equatable, Sendable {
        package var epsilon: Double
        package var delta: Double
        package var spentEpsilon: Double
        package var reservedEpsilon: Double
        package var remainingEpsilon: Double

        package init(
            epsilon: Double,
            delta: Double,
            spentEpsilon: Double,
            reservedEpsilon: Double,
            remainingEpsilon: Double
        ) {
            self.epsilon = epsilon
            self.delta = delta
            self.spentEpsilon = spentEpsilon
            self.reservedEpsilon = reservedEpsilon
            self.remainingEpsilon = remainingEpsilon
        }
    }

    package var name: String
    package var createdAt: String
    package var policy: HelperPolicy
    /// Absent: no (ε, δ) is promised.
    package var budget: Budget?
    package var openSessions: Int
    package var sessions: Int

    package init(
        name: String,
        createdAt: String,
        policy: HelperPolicy,
        budget: Budget?,
        openSessions: Int,
        sessions: Int
    ) {
        self.name = name
        self.createdAt = createdAt
        self.policy = policy
        self.budget = budget
        self.openSessions = openSessions
        self.sessions = sessions
    }
}

/// `POST /v1/helper/domains/{domain}/tokens`.
package struct HelperTokenRequest: Codable, Equatable, Sendable {
    /// The server's name in session documents.
    package var server: String
    package var expiresInS: Double?

    package init(server: String, expiresInS: Double? = nil) {
        self.server = server
        self.expiresInS = expiresInS
    }

    package static func read(_ document: JSONValue) throws(DocumentError) -> Self {
        try FieldReader.read(document) { fields in
            Self(
                server: fields.helperWord("server"),
                expiresInS: fields.optionalNumber("expires_in_s", in: 1...315_360_000)
            )
        }
    }
}

/// A server's token; its text is in the answer that made it, and nowhere else.
package struct HelperTokenView: Codable, Equatable, Sendable {
    package var id: String
    package var token: String?
    package var domain: String
    package var server: String
    package var createdAt: String
    package var expiresAt: String?

    package init(
        id: String,
        token: String? = nil,
        domain: String,
        server: String,
        createdAt: String,
        expiresAt: String? = nil
    ) {
        self.id = id
        self.token = token
        self.domain = domain
        self.server = server
        self.createdAt = createdAt
        self.expiresAt = expiresAt
    }
}

/// `GET /v1/helper/key`: what devices pin.
package struct HelperKeyView: Codable, Equatable, Sendable {
    /// The Ed25519 key's 32 bytes, base64.
    package var key: String
    /// The same as PEM.
    package var pem: String

    package init(key: String, pem: String) {
        self.key = key
        self.pem = pem
    }
}

/// `GET /v1/helper/status`.
package struct HelperStatusView: Codable, Equatable, Sendable {
    package var version: String
    /// `kept`, `unwritable` or `alarm`.
    package var ledgerRecord: String
    /// Why no session is granted; absent where sessions are.
    package var halt: String?
    package var ledgerHead: String
    package var domains: [HelperDomainView]

    package init(version: String, ledgerRecord: String, halt: String?, ledgerHead: String, domains: [HelperDomainView])
    {
        self.version = version
        self.ledgerRecord = ledgerRecord
        self.halt = halt
        self.ledgerHead = ledgerHead
        self.domains = domains
    }
}

/// `POST /v1/helper/ledger/acknowledgement`.
package struct HelperAcknowledgement: Codable, Equatable, Sendable {
    package var reason: String

    package init(reason: String) { self.reason = reason }

    package static func read(_ document: JSONValue) throws(DocumentError) -> Self {
        try FieldReader.read(document) { Self(reason: $0.string("reason", lengthLimit: 1000)) }
    }
}

extension FieldReader {
    /// A name that session documents and the ledger's chain hold: letters, digits, `.`, `_` and `-`.
    func helperWord(_ field: String) -> String {
        let text = string(field, lengthLimit: 128)
        let isWord = text.utf8.allSatisfy { $0.isLetterOrDigit || $0 == 45 || $0 == 46 || $0 == 95 }
        if !text.isEmpty, !isWord || text.utf8.first.map({ $0 == 45 || $0 == 46 }) ?? false {
            report(field, "must have letters, digits, '.', '_' and '-' only, and begin with a letter, a digit or '_'")
        }
        return text
    }
}
