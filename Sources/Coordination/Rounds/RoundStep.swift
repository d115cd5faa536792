import Foundation
import WireFormat

/// What events come to for a run's open round, before anything has happened.
struct RoundStep {
    /// The open round as it was, and as it will be.
    let before: RoundRecord
    private(set) var round: RoundRecord
    private(set) var effects: [RoundEffect] = []
    /// Everything that the transaction changes but the settlement of an attempt that is given up.
    private(set) var changes: [StoreChange] = []
    /// Whether the attempt ends without a result: its cost is settled in the same transaction.
    private(set) var isDiscarded = false
    /// Accepted assignments whose updates are given up.
    private(set) var accepted: [String] = []
    /// How long the ledger was before what the step charges.
    private(set) var ledgerCount: Int?

    /// Feeds events to a round.
    ///
    /// - Parameters:
    ///   - run: The run, as it is after the other changes; it has an open round.
    ///   - round: That round.
    ///   - runs: Where the run's assignments are.
    ///   - events: What happened to the round.
    ///   - others: Changes of the same transaction.
    ///   - code: What assignments that are live end with, if the attempt is given up.
    ///   - time: When.
    /// - Throws: ``CoordinationError`` if the round does not take an event.
    init(
        of run: RunState,
        _ round: RoundRecord,
        _ runs: RunTable,
        _ events: [RoundEvent],
        with others: [StoreChange],
        code: String,
        at time: Date
    ) throws {
        before = round
        self.round = round
        changes = others
        let terms = run.terms(of: round)
        do throws(RoundError) {
            for event in events { effects += try self.round.apply(event, at: time, terms: terms) }
        } catch {
            throw error.refusal
        }
        if run.specification.cohort.tiers > 1 {
            for case .assignment(let record) in others {
                if runs.assignments[record.id] == nil { self.round.count(tier: record.tier, accepted: false) }
                if record.state == .accepted { self.round.count(tier: record.tier, accepted: true) }
            }
        }
        if self.round != before { changes.append(.round(self.round)) }
        for effect in effects {
            switch effect {
            case .history(let state, let cause):
                changes.append(self.round.history(at: time, state: state, cause: cause))
            case .aggregate: changes += runs.superseding(run, code: "round_full", at: time)
            case .discard:
                changes += runs.superseding(run, code: code, at: time)
                accepted = run.assignmentIDs.filter { runs.assignments[$0]?.state == .accepted }
                isDiscarded = true
            case .draw, .freed: break
            }
        }
    }

    /// Adds a change to the transaction.
    mutating func add(_ change: StoreChange) { changes.append(change) }

    /// Adds what ends the attempt's reservation.
    ///
    /// - Parameters:
    ///   - ledgerCount: How many rows the ledger had before.
    ///   - settlement: The ledger's rows.
    mutating func settle(ledgerCount: Int, _ settlement: [StoreChange]) {
        self.ledgerCount = ledgerCount
        changes += settlement
    }
}

/// What an attempt costs that ends without a result.
enum AttemptCost: Sendable {
    /// What its phase says, and all of it if another server may have gone on with it.
    case judged
    /// All of it.
    case kept
    /// All of it, for clients of whom this server does not know: see ``PrivacyBudgets/settleApart(_:for:of:at:)``.
    case apart
    /// What its phase says: what another server made of it was charged again by what the second record knows.
    case chargedAgain
}

/// How the reservation of an attempt without a result ends.
enum AttemptSettlement: Equatable {
    /// There was none.
    case nothing
    /// It is charged apart, beside what another server may have made of it.
    case apart
    case committed, released

    /// Decides it.
    ///
    /// While an attempt collects, nothing that depends on client data was released, so its cost is given back. It stays where something
    /// may have been or may still be: with local privacy every byte of an update is a release by its client, also of one that is
    /// refused, cut off, or comes when nobody waits for it any more, so that work which was handed out is paid for unless its clients
    /// have given all of it back; and when the sum was being made noise may have been drawn, however the arithmetic ended.
    ///
    /// While it is not known whether this database is the newest one, another server may have handed out, taken and published what this
    /// one thinks open: then it is charged apart, whoever ends it and why.
    ///
    /// - Parameters:
    ///   - specification: The run's.
    ///   - step: What ends the attempt.
    ///   - cost: What it is to cost.
    ///   - isElsewhere: Whether another server may have gone on with it.
    ///   - isCharged: Whether the charge is committed already.
    init(
        _ specification: RunSpecification,
        _ step: RoundStep,
        cost: AttemptCost,
        isElsewhere: Bool,
        isCharged: Bool = false
    ) {
        let mode = specification.privacy.mode
        // Of a protected round it was committed before the helper was asked for its sum.
        guard !isCharged else {
            self = .nothing
            return
        }
        guard !step.round.isEvaluation || specification.hasPrivateEvaluation, mode != .none else {
            self = .nothing
            return
        }
        guard cost != .apart, !(cost == .judged && isElsewhere) else {
            self = .apart
            return
        }
        let mayBeReleased =
            mode == .local && step.round.mayReceive(isBuffered: specification.aggregation.buffered != nil)
        self = cost == .kept || mayBeReleased || step.before.phase == .aggregating ? .committed : .released
    }
}
