import Foundation
import Logging
package import WireFormat

extension Coordinator {
    /// The ledger's first row about a population: the budget itself.
    func budgetRow(
        _ record: PopulationRecord,
        accountant: AccountantChoice,
        previous: Double? = nil,
        reason: String? = nil
    ) throws
        -> LedgerRow?
    {
        guard let epsilon = record.budgetEpsilon, let delta = record.budgetDelta else { return nil }
        let note = LedgerNote(
            kind: .budget,
            epsilon: epsilon,
            delta: delta,
            accountant: accountant,
            previousEpsilon: previous,
            reason: reason
        )
        return try appendNote(note, population: record.id)
    }

    private func appendNote(_ note: LedgerNote, population: String) throws -> LedgerRow {
        let places = ledger.places(ofPopulation: population)
        let number = places.reduce(1) { $0 + (ledger.rows[$1].runId.isEmpty ? 1 : 0) }
        return try ledger.append(
            population: population,
            run: "",
            round: number,
            attempt: 0,
            state: .committed,
            event: note.canonical,
            epsilonAfter: places.last.map { ledger.rows[$0].epsilonAfter } ?? 0,
            at: now
        )
    }

    /// Sets a population's ε: lower at will, higher with a reason that stays in the ledger.
    package func changeBudget(population idOrName: String, _ request: BudgetChangeRequest) throws -> PopulationView {
        var record = try populationRecord(idOrName)
        guard let previous = record.budgetEpsilon else {
            throw CoordinationError(
                .conflict,
                "population_without_budget",
                "'\(record.name)' has no budget, and its clients joined without one: create another population"
            )
        }
        guard request.epsilon <= previous || !(request.reason ?? "").isEmpty else {
            throw CoordinationError(
                .conflict,
                "reason_required",
                "raising epsilon from \(previous) to \(request.epsilon) weakens what was promised: give a reason, it stays "
                    + "in the ledger"
            )
        }
        if request.epsilon < previous, reservedTotal(of: record) > request.epsilon {
            // What is open was admitted by the old budget, and could be published over the new one.
            try abandonPrivateAttempts(
                population: record.id,
                reason: "the budget was lowered to \(request.epsilon), under what was reserved"
            )
        }
        record.budgetEpsilon = request.epsilon
        let count = ledger.rows.count
        let accountant = ledger.account(record.id).budget?.accountant ?? .auto
        guard let row = try budgetRow(record, accountant: accountant, previous: previous, reason: request.reason) else {
            return try population(record.id)
        }
        try commit([.population(record), .ledger(row)], ledgerCount: count)
        return try population(record.id)
    }

    /// Accepts a restored database: what the second record knows and the database does not is charged again.
    ///
    /// - Parameters:
    ///   - reason: Stays in the ledger.
    ///   - heads: Heads that devices or auditors hold and the ledger does not lead to; those of the second record are added. Devices that
    ///     hold one take the restored ledger, and tell their owner once.
    /// - Returns: Where the ledger stands.
    /// - Throws: ``CoordinationError`` `nothing_to_acknowledge` where nothing was lost.
    package func acknowledgeRollback(
        reason: String,
        lostHeads heads: [PopulationLedgerHead] = []
    ) throws -> LedgerStateView {
        if let head = heads.first(where: { populations[$0.population]?.budgetEpsilon == nil || ledger.extends($0) }) {
            throw CoordinationError(
                .conflict,
                "nothing_to_acknowledge",
                "the head \(head.text) is of no population with a budget, or the ledger leads to it: nothing of it was lost"
            )
        }
        if isLedgerRecordUnread { try openLedgerRecord() }
        // What it says is what would be charged again.
        if isLedgerRecordUnread, let ledgerRecordTrouble { throw ledgerRecordTrouble.error }
        guard let alarm = ledgerAlarm ?? (heads.isEmpty ? nil : "an administrator names heads that were lost") else {
            throw CoordinationError(.conflict, "nothing_to_acknowledge", "the privacy ledger was not rolled back")
        }
        // Whether all that was lost is what the second record says.
        let isKnown = ledgerAlarm != nil && !isLedgerRecordMissing && !isRestored
        try keepOverruledRecord()
        let count = ledger.rows.count
        let restored = ledger.chains.mapValues(\.count)
        // Rows of each population that both histories are known to have.
        let common = Dictionary(
            ledger.rows.prefix(ledgerCommonSequence).map { ($0.populationId, 1) },
            uniquingKeysWith: +
        )
        let recorded = Set(ledgerLostHeads)
        let lostHeads = Dictionary(grouping: Set(ledgerLostHeads + heads), by: \.population)
        var changes: [StoreChange] = []
        do {
            for lost in ledgerLost where populations[lost.population] != nil {
                var charge = lost.charge
                charge.count = lost.count
                let row = try ledger.append(
                    population: lost.population,
                    run: PopulationAccount.Plan.runID(lost.run),
                    round: 0,
                    attempt: ledger.rows.count,
                    state: .committed,
                    event: charge.canonical,
                    epsilonAfter: 0,
                    at: now
                )
                changes.append(.ledger(row))
            }
            // A budget that was lowered, and whose row was lost, is lowered again.
            for (population, epsilon) in ledgerLostBudgets.sorted(by: { $0.key < $1.key }) {
                guard var record = populations[population], let previous = record.budgetEpsilon, epsilon < previous
                else {
                    continue
                }
                record.budgetEpsilon = epsilon
                let accountant = ledger.account(population).budget?.accountant ?? .auto
                let why = "the ledger's second record has this budget"
                guard let row = try budgetRow(record, accountant: accountant, previous: previous, reason: why) else {
                    continue
                }
                changes += [.population(record), .ledger(row)]
            }
            var note = LedgerNote(kind: .acknowledgement, reason: "\(alarm). \(reason)")
            for population in populations.keys.sorted() where populations[population]?.budgetEpsilon != nil {
                note.lost = lostHeads[population]?.sorted { ($0.number, $0.hash) < ($1.number, $1.hash) }.map {
                    // A head of the record is lost from the last common row on. Of another one it is not known where its history parts,
                    // but for one that is longer than all that is here.
                    let after =
                        recorded.contains($0)
                        ? common[population] ?? 0
                        : $0.number > restored[population] ?? 0 ? restored[population] ?? 0 : 0
                    return LostLedgerHead(after: after, number: $0.number, hash: $0.hash)
                }
                changes.append(.ledger(try appendNote(note, population: population)))
            }
        } catch {
            ledger.truncate(to: count)
            throw error
        }
        try commit(changes, ledgerCount: count)
        // While the alarm stands: a stop before its end lets all of this be done again.
        try abandonPrivateAttempts(
            reason: "the privacy ledger was rolled back, which an administrator acknowledged",
            cost: isKnown ? .chargedAgain : .apart
        )
        // What was forgotten used rows of the noise that the database does not know of: the mechanism has ended.
        for run in Set(ledgerLost.filter { $0.charge.kind == .bandedMatrix }.map(\.run)) {
            guard let state = runs[run], !state.isOver else { continue }
            let cause = NoiseState.lost(run, "the database was rolled back behind what was released").message
            try drive(run: run, .failed(code: "noise_state_lost", cause: cause))
        }
        ledgerAlarm = nil
        isLedgerRecordMissing = false
        ledgerLost = []
        ledgerLostHeads = []
        ledgerLostBudgets = [:]
        ledgerCommonSequence = 0
        overruleLedgerRecord()
        consumeRestoredNote()
        dropUnneededNoise()
        logger.notice("A roll-back of the privacy ledger was acknowledged", metadata: ["reason": "\(reason)"])
        return ledgerState()
    }

