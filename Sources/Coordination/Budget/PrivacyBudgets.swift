import DifferentialPrivacy
import Foundation
import WireFormat

/// The attempt that a charge is for, as the ledger names it; of an evaluation the number is the version that is measured.
struct ChargedAttempt: Hashable, Sendable {
    var run: String
    var round: Int
    var attempt: Int

    init(run: String, round: Int, attempt: Int) {
        self.run = run
        self.round = round
        self.attempt = attempt
    }

    init(_ round: RoundRecord) {
        self.init(run: round.runId, round: abs(round.number), attempt: round.attempt)
    }
}

/// What populations may still spend: the ledger, whether it may be believed, and totals that take long to compute.
///
/// A charge is reserved before work is handed out, and settled when its attempt ends. A row that is made here counts at once; whoever
/// made it stores it in the transaction that it belongs to, and takes it back where that fails.
struct PrivacyBudgets: Sendable {
    private(set) var ledger = PrivacyLedger()
    /// How often the ledger was read again.
    private(set) var generation = 0
    var trust = LedgerTrust()
    /// Totals of populations, good as long as their ledger stands still.
    private var statuses: [String: (key: BudgetStatusKey, status: BudgetStatus)] = [:]
    private var epsilons: [EpsilonQuestion: Double] = [:]
    /// What was proven of beginnings of the ledger, which stays true.
    private var claims: [ClaimPlace: PrivacyClaim?] = [:]
    /// What starting runs would cost, computed beside the coordinator; good as long as the population stands where it did.
    var startProjections: [String: (basis: PlanBasis, projection: PrivacyProjection)] = [:]
    /// How many releases of a plan the budget admits in all, by loss distributions.
    var plansThatFit: [PlanQuestion: Int] = [:]

    // MARK: - The ledger

    /// Takes stored rows: chain, kinds, transitions, totals and budgets are checked.
    ///
    /// - Throws: ``CoordinationError`` with code `ledger_broken`.
    mutating func open(_ rows: [LedgerRow], _ populations: PopulationTable) throws {
        ledger = try PrivacyLedger(verifying: rows)
        for population in populations.all {
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
                && [.rdp, .pld].contains { isStated(Self.earlierTotal(account, population, accountant: $0)) }
            guard isStated(found) || isStatedByAnEarlierJudge || budgetChanged(after: last) else {
                throw CoordinationError(
                    .unavailable,
                    "ledger_broken",
                    "the charges of '\(population.name)' add up to epsilon \(found), but row \(last.sequence) says "
                        + "\(last.epsilonAfter); restore the database"
                )
            }
        }
    }

    /// Takes a ledger that was read again and checked.
    mutating func take(_ ledger: PrivacyLedger) {
        self.ledger = ledger
        generation += 1
        statuses = [:]
        claims = [:]
    }

    /// Takes back rows whose transaction failed.
    ///
    /// - Parameters:
    ///   - count: How many rows stay.
    ///   - generation: Of the ledger when the rows were made: one that was read again holds what is stored, and none of them.
    mutating func takeBack(to count: Int, generation: Int) {
        if generation == self.generation { ledger.truncate(to: count) }
    }

