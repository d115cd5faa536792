package import Foundation
package import WireFormat

extension LedgerRow {
    /// A row of format 2 as another store than the coordinator's has kept it.
    package init(
        storedAt sequence: Int,
        population: String,
        run: String,
        round: Int,
        attempt: Int,
        state: ChargeState,
        event: String,
        epsilonAfter: Double,
        createdAt: Date,
        previousHash: String,
        rowHash: String,
        populationNumber: Int,
        populationPreviousHash: String
    ) {
        self.init(
            sequence: sequence,
            populationId: population,
            runId: run,
            round: round,
            attempt: attempt,
            state: state,
            event: event,
            epsilonAfter: epsilonAfter,
            createdAt: createdAt,
            previousHash: previousHash,
            rowHash: rowHash,
            format: 2,
            populationNumber: populationNumber,
            populationPreviousHash: populationPreviousHash
        )
    }
}
