import DifferentialPrivacy
import Foundation
import Logging
import Tensors
package import WireFormat

/// Budgets and the ledger.
extension Coordinator {
    // MARK: - Charges

    /// What a run is charged with for each of its rounds.
    func charge(of run: RunState) throws -> PrivacyCharge {
        PrivacyCharge(of: run.specification, parameterCount: try uploadLayout(of: run.record.id).parameterCount)
    }

    /// What an attempt was reserved for.
    func reservedCharge(of run: RunState, _ round: RoundRecord) throws -> PrivacyCharge {
        let evaluation = round.isEvaluation ? PrivacyCharge.evaluation(of: run.specification) : nil
        let population = try populations.record(run.record.populationId)
        return try budgets.reservation(for: ChargedAttempt(round), of: population, evaluation: evaluation)
            ?? charge(of: run)
    }

    /// Ends the reservation of an attempt.
    func settle(_ run: RunState, _ round: RoundRecord, as state: ChargeState) throws -> LedgerRow {
        try budgets.settle(
            reservedCharge(of: run, round),
            for: ChargedAttempt(round),
            of: populations.record(run.record.populationId),
            as: state,
            at: now
        )
    }

    /// Ends the open attempts of private runs, each with the charge that it must keep; see ``Coordinator/abandon``.
    ///
    /// - Parameters:
    ///   - population: Of this one only; `nil` for all.
    ///   - reason: What is recorded.
    ///   - cost: What each costs.
    /// - Throws: ``CoordinationError`` where a transaction fails.
    func abandonPrivateAttempts(population: String? = nil, reason: String, cost: AttemptCost = .judged) throws {
        for id in runOrder {
            guard let run = runs[id], run.specification.isPrivate, run.round.map({ !$0.phase.isFinal }) ?? false,
                population.map({ $0 == run.record.populationId }) ?? true
            else { continue }
            let lost = budgets.trust.attemptsWithLostUpdates
            let hasLostUpdates = run.round.map { lost.contains(ChargedAttempt($0)) } ?? false
            try abandon(run: id, reason: reason, cost: hasLostUpdates ? .apart : cost)
        }
    }

    // MARK: - What is shown

    /// Cells of loss distributions that the status of budgets may take while everybody waits.
    static var statusAllowance: Int { LossAllowance.standard / 2 }

    func budgetStatus(of population: PopulationRecord, allowance: inout Int) -> BudgetStatus? {
        guard population.budgetEpsilon != nil else { return nil }
        let plans = (openRunsByPopulation[population.id] ?? []).compactMap { id -> PrivacyBudgets.OpenPlan? in
            guard let run = runs[id], run.specification.privacy.mode != .none, !run.isOver,
                let charge = try? charge(of: run)
            else { return nil }
            return .init(
                run: id,
                charge: charge,
                specification: run.specification,
                publishedCount: max(0, run.versions.count - 1)
            )
        }
        return budgets.status(of: population, plans: plans, allowance: &allowance)
    }

    /// What is proven of everything that was released of a run's population up to one of its versions and what was measured of
    /// that.
    ///
    /// The rows are gathered in parts, between which others have their turn; the arithmetic is beside the coordinator, one claim at
    /// a time.
    ///
    /// - Returns: `nil` where nothing was charged by then.
    /// - Throws: ``CoordinationError`` `not_found`, or `privacy_invalid` where a total cannot be computed.
    package func claim(run id: String, version number: Int) async throws -> PrivacyClaim? {
        let run = try runState(id)
        guard let version = run.versions.first(where: { $0.version == number }) else {
            throw CoordinationError(.notFound, "not_found", "run '\(id)' has no model version '\(number)'")
        }
        let population = try populations.record(run.record.populationId)
        let count: Int
        switch budgets.claimState(through: version, of: population) {
        case .known(let claim): return claim
        case .open(let rowCount): count = rowCount
        }
        let delta = population.budgetDelta ?? 0
        return try await claimDesk.claim(of: ClaimDesk.Key(version)) { [self] in
            let generation = await budgets.generation
            var rows: [LedgerRow] = []
            while rows.count < count {
                let part = try await ledgerRows(
                    population: population.id,
                    from: rows.count,
                    limit: min(1_000, count - rows.count)
                )
                guard !part.items.isEmpty else { break }
                rows += part.items
            }
            let gathered = rows
            let claim = try await DispatchQueue.global(qos: .utility).result {
                try PrivacyBudgets.claim(of: gathered, delta: delta)
            }
            await keep(claim, of: version, generation: generation)
            return claim
        }
    }

    private func keep(_ claim: PrivacyClaim?, of version: ModelVersionRecord, generation: Int) {
        budgets.keep(claim, of: version, generation: generation)
    }

    /// What a specification would cost its population, with everything charged before.
    ///
    /// - Throws: ``CoordinationError``: no privacy, no budget, or parameters that no accountant takes.
    package func projection(of specification: RunSpecification, parameterCount: Int?) throws -> PrivacyProjection {
        try budgets.projection(
            of: specification,
            parameterCount: parameterCount,
            populations.record(specification.population)
        )
    }

    /// Where the ledger stands.
    package func ledgerState() -> LedgerStateView { budgets.state }

    /// The second record's state in a word: `kept`, `unwritable`, `unread`, or `alarm`.
    package var ledgerRecordState: String { budgets.trust.word }

