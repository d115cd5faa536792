import Coordination
import Foundation
import StrictJSON
import WireFormat

#if canImport(Glibc)
import Glibc
#endif

/// What the second record says: the coordinator's ``LedgerHead``, and where the changes of sessions stood.
///
/// The file is a line with all of it, and a line for each transaction since. So a transaction costs as much as it changes, however long
/// the ledger is, and a write that was cut off is a record that is behind.
struct HelperRecord: Codable, Sendable {
    struct Checkpoint: Codable, Sendable {
        var sequence: Int
        var hash: String
    }

    struct Budget: Codable, Sendable {
        var population: String
        var epsilon: Double
    }

    struct Group: Codable, Sendable {
        var population: String
        var run: String
        var charge: PrivacyCharge
        var count: Int
    }

    struct Sessions: Codable, Equatable, Sendable {
        var number: Int
        var head: String
    }

    /// A row of the ledger, as far as groups follow from it.
    struct Row: Codable, Sendable {
        var sequence: Int
        var previousHash: String
        var hash: String
        var population: String
        var run: String
        var round: Int
        var state: ChargeState
        var event: String

        init(_ row: LedgerRow) {
            (sequence, previousHash, hash) = (row.sequence, row.previousHash, row.rowHash)
            (population, run, round) = (row.populationId, row.runId, row.round)
            (state, event) = (row.state, row.event)
        }
    }

    /// What a transaction added.
    struct Addition: Codable, Sendable {
        var rows: [Row]
        var heads: [PopulationLedgerHead]
        var budgets: [Budget]
        var sessions: Sessions
    }

    var sequence: Int
    var rowHash: String
    var groups: [Group]
    var heads: [PopulationLedgerHead]?
    var checkpoints: [Checkpoint]?
    var budgets: [Budget]?
    /// Absent in a record without a helper's sessions.
    var sessions: Sessions?
    /// Whether lines do not follow from each other: two programs have written to one record.
    private(set) var isForked: Bool? = nil

    /// The record of a ledger, with what was lost of domains that are not there.
    init(_ ledger: PrivacyLedger, _ chain: SessionChain, _ lost: [LostCharge], _ lostBudgets: [String: Double]) throws {
        let head = Data(try JSONValue(encoding: LedgerHead(ledger)).text.utf8)
        self = try JSONDecoder().decode(Self.self, from: head)
        groups += lost.map { Group(population: $0.domain, run: $0.run, charge: $0.charge, count: $0.count) }
        budgets = (budgets ?? []) + lostBudgets.sorted { $0.key < $1.key }.map { Budget(population: $0, epsilon: $1) }
        sessions = Sessions(number: chain.number, head: chain.head)
    }

    /// Reads a record's file.
    ///
    /// - Throws: `CoordinationError` ``LedgerHead/damaged``.
    init(parsing data: Data) throws(CoordinationError) {
        let lines = data.split(separator: 10, omittingEmptySubsequences: false)
        let decoder = JSONDecoder()
        guard let first = lines.first, var record = try? decoder.decode(Self.self, from: first), record.isPossible
        else {
            throw Self.damaged
        }
        var places: [GroupKey: Int] = [:]
        for (place, group) in record.groups.enumerated() { places[GroupKey(group)] = place }
        for (index, line) in lines.dropFirst().enumerated() {
            // The last line has no end: it is empty, or its write was cut off and nobody was answered on the strength of it.
            if index == lines.count - 2 { break }
            guard let addition = try? decoder.decode(Addition.self, from: line) else { throw Self.damaged }
            record.add(addition, &places)
        }
        self = record
    }

    private struct GroupKey: Hashable {
        var population: String
        var run: String
        var charge: PrivacyCharge

        init(_ group: Group) { (population, run, charge) = (group.population, group.run, group.charge) }
    }

    private static let damaged = CoordinationError(
        .unavailable,
        LedgerHead.damaged,
        "the ledger's second record is no record any more: put a whole copy in its place and start again"
    )

