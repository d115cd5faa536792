package import DifferentialPrivacy
package import Foundation

/// The append-only, hash-chained list of charges, and what is derived from it.
///
/// A charge is `reserved`, then `committed` or `released`; each state is a row of its own. Only released charges do not
/// count, so a crash can make the budget look more spent, never less.
package struct PrivacyLedger: Sendable {
    /// All rows in order.
    package private(set) var rows: [LedgerRow] = []
    private(set) var accounts: [String: PopulationAccount] = [:]

    package init() {}

    /// Takes stored rows and checks the chain, the kinds and the transitions.
    ///
    /// - Throws: ``CoordinationError`` with code `ledger_broken` at the first row that does not follow from those before.
    package init(verifying rows: [LedgerRow]) throws(CoordinationError) {
        for row in rows {
            guard row.sequence == self.rows.count + 1, row.previousHash == head, Self.hash(row) == row.rowHash else {
                throw CoordinationError(
                    .unavailable,
                    "ledger_broken",
                    "the privacy ledger's row \(row.sequence) does not follow from the row before it: it was edited or "
                        + "rows are missing; restore the database from a backup"
                )
            }
            try accounts[row.populationId, default: PopulationAccount()].take(row)
            self.rows.append(row)
        }
    }

    /// The hash of the last row, or of nothing.
    package var head: String { rows.last?.rowHash ?? Self.emptyHead }
    package static let emptyHead = String(repeating: "0", count: 64)

    /// What a population has been charged with.
    func account(_ population: String) -> PopulationAccount { accounts[population] ?? PopulationAccount() }

    /// The charge that is reserved for one attempt.
    func reservation(
        population: String,
        run: String,
        round: Int,
        attempt: Int,
        release: String? = nil
    ) -> PrivacyCharge? {
        accounts[population]?.open[.init(run: run, round: round, attempt: attempt, release: release)]?.charge
    }

    /// The releases that count, with one more of a run that is being considered.
    ///
    /// - Throws: ``PrivacyError``.
    package func releases(
        population: String,
        run: String,
        charge: PrivacyCharge
    ) throws(PrivacyError) -> [CappedRelease] {
        try account(population).releases(additional: [(run, charge, 1)])
    }

    /// Makes the next row and keeps it; the caller stores it in the same transaction as what it belongs to.
    package mutating func append(
        population: String,
        run: String,
        round: Int,
        attempt: Int,
        state: String,
        event: String,
        epsilonAfter: Double,
        at time: Date
    ) throws(CoordinationError) -> LedgerRow {
        // Whole milliseconds, so that the shown time is the hashed one.
        let time = Date(timeIntervalSince1970: (time.timeIntervalSince1970 * 1000).rounded(.down) / 1000 + 1e-5)
        var row = LedgerRow(
            sequence: rows.count + 1,
            populationId: population,
            runId: run,
            round: round,
            attempt: attempt,
            state: state,
            event: event,
            epsilonAfter: epsilonAfter,
            createdAt: time,
            previousHash: head,
            rowHash: ""
        )
        row.rowHash = Self.hash(row)
        var account = account(population)
        try account.take(row)
        accounts[population] = account
        rows.append(row)
        return row
    }

    /// Sets the informative total of the last row.
    package mutating func noteTotal(_ epsilon: Double) {
        rows[rows.count - 1].epsilonAfter = epsilon
    }

    /// Takes back rows whose transaction failed.
    package mutating func truncate(to count: Int) {
        guard count < rows.count else { return }
        let kept = Array(rows.prefix(count))
        let touched = Set(rows.suffix(from: count).map(\.populationId))
        rows = kept
        for population in touched {
            var account = PopulationAccount()
            // These rows were taken once already.
            for row in kept where row.populationId == population { try? account.take(row) }
            accounts[population] = account
        }
    }

    /// A row's hash: SHA-256 of its fields, one a line, with the time in milliseconds.
    package static func hash(_ row: LedgerRow) -> String {
        let canonical = [
            row.previousHash, String(row.sequence), row.populationId, row.runId, String(row.round),
            String(row.attempt), row.state, row.event,
            String(Int((row.createdAt.timeIntervalSince1970 * 1000).rounded())),
        ].joined(separator: "\n")
        return Secrets.sha256(Array(canonical.utf8))
    }
}
