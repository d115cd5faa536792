import Coordination
import DifferentialPrivacy
import Foundation
import TestBenches
import TestSupport
import Testing
import WireFormat

/// Heads of one population's ledger: what an auditor can refuse with them, and what not without.
@Suite(.timeLimit(.minutes(10)))
struct LedgerHeadTests {
    /// A population with several rows of its own, another one between, the document, and the head after each own row.
    private func played() async throws -> (bench: Bench, document: LedgerAuditDocument, heads: [PopulationLedgerHead]) {
        let bench = try await Bench(.memory)
        let coordinator = bench.coordinator
        for name in ["p", "q"] {
            _ = try await coordinator.createPopulation(
                PopulationRequest(name: name, budget: BudgetSpecification(epsilon: 8, delta: 1e-5))
            )
        }
        let id = try await coordinator.population("p").id
        var heads = try await coordinator.ledgerState().populations.filter { $0.population == id }
        for epsilon in [7.0, 6, 5, 4] {
            _ = try await coordinator.changeBudget(population: "p", .init(epsilon: epsilon))
            _ = try await coordinator.changeBudget(population: "q", .init(epsilon: epsilon))
            heads += try await coordinator.ledgerState().populations.filter { $0.population == id }
        }
        return (bench, try await coordinator.ledgerAudit(population: "p"), heads)
    }

    private func audit(
        _ document: LedgerAuditDocument,
        _ heads: [PopulationLedgerHead] = [],
        _ edit: (inout LedgerAuditDocument) -> Void = { _ in }
    ) throws -> LedgerAudit {
        var copy = document
        edit(&copy)
        return try LedgerAudit(WireCoding.encode(copy), delta: 1e-5, heads: heads)
    }

    @Test func headsGrowByOneRowAndTheDocumentLeadsToThem() async throws {
        let (_, document, heads) = try await played()
        #expect(heads.map(\.number) == [1, 2, 3, 4, 5] && Set(heads.map(\.hash)).count == 5)
        #expect(document.populationHead == heads.last && document.schema == "martlet-ledger/2")
        let judged = try audit(document, [heads[0], heads[3]])
        // Nothing was charged: what an accountant would say is not the matter here.
        #expect(judged.problems.isEmpty && judged.head == heads.last, "\(judged.problems)")
        #expect(judged.proven.first?.contains("through row 4 of 5") == true)
        #expect(judged.unproven.first?.contains("cut after row 5") == true)
        // Of two views to devices that never compare nothing is proven, whatever heads there are.
        let whole = try audit(document, heads)
        #expect(whole.unproven.count == 1 && whole.unproven[0].contains("two that never meet"))
    }

    /// Cases t8 and t8b of finding F10: each was called a ledger that holds.
    @Test func cutThinnedHiddenAndReorderedRowsAreRefused() async throws {
        let (_, document, heads) = try await played()
        let own = document.rows.indices.filter { document.rows[$0].event != nil }
        let seen = try #require(heads.last)
        /// What someone who can write the whole document does after taking rows away.
        func mended(_ copy: inout LedgerAuditDocument) {
            copy.head = copy.rows.last?.rowHash ?? LedgerChain.empty
            copy.budget.epsilon = 4
        }
        // Cut at the end, with the head set to the last hash: the document holds for itself, and says what it cannot prove.
        func cut(_ copy: inout LedgerAuditDocument) {
            copy.rows.removeSubrange(own[4]...)
            copy.budget.epsilon = 5
            copy.populationHead = heads[3]
            copy.head = copy.rows.last?.rowHash ?? ""
        }
        let alone = try audit(document, [], cut)
        #expect(alone.problems.isEmpty, "\(alone.problems)")
        #expect(alone.unproven.contains { $0.contains("no rows were cut at the end") })
        #expect(try audit(document, [seen], cut).problems.contains { $0.contains("rows were cut") })
        // Own rows as links of another population: in the middle it shows by itself, at the end by the head.
        func hide(_ index: Int) -> (inout LedgerAuditDocument) -> Void {
            { copy in
                let row = copy.rows[index]
                copy.rows[index] = document.rows.first { $0.event == nil } ?? row
                copy.rows[index].sequence = row.sequence
                copy.rows[index].previousHash = row.previousHash
                copy.rows[index].rowHash = row.rowHash
                mended(&copy)
            }
        }
        #expect(try audit(document, [], hide(own[2])).problems.contains { $0.contains("hidden") })
        let hiddenLast = try audit(document, [seen]) { copy in
            hide(own[4])(&copy)
            copy.populationHead = heads[3]
            copy.budget.epsilon = 5
        }
        #expect(hiddenLast.problems.contains { $0.contains("rows were cut") }, "\(hiddenLast.problems)")
        // Two own rows in another order, each with its own hashes.
        let swapped = try audit(document) { copy in
            copy.rows.swapAt(own[1], own[2])
            mended(&copy)
        }
        #expect(swapped.problems.contains { $0.contains("another order") })
        // Edited, with all hashes of the whole chain made to fit: only a head from elsewhere tells.
        func forge(_ copy: inout LedgerAuditDocument) {
            Self.rebuild(&copy) { $0.createdAtMs = ($0.createdAtMs ?? 0) + 1 }
        }
        let forged = try audit(document, [heads[1]], forge).problems
        #expect(forged.count == 1 && forged[0].contains("not the one that was seen before"), "\(forged)")
        #expect(try audit(document, [], forge).problems.isEmpty)
        // Heads of others prove nothing of this document.
        let other = PopulationLedgerHead(population: "pop_other", number: 1, hash: LedgerChain.empty)
        #expect(try audit(document, [other]).problems.contains { $0.contains("none of the heads") })
    }

