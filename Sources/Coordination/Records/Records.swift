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
    /// JSON of what the device says that it is.
    package var capabilities: String = "{}"
    /// Training steps a second, as the client measured them, smoothed over its updates; `nil` before the first.
    package var stepsPerSecond: Double?
    /// From its assignments to its updates, smoothed; `nil` before the first.
    package var secondsPerAssignment: Double?
    /// The hash of the public key of the certificate that the client registered with: its token is worth nothing without it.
    package var certificateKey: String?
    /// Why the client gets no work any more; see ``Coordinator/releaseClient(_:)``.
    package var quarantineReason: String?
    package var quarantinedAt: Date?
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
    /// The clients that a drawn cohort is drawn from had registered by then.
    package var startedAt: Date?
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
    /// From 1; the evaluation of version `v` is kept as number `-v`.
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
    /// Clients in a drawn or chosen cohort.
    package var drawn: Int?
    /// Key of the coins of a drawn cohort, hexadecimal; never shown.
    package var drawKey: String?
    /// Counts by tier of speed: JSON array of `[assigned, accepted]`.
    package var tierCounts: String?
    /// Accepted updates that did not count, because they stood out.
    package var excluded: Int = 0
    /// Bytes of models that were sent while the attempt was open; `nil` where that was not counted yet.
    package var bytesDown: Int?
}

extension RoundRecord {
    /// Whether it measures a version instead of making one.
    package var isEvaluation: Bool { number < 0 }

    /// How the reason of an evaluation begins that never opened.
    static let refusedByBudget = "budget_exhausted: "
    /// Whether the population's budget does not admit the evaluation.
    var isRefusedByBudget: Bool { phase == .abandoned && reason?.hasPrefix(Self.refusedByBudget) == true }
}

/// Where one client's part in a round stands.
package enum AssignmentState: String, Codable, Sendable {
    case assigned, downloading, training, uploading
    case accepted, rejected, failed, expired, superseded

    /// Whether an update is still awaited.
    package var isLive: Bool {
        switch self {
        case .assigned, .downloading, .training, .uploading: true
        case .accepted, .rejected, .failed, .expired, .superseded: false
        }
    }
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
    /// Until when the client has the work without a further sign of life; `nil` before the first, where none is asked for.
    package var leaseUntil: Date?
    package var progress: Double?
    package var endedAt: Date?
    /// Tier of speed, from 0 for the slowest; `nil` where the client was not measured.
    package var tier: Int?
    /// Steps that this client was given, where its speed decided.
    package var maxSteps: Int?
    /// The round whose result the update is in, where that is a later one than the assignment's.
    package var countedRound: Int?
    /// JSON object: the client's sums of metrics.
    package var metrics: String?
}

/// What a committed round publishes.
package struct ModelVersionRecord: Codable, Equatable, Sendable {
    package var runId: String
    package var version: Int
    package var sha256: String
    package var bytes: Int
    package var createdAt: Date
    /// The blob of what the server's optimiser remembers after this version; absent when it remembers nothing.
    package var optimizerSha256: String?
    /// The blob of the server's control variate (SCAFFOLD).
    package var controlSha256: String?
    /// C of the round that starts from this version, where the clipping norm follows a quantile.
    package var clippingNorm: Double?
}

/// How far one accepted update stood out, and whether it counted.
package struct UpdateScoreRecord: Codable, Equatable, Sendable {
    package var runId: String
    package var round: Int
    package var attempt: Int
    package var assignmentId: String
    package var clientId: String
    package var exampleCount: Int
    package var norm: Double
    /// The norm over the cohort's median norm.
    package var normRatio: Double
    /// Cosine to the cohort's aggregate; absent where one of the two is zero.
    package var cosine: Double?
    package var counted: Bool
    /// Why it stood out; absent when it did not.
    package var reason: String?
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
    /// Set for a change of one assignment.
    package var assignmentId: String?
}

extension RoundRecord {
    /// An attempt that has just opened.
    package init(runId: String, number: Int, attempt: Int, opening phase: RoundPhase, at time: Date, deadline: Date) {
        self.init(
            runId: runId,
            number: number,
            attempt: attempt,
            phase: phase,
            openedAt: time,
            deadline: deadline,
            bytesDown: 0
        )
    }
}

extension AssignmentRecord {
    /// Work that has just been given to a client.
    package init(id: String, of round: RoundRecord, client: String, at time: Date, deadline: Date) {
        self.init(
            id: id,
            runId: round.runId,
            round: round.number,
            attempt: round.attempt,
            clientId: client,
            state: .assigned,
            createdAt: time,
            deadline: deadline
        )
    }
}