    /// Where the ledger stands.
    package func ledgerState() -> LedgerStateView {
        LedgerStateView(
            rows: ledger.rows.count,
            head: ledger.head,
            alarm: ledgerAlarm,
            record: ledgerRecordState,
            recordReason: ledgerRecordTrouble?.reason,
            populations: ledger.chains.keys.sorted().compactMap { ledger.populationHead($0) }
        )
    }

    /// Links of a population's rows after so many, one page at most; empty at the end.
    ///
    /// - Throws: ``CoordinationError`` `not_found`, also for a client of another population.
    package func ledgerLinks(population id: String, after number: Int, client: String?) throws -> [UInt8] {
        let record = try populationRecord(id)
        guard client.map({ clients[$0]?.populationId == record.id }) ?? true else {
            throw CoordinationError(.notFound, "not_found", "no population '\(id)'")
        }
        return ledger.chains[record.id]?.page(after: number) ?? []
    }

    /// The rows by which administrators accepted restored ledgers of a population.
    package func ledgerAcknowledgements(population id: String, client: String?) throws -> LedgerAcknowledgements {
        let record = try populationRecord(id)
        guard client.map({ clients[$0]?.populationId == record.id }) ?? true else {
            throw CoordinationError(.notFound, "not_found", "no population '\(id)'")
        }
        return LedgerAcknowledgements(items: ledger.account(record.id).acknowledgements)
    }

    /// Everything that an outside accountant needs: own rows whole, other populations' as links of the chain.
    ///
    /// The rows are gathered in parts, between which others have their turn.
    package nonisolated func ledgerAudit(population idOrName: String) async throws -> LedgerAuditDocument {
        var (document, count) = try await auditWithoutRows(population: idOrName)
        while document.rows.count < count {
            let part = await ledgerRows(from: document.rows.count, through: count)
            document.rows += part.map { LedgerAuditDocument.Row($0, isShown: $0.populationId == document.population) }
        }
        return document
    }

    private func ledgerRows(from place: Int, through end: Int) -> [LedgerRow] {
        // Not a slice, which would make the next charge copy the ledger.
        Array(ledger.rows[place..<min(end, place + 10 * Self.partCount)])
    }

    private func auditWithoutRows(
        population idOrName: String
    ) throws -> (document: LedgerAuditDocument, rowCount: Int) {
        let record = try populationRecord(idOrName)
        guard let status = budgetStatus(of: record) else {
            throw CoordinationError(.conflict, "population_without_budget", "'\(record.name)' has no budget")
        }
        var histogram: [String: [String: Int]] = [:]
        for id in runOrder {
            // How often clients were drawn is what an amplified claim keeps secret from readers of this document.
            guard let run = runs[id], run.record.populationId == record.id, !run.specification.privacy.hasSecretDraw
            else { continue }
            for (count, clients) in run.participationHistogram {
                histogram[id, default: [:]][String(count)] = clients
            }
        }
        let document = LedgerAuditDocument(
            population: record.id,
            name: record.name,
            relation: status.relation,
            claim: status.claim,
            budget: .init(epsilon: status.epsilon, delta: status.delta, accountant: status.accountant),
            isAdaptive: status.isAdaptive,
            spentEpsilon: status.spentEpsilon,
            reservedEpsilon: status.reservedEpsilon,
            remainingEpsilon: status.remainingEpsilon,
            roundsThatFit: status.roundsThatFit,
            participations: histogram,
            head: ledger.head,
            populationHead: ledger.populationHead(record.id),
            rows: []
        )
        return (document, ledger.rows.count)
    }
}
