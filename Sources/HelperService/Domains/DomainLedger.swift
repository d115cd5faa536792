import Coordination
import DifferentialPrivacy
import Foundation
import SecureAggregation
import WireFormat

#if canImport(Glibc)
import Glibc
#endif

/// What the domains' people have been charged with, in the form of the coordinator's ledger, and whether it may be believed.
///
/// A domain is a population of its own. Each charge stands for all its people: `participation_cap` is 0, so ε does not rest on caps.
struct DomainLedger: Sendable {
    private(set) var ledger = PrivacyLedger()
    /// Where the changes of sessions stand.
    private(set) var chain = SessionChain()
    /// What an acknowledged roll-back lost of domains that are not there.
    private(set) var lostCharges: [LostCharge] = []
    private(set) var lostBudgets: [String: Double] = [:]
    /// Why the ledger contradicts its second record; `nil` where it does not.
    private(set) var alarm: Alarm?
    /// Why the second record is behind the ledger; `nil` where it is not.
    private(set) var trouble: String?
    private var file = HelperRecordFile()
    private var totals: [String: Total] = [:]

    struct Alarm: Sendable {
        var reason: String
        var record: HelperRecord?
        /// Whether the record is only not there, as with a disk that is not mounted: open sessions wait for it.
        var isMissing = false
    }

    /// A domain's ε, as long as its ledger stands where it stood.
    private struct Total: Sendable {
        var head: String
        var delta: Double
        var spent: Double
        var all: Double
    }

