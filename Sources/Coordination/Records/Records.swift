package import Foundation
package import WireFormat

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
    package var role: TokenRole
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
    package var state: ClientStanding
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
    /// The state generation of the client's last assignment, and the last one that it is known to have; `nil` for one that
    /// says none.
    package var stateGeneration: Int?
    package var stateGenerationSaid: Int?
}

/// Training of one model under one specification.
package struct RunRecord: Codable, Equatable, Sendable {
    package var id: String
    package var populationId: String
    package var name: String
    /// The stored specification, JSON with every default filled in.
    package var specification: String
    package var state: RunPhase
    package var reason: String?
    package var createdAt: Date
    /// The clients that a drawn cohort is drawn from had registered by then.
    package var startedAt: Date?
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
    /// 0 with privacy: planned sizes are shown in its place.
    package var bytesUp: Int = 0
    /// 0 with privacy.
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
    /// Clients whose weight was cut at the next field's: `aggregation.example_cap`.
    ///
    /// What it was cut at is for staff, as a function of their counts.
    package var cappedWeights: Int?
    package var weightCap: Int?
    /// Updates that were scaled down to the next field's L2 norm: `aggregation.norm_bound`.
    ///
    /// The norm is for staff, as a function of the clients' own.
    package var cappedNorms: Int?
    package var normBound: Double?
    /// Privacy mode `local`: whether any byte of an update was asked to come in; its cost stays then, whatever became of it.
    package var hasReceived: Bool = false
}

extension RoundRecord {
    /// Whether it measures a version instead of making one.
    package var isEvaluation: Bool { number < 0 }

    /// Whether bytes of an update have come, or may come: from a client that was given work and has not said that it gives it up.
    ///
    /// - Parameter isBuffered: Whether work outlasts its attempt: a client that gives it up is counted by the round that is open then, so
    ///   that the attempt which handed it out does not know it.
    /// - Returns: Whether the attempt has to be paid for.
    func mayReceive(isBuffered: Bool) -> Bool { accepted > 0 || hasReceived || assigned > (isBuffered ? 0 : failed) }

    /// How the reason of an evaluation begins that never opened.
    static let refusedByBudget = "budget_exhausted: "
    /// Whether the population's budget does not admit the evaluation.
    var isRefusedByBudget: Bool { phase == .abandoned && reason?.hasPrefix(Self.refusedByBudget) == true }
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
    /// Of an accepted update, like the two that follow; `nil` with privacy, see ``SpooledReceipt``.
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
    /// Mode `buffered`: the round, and the attempt at it, that took the update; the assignment's own attempt may be an earlier one.
    package var countedRound: Int?
    package var countedAttempt: Int?
    /// JSON object: the client's sums of metrics.
    package var metrics: String?
    /// From 1: how often the client has been given work in the attempt.
    package var turn: Int = 1
    /// Privacy mode `local`: SHA-256, in hexadecimal, of the noised update that the client has begun to send, stored before its first
    /// byte is read, and `?` behind it or alone where a request did not say it; `nil` where nothing was sent.
    package var releaseSha256: String?
}

extension AssignmentRecord {
    /// Whether the update counts in a round attempt, or would: in mode `buffered` that is the one that took it.
    func counts(in round: RoundRecord) -> Bool {
        (countedRound ?? self.round) == round.number && (countedAttempt ?? attempt) == round.attempt
    }
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
    package var state: ChargeState
    /// Canonical JSON of the privacy event.
    package var event: String
    /// The population's epsilon with this row, at the budget's delta.
    package var epsilonAfter: Double
    package var createdAt: Date
    package var previousHash: String
    package var rowHash: String
    /// 1 for rows of versions before population's heads travelled, else 2.
    package var format: Int = 1
    /// Format 2: the row's place among those of its population, from 1.
    package var populationNumber: Int?
    /// Format 2: the population's head before the row.
    package var populationPreviousHash: String?
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
    package init(
        id: String,
        of round: RoundRecord,
        client: String,
        at time: Date,
        deadline: Date,
        turn: Int = 1
    ) {
        self.init(
            id: id,
            runId: round.runId,
            round: round.number,
            attempt: round.attempt,
            clientId: client,
            state: .assigned,
            createdAt: time,
            deadline: deadline,
            turn: turn
        )
    }
}

extension TokenRecord {
    /// A token as it is stored.
    package init(
        storedHash hash: String,
        id: String,
        role: String,
        name: String?,
        createdBy: String?,
        populationId: String?,
        clientId: String?,
        usesLeft: Int?,
        expiresAt: Date?,
        createdAt: Date
    ) throws(StoreFailure) {
        guard let role = TokenRole(rawValue: role) else {
            throw StoreFailure(.damaged, detail: "a token has a role that this version does not know")
        }
        self.init(
            hash: hash,
            id: id,
            role: role,
            name: name,
            createdBy: createdBy,
            populationId: populationId,
            clientId: clientId,
            usesLeft: usesLeft,
            expiresAt: expiresAt,
            createdAt: createdAt
        )
    }
}

extension ClientRecord {
    /// A client as it is stored.
    package init(
        storedID id: String,
        populationId: String,
        name: String?,
        labels: String,
        state: String,
        registrationKey: String?,
        registeredAt: Date,
        capabilities: String,
        stepsPerSecond: Double?,
        secondsPerAssignment: Double?,
        certificateKey: String?,
        quarantineReason: String?,
        quarantinedAt: Date?,
        stateGeneration: Int?,
        stateGenerationSaid: Int?
    ) throws(StoreFailure) {
        guard let state = ClientStanding(rawValue: state) else {
            throw StoreFailure(.damaged, detail: "a client has a state that this version does not know")
        }
        self.init(
            id: id,
            populationId: populationId,
            name: name,
            labels: labels,
            state: state,
            registrationKey: registrationKey,
            registeredAt: registeredAt,
            capabilities: capabilities,
            stepsPerSecond: stepsPerSecond,
            secondsPerAssignment: secondsPerAssignment,
            certificateKey: certificateKey,
            quarantineReason: quarantineReason,
            quarantinedAt: quarantinedAt
        )
        self.stateGeneration = stateGeneration
        self.stateGenerationSaid = stateGenerationSaid
    }
}

extension HistoryRow {
    /// That an attempt began a phase; the cause is left out.
    package init(phase state: String, ofRun run: String, round: Int, attempt: Int, at time: Date) {
        self.init(runId: run, round: round, attempt: attempt, at: time, state: state, cause: "")
    }
}
