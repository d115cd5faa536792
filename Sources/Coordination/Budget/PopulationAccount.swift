package import DifferentialPrivacy
import Foundation
import WireFormat

/// What one population has been charged with, kept up to date row by row.
package struct PopulationAccount: Sendable {
    /// One plan of one run.
    struct Plan: Hashable, Sendable {
        var run: String
        var charge: PrivacyCharge

        init(run: String, charge: PrivacyCharge) {
            self.run = run
            self.charge = charge.plan
        }

        /// The plan of a row.
        ///
        /// What comes back after a roll-back is a plan of its own: the restored server has forgotten who took part in it, so
        /// a client may take part up to the cap once more.
        init(run: String, round: Int, sequence: Int, charge: PrivacyCharge) {
            self.init(run: round == 0 ? "\(run)#\(sequence)" : run, charge: charge)
        }

        /// The run's id, whichever of its plans this is.
        static func runID(_ run: String) -> String { String(run.prefix { $0 != "#" }) }
    }

    struct Counts: Equatable, Sendable {
        var reserved = 0
        var committed = 0
        var all: Int { reserved + committed }
    }

    /// Which charge a row is about.
    struct Key: Hashable, Sendable {
        var run: String
        var round: Int
        var attempt: Int
        var release: String?
    }

    private(set) var plans: [Plan: Counts] = [:]
    /// In the order of their first rows, so that totals are added up alike everywhere.
    private(set) var planOrder: [Plan] = []
    private(set) var open: [Key: Plan] = [:]
    /// The budget that the ledger itself states.
    package private(set) var budget: LedgerNote?
    /// Whether a plan began beside another run's, or follows its own outputs.
    ///
    /// Two runs are no plan that was fixed beforehand: when one ends, by whoever looked at its models, the other gets more of
    /// the budget.
    package private(set) var isAdaptive = false
    /// Rows by which restored ledgers were accepted, for devices.
    private(set) var acknowledgements: [LedgerAcknowledgement] = []
    private var chargedRuns: Set<String> = []
    private var firstRun: String?
    private var firstStart = BudgetStart.exact
    /// What the first run, whose plan was fixed, had been charged with when another one began.
    private var prepaid: [Plan: Int] = [:]
    /// The last event that was read: rows of one run have the same text.
    private var lastEvent: (text: String, charge: PrivacyCharge)?

    /// Takes a row.
    ///
    /// - Throws: ``CoordinationError`` with code `ledger_broken` for an unknown event or a transition that is none.
    mutating func take(_ row: LedgerRow) throws(CoordinationError) {
        let data = Data(row.event.utf8)
        guard !row.runId.isEmpty else {
            guard let note = try? JSONDecoder().decode(LedgerNote.self, from: data) else {
                throw Self.broken(row, "states an event that this version does not know")
            }
            switch note.kind {
            case .budget: budget = note
            case .acknowledgement:
                guard row.format >= 2, let number = row.populationNumber else { break }
                acknowledgements.append(
                    LedgerAcknowledgement(
                        number: number,
                        round: row.round,
                        attempt: row.attempt,
                        state: row.state.rawValue,
                        event: row.event,
                        createdAtMs: row.milliseconds,
                        previousHash: row.populationPreviousHash
                    )
                )
            }
            return
        }
        let charge: PrivacyCharge
        if let lastEvent, lastEvent.text == row.event {
            charge = lastEvent.charge
        } else {
            guard let read = try? JSONDecoder().decode(PrivacyCharge.self, from: data),
                (try? read.validate()) != nil
            else { throw Self.broken(row, "charges an event that this version does not know") }
            charge = read
            lastEvent = (row.event, read)
        }
        if charge.isAdaptive == true { becomeAdaptive() }
        if firstRun == nil {
            firstRun = row.runId
            firstStart = charge.start
        }
        let plan = Plan(run: row.runId, round: row.round, sequence: row.sequence, charge: charge)
        let key = Key(run: row.runId, round: row.round, attempt: row.attempt, release: charge.release)
        switch (row.state, open[key]) {
        case (.reserved, nil):
            if plans[plan] == nil {
                planOrder.append(plan)
                if isCharged(besides: row.runId) { becomeAdaptive() }
            }
            chargedRuns.insert(row.runId)
            plans[plan, default: Counts()].reserved += charge.count ?? 1
            open[key] = plan
        case (.committed, plan?), (.released, plan?):
            open[key] = nil
            plans[plan]?.reserved -= charge.count ?? 1
            if row.state == .committed { plans[plan]?.committed += charge.count ?? 1 }
        case (.committed, nil) where row.round == 0:
            // Charges that a roll-back had lost come back as one row.
            if plans[plan] == nil { planOrder.append(plan) }
            plans[plan, default: Counts()].committed += charge.count ?? 1
            chargedRuns.insert(row.runId)
            becomeAdaptive()
        default: throw Self.broken(row, "is no possible next state of its charge")
        }
    }

    /// Releases that count, of all plans.
    var count: Int { plans.values.reduce(0) { $0 + $1.all } }

    /// Releases that count, of one plan.
    func count(run: String, charge: PrivacyCharge) -> Int { plans[Plan(run: run, charge: charge)]?.all ?? 0 }

    /// The charges that count, with more where they are being considered.
    package func releases(
        committedOnly: Bool = false,
        additional: [(run: String, charge: PrivacyCharge, count: Int)] = []
    ) throws(PrivacyError) -> [CappedRelease] {
        var result: [CappedRelease] = []
        let extras = additional.map { (plan: Plan(run: $0.run, charge: $0.charge), count: $0.count) }
        for plan in planOrder {
            guard let counts = plans[plan] else { continue }
            let more = extras.reduce(0) { $0 + ($1.plan == plan ? $1.count : 0) }
            let count = (committedOnly ? counts.committed : counts.all) + more
            guard count > 0 else { continue }
            var release = try plan.charge.release(count: count)
            release.prepaidCount = (isAdaptive ? prepaid[plan] : plan.run == firstRun ? counts.all : nil) ?? 0
            result.append(release)
        }
        for extra in extras where plans[extra.plan] == nil && extra.count > 0 {
            result.append(try extra.plan.charge.release(count: extra.count))
        }
        return result
    }

    /// How the releases came to be chosen, which decides who may judge them.
    package struct Course {
        var isAdaptive: Bool
        /// How the first charge decided that δ is divided.
        var start: BudgetStart

        package func rule(of releases: [CappedRelease]) -> EnforcingRule {
            BudgetArithmetic.enforcingRule(of: releases, isAdaptive: isAdaptive, start: start)
        }
    }

    /// The course so far.
    package var course: Course { Course(isAdaptive: isAdaptive, start: isDeclaredFiltered ? .filtered : firstStart) }

    /// The course with one more charge.
    package func course(with charge: PrivacyCharge, of run: String) -> Course {
        Course(
            isAdaptive: wouldBeAdaptive(run: run, charge: charge),
            start: start(with: charge)
        )
    }

    /// Whether the plan would make the population adaptive when it starts now.
    func wouldBeAdaptive(run: String, charge: PrivacyCharge) -> Bool {
        isAdaptive || charge.isAdaptive == true
            || (plans[Plan(run: run, charge: charge)] == nil && isCharged(besides: run))
    }

    /// How the first charge decides that δ is divided, which this one may be.
    package func start(with charge: PrivacyCharge) -> BudgetStart {
        isDeclaredFiltered ? .filtered : firstRun == nil ? charge.start : firstStart
    }

    /// The part of δ that is left for what releases of a charge fail with beside their noise.
    package func failureAllowance(with charge: PrivacyCharge, of run: String, delta: Double) -> Double {
        guard let releases = try? self.releases() else { return 0 }
        let rule = course(with: charge, of: run).rule(of: releases + ((try? [charge.release(count: 1)]) ?? []))
        return BudgetArithmetic.failureAllowance(of: releases, delta: delta, rule: rule)
    }

    private var isDeclaredFiltered: Bool { budget?.accountant == .rdp }

    private mutating func becomeAdaptive() {
        guard !isAdaptive else { return }
        isAdaptive = true
        for (plan, counts) in plans where plan.run == firstRun { prepaid[plan] = counts.all }
    }

    /// Whether a run other than this one was ever charged.
    private func isCharged(besides run: String) -> Bool { chargedRuns.contains { $0 != run } }

    private static func broken(_ row: LedgerRow, _ what: String) -> CoordinationError { broken(row.sequence, what) }

    static func broken(_ sequence: Int, _ what: String) -> CoordinationError {
        CoordinationError(
            .unavailable,
            "ledger_broken",
            "the privacy ledger's row \(sequence) \(what); nothing is served until the database is restored or the "
                + "version that wrote it is back"
        )
    }
}