    private static func earlierTotal(
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

    // MARK: - Charges

    /// Makes the reservation for a round or an evaluation that is about to open, or refuses.
    ///
    /// - Parameters:
    ///   - charge: What it costs.
    ///   - attempt: What it is for.
    ///   - population: Whose budget it is.
    ///   - clientCount: Clients of the population.
    ///   - time: Now.
    /// - Returns: The row to store.
    /// - Throws: ``CoordinationError`` with code `budget_exhausted` when the round could overdraw the budget,
    ///   `delta_too_large` when δ is not under 1/N, `ledger_rolled_back` until an operator has acknowledged a roll-back,
    ///   `ledger_record_unwritable` while the second record cannot be kept.
    mutating func reserve(
        _ charge: PrivacyCharge,
        for attempt: ChargedAttempt,
        of population: PopulationRecord,
        clientCount: Int,
        at time: Date
    ) throws -> LedgerRow {
        guard let budget = population.budgetEpsilon, let delta = population.budgetDelta else {
            throw CoordinationError(.unprocessable, "population_without_budget", "the population has no privacy budget")
        }
        try trust.requireOpening()
        try Self.checkDelta(of: population, clientCount: clientCount)
        let account = ledger.account(population.id)
        let name = charge.release == PrivacyCharge.evaluationRelease ? "the evaluation of version" : "round"
        let total = try epsilon(
            of: account.releases(additional: [(attempt.run, charge, 1)]),
            population: population,
            course: account.course(with: charge, of: attempt.run)
        )
        guard total.isFinite else {
            if let shortage = try Self.shortage(of: account, with: charge, of: attempt.run, delta: delta) {
                throw CoordinationError(
                    .conflict,
                    "budget_exhausted",
                    "\(name) \(attempt.round) would use up the budget's delta, not its epsilon: \(shortage). Nothing was opened"
                )
            }
            throw CoordinationError(
                .conflict,
                "budget_exhausted",
                "\(name) \(attempt.round) would bring the population to an epsilon that can no longer be proven: over "
                    + "\(charge.parameterCount) noised coordinates a round, the error of the integer noise alone, which grows "
                    + "as e^epsilon, would use up the budget's delta of \(delta). Nothing was opened. Epsilon is far beyond any "
                    + "useful promise there: ask for a larger noise_multiplier or fewer rounds"
            )
        }
        guard total <= budget else {
            throw CoordinationError(
                .conflict,
                "budget_exhausted",
                "\(name) \(attempt.round) would use up the budget's epsilon: it would bring the population to epsilon \(total) of "
                    + "\(budget) at delta \(delta); nothing was opened"
            )
        }
        return try append(charge, for: attempt, of: population, .reserved, epsilonAfter: total, at: time)
    }

    /// What an attempt was reserved for: it must be possible to settle it also where the model's file is missing.
    func reservation(
        for attempt: ChargedAttempt,
        of population: PopulationRecord,
        evaluation: PrivacyCharge?
    ) -> PrivacyCharge? {
        ledger.reservation(
            population: population.id,
            run: attempt.run,
            round: attempt.round,
            attempt: attempt.attempt,
            release: evaluation?.release
        ) ?? evaluation
    }

    /// Ends a reservation: `committed` in the transaction that publishes, `released` when nothing left the server.
    ///
    /// - Parameters:
    ///   - charge: What was reserved.
    ///   - attempt: What it was for.
    ///   - population: Whose budget it is.
    ///   - state: What it becomes.
    ///   - time: Now.
    /// - Returns: The row to store, with the population's new total.
    /// - Throws: ``CoordinationError`` with code `ledger_broken` for a transition that is none.
    mutating func settle(
        _ charge: PrivacyCharge,
        for attempt: ChargedAttempt,
        of population: PopulationRecord,
        as state: ChargeState,
        at time: Date
    ) throws -> LedgerRow {
        var row = try append(charge, for: attempt, of: population, state, epsilonAfter: 0, at: time)
        let account = ledger.account(population.id)
        // The total is informative and not part of the row's hash.
        row.epsilonAfter =
            (try? epsilon(of: account.releases(), population: population, course: account.course)) ?? 0
        ledger.noteTotal(row.epsilonAfter)
        return row
    }

    /// Ends the reservation of an attempt that another server may have gone on with.
    ///
    /// The charge goes over to a plan of its own, as what comes back after a roll-back: this server does not know who took part there,
    /// and a commit under the run's plan would be lost in its cap, under which each of them takes part here once more. Where clients
    /// have no cap, each release counts as it is.
    mutating func settleApart(
        _ charge: PrivacyCharge,
        for attempt: ChargedAttempt,
        of population: PopulationRecord,
        at time: Date
    ) throws -> [LedgerRow] {
        guard charge.participationCap > 0 || charge.kind == .bandedMatrix else {
            return [try settle(charge, for: attempt, of: population, as: .committed, at: time)]
        }
        // One transaction: there is no moment without the charge.
        let count = ledger.rows.count
        do {
            let released = try settle(charge, for: attempt, of: population, as: .released, at: time)
            let apart = ChargedAttempt(run: attempt.run, round: 0, attempt: count + 1)
            return [released, try settle(charge, for: apart, of: population, as: .committed, at: time)]
        } catch {
            ledger.truncate(to: count)
            throw error
        }
    }

    private mutating func append(
        _ charge: PrivacyCharge,
        for attempt: ChargedAttempt,
        of population: PopulationRecord,
        _ state: ChargeState,
        epsilonAfter total: Double,
        at time: Date
    ) throws -> LedgerRow {
        try ledger.append(
            population: population.id,
            run: attempt.run,
            round: attempt.round,
            attempt: attempt.attempt,
            state: state,
            event: charge.canonical,
            epsilonAfter: total,
            at: time
        )
    }

    // MARK: - Budgets and acknowledgements

    /// The ledger's row about a population's budget; `nil` for a population without one.
    mutating func stateBudget(
        of record: PopulationRecord,
        accountant: AccountantChoice,
        previous: Double? = nil,
        reason: String? = nil,
        at time: Date
    ) throws -> LedgerRow? {
        guard let epsilon = record.budgetEpsilon, let delta = record.budgetDelta else { return nil }
        let note = LedgerNote(
            kind: .budget,
            epsilon: epsilon,
            delta: delta,
            accountant: accountant,
            previousEpsilon: previous,
            reason: reason
        )
        return try append(note, population: record.id, at: time)
    }

    private mutating func append(_ note: LedgerNote, population: String, at time: Date) throws -> LedgerRow {
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
            at: time
        )
    }

