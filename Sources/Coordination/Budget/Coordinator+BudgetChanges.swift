import Foundation
import Logging
package import WireFormat

extension Coordinator {
    /// The ledger's first row about a population: the budget itself.
    func budgetRow(
        _ record: PopulationRecord,
        accountant: String,
        previous: Double? = nil,
        reason: String? = nil
    ) throws
        -> LedgerRow?
    {
        guard let epsilon = record.budgetEpsilon, let delta = record.budgetDelta else { return nil }
        let note = LedgerNote(
            kind: "budget",
            epsilon: epsilon,
            delta: delta,
            accountant: accountant,
            previousEpsilon: previous,
            reason: reason
        )
        return try appendNote(note, population: record.id)
    }

    private func appendNote(_ note: LedgerNote, population: String) throws -> LedgerRow {
        let number = ledger.rows.reduce(1) { $0 + ($1.populationId == population && $1.runId.isEmpty ? 1 : 0) }
        return try ledger.append(
            population: population,
            run: "",
            round: number,
            attempt: 0,
            state: "committed",
            event: note.canonical,
            epsilonAfter: ledger.rows.last { $0.populationId == population }?.epsilonAfter ?? 0,
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
        record.budgetEpsilon = request.epsilon
        let count = ledger.rows.count
        let accountant = ledger.account(record.id).budget?.accountant ?? "auto"
        guard let row = try budgetRow(record, accountant: accountant, previous: previous, reason: request.reason) else {
            return try population(record.id)
        }
        try commit([.population(record), .ledger(row)], ledgerCount: count)
        return try population(record.id)
    }

    /// Accepts a restored database: what the second record knows and the database does not is charged again.
    package func acknowledgeRollback(reason: String) throws -> LedgerStateView {
        guard let alarm = ledgerAlarm else {
            throw CoordinationError(.conflict, "nothing_to_acknowledge", "the privacy ledger was not rolled back")
        }
        let count = ledger.rows.count
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
                    state: "committed",
                    event: charge.canonical,
                    epsilonAfter: 0,
                    at: now
                )
                changes.append(.ledger(row))
            }
            let note = LedgerNote(kind: "acknowledgement", reason: "\(alarm). \(reason)")
            for population in populations.keys.sorted() where populations[population]?.budgetEpsilon != nil {
                changes.append(.ledger(try appendNote(note, population: population)))
            }
        } catch {
            ledger.truncate(to: count)
            throw error
        }
        try commit(changes, ledgerCount: count)
        // What was forgotten used rows of the noise that the database does not know of: the mechanism has ended.
        for run in Set(ledgerLost.filter { $0.charge.kind == "banded_matrix" }.map(\.run)) {
            guard let state = runs[run], !state.isOver else { continue }
            let cause = NoiseState.lost(run, "the database was rolled back behind what was released").message
            try drive(run: run, .failed(code: "noise_state_lost", cause: cause))
            try abandon(run: run, reason: "noise_state_lost")
        }
        ledgerAlarm = nil
        ledgerLost = []
        writeLedgerHead()
        logger.notice("A roll-back of the privacy ledger was acknowledged", metadata: ["reason": "\(reason)"])
        return ledgerState()
    }

    /// Where the ledger stands.
    package func ledgerState() -> LedgerStateView {
        LedgerStateView(rows: ledger.rows.count, head: ledger.head, alarm: ledgerAlarm)
    }

    /// Everything that an outside accountant needs: own rows whole, other populations' as links of the chain.
    package func ledgerAudit(population idOrName: String) throws -> LedgerAuditDocument {
        let record = try populationRecord(idOrName)
        guard let status = budgetStatus(of: record) else {
            throw CoordinationError(.conflict, "population_without_budget", "'\(record.name)' has no budget")
        }
        var histogram: [String: [String: Int]] = [:]
        for id in runOrder {
            guard let run = runs[id], run.record.populationId == record.id else { continue }
            for count in run.participations.values { histogram[id, default: [:]][String(count), default: 0] += 1 }
        }
        return LedgerAuditDocument(
            population: record.id,
            name: record.name,
            budget: .init(epsilon: status.epsilon, delta: status.delta, accountant: status.accountant),
            isAdaptive: status.isAdaptive,
            spentEpsilon: status.spentEpsilon,
            reservedEpsilon: status.reservedEpsilon,
            remainingEpsilon: status.remainingEpsilon,
            roundsThatFit: status.roundsThatFit,
            participations: histogram,
            head: ledger.head,
            rows: ledger.rows.map { LedgerAuditDocument.Row($0, isShown: $0.populationId == record.id) }
        )
    }
}

/// `GET /v1/ledger`.
package struct LedgerStateView: Codable, Equatable, Sendable {
    package var rows: Int
    package var head: String
    /// Why private rounds are refused until an acknowledgement; `null` when they are not.
    package var alarm: String?
}
