package import Foundation

/// The event of one charge: a Gaussian release with at most `participationCap` releases per client in the run.
package struct PrivacyCharge: Codable, Equatable, Sendable {
    package var kind = "gaussian"
    package var mode: String
    package var noiseMultiplier: Double
    package var participationCap: Int
    package var relation: String
    package var parameterCount: Int

    package init(mode: String, noiseMultiplier: Double, participationCap: Int, parameterCount: Int) {
        self.mode = mode
        self.noiseMultiplier = noiseMultiplier
        self.participationCap = participationCap
        relation = mode == "local" ? "replace_one" : "zero_out"
        self.parameterCount = parameterCount
    }
}

/// The charges of one run that still count, as an accountant needs them.
package struct ChargedRun: Equatable, Sendable {
    package var noiseMultiplier: Double
    package var participationCap: Int
    package var roundCount: Int
    package var parameterCount: Int
}

/// The append-only, hash-chained list of charges, and what is derived from it.
///
/// A charge is `reserved`, then `committed` or `released`; each state is a row of its own. Only released charges do not
/// count, so a crash can make the budget look more spent, never less.
package struct PrivacyLedger: Sendable {
    /// All rows in order.
    package private(set) var rows: [LedgerRow] = []

    package init() {}

    /// Takes stored rows and checks the chain.
    ///
    /// - Throws: ``CoordinationError`` with code `ledger_broken` at the first row that does not follow from the one before.
    package init(verifying rows: [LedgerRow]) throws(CoordinationError) {
        for row in rows {
            guard row.sequence == self.rows.count + 1, row.previousHash == head, Self.hash(row) == row.rowHash else {
                throw CoordinationError(
                    .unavailable,
                    "ledger_broken",
                    "the privacy ledger's row \(row.sequence) does not follow from the row before it; restore the database"
                )
            }
            self.rows.append(row)
        }
    }

    /// The hash of the last row, or of nothing.
    package var head: String { rows.last?.rowHash ?? String(repeating: "0", count: 64) }

    /// The charges of a population that count, by run; `additional` stands for a reservation being considered.
    package func charges(
        population: String,
        additional: (run: String, charge: PrivacyCharge)? = nil,
        committedOnly: Bool = false
    ) -> [String: ChargedRun] {
        var states: [String: (run: String, state: String, charge: PrivacyCharge)] = [:]
        for row in rows where row.populationId == population {
            guard let charge = try? JSONDecoder().decode(PrivacyCharge.self, from: Data(row.event.utf8)) else {
                continue
            }
            states["\(row.runId)/\(row.round)/\(row.attempt)"] = (row.runId, row.state, charge)
        }
        var counted = states.values.filter { committedOnly ? $0.state == "committed" : $0.state != "released" }.map {
            ($0.run, $0.charge)
        }
        if let additional { counted.append(additional) }
        var result: [String: ChargedRun] = [:]
        for (run, charge) in counted {
            var entry =
                result[run]
                ?? ChargedRun(
                    noiseMultiplier: charge.noiseMultiplier,
                    participationCap: charge.participationCap,
                    roundCount: 0,
                    parameterCount: charge.parameterCount
                )
            entry.roundCount += 1
            result[run] = entry
        }
        return result
    }

    /// The charge that was reserved for one attempt.
    package func charge(run: String, round: Int, attempt: Int) -> PrivacyCharge? {
        rows.last { $0.runId == run && $0.round == round && $0.attempt == attempt }.flatMap {
            try? JSONDecoder().decode(PrivacyCharge.self, from: Data($0.event.utf8))
        }
    }

    /// Makes the next row and keeps it; the caller stores it in the same transaction as what it belongs to.
    package mutating func append(
        population: String,
        run: String,
        round: Int,
        attempt: Int,
        state: String,
        charge: PrivacyCharge,
        epsilonAfter: Double,
        at time: Date
    ) -> LedgerRow {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        let event = (try? encoder.encode(charge)).map { String(decoding: $0, as: UTF8.self) } ?? ""
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
        rows.append(row)
        return row
    }

    /// Sets the informative total of the last row.
    package mutating func noteTotal(_ epsilon: Double) {
        rows[rows.count - 1].epsilonAfter = epsilon
    }

    /// Takes back rows whose transaction failed.
    package mutating func truncate(to count: Int) {
        rows.removeLast(rows.count - count)
    }

    private static func hash(_ row: LedgerRow) -> String {
        let canonical = [
            row.previousHash, String(row.sequence), row.populationId, row.runId, String(row.round),
            String(row.attempt), row.state, row.event,
            String(Int((row.createdAt.timeIntervalSince1970 * 1000).rounded())),
        ].joined(separator: "\n")
        return Secrets.sha256(Array(canonical.utf8))
    }
}
