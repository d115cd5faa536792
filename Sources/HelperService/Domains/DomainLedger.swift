import Coordination
import DifferentialPrivacy
import Foundation
import SecureAggregation
import WireFormat

/// What the domains' people have been charged with, in the form of the coordinator's ledger, and whether it may be believed.
///
/// A domain is a population of its own. Each charge stands for all its people: `participation_cap` is 0, so ε does not rest on caps.
struct DomainLedger: Sendable {
    private(set) var ledger = PrivacyLedger()
    /// Why the ledger contradicts its second record; `nil` where it does not.
    private(set) var alarm: Alarm?
    /// Why the second record is behind the ledger; `nil` where it is not.
    private(set) var trouble: String?

    struct Alarm: Sendable {
        var reason: String
        var record: LedgerHead?
    }

    /// Takes stored rows: chain, kinds and transitions are checked, and that budgets are those of the ledger.
    ///
    /// - Throws: `CoordinationError` `ledger_broken`.
    mutating func open(_ rows: [LedgerRow], _ domains: [DomainRecord]) throws {
        ledger = try PrivacyLedger(verifying: rows)
        for domain in domains {
            let stated = ledger.account(domain.name).budget
            guard stated?.epsilon == domain.budget?.epsilon, stated?.delta == domain.budget?.delta else {
                throw CoordinationError(
                    .unavailable,
                    "ledger_broken",
                    "the budget of '\(domain.name)' is not the one in its ledger: the database was edited; restore it"
                )
            }
        }
    }

    /// What a session of a domain costs; `nil` without noise.
    static func charge(for document: SessionDocument, _ noise: SessionNoise, _ purpose: HelperPurpose) -> PrivacyCharge?
    {
        let kind: ChargeKind
        switch noise {
        case .none: return nil
        case .gaussian: kind = .gaussian
        case .discreteGaussian: kind = .discreteGaussian
        case .laplace: kind = .laplace
        }
        var charge = PrivacyCharge(
            kind: kind,
            mode: .central,
            noiseMultiplier: noise.multiplier(norm: document.norm),
            participationCap: 0,
            parameterCount: Int(clamping: document.coordinateCount)
        )
        switch purpose {
        case .training: break
        case .evaluation, .histogram, .prefixCounts: charge.release = purpose.rawValue
        }
        return charge
    }

    /// Reserves a charge, or refuses.
    ///
    /// - Throws: `CoordinationError` `budget_exhausted`.
    mutating func reserve(
        _ charge: PrivacyCharge,
        for session: SessionRecord,
        _ budget: HelperBudget,
        at time: Date
    ) throws -> LedgerRow {
        let account = ledger.account(session.caller.domain)
        let total: Double
        do {
            let releases = try account.releases(additional: [(session.run, charge, 1)])
            let rule = account.course(with: charge, of: session.run).rule(of: releases)
            total = try BudgetArithmetic.epsilon(of: releases, delta: budget.delta, rule: rule)
        } catch {
            throw CoordinationError(.unprocessable, "privacy_invalid", "the cost cannot be computed: \(error)")
        }
        guard total <= budget.epsilon else {
            throw CoordinationError(
                .conflict,
                HelperCode.budgetExhausted.rawValue,
                "the session would bring the domain to epsilon \(total) of \(budget.epsilon) at delta \(budget.delta); nothing "
                    + "was granted"
            )
        }
        return try append(charge, for: session, .reserved, epsilonAfter: total, at: time)
    }

    /// Ends a reservation.
    mutating func settle(
        _ session: SessionRecord,
        as state: ChargeState,
        _ budget: HelperBudget?,
        at time: Date
    ) throws -> LedgerRow? {
        guard let event = session.charge else { return nil }
        let charge: PrivacyCharge
        do { charge = try JSONDecoder().decode(PrivacyCharge.self, from: Data(event.utf8)) } catch {
            throw CoordinationError(
                .unavailable,
                "ledger_broken",
                "the charge of a session is none that this version knows"
            )
        }
        var row = try append(charge, for: session, state, epsilonAfter: 0, at: time)
        row.epsilonAfter = total(session.caller.domain, budget)
        ledger.noteTotal(row.epsilonAfter)
        return row
    }