    /// The population's own rows of the ledger, oldest first, from a place among them on.
    package func ledgerRows(
        population idOrName: String,
        from cursor: Int = 0,
        limit: Int = .max
    ) throws -> Listing<LedgerRow> {
        let all = budgets.ledger.places(ofPopulation: try populations.record(idOrName).id)
        let places = Listing(all, from: cursor, limit: limit)
        return Listing(items: places.items.map { budgets.ledger.rows[$0] }, next: places.next)
    }

    /// Links of a population's rows after so many, one page at most; empty at the end.
    ///
    /// - Throws: ``CoordinationError`` `not_found`, also for a client of another population.
    package func ledgerLinks(population id: String, after number: Int, client: String?) throws -> [UInt8] {
        let record = try population(id, shownTo: client)
        return budgets.ledger.chains[record.id]?.page(after: number) ?? []
    }

    /// The rows by which administrators accepted restored ledgers of a population.
    package func ledgerAcknowledgements(population id: String, client: String?) throws -> LedgerAcknowledgements {
        let record = try population(id, shownTo: client)
        return LedgerAcknowledgements(items: budgets.ledger.account(record.id).acknowledgements)
    }

    private func population(_ id: String, shownTo client: String?) throws -> PopulationRecord {
        guard let client else { return try populations.record(id) }
        // Whether there is another one of that name is nothing that a client learns.
        guard let record = try? populations.record(id), clients[client]?.populationId == record.id else {
            throw CoordinationError(.notFound, "not_found", "no population '\(id)'")
        }
        return record
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
        Array(budgets.ledger.rows[place..<min(end, place + 10 * Self.partCount)])
    }

    private func auditWithoutRows(
        population idOrName: String
    ) throws -> (document: LedgerAuditDocument, rowCount: Int) {
        let record = try populations.record(idOrName)
        var allowance = Self.statusAllowance
        guard let status = budgetStatus(of: record, allowance: &allowance) else {
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
        return (budgets.audit(of: record, status, participations: histogram), budgets.ledger.rows.count)
    }

    // MARK: - Changes

    /// Sets a population's ε: lower at will, higher with a reason that stays in the ledger.
    package func changeBudget(population idOrName: String, _ request: BudgetChangeRequest) throws -> PopulationView {
        let record = try populations.record(idOrName)
        try PrivacyBudgets.checkChange(of: record, request)
        if budgets.isOverdrawn(record, by: request) {
            try abandonPrivateAttempts(
                population: record.id,
                reason: "the budget was lowered to \(request.epsilon), under what was reserved"
            )
        }
        try charging { budgets throws in
            try budgets.changing(record, to: request.epsilon, reason: request.reason, at: now)
        }
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
        try budgets.checkLost(heads, populations)
        if budgets.trust.isUnread { try ledgerRecord.open(&budgets, at: now) }
        // What it says is what would be charged again.
        if budgets.trust.isUnread, let trouble = budgets.trust.trouble { throw trouble.error }
        try budgets.requireLoss(heads)
        let alarm = budgets.trust.alarm
        // Whether all that was lost is what the second record says.
        let isKnown = alarm?.isRecordMissing == false && !budgets.trust.isRestored
        try ledgerRecord.keepOverruled(at: now)
        try charging { budgets throws in
            try budgets.acknowledging(reason: reason, lostHeads: heads, populations, at: now)
        }
        // While the alarm stands: a stop before its end lets all of this be done again.
        try abandonPrivateAttempts(
            reason: "the privacy ledger was rolled back, which an administrator acknowledged",
            cost: isKnown ? .chargedAgain : .apart
        )
        // What was forgotten used rows of the noise that the database does not know of: the mechanism has ended.
        for run in Set((alarm?.lost ?? []).filter { $0.charge.kind == .bandedMatrix }.map(\.run)) {
            guard let state = runs[run], !state.isOver else { continue }
            let cause = NoiseState.lost(run, "the database was rolled back behind what was released").message
            try drive(run: run, .failed(code: "noise_state_lost", cause: cause))
        }
        budgets.trust.alarm = nil
        ledgerRecord.overrule(&budgets, at: now)
        consumeRestoredNote()
        dropUnneededNoise()
        logger.notice("A roll-back of the privacy ledger was acknowledged", metadata: ["reason": "\(reason)"])
        return budgets.state
    }

    /// Stores changes that append to the ledger, or takes back what they have appended.
    private func charging(_ make: (inout PrivacyBudgets) throws -> [StoreChange]) throws {
        let count = budgets.ledger.rows.count
        try commit(make(&budgets), ledgerCount: count)
    }

    /// Tries again to keep the ledger's second record, when it is time.
    func retryLedgerRecord() {
        guard let trouble = budgets.trust.trouble, isDue(trouble.until, setAhead: trouble.pause) else { return }
        ledgerRecord.write(&budgets, at: now)
    }
}

/// What an attempt costs that ends without a result.
enum AttemptCost: Sendable {
    /// What its phase says, and all of it where another server may have gone on with it.
    case judged
    /// All of it.
    case kept
    /// All of it, for clients of whom this server does not know: see ``PrivacyBudgets/settleApart(_:for:of:at:)``.
    case apart
    /// What its phase says: what another server made of it was charged again by what the second record knows.
    case chargedAgain
}
