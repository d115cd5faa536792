import DifferentialPrivacy
import Foundation
import Logging
import Tensors
import WireFormat

extension Coordinator {
    // MARK: - Charges

    /// Makes the reservation for a round that is about to open, or refuses.
    ///
    /// - Throws: ``CoordinationError`` with code `budget_exhausted` when the round could overdraw the budget,
    ///   `delta_too_large` when δ is not under 1/N, `ledger_rolled_back` until an operator has acknowledged a roll-back.
    func reserve(run id: String, round: Int, attempt: Int) throws -> LedgerRow {
        try reserve(run: id, round: round, attempt: attempt, charge: charge(of: try runState(id)))
    }

    /// Makes the reservation for any release of a run: evaluation, analytics, and rounds.
    func reserve(run id: String, round: Int, attempt: Int, charge: PrivacyCharge) throws -> LedgerRow {
        let run = try runState(id)
        let population = try populationRecord(run.record.populationId)
        guard let budget = population.budgetEpsilon, let delta = population.budgetDelta else {
            throw CoordinationError(.unprocessable, "population_without_budget", "the population has no privacy budget")
        }
        if let ledgerAlarm {
            throw CoordinationError(
                .conflict,
                "ledger_rolled_back",
                "\(ledgerAlarm). No private round opens until an administrator has acknowledged that: restore the newest "
                    + "database, or POST /v1/ledger/acknowledgement with a reason, which charges what was lost again"
            )
        }
        try checkDelta(of: population)
        let account = ledger.account(population.id)
        let name = charge.release == PrivacyCharge.evaluationRelease ? "the evaluation of version" : "round"
        let total = try epsilon(
            of: account.releases(additional: [(id, charge, 1)]),
            population: population,
            course: account.course(with: charge, of: id)
        )
        guard total.isFinite else {
            throw CoordinationError(
                .conflict,
                "budget_exhausted",
                "\(name) \(round) would bring the population to an epsilon that can no longer be proven: over "
                    + "\(charge.parameterCount) noised coordinates a round, the error of the integer noise alone, which grows "
                    + "as e^epsilon, would use up the budget's delta of \(delta). Nothing was opened. Epsilon is far beyond any "
                    + "useful promise there: ask for a larger noise_multiplier or fewer rounds"
            )
        }
        guard total <= budget else {
            throw CoordinationError(
                .conflict,
                "budget_exhausted",
                "\(name) \(round) would bring the population to epsilon \(total) of \(budget) at delta \(delta); nothing was opened"
            )
        }
        return try ledger.append(
            population: population.id,
            run: id,
            round: round,
            attempt: attempt,
            state: "reserved",
            event: charge.canonical,
            epsilonAfter: total,
            at: now
        )
    }

    /// Ends a reservation: `committed` in the transaction that publishes, `released` when nothing left the server.
    func settle(run id: String, round: RoundRecord, state: String) throws -> LedgerRow {
        let run = try runState(id)
        let evaluation = round.isEvaluation ? PrivacyCharge.evaluation(of: run.specification) : nil
        // As it was reserved: it must be possible to settle also where the model's file is missing.
        let reservation = ledger.reservation(
            population: run.record.populationId,
            run: id,
            round: abs(round.number),
            attempt: round.attempt,
            release: evaluation?.release
        )
        return try settle(
            run: id,
            round: abs(round.number),
            attempt: round.attempt,
            charge: reservation ?? evaluation ?? charge(of: run),
            state: state
        )
    }

    /// Ends any reservation.
    func settle(
        run id: String,
        round: Int,
        attempt: Int,
        charge: PrivacyCharge,
        state: String
    ) throws -> LedgerRow {
        let population = try populationRecord(try runState(id).record.populationId)
        var row = try ledger.append(
            population: population.id,
            run: id,
            round: round,
            attempt: attempt,
            state: state,
            event: charge.canonical,
            epsilonAfter: 0,
            at: now
        )
        let account = ledger.account(population.id)
        // The total is informative and not part of the row's hash.
        row.epsilonAfter =
            (try? epsilon(of: account.releases(), population: population, course: account.course)) ?? 0
        ledger.noteTotal(row.epsilonAfter)
        return row
    }

    /// What a run is charged with for each of its rounds.
    func charge(of run: RunState) throws -> PrivacyCharge {
        PrivacyCharge(of: run.specification, parameterCount: try uploadLayout(of: run.record.id).parameterCount)
    }

    // MARK: - Totals

