import Foundation

/// The second record of where the ledger stands, in a file of its own.
///
/// A database that is restored from a backup forgets charges; this file does not. It also holds what had been charged, so
/// that an acknowledged roll-back charges again what was lost. Put it on another disk than the database where you can.
package struct LedgerHead: Codable, Equatable, Sendable {
    package struct Group: Codable, Equatable, Sendable {
        var population: String
        var run: String
        var charge: PrivacyCharge
        var count: Int
    }

    package var sequence: Int
    var rowHash: String
    var groups: [Group]

    package init(_ ledger: PrivacyLedger) {
        sequence = ledger.rows.count
        rowHash = ledger.head
        groups = ledger.accounts.sorted { $0.key < $1.key }.flatMap { population, account in
            account.planOrder.compactMap { plan in
                let count = account.plans[plan]?.all ?? 0
                return count > 0 ? Group(population: population, run: plan.run, charge: plan.charge, count: count) : nil
            }
        }
    }

    /// Reads the record; `nil` when there is none.
    ///
    /// - Throws: ``CoordinationError`` when there is one that cannot be read.
    package static func read(path: String) throws(CoordinationError) -> LedgerHead? {
        guard FileManager.default.fileExists(atPath: path) else { return nil }
        guard let data = FileManager.default.contents(atPath: path),
            let head = try? JSONDecoder().decode(LedgerHead.self, from: data)
        else {
            throw CoordinationError(
                .unavailable,
                "ledger_broken",
                "the ledger's second record \(path) cannot be read; restore it, or remove it if you know why it is broken"
            )
        }
        return head
    }

    package func write(path: String) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        try BlobStore.writeDurably(try encoder.encode(self), to: path)
    }

    /// Why the ledger is not the one that this record was made of, or a later state of it; `nil` when it is.
    package func contradiction(of ledger: PrivacyLedger) -> String? {
        if sequence > ledger.rows.count {
            return "the database holds \(ledger.rows.count) rows of the privacy ledger, but row \(sequence) had been "
                + "written before: it was restored from an old backup"
        }
        let hash = sequence == 0 ? PrivacyLedger.emptyHead : ledger.rows[sequence - 1].rowHash
        return hash == rowHash
            ? nil
            : "row \(sequence) of the privacy ledger is not the one that was written first: another history was restored"
    }

    /// What was charged and is not committed in the ledger any more: an open charge there will be released once more.
    func lost(from ledger: PrivacyLedger) -> [Group] {
        groups.compactMap { group in
            let plan = PopulationAccount.Plan(run: group.run, charge: group.charge)
            let present = ledger.account(group.population).plans[plan]?.committed ?? 0
            guard group.count > present else { return nil }
            var missing = group
            missing.count = group.count - present
            return missing
        }
    }
}
