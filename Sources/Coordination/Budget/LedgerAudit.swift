package import DifferentialPrivacy
package import Foundation
package import WireFormat

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
    /// Where the document's own rows lead: what an auditor keeps for the next time.
    package private(set) var head: PopulationLedgerHead?
    /// One sentence for everything that heads from elsewhere prove.
    package private(set) var proven: [String] = []
    /// One sentence for everything that a reader might believe, and that this document cannot show.
    package private(set) var unproven: [String] = []

    /// Judges a document of schema `martlet-ledger/2` or `/1`, or rows as JSON lines.
    ///
    /// - Parameters:
    ///   - data: The document.
    ///   - delta: For rows without a budget: where ε is computed.
    ///   - heads: What devices or auditors were told before: the document has to extend each that is of its population.
    /// - Throws: ``CoordinationError`` with code `not_a_ledger`.
    package init(_ data: Data, delta: Double? = nil, heads: [PopulationLedgerHead] = []) throws {
        let document: LedgerAuditDocument?
        let rows: [LedgerAuditDocument.Row]
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        if let whole = try? decoder.decode(LedgerAuditDocument.self, from: data),
            ["martlet-ledger/1", "martlet-ledger/2"].contains(whole.schema)
        {
            (document, rows) = (whole, whole.rows)
        } else {
            document = nil
            rows = try Self.lines(data, decoder)
        }
        rowCount = rows.count
        checkChain(rows, isWhole: document != nil, head: document?.head)
        let shown = rows.filter { $0.event != nil }
        checkPopulation(shown, document: document, heads: heads)
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

    /// Whether filters have to judge, and how the first charge decided that δ is divided.
    private var isAdaptive = false
    private var start = BudgetStart.exact

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
            row.createdAtMs = date.wholeMilliseconds
            return row
        }
    }

    private static var notALedger: CoordinationError {
        CoordinationError(
            .unprocessable,
            "not_a_ledger",
            "this is neither a document of schema martlet-ledger/2 (GET …/ledger?format=audit) nor rows as JSON lines "
                + "(?format=jsonl)"
        )
    }

    private mutating func checkChain(_ rows: [LedgerAuditDocument.Row], isWhole: Bool, head: String?) {
        var previous: (sequence: Int, hash: String)? = isWhole ? (0, PrivacyLedger.emptyHead) : nil
        for row in rows {
            if let previous, isWhole || previous.sequence &+ 1 == row.sequence {
                if row.sequence != previous.sequence &+ 1 {
                    problems.append("row \(row.sequence) follows row \(previous.sequence): rows are missing")
                } else if row.previousHash != previous.hash {
                    problems.append("row \(row.sequence) does not continue the chain of the row before it")
                }
            }
            previous = (row.sequence, row.rowHash)
            guard let event = row.event, row.format ?? 1 == 1 else { continue }
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

    /// Checks the chain of the population's own rows, and what is known of it from elsewhere.
    ///
    /// Without numbers of their own, rows could be shown as links of other populations, and their charges not be counted.
    private mutating func checkPopulation(
        _ rows: [LedgerAuditDocument.Row],
        document: LedgerAuditDocument?,
        heads: [PopulationLedgerHead]
    ) {
        guard let population = document?.population ?? rows.first?.populationId else {
            problems.append("the document has no rows of its own population")
            return
        }
        var hashes = [LedgerChain.empty]
        var isNumbered = false
        for row in rows {
            let number = hashes.count
            var link = row.rowHash
            if row.populationId != population {
                problems.append("row \(row.sequence) is of another population than the document")
            }
            if let format = row.format, format >= 2 {
                isNumbered = true
                if format > 2 { problems.append("row \(row.sequence) has a format that this version does not know") }
                link = LedgerChain.link(
                    population: row.populationId ?? "",
                    number: row.populationNumber ?? 0,
                    run: row.runId ?? "",
                    round: row.round ?? 0,
                    attempt: row.attempt ?? 0,
                    state: row.state ?? "",
                    event: row.event ?? "",
                    milliseconds: row.createdAtMs ?? 0
                )
                if row.populationNumber != number {
                    problems.append(
                        "row \(row.sequence) is number \(row.populationNumber ?? 0) of its population, and \(number - 1) of those "
                            + "before it are shown: rows were left out, hidden or put in another order"
                    )
                } else if row.populationPreviousHash != hashes[number - 1] {
                    problems.append(
                        "row \(row.sequence) does not follow from the rows of its population that are shown before it: one was "
                            + "edited, hidden or put in another order"
                    )
                }
                let own = LedgerChain.head(
                    after: row.populationPreviousHash ?? "",
                    number: row.populationNumber ?? 0,
                    link: link
                )
                if LedgerChain.rowHash(previous: row.previousHash, sequence: row.sequence, head: own) != row.rowHash {
                    problems.append("row \(row.sequence) was edited: its hash does not belong to its contents")
                }
            } else if isNumbered {
                problems.append("row \(row.sequence) is of an old format after rows of a new one")
            }
            hashes.append(LedgerChain.head(after: hashes[number - 1], number: number, link: link))
        }
        let count = hashes.count - 1
        let head = PopulationLedgerHead(population: population, number: count, hash: hashes[count])
        self.head = head
        if let document, document.schema != "martlet-ledger/1", document.populationHead != head {
            problems.append(
                "the document says that its population's ledger stands at \(document.populationHead?.text ?? "nothing"), and its "
                    + "rows lead to \(head.text)"
            )
        }
        let known = heads.filter { $0.population == population }
        for seen in known where seen.number > count {
            problems.append(
                "a head of row \(seen.number) was seen before, and the document ends with row \(count) of its population: rows "
                    + "were cut"
            )
        }
        for seen in known where seen.number <= count && hashes[max(0, seen.number)] != seen.hash {
            problems.append(
                "row \(seen.number) of the population is not the one that was seen before: this is another ledger than the head's"
            )
        }
        if known.isEmpty, !heads.isEmpty { problems.append("none of the heads is of population \(population)") }
        let extended = known.filter { $0.number <= count && hashes[max(0, $0.number)] == $0.hash }
        if let last = extended.map(\.number).max() {
            proven.append(
                "the document extends \(extended.count) heads that were seen before; nothing was changed, hidden or left out "
                    + "through row \(last) of \(count)"
            )
        }
        let covered = extended.map(\.number).max() ?? 0
        if covered < count {
            unproven.append(
                covered == 0
                    ? "that no rows were cut at the end: give a head that a device or an auditor was told (--head)"
                    : "that no rows were cut after row \(count): the last head that was given is of row \(covered)"
            )
        }
        if !isNumbered, covered < count {
            unproven.append(
                "that no rows were hidden among those of other populations: rows of versions before format 2 carry no number of "
                    + "their own"
            )
        }
        unproven.append(
            "that all devices were shown this ledger: a server can show two that never meet, so compare heads of several devices "
                + "and auditors"
        )
    }

    private mutating func readStates(_ rows: [LedgerAuditDocument.Row]) -> [(Plan, Sums)] {
        var states: [String: (state: ChargeState, plan: Plan, count: Int)] = [:]
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
                if note.kind == .budget {
                    (budgetEpsilon, budgetDelta) = (note.epsilon, note.delta)
                    if note.accountant == .rdp { start = .filtered }
                }
                continue
            }
            guard let charge = try? JSONDecoder().decode(PrivacyCharge.self, from: data),
                (try? charge.validate()) != nil
            else {
                problems.append("row \(row.sequence) charges an event of an unknown kind, so no total can be trusted")
                continue
            }
            // What came back after a roll-back has a cap of its own: its participations were forgotten.
            let plan = Plan(run: row.round == 0 ? "\(run)#\(row.sequence)" : run, charge: charge.plan)
            if firstRun == nil, start != .filtered { start = charge.start }
            if !isAdaptive, charge.isAdaptive == true || row.round == 0 || firstRun.map({ $0 != run }) ?? false {
                isAdaptive = true
                for entry in states.values where entry.state != .released && entry.plan.run == firstRun {
                    prepaid[entry.plan, default: 0] += entry.count
                }
            }
            firstRun = firstRun ?? run
            if !order.contains(plan) { order.append(plan) }
            let key = "\(run)/\(row.round ?? 0)/\(row.attempt ?? 0)/\(charge.release ?? "update")"
            guard let state = row.state.flatMap(ChargeState.init) else {
                problems.append(
                    "row \(row.sequence) moves its charge to \(row.state ?? "nothing"), which is not possible"
                )
                continue
            }
            let isRecovered = state == .committed && row.round == 0
            let isPossible =
                states[key] == nil ? state == .reserved || isRecovered : states[key]?.state == .reserved
            if !isPossible {
                problems.append("row \(row.sequence) moves its charge to \(state), which is not possible")
            }
            states[key] = (state, plan, charge.count ?? 1)
        }
        var sums: [Plan: Sums] = [:]
        for entry in states.values {
            switch entry.state {
            case .committed:
                committed += entry.count
                sums[entry.plan, default: Sums()].committed += entry.count
            case .reserved:
                reserved += entry.count
                sums[entry.plan, default: Sums()].open += entry.count
            case .released: released += entry.count
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
        let enforcing = BudgetArithmetic.enforcingRule(of: all, isAdaptive: isAdaptive, start: start)
        judge = enforcing.accountant
        for kind in [AccountantKind.gaussian, .pld, .rdp, .filter] {
            if kind == .pld && delta < LossDistributionAccountant.smallestDelta { continue }
            if kind == .filter && enforcing.accountant != .filter { continue }
            func total(_ releases: [CappedRelease]) throws(PrivacyError) -> Double {
                // Who enforces, by the shares of δ that it enforces with; the others as if all had been planned.
                kind == enforcing.accountant
                    ? try BudgetArithmetic.epsilon(of: releases, delta: delta, rule: enforcing)
                    : try BudgetArithmetic.epsilon(of: releases, delta: delta, accountant: kind)
            }
            do {
                let spent = try total(releases(\.committed))
                let withReserved = try total(all)
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