    private func epsilon(
        of releases: [CappedRelease],
        population: PopulationRecord,
        course: PopulationAccount.Course
    ) throws -> Double {
        guard let delta = population.budgetDelta else { return 0 }
        let rule = course.rule(of: releases)
        let question = EpsilonQuestion(releases: releases, delta: delta, rule: rule)
        if let known = epsilons[question] { return known }
        do {
            let epsilon = try BudgetArithmetic.epsilon(of: releases, delta: delta, rule: rule)
            // A round asks for its total when it opens, when it commits, and for what is shown: composed once.
            if epsilons.count >= 64 { epsilons = [:] }
            epsilons[question] = epsilon
            return epsilon
        } catch {
            throw CoordinationError(.unprocessable, "privacy_invalid", "the cost cannot be computed: \(error)")
        }
    }

    func budgetStatus(of population: PopulationRecord) -> BudgetStatus? {
        guard let budget = population.budgetEpsilon, let delta = population.budgetDelta else { return nil }
        let account = ledger.account(population.id)
        let live = runOrder.compactMap { id -> (String, PrivacyCharge)? in
            guard let run = runs[id], run.record.populationId == population.id,
                run.specification.privacy.mode != "none", ["created", "running", "paused"].contains(run.record.state),
                let charge = try? charge(of: run)
            else { return nil }
            return (id, charge)
        }
        let key = BudgetStatusKey(rowCount: ledger.rows.count, budget: budget, live: live.map(\.0))
        if let known = budgetStatuses[population.id], known.key == key { return known.status }
        let spent = total(account, population, committedOnly: true)
        let withReserved = total(account, population, committedOnly: false)
        var fitting: [String: Int?] = [:]
        for (id, charge) in live {
            fitting[id] = roundsThatFit(account: account, run: id, charge: charge, population: population)
        }
        let releases = (try? account.releases()) ?? []
        let status = BudgetStatus(
            epsilon: budget,
            delta: delta,
            accountant: account.course.rule(of: releases).accountant.rawValue,
            isAdaptive: account.isAdaptive,
            spentEpsilon: spent,
            reservedEpsilon: withReserved - spent,
            remainingEpsilon: max(0, budget - withReserved),
            roundsThatFit: fitting
        )
        budgetStatuses[population.id] = (key, status)
        return status
    }

    private func total(
        _ account: PopulationAccount,
        _ population: PopulationRecord,
        committedOnly: Bool
    ) -> Double {
        guard let releases = try? account.releases(committedOnly: committedOnly) else { return .infinity }
        return (try? epsilon(of: releases, population: population, course: account.course)) ?? .infinity
    }

    /// How many more rounds the budget admits; `nil` when the cap of participations stops the cost from growing.
    private func roundsThatFit(
        account: PopulationAccount,
        run: String,
        charge: PrivacyCharge,
        population: PopulationRecord
    ) -> Int? {
        guard let budget = population.budgetEpsilon, let delta = population.budgetDelta else { return 0 }
        let course = account.course(with: charge, of: run)
        let specification = runs[run]?.specification
        let evaluation = specification.flatMap { PrivacyCharge.evaluation(of: $0) }
        let done = max(0, (runs[run]?.versions.count ?? 1) - 1)
        func admits(_ extra: Int) -> Bool {
            var additional = [(run: run, charge: charge, count: extra)]
            if let evaluation, let specification {
                let count = specification.evaluationCount(rounds: done + extra)
                additional.append((run, evaluation, count - specification.evaluationCount(rounds: done)))
            }
            guard let releases = try? account.releases(additional: additional) else { return false }
            var rule = course.rule(of: releases)
            // A search by loss distributions would take seconds; Rényi never admits more.
            if rule.accountant == .pld { rule.accountant = .rdp }
            return ((try? BudgetArithmetic.epsilon(of: releases, delta: delta, rule: rule)) ?? .infinity) <= budget
        }
        guard admits(1) else { return 0 }
        let limit = charge.kind == "banded_matrix" ? (runs[run]?.specification.rounds ?? 1) : 1_000_000
        if admits(limit) { return charge.kind == "banded_matrix" ? limit : nil }
        var (lower, upper) = (1, limit)
        while upper - lower > 1 {
            let middle = (lower + upper) / 2
            if admits(middle) { lower = middle } else { upper = middle }
        }
        return lower
    }

    // MARK: - Refusals

    /// Refuses a mechanism that is not proven for the model's size, when the run is made and not after its first round.
    func checkNoiseDimension(_ specification: RunSpecification, layout: ParameterLayout) throws {
        guard specification.privacy.addsNoise else { return }
        let layout = specification.training.usesControlVariates ? ControlVariates.jointLayout(layout) : layout
        do {
            let terms = try ReleaseTerms(
                specification,
                layout: layout,
                clippingNorm: specification.privacy.clipping.norm
            )
            _ = try terms.adaptive?.countGrid
            if specification.hasPrivateEvaluation { _ = try EvaluationRelease(specification.evaluation) }
            _ = try PrivacyCharge(of: specification, parameterCount: layout.parameterCount).release(count: 1)
        } catch {
            throw CoordinationError(.unprocessable, "privacy_invalid", "the noise cannot be made: \(error)")
        }
    }

