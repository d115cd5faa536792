import StrictJSON

/// A charge as it is shown; with `created_at` in milliseconds an outsider can compute the chain of hashes again.
package struct LedgerRowView: Codable, Equatable, Sendable {
    package var sequence: Int
    package var populationId: String
    package var runId: String
    package var round: Int
    package var attempt: Int
    package var state: ChargeState
    /// Canonical JSON of the privacy event.
    package var event: String
    package var epsilonAfter: Double
    package var createdAt: String
    package var previousHash: String
    package var rowHash: String
    /// 2 where the row has a place among those of its population; absent in answers of earlier versions: 1.
    package var format: Int?
    package var populationNumber: Int?
    package var populationPreviousHash: String?

    package init(
        sequence: Int,
        populationId: String,
        runId: String,
        round: Int,
        attempt: Int,
        state: ChargeState,
        event: String,
        epsilonAfter: Double,
        createdAt: String,
        previousHash: String,
        rowHash: String,
        format: Int,
        populationNumber: Int?,
        populationPreviousHash: String?
    ) {
        self.sequence = sequence
        self.populationId = populationId
        self.runId = runId
        self.round = round
        self.attempt = attempt
        self.state = state
        self.event = event
        self.epsilonAfter = epsilonAfter
        self.createdAt = createdAt
        self.previousHash = previousHash
        self.rowHash = rowHash
        self.format = format
        self.populationNumber = populationNumber
        self.populationPreviousHash = populationPreviousHash
    }

    /// Whether an evaluation was charged, and no round of training.
    package var isOfEvaluation: Bool {
        guard case .object(let fields)? = try? JSONValue.parse(Array(event.utf8)) else { return false }
        return fields["release"] == .string(ReleaseWord.evaluation.rawValue)
    }
}
