package import DifferentialPrivacy
package import Foundation
import Tensors
package import WireFormat

/// The append-only, hash-chained list of charges, and what is derived from it.
///
/// A charge is `reserved`, then `committed` or `released`; each state is a row of its own. Only released charges do not
/// count, so a crash can make the budget look more spent, never less.
package struct PrivacyLedger: Sendable {
    /// All rows in order.
    package private(set) var rows: [LedgerRow] = []
    private(set) var accounts: [String: PopulationAccount] = [:]
    /// The places in ``rows`` of each population's.
    private var places: [String: [Int]] = [:]
    private var indices: [String: LedgerRowIndex] = [:]
    private(set) var chains: [String: PopulationChain] = [:]
    /// Whether rows of format 2 have begun: rows of format 1 after them would carry no number of their population.
    private var hasNumbers = false

    package init() {}

    /// Takes stored rows and checks the chain, the kinds and the transitions.
    ///
    /// - Throws: ``CoordinationError`` with code `ledger_broken` at the first row that does not follow from those before.
    package init(verifying rows: [LedgerRow]) throws(CoordinationError) {
        for row in rows {
            guard row.sequence == self.rows.count + 1, row.previousHash == head, Self.hash(row) == row.rowHash,
                take(chainOf: row)
            else {
                throw CoordinationError(
                    .unavailable,
                    "ledger_broken",
                    "the privacy ledger's row \(row.sequence) does not follow from the row before it: it was edited or "
                        + "rows are missing; restore the database from a backup"
                )
            }
            try accounts[row.populationId, default: PopulationAccount()].take(row)
            places[row.populationId, default: []].append(self.rows.count)
            indices[row.populationId, default: LedgerRowIndex()].take(row)
            self.rows.append(row)
        }
    }

    /// The hash of the last row, or of nothing.
    package var head: String { rows.last?.rowHash ?? Self.emptyHead }
    package static let emptyHead = String(repeating: "0", count: 64)

    /// The places in ``rows`` of a population's own rows, oldest first.
    package func places(ofPopulation population: String) -> [Int] { places[population] ?? [] }

    /// What a population's own rows are looked up by.
    func index(ofPopulation population: String) -> LedgerRowIndex { indices[population] ?? LedgerRowIndex() }

    /// Adds a row to its population's chain; `false` where it does not follow from the rows before it.
    private mutating func take(chainOf row: LedgerRow) -> Bool {
        guard row.format == 2 ? true : row.format == 1 && !hasNumbers else { return false }
        hasNumbers = row.format == 2
        return chains[row.populationId, default: PopulationChain()].take(row)
    }

    /// Where a population's ledger stands; `nil` where it has none.
    package func populationHead(_ population: String) -> PopulationLedgerHead? {
        guard let chain = chains[population] else { return nil }
        return PopulationLedgerHead(population: population, number: chain.count, hash: chain.head)
    }

    /// Whether a population's ledger is a head's, or extends it.
    func extends(_ head: PopulationLedgerHead) -> Bool {
        head.number == 0 ? head.hash == LedgerChain.empty : chains[head.population]?.head(at: head.number) == head.hash
    }

    /// What a population has been charged with.
    package func account(_ population: String) -> PopulationAccount { accounts[population] ?? PopulationAccount() }

    /// What a population had been charged with by a row of the whole ledger.
    func account(_ population: String, through sequence: Int) -> PopulationAccount {
        guard sequence < rows.count else { return account(population) }
        var account = PopulationAccount()
        // These rows were taken once already.
        for row in rows.prefix(sequence) where row.populationId == population { try? account.take(row) }
        return account
    }

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
        state: ChargeState,
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
            rowHash: "",
            format: 2,
            populationNumber: (chains[population]?.count ?? 0) + 1,
            populationPreviousHash: chains[population]?.head ?? LedgerChain.empty
        )
        row.rowHash = Self.hash(row)
        var account = account(population)
        try account.take(row)
        accounts[population] = account
        places[population, default: []].append(rows.count)
        indices[population, default: LedgerRowIndex()].take(row)
        _ = take(chainOf: row)
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
        let removed = rows.suffix(from: count)
        let touched = Set(removed.map(\.populationId))
        rows = kept
        for population in touched {
            places[population]?.removeAll { $0 >= count }
            indices[population] = (places[population] ?? []).reduce(into: LedgerRowIndex()) { $0.take(kept[$1]) }
        }
        hasNumbers = kept.last?.format == 2
        for population in touched {
            var account = PopulationAccount()
            // These rows were taken once already.
            for row in kept where row.populationId == population { try? account.take(row) }
            accounts[population] = account
            var chain = PopulationChain()
            if let first = removed.first(where: { $0.populationId == population }), let number = first.populationNumber,
                let head = first.populationPreviousHash, let known = chains[population]
            {
                // The first row that goes says where the chain stood before it.
                chain = known
                chain.cut(to: number - 1, head: head)
            } else {
                for row in kept where row.populationId == population { _ = chain.take(row) }
            }
            chains[population] = chain.count == 0 ? nil : chain
        }
    }

    /// A row's hash in the chain of all populations.
    ///
    /// Of format 1 it is SHA-256 of the row's fields, one a line, with the time in milliseconds; of format 2 it is made of the
    /// population's head after the row, so that both chains hold each other.
    package static func hash(_ row: LedgerRow) -> String {
        if row.format >= 2 {
            let head = LedgerChain.head(
                after: row.populationPreviousHash ?? "",
                number: row.populationNumber ?? 0,
                link: link(row)
            )
            return LedgerChain.rowHash(previous: row.previousHash, sequence: row.sequence, head: head)
        }
        let canonical = [
            row.previousHash, String(row.sequence), row.populationId, row.runId, String(row.round),
            String(row.attempt), row.state.rawValue, row.event,
            String(row.milliseconds),
        ].joined(separator: "\n")
        return Secrets.sha256(Array(canonical.utf8))
    }

    /// What a row is in its population's chain.
    static func link(_ row: LedgerRow) -> String {
        guard row.format >= 2 else { return row.rowHash }
        return LedgerChain.link(
            population: row.populationId,
            number: row.populationNumber ?? 0,
            run: row.runId,
            round: row.round,
            attempt: row.attempt,
            state: row.state.rawValue,
            event: row.event,
            milliseconds: row.milliseconds
        )
    }
}