    /// Refuses a change of a population's ε: lower at will, higher with a reason that stays in the ledger.
    static func checkChange(of record: PopulationRecord, _ request: BudgetChangeRequest) throws(CoordinationError) {
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
    }

    /// Whether a lower ε is less than what is reserved: what is open was admitted by the old budget, and could be published over the
    /// new one.
    mutating func isOverdrawn(_ record: PopulationRecord, by request: BudgetChangeRequest) -> Bool {
        guard let previous = record.budgetEpsilon, request.epsilon < previous else { return false }
        return total(ledger.account(record.id), record, committedOnly: false) > request.epsilon
    }

    /// Sets a population's ε.
    mutating func changing(
        _ record: PopulationRecord,
        to epsilon: Double,
        reason: String?,
        at time: Date
    ) throws -> [StoreChange] {
        var changed = record
        changed.budgetEpsilon = epsilon
        let accountant = ledger.account(record.id).budget?.accountant ?? .auto
        let row = try stateBudget(
            of: changed,
            accountant: accountant,
            previous: record.budgetEpsilon,
            reason: reason,
            at: time
        )
        return row.map { [.population(changed), .ledger($0)] } ?? []
    }

    /// Refuses heads to acknowledge that were not lost.
    func checkLost(_ heads: [PopulationLedgerHead], _ populations: PopulationTable) throws(CoordinationError) {
        for head in heads where populations[head.population]?.budgetEpsilon == nil || ledger.extends(head) {
            throw CoordinationError(
                .conflict,
                "nothing_to_acknowledge",
                "the head \(head.text) is of no population with a budget, or the ledger leads to it: nothing of it was lost"
            )
        }
    }

    /// Refuses an acknowledgement where nothing was lost.
    func requireLoss(_ heads: [PopulationLedgerHead]) throws(CoordinationError) {
        guard trust.alarm == nil, heads.isEmpty else { return }
        throw CoordinationError(.conflict, "nothing_to_acknowledge", "the privacy ledger was not rolled back")
    }