    /// δ of 1/N or more would allow publishing one client's data whole.
    func checkDelta(of population: PopulationRecord) throws {
        guard let delta = population.budgetDelta else { return }
        let count = clients.values.reduce(0) {
            $0 + ($1.populationId == population.id && $1.state != "revoked" ? 1 : 0)
        }
        guard count < 2 || delta < 1 / Double(count) else {
            throw CoordinationError(
                .unprocessable,
                "delta_too_large",
                "the budget's delta of \(delta) is not less than 1/\(count), the share of one client: a mechanism that "
                    + "publishes one client's data whole would satisfy it; make a population with a delta under "
                    + "\(pow(Double(count), -1.1))"
            )
        }
    }

    // MARK: - Start

    /// Takes the stored rows: chain, kinds, transitions, totals, budgets, and the second record.
    func openLedger(_ rows: [LedgerRow]) throws {
        ledger = try PrivacyLedger(verifying: rows)
        for population in populations.values {
            let account = ledger.account(population.id)
            if let budget = account.budget,
                budget.epsilon != population.budgetEpsilon || budget.delta != population.budgetDelta
            {
                throw CoordinationError(
                    .unavailable,
                    "ledger_broken",
                    "the budget of '\(population.name)' is not the one in its ledger: the database was edited; restore it"
                )
            }
            guard let last = rows.last(where: { $0.populationId == population.id && !$0.runId.isEmpty }) else {
                continue
            }
            let found = total(account, population, committedOnly: false)
            func isStated(_ total: Double?) -> Bool {
                total.map { abs($0 - last.epsilonAfter) <= 1e-9 * max(1, abs($0)) } ?? false
            }
            // Earlier versions judged by loss distributions, or at the best Rényi order, what filters judge now: the same
            // charges all the same.
            let isStatedByAnEarlierJudge =
                !isStated(found)
                && [.rdp, .pld].contains { isStated(earlierTotal(account, population, accountant: $0)) }
            guard isStated(found) || isStatedByAnEarlierJudge || budgetChanged(after: last) else {
                throw CoordinationError(
                    .unavailable,
                    "ledger_broken",
                    "the charges of '\(population.name)' add up to epsilon \(found), but row \(last.sequence) says "
                        + "\(last.epsilonAfter); restore the database"
                )
            }
        }
        if let head = try LedgerHead.read(path: configuration.ledgerHeadPath) {
            ledgerAlarm = head.contradiction(of: ledger)
            if let ledgerAlarm {
                ledgerLost = head.lost(from: ledger)
                logger.critical("The privacy ledger was rolled back", metadata: ["reason": "\(ledgerAlarm)"])
            }
        } else if !rows.isEmpty, FileManager.default.fileExists(atPath: configuration.restoredNotePath) {
            ledgerAlarm =
                "this directory was made of a backup, and no second record of the ledger says whether privacy was spent "
                + "after that"
            logger.critical("The privacy ledger may be older than what was spent")
        } else if !rows.isEmpty {
            logger.warning(
                "The privacy ledger has no second record; one is made of what the database holds",
                metadata: ["path": "\(configuration.ledgerHeadPath)"]
            )
        }
        writeLedgerHead()
    }

    private func earlierTotal(
        _ account: PopulationAccount,
        _ population: PopulationRecord,
        accountant: AccountantKind
    ) -> Double? {
        guard let delta = population.budgetDelta, let releases = try? account.releases() else { return nil }
        return try? BudgetArithmetic.epsilon(of: releases, delta: delta, accountant: accountant)
    }

    /// A change of the accountant after a row changes its total, and nothing else does.
    private func budgetChanged(after row: LedgerRow) -> Bool {
        ledger.rows.suffix(from: row.sequence).contains { $0.populationId == row.populationId && $0.runId.isEmpty }
    }

    /// Brings the second record up to the durable ledger; called after every transaction that appended to it.
    func writeLedgerHead() {
        guard ledgerAlarm == nil, !ledger.rows.isEmpty else { return }
        do {
            try LedgerHead(ledger).write(path: configuration.ledgerHeadPath)
        } catch {
            // The record is behind then, which weakens it and breaks nothing; the next charge tries again.
            logger.error("The ledger's second record could not be written", metadata: ["error": "\(error)"])
        }
    }
}

/// What a total was computed from.
struct EpsilonQuestion: Hashable, Sendable {
    var releases: [CappedRelease]
    var delta: Double
    var rule: EnforcingRule
}

/// What a budget's status was computed from.
struct BudgetStatusKey: Equatable, Sendable {
    var rowCount: Int
    var budget: Double
    var live: [String]
}
