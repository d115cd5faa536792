package import Foundation

/// The people whose data one budget covers.
package struct PopulationRecord: Codable, Equatable, Sendable {
    package var id: String
    package var name: String
    package var budgetEpsilon: Double?
    package var budgetDelta: Double?
    package var createdAt: Date
}

/// A bearer token, kept as the SHA-256 of its text.
package struct TokenRecord: Codable, Equatable, Sendable {
    package var hash: String
    /// Stays when the token's text is rotated; several texts may share it for a while.
    package var id: String = Secrets.identifier("tok")
    /// `viewer`, `operator`, `admin`, `enrollment` or `client`.
    package var role: String
    /// What people call it; operators' tokens only.
    package var name: String?
    /// The id of the token that made it.
    package var createdBy: String?
    package var populationId: String?
    package var clientId: String?
    package var usesLeft: Int?
    package var expiresAt: Date?
    package var createdAt: Date
}

/// One enrolled device or process.
package struct ClientRecord: Codable, Equatable, Sendable {
    package var id: String
    package var populationId: String
    package var name: String?
    /// JSON object of strings.
    package var labels: String
    /// `registered`, `active` or `revoked`.
    package var state: String
    /// Hash of the enrollment token and the `Idempotency-Key` that made it.
    package var registrationKey: String?
    package var registeredAt: Date
}

/// Training of one model under one specification.
package struct RunRecord: Codable, Equatable, Sendable {
    package var id: String
    package var populationId: String
    package var name: String
    /// The stored specification, JSON with every default filled in.
    package var specification: String
    /// `created`, `running`, `paused`, `completed`, `cancelled` or `failed`.
    package var state: String
    package var reason: String?
    package var createdAt: Date
}

/// The phase of a round attempt.
package enum RoundPhase: String, Codable, Sendable {
    case selecting, reporting, aggregating, committed, abandoned

    /// Whether clients may still deliver.
    package var isCollecting: Bool { self == .selecting || self == .reporting }
    /// Whether nothing more will happen.
    package var isFinal: Bool { self == .committed || self == .abandoned }
}

/// One attempt at a round.
package struct RoundRecord: Codable, Equatable, Sendable {
    package var runId: String
    package var number: Int
    package var attempt: Int
    package var phase: RoundPhase
    package var reason: String?
    package var openedAt: Date
    /// When the present phase stops waiting.
    package var deadline: Date
    package var closedAt: Date?
    package var assigned: Int = 0
    package var accepted: Int = 0
    package var rejected: Int = 0
    package var failed: Int = 0
    package var expired: Int = 0
    package var bytesUp: Int = 0
    package var exampleCount: Int = 0
    package var modelSha256: String?
    package var epsilon: Double?
}

/// Where one client's part in a round stands.
package enum AssignmentState: String, Codable, Sendable {
    case assigned, accepted, rejected, failed, expired, superseded

    /// Whether an update is still awaited.
    package var isLive: Bool { self == .assigned }
}

/// One client's part in one round attempt.
package struct AssignmentRecord: Codable, Equatable, Sendable {
    package var id: String
    package var runId: String
    package var round: Int
    package var attempt: Int
    package var clientId: String
    package var state: AssignmentState
    package var code: String?
    package var createdAt: Date
    package var deadline: Date
    package var updateSha256: String?
    package var updateBytes: Int?
    package var exampleCount: Int?
}

/// What a committed round publishes.
package struct ModelVersionRecord: Codable, Equatable, Sendable {
    package var runId: String
    package var version: Int
    package var sha256: String
    package var bytes: Int
    package var createdAt: Date
}

/// What one source measured of a model version, such as accuracy and loss on held-out data.
package struct ModelMetricsRecord: Codable, Equatable, Sendable {
    package var runId: String
    package var version: Int
    /// Who measured: `held-out` by an operator, `federated` by an evaluation round.
    package var source: String
    /// JSON object of numbers.
    package var metrics: String
    package var measuredAt: Date
}

/// One row of the population's privacy ledger; rows are only ever appended.
package struct LedgerRow: Codable, Equatable, Sendable {
    package var sequence: Int
    package var populationId: String
    package var runId: String
    package var round: Int
    package var attempt: Int
    /// `reserved`, `committed` or `released`.
    package var state: String
    /// Canonical JSON of the privacy event.
    package var event: String
    /// The population's epsilon with this row, at the budget's delta.
    package var epsilonAfter: Double
    package var createdAt: Date
    package var previousHash: String
    package var rowHash: String
}

/// One state change of a run or a round.
package struct HistoryRow: Codable, Equatable, Sendable {
    package var runId: String
    /// 0 for a change of the run itself.
    package var round: Int
    package var attempt: Int
    package var at: Date
    package var state: String
    package var cause: String
}