    /// Makes all hashes fit after an edit, as the server itself could.
    private static func rebuild(
        _ document: inout LedgerAuditDocument,
        _ edit: (inout LedgerAuditDocument.Row) -> Void
    ) {
        var (previous, head, number) = (LedgerChain.empty, LedgerChain.empty, 0)
        for index in document.rows.indices {
            var row = document.rows[index]
            row.previousHash = previous
            if row.event != nil {
                number += 1
                edit(&row)
                row.populationPreviousHash = head
                let link = LedgerChain.link(
                    population: row.populationId ?? "",
                    number: number,
                    run: row.runId ?? "",
                    round: row.round ?? 0,
                    attempt: row.attempt ?? 0,
                    state: row.state ?? "",
                    event: row.event ?? "",
                    milliseconds: row.createdAtMs ?? 0
                )
                head = LedgerChain.head(after: head, number: number, link: link)
                row.rowHash = LedgerChain.rowHash(previous: previous, sequence: row.sequence, head: head)
            }
            previous = row.rowHash
            document.rows[index] = row
        }
        document.head = previous
        document.populationHead?.hash = head
    }

    @Test func jsonLinesAreHeldToHeadsToo() async throws {
        let (bench, _, heads) = try await played()
        struct Line: Encodable {
            var sequence: Int
            var populationId, runId: String
            var round, attempt: Int
            var state, event: String
            var epsilonAfter: Double
            var createdAt, previousHash, rowHash: String
            var format: Int
            var populationNumber: Int?
            var populationPreviousHash: String?
        }
        let lines = try await bench.coordinator.ledgerRows(population: "p").map { row in
            try WireCoding.encode(
                Line(
                    sequence: row.sequence,
                    populationId: row.populationId,
                    runId: row.runId,
                    round: row.round,
                    attempt: row.attempt,
                    state: row.state.rawValue,
                    event: row.event,
                    epsilonAfter: row.epsilonAfter,
                    createdAt: row.createdAt.wireTimestamp,
                    previousHash: row.previousHash,
                    rowHash: row.rowHash,
                    format: row.format,
                    populationNumber: row.populationNumber,
                    populationPreviousHash: row.populationPreviousHash
                )
            ) + [10]
        }
        func problems(_ lines: [Data], _ heads: [PopulationLedgerHead]) throws -> [String] {
            try LedgerAudit(lines.reduce(Data(), +), heads: heads).problems
        }
        #expect(try problems(lines, heads).isEmpty)
        #expect(try problems(Array(lines.dropLast()), [heads[4]]).contains { $0.contains("rows were cut") })
        #expect(try problems(Array(lines.dropFirst()), []).contains { $0.contains("left out") })
        #expect(try problems([lines[0]] + Array(lines[2...]), []).contains { $0.contains("left out") })
    }

    /// Rows of the first format keep their hashes; the first row of the second one holds them all.
    @Test func oldRowsAreHeldByTheFirstNewOne() throws {
        var rows: [LedgerRow] = []
        var previous = PrivacyLedger.emptyHead
        let event = #"{"delta":1e-05,"epsilon":8,"kind":"budget"}"#
        for (sequence, population) in ["p", "q", "p"].enumerated() {
            let fields: [String: Any] = [
                "sequence": sequence + 1, "populationId": population, "runId": "", "round": sequence + 1, "attempt": 0,
                "state": "committed", "event": event, "epsilonAfter": 0, "createdAt": 1, "previousHash": previous,
                "rowHash": "", "format": 1,
            ]
            var row = try JSONDecoder().decode(LedgerRow.self, from: JSONSerialization.data(withJSONObject: fields))
            row.rowHash = PrivacyLedger.hash(row)
            previous = row.rowHash
            rows.append(row)
        }
        var ledger = try PrivacyLedger(verifying: rows)
        let before = try #require(ledger.populationHead("p"))
        #expect(before.number == 2)
        func append() throws -> LedgerRow {
            try ledger.append(
                population: "p",
                run: "",
                round: 3,
                attempt: 0,
                state: .committed,
                event: event,
                epsilonAfter: 0,
                at: Date(timeIntervalSince1970: 2)
            )
        }
        let new = try append()
        #expect(new.format == 2 && new.populationNumber == 3 && new.populationPreviousHash == before.hash)
        #expect(try PrivacyLedger(verifying: rows + [new]).populationHead("p") == ledger.populationHead("p"))
        // A transaction that failed leaves no trace in the chain.
        let after = ledger.populationHead("p")
        _ = try append()
        ledger.truncate(to: 4)
        #expect(ledger.populationHead("p") == after)
        // An old row that went missing, and one that comes after new ones.
        var without = rows
        without.remove(at: 2)
        var moved = new
        moved.sequence = 3
        moved.previousHash = without[1].rowHash
        moved.rowHash = PrivacyLedger.hash(moved)
        #expect(throws: CoordinationError.self) { try PrivacyLedger(verifying: without + [moved]) }
        var late = rows[2]
        late.sequence = 5
        late.previousHash = new.rowHash
        late.rowHash = PrivacyLedger.hash(late)
        #expect(throws: CoordinationError.self) { try PrivacyLedger(verifying: rows + [new, late]) }
    }
}