    /// Takes stored rows: chain, kinds and transitions are checked, and that budgets are those of the ledger.
    ///
    /// - Throws: `CoordinationError` `ledger_broken`.
    mutating func open(_ state: HelperState) throws {
        ledger = try PrivacyLedger(verifying: state.ledger)
        (chain, lostCharges, lostBudgets) = (state.chain, state.lostCharges, state.lostBudgets)
        for domain in state.domains {
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

    /// Notes a change of a session, which is stored with it.
    mutating func note(_ session: SessionRecord) -> SessionChain.Link { chain.append(session) }

    /// What a session of a domain costs; `nil` without noise.
    ///
    /// A server chooses noise and K after it has seen earlier sums, and no plan binds it. So a filter judges: Gaussian releases together
    /// are judged by one whoever chooses them, and every other charge says that it was chosen adaptively.
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
        if kind != .gaussian { charge.isAdaptive = true }
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
            let releases = try account.releases(additional: [(session.ledgerRun, charge, 1)])
            let rule = account.course(with: charge, of: session.ledgerRun).rule(of: releases)
            total = try Self.epsilon(of: releases, budget.delta, rule)
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
            run: session.ledgerRun,
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
    /// Of domains that are not there, made after the backup, what was charged is kept until they are made again. A budget that was
    /// lowered since is lowered again.
    ///
    /// - Returns: What is stored.
    mutating func acknowledge(
        reason: String,
        _ domains: [DomainRecord],
        at time: Date
    ) throws -> (changes: [HelperChange], domains: [DomainRecord]) {
        var (changes, changed): ([HelperChange], [DomainRecord]) = ([], [])
        let known = Dictionary(uniqueKeysWithValues: domains.map { ($0.name, $0) })
        let head = alarm?.record?.ledgerHead
        for lost in head?.lost(from: ledger) ?? [] {
            let charge = LostCharge(domain: lost.population, run: lost.runID, charge: lost.charge, count: lost.count)
            if let domain = known[lost.population] {
                changes.append(.ledger(try append(charge, domain.budget, at: time)))
            } else {
                changes.append(.lostCharge(charge))
            }
        }
        let budgets = alarm?.record?.budgets ?? []
        for budget in budgets where known[budget.population] == nil {
            changes.append(.lostBudget(domain: budget.population, epsilon: budget.epsilon))
        }
        let said = "\(alarm?.reason ?? "no alarm"). \(reason)"
        for var domain in domains where domain.budget != nil {
            let lost = (head?.lostHeads(from: ledger) ?? []).filter { $0.population == domain.name }
            var note = LedgerNote(kind: .acknowledgement, reason: said)
            if !lost.isEmpty {
                let after = ledger.populationHead(domain.name)?.number ?? 0
                note.lost = lost.map { LostLedgerHead(after: min(after, $0.number), number: $0.number, hash: $0.hash) }
            }
            changes.append(.ledger(try append(note, domain: domain.name, at: time)))
            guard let least = budgets.filter({ $0.population == domain.name }).map(\.epsilon).min(),
                let budget = domain.budget, least < budget.epsilon
            else { continue }
            domain.budget?.epsilon = least
            let lower = LedgerNote(
                kind: .budget,
                epsilon: least,
                delta: budget.delta,
                accountant: .auto,
                previousEpsilon: budget.epsilon,
                reason: said
            )
            changes += [.ledger(try append(lower, domain: domain.name, at: time)), .domain(domain)]
            changed.append(domain)
        }
        return (changes, changed)
    }

    /// Charges again, in one row, what a roll-back had lost.
    private mutating func append(_ lost: LostCharge, _ budget: HelperBudget?, at time: Date) throws -> LedgerRow {
        var charge = lost.charge
        charge.count = lost.count
        var row = try ledger.append(
            population: lost.domain,
            run: lost.run,
            round: 0,
            attempt: ledger.rows.count,
            state: .committed,
            event: charge.canonical,
            epsilonAfter: 0,
            at: time
        )
        row.epsilonAfter = total(lost.domain, budget)
        ledger.noteTotal(row.epsilonAfter)
        return row
    }

    /// Charges a domain that is made again with what a roll-back had lost of it.
    ///
    /// - Throws: `CoordinationError` `policy_refused` where its budget would be higher than the one that was lost, or none.
    mutating func chargeLost(_ domain: DomainRecord, at time: Date) throws -> [HelperChange] {
        let lost = lostCharges.filter { $0.domain == domain.name }
        let least = lostBudgets[domain.name]
        guard !lost.isEmpty || least != nil else { return [] }
        guard let budget = domain.budget, budget.epsilon <= least ?? .infinity else {
            throw DomainRules.refusal(
                "domain '\(domain.name)' had a budget of \(least.map { "epsilon \($0)" } ?? "its own") before a roll-back: make it "
                    + "again with that or less"
            )
        }
        return try lost.map { HelperChange.ledger(try append($0, budget, at: time)) }
            + [.deleteLost(domain: domain.name)]
    }

    /// Forgets what was lost of a domain that is there again.
    mutating func noteCharged(_ domain: String) {
        lostCharges.removeAll { $0.domain == domain }
        lostBudgets[domain] = nil
    }

    /// Keeps what was lost of domains that are not there, as it was stored.
    mutating func noteLost(_ state: HelperState) { (lostCharges, lostBudgets) = (state.lostCharges, state.lostBudgets) }

    /// Takes back rows whose transaction failed.
    mutating func truncate(to count: Int) { ledger.truncate(to: count) }

    // MARK: - Totals

    /// ε by a rule, with a limit of its arithmetic: it is done where everybody waits.
    private static func epsilon(
        of releases: [CappedRelease],
        _ delta: Double,
        _ rule: EnforcingRule
    ) throws(PrivacyError) -> Double {
        try LossAllowance.limited { () throws(PrivacyError) in
            try BudgetArithmetic.epsilon(of: releases, delta: delta, rule: rule)
        }
    }

    /// ε of everything that counts; without open reservations if `committedOnly`.
    mutating func total(_ domain: String, _ budget: HelperBudget?, committedOnly: Bool = false) -> Double {
        guard let budget else { return 0 }
        let head = ledger.populationHead(domain)?.hash ?? ""
        if let known = totals[domain], known.head == head, known.delta == budget.delta {
            return committedOnly ? known.spent : known.all
        }
        let account = ledger.account(domain)
        func sum(_ releases: [CappedRelease]?) -> Double {
            guard let releases else { return .infinity }
            guard !releases.isEmpty else { return 0 }
            return (try? Self.epsilon(of: releases, budget.delta, account.course.rule(of: releases))) ?? .infinity
        }
        let (committed, every) = (try? account.releases(committedOnly: true), try? account.releases())
        let all = sum(every)
        let found = Total(head: head, delta: budget.delta, spent: committed == every ? all : sum(committed), all: all)
        totals[domain] = found
        return committedOnly ? found.spent : found.all
    }

    /// What an outside accountant is given of a domain, to be put together elsewhere.
    struct AuditMaterial: Sendable {
        var ledger: PrivacyLedger
        var domain: DomainRecord
        var budget: HelperBudget
        var spent: Double
        var all: Double

        /// It has a line for each row of the ledger.
        var document: LedgerAuditDocument {
            let account = ledger.account(domain.name)
            let releases = (try? account.releases()) ?? []
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

    /// A domain's ledger for an outside accountant.
    mutating func audit(_ domain: DomainRecord) throws -> AuditMaterial {
        guard let budget = domain.budget else {
            throw CoordinationError(
                .conflict,
                "population_without_budget",
                "the domain has no budget, so nothing is charged and no (ε, δ) is promised"
            )
        }
        return AuditMaterial(
            ledger: ledger,
            domain: domain,
            budget: budget,
            spent: total(domain.name, budget, committedOnly: true),
            all: total(domain.name, budget)
        )
    }
}

extension DomainLedger {
    // MARK: - The second record

    /// Compares the second record with the database at start, and brings it up.
    ///
    /// One that is ahead, of another history, damaged, or not there is an alarm: privacy may have been spent that the database forgot.
    ///
    /// - Returns: Whether a record was made for a database that was in use: then nothing says that it was not restored.
    /// - Throws: `CoordinationError` `storage_failed` if it cannot be read.
    mutating func openRecord(
        _ configuration: HelperConfiguration,
        headAt: (Int) throws -> String?
    ) throws -> Bool {
        alarm = nil
        let isUsed = !ledger.rows.isEmpty || chain.number > 0
        do {
            guard let record = try file.read(configuration.ledgerHeadPath) else {
                guard !isUsed || configuration.mayMakeLedgerHead else {
                    alarm = Alarm(
                        reason:
                            "the ledger's second record is not there: put it back and start again. If there never was one, "
                            + "start once with --new-ledger-head",
                        isMissing: true
                    )
                    return false
                }
                replaceRecord(configuration)
                return isUsed
            }
            if let contradiction = try record.contradiction(of: ledger, chain, headAt) {
                alarm = Alarm(reason: contradiction, record: record)
            } else {
                replaceRecord(configuration)
            }
        } catch let error as CoordinationError where error.code == LedgerHead.damaged {
            alarm = Alarm(reason: error.message)
        }
        return false
    }

    /// Looks whether the second record is as it was left, and judges one that is not; a failure is kept as ``trouble``.
    ///
    /// - Returns: Whether there is neither alarm nor trouble.
    @discardableResult private mutating func checkRecord(
        _ configuration: HelperConfiguration,
        _ headAt: (Int) throws -> String?
    ) -> Bool {
        guard alarm == nil else { return false }
        let path = configuration.ledgerHeadPath
        do {
            if try file.isAsLeft(path) { return true }
            if let record = try file.read(path) {
                guard let contradiction = try record.contradiction(of: ledger, chain, headAt) else { return true }
                alarm = Alarm(reason: contradiction, record: record)
                return false
            }
            guard !file.hasRecord else {
                throw StorageFailure(.open, path: path, role: .ledgerRecord, code: ENOENT).error
            }
            return true
        } catch let error as CoordinationError where error.code == LedgerHead.damaged {
            alarm = Alarm(reason: error.message)
        } catch { note(error) }
        return false
    }

    /// Brings the second record up to the database; a failure is kept as ``trouble``, and no session is granted until it can be written.
    mutating func writeRecord(_ configuration: HelperConfiguration, headAt: (Int) throws -> String?) {
        guard checkRecord(configuration, headAt) else { return }
        if trouble == nil, file.holds(ledger, chain) { return }
        do {
            if trouble == nil, try file.add(configuration.ledgerHeadPath, ledger, chain) { return }
            replaceRecord(configuration)
        } catch { note(error) }
    }

    private mutating func replaceRecord(_ configuration: HelperConfiguration) {
        do {
            try file.replace(configuration.ledgerHeadPath, ledger, chain, lostCharges, lostBudgets)
            trouble = nil
        } catch { note(error) }
    }

    private mutating func note(_ error: any Error) {
        trouble = (error as? CoordinationError)?.message ?? "the ledger's second record cannot be kept"
    }

    /// Puts what the ledger says in the place of a record that was acknowledged, which is kept under another name.
    ///
    /// - Throws: `CoordinationError` `storage_failed`; the alarm stays then, and what was charged again is not charged a second time.
    mutating func overrule(_ configuration: HelperConfiguration, at time: Date) throws {
        alarm?.record = nil
        let path = configuration.ledgerHeadPath
        if let data = try DurableFiles.readIfPresent(path, role: .ledgerRecord) {
            try DurableFiles.write(data, to: "\(path).overruled-\(Int(time.timeIntervalSince1970 * 1000))")
        }
        try file.replace(path, ledger, chain, lostCharges, lostBudgets)
        (alarm, trouble) = (nil, nil)
    }

    /// Refuses what a ledger in doubt may not be charged with; the second record is looked at each time.
    ///
    /// - Throws: `CoordinationError` `ledger_rolled_back`, `ledger_record_unwritable`.
    mutating func requireTrust(_ configuration: HelperConfiguration, headAt: (Int) throws -> String?) throws {
        if trouble != nil {
            writeRecord(configuration, headAt: headAt)
        } else {
            checkRecord(configuration, headAt)
        }
        try requireNoAlarm()
        if let trouble {
            throw CoordinationError(
                .unavailable,
                HelperCode.ledgerRecordUnwritable.rawValue,
                "\(trouble): sessions wait until it can be kept, and go on by themselves"
            )
        }
    }

    /// - Throws: `CoordinationError` `ledger_rolled_back`.
    func requireNoAlarm() throws {
        guard let alarm else { return }
        throw CoordinationError(
            .conflict,
            HelperCode.ledgerRolledBack.rawValue,
            "\(alarm.reason). No session is granted and no sum is made or sent until an administrator has acknowledged that: "
                + "martlet helper ledger acknowledge --reason REASON charges again what was lost"
        )
    }

    /// `kept`, `unwritable` or `alarm`.
    var recordWord: String { alarm != nil ? "alarm" : trouble != nil ? "unwritable" : "kept" }

    /// Why no session is granted.
    var halt: String? { alarm?.reason ?? trouble }
}