    /// Accepts a restored ledger: what the second record knows and the ledger does not is charged again.
    ///
    /// - Parameters:
    ///   - reason: Stays in the ledger.
    ///   - heads: Heads that devices or auditors hold and the ledger does not lead to; those of the second record are added.
    ///   - populations: Every population.
    ///   - time: Now.
    /// - Returns: One transaction.
    /// - Throws: ``CoordinationError``; nothing has changed then.
    mutating func acknowledging(
        reason: String,
        lostHeads heads: [PopulationLedgerHead],
        _ populations: PopulationTable,
        at time: Date
    ) throws -> [StoreChange] {
        let alarm = trust.alarm
        let why = alarm?.reason ?? "an administrator names heads that were lost"
        let count = ledger.rows.count
        let restored = ledger.chains.mapValues(\.count)
        // Rows of each population that both histories are known to have.
        let common = Dictionary(
            ledger.rows.prefix(alarm?.commonSequence ?? 0).map { ($0.populationId, 1) },
            uniquingKeysWith: +
        )
        let recorded = Set(alarm?.lostHeads ?? [])
        let lostHeads = Dictionary(grouping: recorded.union(heads), by: \.population)
        var changes: [StoreChange] = []
        do {
            for lost in alarm?.lost ?? [] {
                guard let population = populations[lost.population] else { continue }
                var charge = lost.charge
                charge.count = lost.count
                let attempt = ChargedAttempt(
                    run: PopulationAccount.Plan.runID(lost.run),
                    round: 0,
                    attempt: ledger.rows.count
                )
                let row = try append(charge, for: attempt, of: population, .committed, epsilonAfter: 0, at: time)
                changes.append(.ledger(row))
            }
            // A budget that was lowered, and whose row was lost, is lowered again.
            for (population, epsilon) in (alarm?.lostBudgets ?? [:]).sorted(by: { $0.key < $1.key }) {
                guard let record = populations[population], let previous = record.budgetEpsilon, epsilon < previous
                else { continue }
                let why = "the ledger's second record has this budget"
                changes += try changing(record, to: epsilon, reason: why, at: time)
            }
            var note = LedgerNote(kind: .acknowledgement, reason: "\(why). \(reason)")
            for population in populations.order.sorted() where populations[population]?.budgetEpsilon != nil {
                note.lost = lostHeads[population]?.sorted { ($0.number, $0.hash) < ($1.number, $1.hash) }.map {
                    // A head of the record is lost from the last common row on. Of another one it is not known where its history parts,
                    // but for one that is longer than all that is here.
                    let after =
                        recorded.contains($0)
                        ? common[population] ?? 0
                        : $0.number > restored[population] ?? 0 ? restored[population] ?? 0 : 0
                    return LostLedgerHead(after: after, number: $0.number, hash: $0.hash)
                }
                changes.append(.ledger(try append(note, population: population, at: time)))
            }
        } catch {
            ledger.truncate(to: count)
            throw error
        }
        return changes
    }
}

extension PrivacyBudgets {
    // MARK: - Totals