extension LedgerRow {
    /// Milliseconds since 1970, as they are hashed.
    var milliseconds: Int { createdAt.wholeMilliseconds }
}

extension Date {
    /// Milliseconds since 1970; the least number for a time that is none, which no row was hashed with.
    var wholeMilliseconds: Int { Int(exactly: (timeIntervalSince1970 * 1000).rounded()) ?? .min }
}

/// The links of one population's rows, and where they lead; rows of format 1 are held by the first of format 2.
package struct PopulationChain: Sendable {
    /// 32 bytes a row.
    private(set) var links: [UInt8] = []
    private(set) var head = LedgerChain.empty
    package var count: Int { links.count / LedgerLinks.byteCount }

    package init() {}

    /// Adds a row whose own hash was checked; `false` where its number or its previous hash is not the next one.
    mutating func take(_ row: LedgerRow) -> Bool {
        if row.format >= 2 {
            guard row.populationNumber == count + 1, row.populationPreviousHash == head else { return false }
        }
        let link = PrivacyLedger.link(row)
        guard let bytes = LedgerChain.bytes(link) else { return false }
        head = LedgerChain.head(after: head, number: count + 1, link: link)
        links += bytes
        return true
    }

    /// Takes back the rows after so many, after which the chain stood at `head`.
    mutating func cut(to number: Int, head: String) {
        links.removeLast((count - number) * LedgerLinks.byteCount)
        self.head = head
    }

    /// The head after so many rows, or `nil` where there are fewer.
    ///
    /// Takes time in proportion to the rows: for starts, not for requests.
    func head(at number: Int) -> String? {
        guard (0...count).contains(number) else { return nil }
        return (0..<number).reduce(LedgerChain.empty) { previous, index in
            let start = index * LedgerLinks.byteCount
            let link = links[start..<start + LedgerLinks.byteCount].hexadecimal
            return LedgerChain.head(after: previous, number: index + 1, link: link)
        }
    }

    /// The links of the rows after `number`, one page at most.
    func page(after number: Int) -> [UInt8] {
        guard (0..<count).contains(number) else { return [] }
        let start = number * LedgerLinks.byteCount
        return Array(links[start..<min(links.count, start + LedgerLinks.pageCount * LedgerLinks.byteCount)])
    }
}
