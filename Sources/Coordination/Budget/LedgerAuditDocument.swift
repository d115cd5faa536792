import DifferentialPrivacy
import Foundation

/// A population's ledger for an outside accountant: schema `martlet-ledger/1`.
package struct LedgerAuditDocument: Codable, Sendable {
    package struct Budget: Codable, Equatable, Sendable {
        package var epsilon: Double
        package var delta: Double
        package var accountant: String
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

        init(_ row: LedgerRow, isShown: Bool) {
            sequence = row.sequence
            previousHash = row.previousHash
            rowHash = row.rowHash
            guard isShown else { return }
            populationId = row.populationId
            runId = row.runId
            round = row.round
            attempt = row.attempt
            state = row.state
            event = row.event
            epsilonAfter = row.epsilonAfter
            createdAtMs = Int((row.createdAt.timeIntervalSince1970 * 1000).rounded())
        }
    }

    package var schema = "martlet-ledger/1"
    package var population: String
    package var name: String
    package var unit = "client"
    package var relation = "zero_out"
    package var budget: Budget
    package var isAdaptive: Bool
    package var spentEpsilon: Double
    package var reservedEpsilon: Double
    package var remainingEpsilon: Double
    package var roundsThatFit: [String: Int?]
    /// By run: how many clients were assigned so and so often.
    package var participations: [String: [String: Int]]
    package var head: String
    package var rows: [Row]
}

extension LedgerAuditDocument {
    /// What the population has been charged with.
    ///
    /// - Throws: ``CoordinationError`` for a row that this version does not know.
    package func account() throws -> PopulationAccount {
        var account = PopulationAccount()
        for row in rows {
            guard let event = row.event else { continue }
            try account.take(
                LedgerRow(
                    sequence: row.sequence,
                    populationId: population,
                    runId: row.runId ?? "",
                    round: row.round ?? 0,
                    attempt: row.attempt ?? 0,
                    state: row.state ?? "",
                    event: event,
                    epsilonAfter: 0,
                    createdAt: Date(timeIntervalSince1970: 0),
                    previousHash: row.previousHash,
                    rowHash: row.rowHash
                )
            )
        }
        return account
    }
}
