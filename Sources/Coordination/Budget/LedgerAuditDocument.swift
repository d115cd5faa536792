import DifferentialPrivacy
import Foundation
package import WireFormat

/// A population's ledger for an outside accountant: schema `martlet-ledger/2`, of which `martlet-ledger/1` had no heads.
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
        /// 2 where the row has a place among those of its population; absent: 1.
        package var format: Int?
        package var populationNumber: Int?
        package var populationPreviousHash: String?

        init(_ row: LedgerRow, isShown: Bool) {
            sequence = row.sequence
            previousHash = row.previousHash
            rowHash = row.rowHash
            guard isShown else { return }
            populationId = row.populationId
            runId = row.runId
            round = row.round
            attempt = row.attempt
            state = row.state.rawValue
            event = row.event
            epsilonAfter = row.epsilonAfter
            createdAtMs = row.milliseconds
            format = row.format
            populationNumber = row.populationNumber
            populationPreviousHash = row.populationPreviousHash
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
}

extension LedgerAuditDocument {
    /// What the population has been charged with.
    ///
    /// - Throws: ``CoordinationError`` for a row that this version does not know.
    package func account() throws -> PopulationAccount {
        var account = PopulationAccount()
        for row in rows {
            guard let event = row.event else { continue }
            guard let state = row.state.flatMap(ChargeState.init) else {
                throw PopulationAccount.broken(row.sequence, "is no possible next state of its charge")
            }
            try account.take(
                LedgerRow(
                    sequence: row.sequence,
                    populationId: population,
                    runId: row.runId ?? "",
                    round: row.round ?? 0,
                    attempt: row.attempt ?? 0,
                    state: state,
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
