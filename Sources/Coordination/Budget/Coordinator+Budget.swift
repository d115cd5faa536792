import DifferentialPrivacy
import Foundation
import Tensors
import WireFormat

extension Coordinator {
    // MARK: - Charges

    /// Makes the reservation for a round that is about to open, or refuses.
    ///
    /// - Throws: ``CoordinationError`` with code `budget_exhausted` when the round could overdraw the budget,
    ///   `delta_too_large` when δ is not under 1/N, `ledger_rolled_back` until an operator has acknowledged a roll-back,
    ///   `ledger_record_unwritable` while the second record cannot be kept.
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
        if let ledgerRecordTrouble { throw ledgerRecordTrouble.error }
        try checkDelta(of: population)
        let account = ledger.account(population.id)
        let name = charge.release == PrivacyCharge.evaluationRelease ? "the evaluation of version" : "round"
        let total = try epsilon(
            of: account.releases(additional: [(id, charge, 1)]),
            population: population,
            course: account.course(with: charge, of: id)
        )
        guard total.isFinite else {
            if let shortage = try shortage(of: account, with: charge, of: id, delta: delta) {
                throw CoordinationError(
                    .conflict,
                    "budget_exhausted",
                    "\(name) \(round) would use up the budget's delta, not its epsilon: \(shortage). Nothing was opened"
                )
            }
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
                "\(name) \(round) would use up the budget's epsilon: it would bring the population to epsilon \(total) of "
                    + "\(budget) at delta \(delta); nothing was opened"
            )
        }
        return try ledger.append(
            population: population.id,
            run: id,
            round: round,
            attempt: attempt,
            state: .reserved,
            event: charge.canonical,
            epsilonAfter: total,
            at: now
        )
    }

    /// Ends a reservation: `committed` in the transaction that publishes, `released` when nothing left the server.
    func settle(run id: String, round: RoundRecord, state: ChargeState) throws -> LedgerRow {
        try settle(
            run: id,
            round: abs(round.number),
            attempt: round.attempt,
            charge: reservedCharge(run: id, round: round),
            state: state
        )
    }

    /// What an attempt was reserved for: it must be possible to settle it also where the model's file is missing.
    private func reservedCharge(run id: String, round: RoundRecord) throws -> PrivacyCharge {
        let run = try runState(id)
        let evaluation = round.isEvaluation ? PrivacyCharge.evaluation(of: run.specification) : nil
        let reservation = ledger.reservation(
            population: run.record.populationId,
            run: id,
            round: abs(round.number),
            attempt: round.attempt,
            release: evaluation?.release
        )
        return try reservation ?? evaluation ?? charge(of: run)
    }

    /// Ends the reservation of an attempt that another server may have gone on with.
    ///
    /// The charge goes over to a plan of its own, as what comes back after a roll-back: this server does not know who took part there,
    /// and a commit under the run's plan would be lost in its cap, under which each of them takes part here once more. Where clients
    /// have no cap, each release counts as it is.
    func settleApart(run id: String, round: RoundRecord) throws -> [LedgerRow] {
        let charge = try reservedCharge(run: id, round: round)
        guard charge.participationCap > 0 || charge.kind == .bandedMatrix else {
            return [try settle(run: id, round: round, state: .committed)]
        }
        // One transaction: there is no moment without the charge.
        let count = ledger.rows.count
        do {
            let released = try settle(run: id, round: round, state: .released)
            return [released, try settle(run: id, round: 0, attempt: count + 1, charge: charge, state: .committed)]
        } catch {
            ledger.truncate(to: count)
            throw error
        }
    }

    /// Ends any reservation.
    func settle(
        run id: String,
        round: Int,
        attempt: Int,
        charge: PrivacyCharge,
        state: ChargeState
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
        let live = (openRunsByPopulation[population.id] ?? []).compactMap { id -> (String, PrivacyCharge)? in
            guard let run = runs[id], run.specification.privacy.mode != .none,
                !run.isOver,
                let charge = try? charge(of: run)
            else { return nil }
            return (id, charge)
        }
        // Its own rows, and not those of others.
        let key = BudgetStatusKey(
            head: ledger.populationHead(population.id)?.hash ?? "",
            budget: budget,
            live: live.map(\.0)
        )
        if let known = budgetStatuses[population.id], known.key == key { return known.status }
        let spent = total(account, population, committedOnly: true)
        let withReserved = total(account, population, committedOnly: false)
        var fitting: [String: Int?] = [:]
        // Everybody waits for the answer: all runs together get what one question may take, and what they need beyond it is asked for
        // the next time.
        var allowance = LossAllowance.standard / 2
        var isWhole = true
        for (id, charge) in live {
            let (found, cells) = LossAllowance.measured {
                roundsThatFit(
                    account: account,
                    run: id,
                    charge: charge,
                    population: population,
                    allowance: min(allowance, LossAllowance.standard / 4),
                    isWhole: &isWhole
                )
            }
            fitting[id] = found
            allowance -= cells
        }
        let releases = (try? account.releases()) ?? []
        let rule = account.course.rule(of: releases)
        let claim = PrivacyClaim(
            charges: account.charges,
            releases: releases,
            epsilon: withReserved,
            delta: delta,
            rule: rule
        )
        let status = BudgetStatus(
            epsilon: budget,
            delta: delta,
            relation: claim.relation,
            claim: account.charges.isEmpty ? nil : claim,
            accountant: rule.accountant.rawValue,
            isAdaptive: account.isAdaptive,
            spentEpsilon: spent,
            reservedEpsilon: withReserved - spent,
            remainingEpsilon: max(0, budget - withReserved),
            roundsThatFit: fitting
        )
        if isWhole { budgetStatuses[population.id] = (key, status) }
        return status
    }

    /// ε with everything that is reserved.
    func reservedTotal(of population: PopulationRecord) -> Double {
        total(ledger.account(population.id), population, committedOnly: false)
    }

    private func total(
        _ account: PopulationAccount,
        _ population: PopulationRecord,
        committedOnly: Bool
    ) -> Double {
        guard let releases = try? account.releases(committedOnly: committedOnly) else { return .infinity }
        return (try? epsilon(of: releases, population: population, course: account.course)) ?? .infinity
    }

    /// Why δ, and not ε, does not admit one more release; `nil` where it does.
    private func shortage(
        of account: PopulationAccount,
        with charge: PrivacyCharge,
        of run: String,
        delta: Double
    ) throws -> String? {
        let releases = try account.releases(additional: [(run, charge, 1)])
        let rule = account.course(with: charge, of: run).rule(of: releases)
        return BudgetArithmetic.shortage(of: releases, delta: delta, rule: rule)?.sentence(delta: delta)
    }

    /// How many more rounds the budget admits; `nil` when the cap of participations stops the cost from growing.
    ///
    /// The accountant that enforces answers. Loss distributions are proven for the run's own plan, and no further.
    ///
    /// `allowance` are cells of loss distributions that the answer may take; where it takes more, Rényi divergences answer, which never admit
    /// more, and `isWhole` becomes `false`.
    private func roundsThatFit(
        account: PopulationAccount,
        run: String,
        charge: PrivacyCharge,
        population: PopulationRecord,
        allowance: Int,
        isWhole: inout Bool
    ) -> Int? {
        guard let budget = population.budgetEpsilon, let delta = population.budgetDelta else { return 0 }
        let course = account.course(with: charge, of: run)
        let specification = runs[run]?.specification
        let evaluation = specification.flatMap { PrivacyCharge.evaluation(of: $0) }
        let done = max(0, (runs[run]?.versions.count ?? 1) - 1)
        func epsilon(
            _ extra: Int,
            _ kind: AccountantKind? = nil,
            grid: LossDistributionAccountant.Grid = .standard
        ) throws(PrivacyError) -> Double {
            var additional = [(run: run, charge: charge, count: extra)]
            if let evaluation, let specification {
                let count = specification.evaluationCount(rounds: done + extra)
                additional.append((run, evaluation, count - specification.evaluationCount(rounds: done)))
            }
            let releases = try account.releases(additional: additional)
            if let kind { return try BudgetArithmetic.epsilon(of: releases, delta: delta, accountant: kind) }
            return try BudgetArithmetic.epsilon(of: releases, delta: delta, rule: course.rule(of: releases), grid: grid)
        }
        func admits(_ extra: Int) -> Bool { ((try? epsilon(extra)) ?? .infinity) <= budget }
        if course.rule(of: (try? account.releases(additional: [(run, charge, 1)])) ?? []).accountant == .pld {
            let spent = account.count(run: run, charge: charge)
            let question = PlanQuestion(run: run, charge: charge, others: account.count - spent, epsilon: budget)
            if let known = plansThatFit[question] { return max(0, known - spent) }
            let rest = max(0, (specification?.rounds ?? 1) - spent)
            do {
                let fitting = try PlanSearch.rounds(upTo: rest, allowance: allowance) {
                    extra,
                    grid throws(PrivacyError) in
                    try epsilon(extra, grid: grid) <= budget
                }
                // Each composition takes a while, so the total is found once: what is committed moves from what is left to what was.
                if plansThatFit.count >= 256 { plansThatFit = [:] }
                plansThatFit[question] = spent + fitting
                return fitting
            } catch {
                isWhole = false
                return
                    (try? PlanSearch.largest(upTo: rest) { rounds throws(PrivacyError) in
                        try epsilon(rounds, .rdp) <= budget
                    })
                    ?? 0
            }
        }
        let isBanded = charge.kind == .bandedMatrix
        let limit = isBanded ? (specification?.rounds ?? 1) : 1_000_000
        let fitting = (try? PlanSearch.largest(upTo: limit) { rounds throws(PrivacyError) in admits(rounds) }) ?? 0
        return fitting == limit && !isBanded ? nil : fitting
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
        let count = presentCount(population: population.id)
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
        try openLedgerRecord()
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
}

/// What a total was computed from.
struct EpsilonQuestion: Hashable, Sendable {
    var releases: [CappedRelease]
    var delta: Double
    var rule: EnforcingRule
}

/// Of which plan it is asked how many releases fit.
struct PlanQuestion: Hashable, Sendable {
    var run: String
    var charge: PrivacyCharge
    /// Releases of other plans.
    var others: Int
    var epsilon: Double
}

extension DeltaShortage {
    /// What is used up, and what helps.
    func sentence(delta: Double) -> String {
        func short(_ value: Double) -> String { String(format: "%.3g", value) }
        return
            "its releases fail with probability \(short(needed)) beside what their noise costs, and \(short(allowed)) of the "
            + "budget's delta of \(short(delta)) is set aside for that. Fewer rounds or a larger threshold help, a smaller "
            + "epsilon does not"
    }
}

/// What a budget's status was computed from.
struct BudgetStatusKey: Equatable, Sendable {
    /// Of the population's own ledger.
    var head: String
    var budget: Double
    var live: [String]
}