    private var isPossible: Bool {
        guard sequence >= 0, rowHash.utf8.count == 64, (sessions?.number ?? 0) >= 0 else { return false }
        return groups.allSatisfy {
            (0...PrivacyCharge.countLimit).contains($0.count) && (try? $0.charge.validate()) != nil
        } && (budgets ?? []).allSatisfy { $0.epsilon >= 0 }
    }

    /// Adds a line.
    private mutating func add(_ addition: Addition, _ places: inout [GroupKey: Int]) {
        for row in addition.rows {
            if row.sequence != sequence + 1 || row.previousHash != rowHash { isForked = true }
            (sequence, rowHash) = (row.sequence, row.hash)
            checkpoints = (checkpoints ?? []) + [Checkpoint(sequence: sequence, hash: rowHash)]
            guard !row.run.isEmpty,
                var charge = try? JSONDecoder().decode(PrivacyCharge.self, from: Data(row.event.utf8))
            else { continue }
            let count = charge.count ?? 1
            charge.count = nil
            let change =
                switch row.state {
                case .reserved: count
                case .released: -count
                case .committed: row.round == 0 ? count : 0
                }
            // What comes back after a roll-back is a plan of its own, as in the coordinator's accounts.
            let run = row.round == 0 ? "\(row.run)#\(row.sequence)" : row.run
            let group = Group(population: row.population, run: run, charge: charge, count: max(0, change))
            if let place = places[GroupKey(group)] {
                groups[place].count = max(0, groups[place].count + change)
            } else if change > 0 {
                places[GroupKey(group)] = groups.count
                groups.append(group)
            }
        }
        for head in addition.heads {
            heads = (heads ?? []).filter { $0.population != head.population } + [head]
        }
        for budget in addition.budgets {
            budgets = (budgets ?? []).filter { $0.population != budget.population } + [budget]
        }
        if addition.sessions.number < sessions?.number ?? 0 { isForked = true }
        sessions = addition.sessions
    }

    /// The part that is the coordinator's.
    var ledgerHead: LedgerHead? {
        (try? JSONValue(encoding: self)).flatMap {
            try? JSONDecoder().decode(LedgerHead.self, from: Data($0.text.utf8))
        }
    }

    /// Why the database is not the one that this record was made of, or a later state of it; `nil` when it is.
    ///
    /// - Parameters:
    ///   - ledger: The stored ledger.
    ///   - chain: Where the stored changes of sessions stand.
    ///   - headAt: Where they stood after so many.
    /// - Returns: A sentence for operators.
    /// - Throws: `CoordinationError` ``LedgerHead/damaged``, and what `headAt` throws.
    func contradiction(
        of ledger: PrivacyLedger,
        _ chain: SessionChain,
        _ headAt: (Int) throws -> String?
    ) throws -> String? {
        if isForked == true {
            return
                "two programs have written to the ledger's second record: each helper has a directory and a record of its "
                + "own"
        }
        guard let ledgerHead else { throw Self.damaged }
        if let found = ledgerHead.contradiction(of: ledger) { return found }
        guard let sessions else { return nil }
        if sessions.number > chain.number {
            return
                "the database holds \(chain.number) changes of sessions, but change \(sessions.number) had been written "
                + "before: it was restored from an old backup"
        }
        return try headAt(sessions.number) == sessions.head
            ? nil
            : "change \(sessions.number) of the sessions is not the one that was written first: another history was "
                + "restored"
    }

    func isBehind(_ ledger: PrivacyLedger, _ chain: SessionChain) -> Bool {
        sequence < ledger.rows.count || sessions.map { $0.number < chain.number } ?? true
    }
}

/// The file of the second record, and what this process has last seen of it.
struct HelperRecordFile: Sendable {
    /// The file as it was left, so that it is read again only when somebody else has touched it.
    private struct Known: Equatable, Sendable {
        var identity: String
        var byteCount: Int
    }

