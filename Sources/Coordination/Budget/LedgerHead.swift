import Foundation
import StrictJSON
package import WireFormat

/// The second record of where the ledger stands, in a file of its own.
///
/// A database that is restored from a backup forgets charges; this file does not. It also holds what had been charged, so
/// that an acknowledged roll-back charges again what was lost. Put it on another disk than the database where you can.
///
/// What was lost is what had been charged beyond the last row that both histories have. The record knows hashes of earlier rows to
/// find it: the newest ones all, older ones more and more seldom. One without them (of an earlier version) proves no
/// common row, and everything that it knows is charged again.
package struct LedgerHead: Codable, Equatable, Sendable {
    /// A row that the ledger had.
    package struct Checkpoint: Codable, Equatable, Sendable {
        var sequence: Int
        var hash: String
    }

    /// What a population's ledger said of its budget.
    package struct Budget: Codable, Equatable, Sendable {
        var population: String
        var epsilon: Double
    }

    package struct Group: Codable, Equatable, Sendable {
        package var population: String
        var run: String
        package var charge: PrivacyCharge
        package var count: Int

        /// The run's id, whichever of its plans this is.
        package var runID: String { PopulationAccount.Plan.runID(run) }
    }

    package var sequence: Int
    var rowHash: String
    var groups: [Group]
    /// Where each population's ledger stood; absent in records of earlier versions.
    var heads: [PopulationLedgerHead]?
    /// Rows by which a common beginning is found, oldest first; absent in records of earlier versions.
    var checkpoints: [Checkpoint]?
    /// Each population's budget; absent in records of earlier versions.
    var budgets: [Budget]?

    package init(_ ledger: PrivacyLedger) {
        heads = ledger.chains.keys.sorted().compactMap { ledger.populationHead($0) }
        sequence = ledger.rows.count
        rowHash = ledger.head
        checkpoints = Self.places(of: sequence).map { Checkpoint(sequence: $0, hash: ledger.rows[$0 - 1].rowHash) }
        budgets = ledger.accounts.sorted { $0.key < $1.key }.compactMap { population, account in
            account.budget?.epsilon.map { Budget(population: population, epsilon: $0) }
        }
        groups = ledger.accounts.sorted { $0.key < $1.key }.flatMap { population, account in
            account.planOrder.compactMap { plan in
                let count = account.plans[plan]?.all ?? 0
                return count > 0 ? Group(population: population, run: plan.run, charge: plan.charge, count: count) : nil
            }
        }
    }

    /// Reads the record; `nil` when there is none.
    ///
    /// - Throws: ``CoordinationError`` with code ``damaged`` when its contents are no record, `storage_failed` when the disk does
    ///   not give it.
    package static func read(path: String) throws(CoordinationError) -> LedgerHead? {
        let data: Data
        do throws(CoordinationError) {
            data = try DurableFiles.read(path, role: .ledgerRecord)
        } catch {
            if error.storage?.isMissing == true { return nil }
            throw error
        }
        guard let head = try? JSONDecoder().decode(LedgerHead.self, from: data), head.isPossible else {
            throw CoordinationError(
                .unavailable,
                damaged,
                "the ledger's second record is no record any more: put a whole copy in its place and start again"
            )
        }
        return head
    }

    /// The code of the error for a record that cannot be read as one.
    package static let damaged = "ledger_record_damaged"

    /// Whether a ledger could have made it, as far as the record itself tells.
    private var isPossible: Bool {
        let counts = 0...PopulationLedgerHead.greatestNumber
        guard counts.contains(sequence), rowHash.utf8.count == PrivacyLedger.emptyHead.utf8.count else { return false }
        guard rowHash.utf8.allSatisfy({ (48...57).contains($0) || (97...102).contains($0) }) else { return false }
        for head in heads ?? [] where !counts.contains(head.number) || head.population.isEmpty { return false }
        for group in groups {
            guard (0...PrivacyCharge.countLimit).contains(group.count), (try? group.charge.validate()) != nil else {
                return false
            }
        }
        for place in checkpoints ?? [] where place.sequence < 1 || !counts.contains(place.sequence) { return false }
        for budget in budgets ?? [] where !(budget.epsilon >= 0) { return false }
        return true
    }

    /// The rows of a ledger that its record names: the last 64, then of those that are d rows away each that is a multiple of a
    /// power of two which is d/32 at most.
    ///
    /// So what is charged twice, because it lies before a roll-back and after the last named row, is little beside what was lost.
    static func places(of count: Int) -> [Int] {
        var places: [Int] = []
        var place = count
        while place > 0 {
            places.append(place)
            let distance = count - place + 1
            var step = 1
            while step * 64 <= distance { step *= 2 }
            place = (place - 1) / step * step
        }
        return places.reversed()
    }

    /// Whether the ledger holds more than was written down here, as after a stop between a transaction and the record.
    package func isBehind(_ ledger: PrivacyLedger) -> Bool { sequence < ledger.rows.count }

    package func write(path: String) throws {
        let text = try JSONValue(encoding: self).text
        try DurableFiles.write(Data(text.utf8), to: path, role: .ledgerRecord)
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

    /// Heads that devices may have been told and that the ledger does not lead to any more.
    package func lostHeads(from ledger: PrivacyLedger) -> [PopulationLedgerHead] {
        (heads ?? []).filter { !ledger.extends($0) }
    }

    /// Populations that had a ledger and have none now: they were made after the state that was restored.
    func absentPopulations(in ledger: PrivacyLedger) -> [String] {
        (heads ?? []).map(\.population).filter { ledger.populationHead($0) == nil }.sorted()
    }

    /// The last row that the ledger is known to share with the one that this record was made of; 0 where none is.
    func commonSequence(with ledger: PrivacyLedger) -> Int {
        let rows = ledger.rows
        let named = (checkpoints ?? []) + (sequence > 0 ? [Checkpoint(sequence: sequence, hash: rowHash)] : [])
        return named.filter { $0.sequence <= rows.count && rows[$0.sequence - 1].rowHash == $0.hash }
            .map(\.sequence).max() ?? 0
    }

    /// What was charged beyond the last common row: a charge that was open there will be released once more, and what the ledger has
    /// charged since belongs to another history.
    package func lost(from ledger: PrivacyLedger) -> [Group] {
        let common = commonSequence(with: ledger)
        var accounts: [String: PopulationAccount] = [:]
        return groups.compactMap { group in
            let plan = PopulationAccount.Plan(run: group.run, charge: group.charge)
            let account = accounts[group.population] ?? ledger.account(group.population, through: common)
            accounts[group.population] = account
            let present = account.plans[plan]?.committed ?? 0
            guard group.count > present else { return nil }
            var missing = group
            missing.count = group.count - present
            return missing
        }
    }
}
