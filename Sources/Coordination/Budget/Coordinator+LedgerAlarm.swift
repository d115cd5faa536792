import Foundation
import Logging
import WireFormat

/// What the ledger's alarm stops, and how it ends.
///
/// A ledger that may have forgotten charges can promise nothing about a release made now. So no private run hands out work,
/// accepts updates, aggregates or publishes while the alarm stands: time does nothing to its attempts either.
extension Coordinator {
    /// Whether the run stands still until an administrator has acknowledged the ledger's alarm.
    func isHalted(_ run: RunState) -> Bool {
        (ledgerAlarm != nil || isLedgerRecordUnread) && run.specification.isPrivate
    }

    /// Why a run may publish nothing now; `nil` where it may.
    func publishingHalt(_ run: RunState) -> CoordinationError? {
        if isHalted(run) { return haltError }
        return run.specification.isPrivate ? ledgerRecordTrouble?.error : nil
    }

    /// Whether another server may have gone on with the run's open attempt: this database may be older than what was published.
    func mayHaveGoneOnElsewhere(_ run: RunState) -> Bool {
        ledgerAlarm != nil || isLedgerRecordUnread || isRestored || runsWithLostUpdates.contains(run.record.id)
    }

    /// Refuses what a halted run would take.
    ///
    /// - Throws: ``CoordinationError`` `ledger_rolled_back`, which is temporary: a client keeps its update.
    func requireNotHalted(_ run: RunState) throws {
        if isHalted(run) { throw haltError }
    }

    /// What halts a private run.
    var haltError: CoordinationError {
        if ledgerAlarm == nil, let trouble = ledgerRecordTrouble { return trouble.error }
        return CoordinationError(
            .unavailable,
            "ledger_rolled_back",
            "\(ledgerAlarm ?? ""). Private rounds stand still until an administrator has acknowledged that; try again later"
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
            try abandon(run: id, reason: reason, cost: runsWithLostUpdates.contains(id) ? .apart : cost)
            runsWithLostUpdates.remove(id)
        }
    }
}

/// What an attempt costs that ends without a result.
enum AttemptCost: Sendable {
    /// What its phase says, and all of it where another server may have gone on with it.
    case judged
    /// All of it.
    case kept
    /// All of it, for clients of whom this server does not know: see ``Coordinator/settleApart(run:round:)``.
    case apart
    /// What its phase says: what another server made of it was charged again by what the second record knows.
    case chargedAgain
}