    private var known: Known?
    private var firstByteCount = 0
    private(set) var sequence = 0
    private var sessions = 0
    /// Whether this process has read or written a record, so that one that is gone is missed.
    private(set) var hasRecord = false

    /// Reads the record.
    ///
    /// - Returns: `nil` where there is none.
    /// - Throws: `CoordinationError` ``LedgerHead/damaged``, `storage_failed`.
    mutating func read(_ path: String) throws(CoordinationError) -> HelperRecord? {
        known = nil
        guard let data = try DurableFiles.readIfPresent(path, role: .ledgerRecord) else { return nil }
        let record = try HelperRecord(parsing: data)
        hasRecord = true
        return record
    }

    /// Whether the file is as this process has left it.
    func isAsLeft(_ path: String) throws -> Bool {
        guard let known else { return false }
        return try Self.look(path) == known
    }

    private static func look(_ path: String) throws -> Known? {
        guard let identity = try SecretFile.identity(path, followingLinks: true) else { return nil }
        return Known(identity: identity, byteCount: try DurableFiles.byteCount(path, role: .ledgerRecord) ?? 0)
    }

    /// Whether the file holds all there is.
    func holds(_ ledger: PrivacyLedger, _ chain: SessionChain) -> Bool {
        known != nil && sequence == ledger.rows.count && sessions == chain.number
    }

    /// Writes all of it in place of what is there.
    mutating func replace(
        _ path: String,
        _ ledger: PrivacyLedger,
        _ chain: SessionChain,
        _ lost: [LostCharge],
        _ lostBudgets: [String: Double]
    ) throws {
        known = nil
        let record = try HelperRecord(ledger, chain, lost, lostBudgets)
        let data = Data((try JSONValue(encoding: record).text + "\n").utf8)
        try DurableFiles.write(data, to: path, role: .ledgerRecord)
        try note(path, ledger, chain)
        firstByteCount = data.count
    }

    /// Adds a line with what is new; ``replace(_:_:_:_:_:)`` where lines have become longer than what they are added to.
    ///
    /// - Returns: Whether it was added.
    mutating func add(_ path: String, _ ledger: PrivacyLedger, _ chain: SessionChain) throws -> Bool {
        guard let known, known.byteCount - firstByteCount <= max(64 << 10, firstByteCount),
            sequence <= ledger.rows.count
        else { return false }
        let rows = Array(ledger.rows[sequence...])
        let populations = Set(rows.map(\.populationId)).sorted()
        let addition = HelperRecord.Addition(
            rows: rows.map { HelperRecord.Row($0) },
            heads: populations.compactMap { ledger.populationHead($0) },
            budgets: populations.compactMap { population in
                ledger.account(population).budget?.epsilon.map { .init(population: population, epsilon: $0) }
            },
            sessions: .init(number: chain.number, head: chain.head)
        )
        let line = Data((try JSONValue(encoding: addition).text + "\n").utf8)
        self.known = nil
        // A descriptor that has failed is not used again: then all is written into another file.
        let descriptor = open(path, O_WRONLY | O_APPEND | O_CLOEXEC)
        guard descriptor >= 0 else { throw DurableFiles.failure(.open, path, .ledgerRecord) }
        defer { close(descriptor) }
        guard line.withUnsafeBytes({ DurableFiles.writeAll($0, to: descriptor) }) else {
            throw DurableFiles.failure(.write, path, .ledgerRecord)
        }
        guard fsync(descriptor) == 0 else { throw DurableFiles.failure(.sync, path, .ledgerRecord) }
        let before = known.byteCount
        try note(path, ledger, chain)
        // Somebody else has added a line in the same moment: it is read before the next one.
        if self.known?.byteCount != before + line.count { self.known = nil }
        return true
    }

    private mutating func note(_ path: String, _ ledger: PrivacyLedger, _ chain: SessionChain) throws {
        known = try Self.look(path)
        (sequence, sessions, hasRecord) = (ledger.rows.count, chain.number, true)
    }
}
