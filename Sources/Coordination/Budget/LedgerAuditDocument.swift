import DifferentialPrivacy
import Foundation
package import WireFormat

extension LedgerAuditDocument.Row {
    /// A row; without its contents where it is not shown.
    package init(_ row: LedgerRow, isShown: Bool) {
        self.init(sequence: row.sequence, previousHash: row.previousHash, rowHash: row.rowHash)
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