    private mutating func append(
        _ charge: PrivacyCharge,
        for session: SessionRecord,
        _ state: ChargeState,
        epsilonAfter total: Double,
        at time: Date
    ) throws -> LedgerRow {
        try ledger.append(
            population: session.caller.domain,
            run: session.run,
            round: session.round,
            attempt: session.attempt,
            state: state,
            event: charge.canonical,
            epsilonAfter: total,
            at: time
        )
    }

    /// States a budget, or that a roll-back was acknowledged.
    mutating func append(_ note: LedgerNote, domain: String, at time: Date) throws -> LedgerRow {
        let places = ledger.places(ofPopulation: domain)
        return try ledger.append(
            population: domain,
            run: "",
            round: places.reduce(1) { $0 + (ledger.rows[$1].runId.isEmpty ? 1 : 0) },
            attempt: 0,
            state: .committed,
            event: note.canonical,
            epsilonAfter: places.last.map { ledger.rows[$0].epsilonAfter } ?? 0,
            at: time
        )
    }

    /// Charges again what the second record had charged and the ledger has not, and notes that this was acknowledged.
    ///
    /// - Returns: The rows to store.
    mutating func acknowledge(reason: String, _ domains: [DomainRecord], at time: Date) throws -> [LedgerRow] {
        var rows: [LedgerRow] = []
        let known = Set(domains.map(\.name))
        for lost in alarm?.record?.lost(from: ledger) ?? [] where known.contains(lost.population) {
            var charge = lost.charge
            charge.count = lost.count
            var row = try ledger.append(
                population: lost.population,
                run: lost.runID,
                round: 0,
                attempt: ledger.rows.count,
                state: .committed,
                event: charge.canonical,
                epsilonAfter: 0,
                at: time
            )
            row.epsilonAfter = total(lost.population, domains.first { $0.name == lost.population }?.budget)
            ledger.noteTotal(row.epsilonAfter)
            rows.append(row)
        }
        let note = LedgerNote(kind: .acknowledgement, reason: "\(alarm?.reason ?? "no alarm"). \(reason)")
        for domain in domains where domain.budget != nil {
            rows.append(try append(note, domain: domain.name, at: time))
        }
        return rows
    }

    /// Takes back rows whose transaction failed.
    mutating func truncate(to count: Int) { ledger.truncate(to: count) }

    // MARK: - Totals

    /// ε of everything that counts; without open reservations if `committedOnly`.
    func total(_ domain: String, _ budget: HelperBudget?, committedOnly: Bool = false) -> Double {
        guard let budget else { return 0 }
        let account = ledger.account(domain)
        guard let releases = try? account.releases(committedOnly: committedOnly) else { return .infinity }
        guard !releases.isEmpty else { return 0 }
        let rule = account.course.rule(of: releases)
        return (try? BudgetArithmetic.epsilon(of: releases, delta: budget.delta, rule: rule)) ?? .infinity
    }

    /// A domain's ledger for an outside accountant.
    func audit(_ domain: DomainRecord) throws -> LedgerAuditDocument {
        guard let budget = domain.budget else {
            throw CoordinationError(
                .conflict,
                "population_without_budget",
                "the domain has no budget, so nothing is charged and no (ε, δ) is promised"
            )
        }
        let account = ledger.account(domain.name)
        let releases = (try? account.releases()) ?? []
        let (spent, all) = (total(domain.name, budget, committedOnly: true), total(domain.name, budget))
        return LedgerAuditDocument(
            population: domain.name,
            name: domain.name,
            budget: .init(
                epsilon: budget.epsilon,
                delta: budget.delta,
                accountant: account.course.rule(of: releases).accountant.rawValue
            ),
            isAdaptive: account.isAdaptive,
            spentEpsilon: spent,
            reservedEpsilon: all - spent,
            remainingEpsilon: max(0, budget.epsilon - all),
            roundsThatFit: [:],
            participations: [:],
            head: ledger.head,
            populationHead: ledger.populationHead(domain.name),
            rows: ledger.rows.map { LedgerAuditDocument.Row($0, isShown: $0.populationId == domain.name) }
        )
    }
}