    /// ε of releases; composed once, since a round asks for its total when it opens, when it commits, and for what is shown.
    private mutating func epsilon(
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
            if epsilons.count >= 1024 { epsilons = [:] }
            epsilons[question] = epsilon
            return epsilon
        } catch {
            throw CoordinationError(.unprocessable, "privacy_invalid", "the cost cannot be computed: \(error)")
        }
    }

    private mutating func total(
        _ account: PopulationAccount,
        _ population: PopulationRecord,
        committedOnly: Bool
    ) -> Double {
        guard let releases = try? account.releases(committedOnly: committedOnly) else { return .infinity }
        return (try? epsilon(of: releases, population: population, course: account.course)) ?? .infinity
    }

    /// Why δ, and not ε, does not admit one more release; `nil` where it does.
    private static func shortage(
        of account: PopulationAccount,
        with charge: PrivacyCharge,
        of run: String,
        delta: Double
    ) throws -> String? {
        let releases = try account.releases(additional: [(run, charge, 1)])
        let rule = account.course(with: charge, of: run).rule(of: releases)
        return BudgetArithmetic.shortage(of: releases, delta: delta, rule: rule)?.sentence(delta: delta)
    }

    /// A run that has not ended, and what each of its rounds costs.
    struct OpenPlan: Sendable {
        var run: String
        var charge: PrivacyCharge
        var specification: RunSpecification
        /// Rounds that have published a version.
        var publishedCount: Int
    }

    /// ε of a population's releases: of those that were made, and with those that are reserved.
    mutating func totals(of population: PopulationRecord) -> (committed: Double, all: Double) {
        let account = ledger.account(population.id)
        return (
            total(account, population, committedOnly: true), total(account, population, committedOnly: false)
        )
    }

    /// What a population has of its budget, with how much of it fits for its private runs that have not ended.
    ///
    /// Everybody waits for the answer: all that is asked at once gets what one question may take together. What a run needs beyond its own
    /// share gets the answer of Rényi divergences for good, and what is left over is searched for when it is asked the next time.
    ///
    /// - Parameters:
    ///   - population: The population.
    ///   - plans: Its private runs that have not ended.
    ///   - allowance: Cells of loss distributions that may be made; what was made is taken off.
    /// - Returns: `nil` for a population without a budget.
    mutating func status(
        of population: PopulationRecord,
        plans: [OpenPlan],
        allowance: inout Int
    ) -> BudgetStatus? {
        guard let budget = population.budgetEpsilon, let delta = population.budgetDelta else { return nil }
        let account = ledger.account(population.id)
        // Its own rows, and not those of others.
        let key = BudgetStatusKey(
            head: ledger.populationHead(population.id)?.hash ?? "",
            budget: budget,
            live: plans.map(\.run)
        )
        if let known = statuses[population.id], known.key == key { return known.status }
        let (spent, withReserved) = totals(of: population)
        var fitting: [String: Int?] = [:]
        var isWhole = true
        for plan in plans {
            let (found, cells) = LossAllowance.measured {
                roundsThatFit(
                    account: account,
                    plan: plan,
                    population: population,
                    allowance: allowance,
                    isWhole: &isWhole
                )
            }
            fitting[plan.run] = found
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
        if isWhole { statuses[population.id] = (key, status) }
        return status
    }

    /// How many more rounds the budget admits; `nil` when the cap of participations stops the cost from growing.
    ///
    /// The accountant that enforces answers. Loss distributions are proven for the run's own plan, and no further.
    ///
    /// The answer takes a quarter of what one question may, and of `allowance` no more than there is. Where it needs more, Rényi divergences
    /// answer, which never admit more; `isWhole` becomes `false` where it was `allowance` that ended the search.
    private mutating func roundsThatFit(
        account: PopulationAccount,
        plan: OpenPlan,
        population: PopulationRecord,
        allowance: Int,
        isWhole: inout Bool
    ) -> Int? {
        guard let budget = population.budgetEpsilon, let delta = population.budgetDelta else { return 0 }
        let (run, charge, specification) = (plan.run, plan.charge, plan.specification)
        let course = account.course(with: charge, of: run)
        let evaluation = PrivacyCharge.evaluation(of: specification)
        func epsilon(
            _ extra: Int,
            _ kind: AccountantKind? = nil,
            grid: LossDistributionAccountant.Grid = .standard
        ) throws(PrivacyError) -> Double {
            var additional = [(run: run, charge: charge, count: extra)]
            if let evaluation {
                let count = specification.evaluationCount(rounds: plan.publishedCount + extra)
                additional.append((run, evaluation, count - specification.evaluationCount(rounds: plan.publishedCount)))
            }
            let releases = try account.releases(additional: additional)
            if let kind { return try BudgetArithmetic.epsilon(of: releases, delta: delta, accountant: kind) }
            return try BudgetArithmetic.epsilon(of: releases, delta: delta, rule: course.rule(of: releases), grid: grid)
        }
        func admits(_ extra: Int) -> Bool { ((try? epsilon(extra)) ?? .infinity) <= budget }
        if course.rule(of: (try? account.releases(additional: [(run, charge, 1)])) ?? []).accountant == .pld {
            let spent = account.count(run: run, charge: charge)
            let share = LossAllowance.standard / 4
            let others = account.count - spent
            let question = PlanQuestion(run: run, charge: charge, others: others, epsilon: budget, share: share)
            if let known = plansThatFit[question] { return max(0, known - spent) }
            let rest = max(0, specification.rounds - spent)
            do {
                let fitting = try PlanSearch.rounds(upTo: rest, allowance: min(allowance, share)) {
                    extra,
                    grid throws(PrivacyError) in
                    try epsilon(extra, grid: grid) <= budget
                }
                note(spent + fitting, as: question)
                return fitting
            } catch {
                let fitting =
                    (try? PlanSearch.largest(upTo: rest) { rounds throws(PrivacyError) in
                        try epsilon(rounds, .rdp) <= budget
                    }) ?? 0
                // A search that had its whole share would come to the same end each time that it is asked.
                if allowance < share { isWhole = false } else { note(spent + fitting, as: question) }
                return fitting
            }
        }
        let isBanded = charge.kind == .bandedMatrix
        let limit = isBanded ? specification.rounds : 1_000_000
        let fitting = (try? PlanSearch.largest(upTo: limit) { rounds throws(PrivacyError) in admits(rounds) }) ?? 0
        return fitting == limit && !isBanded ? nil : fitting
    }

    /// Each composition takes a while, so the total is found once: what is committed moves from what is left to what was.
    private mutating func note(_ fitting: Int, as question: PlanQuestion) {
        if plansThatFit.count >= 1024 { plansThatFit = [:] }
        plansThatFit[question] = fitting
    }

    // MARK: - Claims

    /// Where what is proven of a version stands.
    enum ClaimState: Sendable {
        /// It was made before, or there was nothing to make it of; `nil` where nothing was charged by then.
        case known(PrivacyClaim?)
        /// It is to be made.
        case open(ClaimPlace)
    }

    /// What is known of everything that was released of a population up to one of a run's versions; it is computed by
    /// ``claim(of:delta:)``, beside whoever keeps the budgets, since it takes as long as a round's reservation.
    func claimState(
        through version: ModelVersionRecord,
        of population: PopulationRecord
    ) -> ClaimState {
        let index = ledger.index(ofPopulation: population.id)
        let own = version.version > 0 ? index.lastCommitted(run: version.runId, round: version.version) : nil
        guard population.budgetDelta != nil, let last = own ?? index.last(by: version.createdAt) else {
            return .known(nil)
        }
        let place = ClaimPlace(population: population.id, rowCount: last + 1)
        return claims[place].map { .known($0) } ?? .open(place)
    }

    /// Keeps a claim, unless the ledger was read again since its rows were.
    mutating func keep(_ claim: PrivacyClaim?, of place: ClaimPlace, generation: Int) {
        guard generation == self.generation else { return }
        if claims.count >= 4096 { claims = [:] }
        claims[place] = .some(claim)
    }

    /// What is proven of the releases of a population's own rows: training, evaluations and statistics of all runs.
    ///
    /// Rounds of other runs that were open then count as if they had been published. Where loss distributions take more than one
    /// question may, Rényi divergences answer, which never claim less.
    ///
    /// - Parameters:
    ///   - rows: The population's own rows, from the first on.
    ///   - delta: Of its budget.
    /// - Returns: `nil` where nothing was charged.
    /// - Throws: ``CoordinationError`` `privacy_invalid` where a total cannot be computed.
    static func claim(of rows: [LedgerRow], delta: Double) throws(CoordinationError) -> PrivacyClaim? {
        var account = PopulationAccount()
        for row in rows { try account.take(row) }
        guard !account.charges.isEmpty else { return nil }
        do {
            let releases = try account.releases()
            var rule = account.course.rule(of: releases)
            let epsilon: Double
            do {
                epsilon = try LossAllowance.limited { () throws(PrivacyError) in
                    try BudgetArithmetic.epsilon(of: releases, delta: delta, rule: rule)
                }
            } catch {
                guard error.isTooCostly else { throw error }
                rule.accountant = .rdp
                epsilon = try BudgetArithmetic.epsilon(of: releases, delta: delta, rule: rule)
            }
            var claim = PrivacyClaim(
                charges: account.charges,
                releases: releases,
                epsilon: epsilon,
                delta: delta,
                rule: rule
            )
            claim.ledgerRows = rows.count
            return claim
        } catch {
            throw CoordinationError(.unprocessable, "privacy_invalid", "the cost cannot be computed: \(error)")
        }
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
    /// Cells that the search for it may take.
    var share: Int
}

/// What a budget's status was computed from.
struct BudgetStatusKey: Equatable, Sendable {
    /// Of the population's own ledger.
    var head: String
    var budget: Double
    var live: [String]
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
