package import DifferentialPrivacy
package import Foundation
import WireFormat

/// An independent recomputation of an exported ledger: chain, states, kinds, and ε by every accountant that has a rule.
///
/// It shares no state and no totals with the coordinator: everything is derived again from the rows of the document.
package struct LedgerAudit: Sendable {
    package private(set) var rowCount = 0
    package private(set) var committed = 0
    package private(set) var reserved = 0
    package private(set) var released = 0
    /// Total of committed charges, and of all that count, by each accountant that has a rule.
    package private(set) var epsilons: [(accountant: AccountantKind, spent: Double, withReserved: Double)] = []
    package private(set) var budgetEpsilon: Double?
    package private(set) var budgetDelta: Double?
    /// Who may enforce, by the events and the order in which they came.
    package private(set) var judge: AccountantKind?
    /// One sentence for everything that does not hold.
    package private(set) var problems: [String] = []

    /// Judges a document of schema `martlet-ledger/1`, or rows as JSON lines.
    ///
    /// - Parameters:
    ///   - data: The document.
    ///   - delta: For rows without a budget: where ε is computed.
    /// - Throws: ``CoordinationError`` with code `not_a_ledger`.
    package init(_ data: Data, delta: Double? = nil) throws {
        let document: LedgerAuditDocument?
        let rows: [LedgerAuditDocument.Row]
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        if let whole = try? decoder.decode(LedgerAuditDocument.self, from: data), whole.schema == "martlet-ledger/1" {
            (document, rows) = (whole, whole.rows)
        } else {
            document = nil
            rows = try Self.lines(data, decoder)
        }
        rowCount = rows.count
        checkChain(rows, isWhole: document != nil, head: document?.head)
        let shown = rows.filter { $0.event != nil }
        let plans = readStates(shown)
        budgetEpsilon = budgetEpsilon ?? document?.budget.epsilon
        budgetDelta = budgetDelta ?? document?.budget.delta ?? delta
        guard let budgetDelta else {
            problems.append("no delta is stated: give --delta")
            return
        }
        compute(plans, delta: budgetDelta)
        compare(document, lastTotal: shown.last { !($0.runId ?? "").isEmpty }?.epsilonAfter)
    }

    private struct Plan: Hashable {
        var run: String
        var charge: PrivacyCharge
    }

    private struct Sums {
        var committed = 0
        var open = 0
        /// Charged before a second run began, by the first one.
        var prepaid = 0
    }

    /// Whether filters have to judge, and whether they did from the first charge on.
    private var isAdaptive = false
    private var isFiltered = false

    private static func lines(_ data: Data, _ decoder: JSONDecoder) throws -> [LedgerAuditDocument.Row] {
        struct Line: Decodable {
            var createdAt: String?
        }
        let lines = data.split(separator: UInt8(ascii: "\n"))
        guard !lines.isEmpty else { throw Self.notALedger }
        return try lines.map { line in
            guard var row = try? decoder.decode(LedgerAuditDocument.Row.self, from: Data(line)), row.event != nil,
                let time = try? decoder.decode(Line.self, from: Data(line)).createdAt,
                let date = Date(wireTimestamp: time)
            else { throw Self.notALedger }
            row.createdAtMs = Int((date.timeIntervalSince1970 * 1000).rounded())
            return row
        }
    }

    private static var notALedger: CoordinationError {
        CoordinationError(
            .unprocessable,
            "not_a_ledger",
            "this is neither a document of schema martlet-ledger/1 (GET …/ledger?format=audit) nor rows as JSON lines "
                + "(?format=jsonl)"
        )
    }

    private mutating func checkChain(_ rows: [LedgerAuditDocument.Row], isWhole: Bool, head: String?) {
        var previous: (sequence: Int, hash: String)? = isWhole ? (0, PrivacyLedger.emptyHead) : nil
        for row in rows {
            if let previous, isWhole || previous.sequence + 1 == row.sequence {
                if row.sequence != previous.sequence + 1 {
                    problems.append("row \(row.sequence) follows row \(previous.sequence): rows are missing")
                } else if row.previousHash != previous.hash {
                    problems.append("row \(row.sequence) does not continue the chain of the row before it")
                }
            }
            previous = (row.sequence, row.rowHash)
            guard let event = row.event else { continue }
            let text = [
                row.previousHash, String(row.sequence), row.populationId ?? "", row.runId ?? "", String(row.round ?? 0),
                String(row.attempt ?? 0), row.state ?? "", event, String(row.createdAtMs ?? 0),
            ].joined(separator: "\n")
            if Secrets.sha256(Array(text.utf8)) != row.rowHash {
                problems.append("row \(row.sequence) was edited: its hash does not belong to its contents")
            }
        }
        if let head, head != rows.last?.rowHash ?? PrivacyLedger.emptyHead {
            problems.append("the document's head is not the hash of its last row")
        }
    }

    private mutating func readStates(_ rows: [LedgerAuditDocument.Row]) -> [(Plan, Sums)] {
        var states: [String: (state: String, plan: Plan, count: Int)] = [:]
        var order: [Plan] = []
        var firstRun: String?
        var prepaid: [Plan: Int] = [:]
        for row in rows {
            let data = Data((row.event ?? "").utf8)
            let run = row.runId ?? ""
            if run.isEmpty {
                guard let note = try? JSONDecoder().decode(LedgerNote.self, from: data) else {
                    problems.append("row \(row.sequence) states an event of an unknown kind")
                    continue
                }
                if note.kind == "budget" {
                    (budgetEpsilon, budgetDelta) = (note.epsilon, note.delta)
                    if note.accountant == "rdp" { isFiltered = true }
                }
                continue
            }
            guard let charge = try? JSONDecoder().decode(PrivacyCharge.self, from: data),
                (try? charge.release(count: 1)) != nil
            else {
                problems.append("row \(row.sequence) charges an event of an unknown kind, so no total can be trusted")
                continue
            }
            // What came back after a roll-back has a cap of its own: its participations were forgotten.
            let plan = Plan(run: row.round == 0 ? "\(run)#\(row.sequence)" : run, charge: charge.plan)
            if firstRun == nil, charge.startsFiltered { isFiltered = true }
            if !isAdaptive, charge.isAdaptive == true || row.round == 0 || firstRun.map({ $0 != run }) ?? false {
                isAdaptive = true
                for entry in states.values where entry.state != "released" && entry.plan.run == firstRun {
                    prepaid[entry.plan, default: 0] += entry.count
                }
            }
            firstRun = firstRun ?? run
            if !order.contains(plan) { order.append(plan) }
            let key = "\(run)/\(row.round ?? 0)/\(row.attempt ?? 0)/\(charge.release ?? "update")"
            let state = row.state ?? ""
            let isRecovered = state == "committed" && row.round == 0
            let isPossible =
                states[key] == nil ? state == "reserved" || isRecovered : states[key]?.state == "reserved"
            if !isPossible {
                problems.append("row \(row.sequence) moves its charge to \(state), which is not possible")
            }
            states[key] = (state, plan, charge.count ?? 1)
        }
        var sums: [Plan: Sums] = [:]
        for entry in states.values {
            switch entry.state {
            case "committed":
                committed += entry.count
                sums[entry.plan, default: Sums()].committed += entry.count
            case "reserved":
                reserved += entry.count
                sums[entry.plan, default: Sums()].open += entry.count
            default: released += entry.count
            }
        }
        for (plan, count) in prepaid { sums[plan, default: Sums()].prepaid = count }
        return order.map { ($0, sums[$0] ?? Sums()) }
    }

    private mutating func compute(_ plans: [(Plan, Sums)], delta: Double) {
        func releases(_ count: (Sums) -> Int) throws -> [CappedRelease] {
            try plans.compactMap { plan, sums in
                guard count(sums) > 0 else { return nil }
                var release = try plan.charge.release(count: count(sums))
                release.prepaidCount = sums.prepaid
                return release
            }
        }
        let all = (try? releases { $0.committed + $0.open }) ?? []
        let enforcing = BudgetArithmetic.enforcingRule(of: all, isAdaptive: isAdaptive, isFiltered: isFiltered)
        judge = enforcing.accountant
        for kind in [AccountantKind.gaussian, .pld, .rdp, .filter] {
            if kind == .pld && delta < LossDistributionAccountant.smallestDelta { continue }
            if kind == .filter && enforcing.accountant != .filter { continue }
            let rule = kind == .filter ? enforcing : EnforcingRule(kind)
            do {
                let spent = try BudgetArithmetic.epsilon(of: releases(\.committed), delta: delta, rule: rule)
                let withReserved = try BudgetArithmetic.epsilon(of: all, delta: delta, rule: rule)
                epsilons.append((kind, spent, withReserved))
            } catch let error as PrivacyError {
                // The exact accountant has rules for Gaussian events only; the others judge the rest.
                if case .unsupportedEvent = error { continue }
                problems.append("epsilon by \(kind.rawValue) cannot be computed: \(error)")
            } catch {
                problems.append("epsilon by \(kind.rawValue) cannot be computed: \(error)")
            }
        }
    }

    private mutating func compare(_ document: LedgerAuditDocument?, lastTotal: Double?) {
        guard let judge = epsilons.first(where: { $0.accountant == self.judge }) else {
            problems.append("no accountant that may enforce has a rule for the events")
            return
        }
        if let name = document?.budget.accountant, name != judge.accountant.rawValue {
            problems.append(
                "the document goes by the accountant \(name); for how its charges came to be chosen only "
                    + "\(judge.accountant.rawValue) is proven"
            )
        }
        func differs(_ left: Double, _ right: Double) -> Bool { abs(left - right) > 1e-9 * max(1, abs(right)) }
        // Rows of earlier versions say what other accountants found of the same charges.
        if let lastTotal, lastTotal > 0, epsilons.allSatisfy({ differs(lastTotal, $0.withReserved) }) {
            problems.append("the last row says epsilon \(lastTotal), but the charges add up to \(judge.withReserved)")
        }
        if let document {
            if differs(document.spentEpsilon, judge.spent) {
                problems.append("the document says epsilon \(document.spentEpsilon) is spent; it is \(judge.spent)")
            }
            if document.budget.epsilon != budgetEpsilon || document.budget.delta != budgetDelta {
                problems.append("the document's budget is not the one that the ledger states")
            }
        }
        if let budgetEpsilon, judge.withReserved > budgetEpsilon {
            problems.append("epsilon \(judge.withReserved) is more than the budget of \(budgetEpsilon)")
        }
    }
}