extension DomainLedger {
    // MARK: - The second record

    /// Compares the second record with the ledger at start, and brings it up.
    ///
    /// One that is ahead, of another history, damaged, or not there is an alarm: privacy may have been spent that the database forgot.
    ///
    /// - Throws: `CoordinationError` `storage_failed` if it cannot be read.
    mutating func openRecord(_ configuration: HelperConfiguration) throws {
        alarm = nil
        do throws(CoordinationError) {
            guard let record = try LedgerHead.read(path: configuration.ledgerHeadPath) else {
                guard ledger.rows.isEmpty || configuration.mayMakeLedgerHead else {
                    alarm = Alarm(
                        reason:
                            "the ledger's second record is not there: put it back and start again. If there never was one, "
                            + "start once with --new-ledger-head"
                    )
                    return
                }
                return writeRecord(configuration)
            }
            if let contradiction = record.contradiction(of: ledger) {
                alarm = Alarm(reason: contradiction, record: record)
            } else {
                writeRecord(configuration)
            }
        } catch {
            guard error.code == LedgerHead.damaged else { throw error }
            alarm = Alarm(reason: error.message)
        }
    }

    /// Brings the second record up to the ledger; a failure is kept as ``trouble``, and no session is granted until it can be written.
    mutating func writeRecord(_ configuration: HelperConfiguration) {
        guard alarm == nil else { return }
        do {
            if let record = try LedgerHead.read(path: configuration.ledgerHeadPath) {
                if let contradiction = record.contradiction(of: ledger) {
                    alarm = Alarm(reason: contradiction, record: record)
                    return
                }
                guard record.isBehind(ledger) else {
                    trouble = nil
                    return
                }
            }
            try LedgerHead(ledger).write(path: configuration.ledgerHeadPath)
            trouble = nil
        } catch {
            trouble = (error as? CoordinationError)?.message ?? "the ledger's second record cannot be kept"
        }
    }

    /// Puts what the ledger says in the place of a record that was acknowledged, which is kept under another name.
    ///
    /// - Throws: `CoordinationError` `storage_failed`; the alarm stays then.
    mutating func overrule(_ configuration: HelperConfiguration, at time: Date) throws {
        let path = configuration.ledgerHeadPath
        if let data = try DurableFiles.readIfPresent(path, role: .ledgerRecord) {
            try DurableFiles.write(data, to: "\(path).overruled-\(Int(time.timeIntervalSince1970 * 1000))")
        }
        try LedgerHead(ledger).write(path: path)
        (alarm, trouble) = (nil, nil)
    }

    /// Refuses what a ledger in doubt may not be charged with.
    ///
    /// - Throws: `CoordinationError` `ledger_rolled_back`, `ledger_record_unwritable`.
    mutating func requireTrust(_ configuration: HelperConfiguration) throws {
        if trouble != nil { writeRecord(configuration) }
        if let alarm {
            throw CoordinationError(
                .conflict,
                HelperCode.ledgerRolledBack.rawValue,
                "\(alarm.reason). No session is granted and no sum is made until an administrator has acknowledged that: "
                    + "martlet helper ledger acknowledge --reason REASON charges again what was lost"
            )
        }
        if let trouble {
            throw CoordinationError(
                .unavailable,
                HelperCode.ledgerRecordUnwritable.rawValue,
                "\(trouble): sessions wait until it can be kept, and go on by themselves"
            )
        }
    }

    /// `kept`, `unwritable` or `alarm`.
    var recordWord: String { alarm != nil ? "alarm" : trouble != nil ? "unwritable" : "kept" }

    /// Why no session is granted.
    var halt: String? { alarm?.reason ?? trouble }
}
