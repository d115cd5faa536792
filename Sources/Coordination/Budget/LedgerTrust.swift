import Foundation
import WireFormat

/// Why the stored ledger contradicts its second record, and what it has lost.
struct LedgerAlarm: Sendable {
    var reason: String
    /// Whether no second record says what was charged: then open attempts may have been published.
    var isRecordMissing = true
    /// What the second record had charged and the stored ledger has not.
    var lost: [LedgerHead.Group] = []
    /// Heads that the second record had and the stored ledger does not lead to.
    var lostHeads: [PopulationLedgerHead] = []
    /// Budgets as the second record has them.
    var lostBudgets: [String: Double] = [:]
    /// The last row that both are known to share.
    var commonSequence = 0

    /// - Parameters:
    ///   - reason: In words, for operators.
    ///   - head: The second record; `nil` where there is none, or none that says more.
    ///   - ledger: The stored ledger.
    init(_ reason: String, _ head: LedgerHead?, _ ledger: PrivacyLedger) {
        self.reason = reason
        guard let head else { return }
        isRecordMissing = false
        lost = head.lost(from: ledger)
        lostHeads = head.lostHeads(from: ledger)
        lostBudgets = Dictionary((head.budgets ?? []).map { ($0.population, $0.epsilon) }, uniquingKeysWith: min)
        commonSequence = head.commonSequence(with: ledger)
        self.reason += Self.absence(of: head.absentPopulations(in: ledger), lostBudgets)
    }

    /// What is said of populations that were made after the database's state: nobody can charge them again, since they are not there.
    private static func absence(of populations: [String], _ budgets: [String: Double]) -> String {
        guard !populations.isEmpty else { return "" }
        let named = populations.prefix(5).map { id in
            id + (budgets[id].map { " with a budget of epsilon \($0)" } ?? "")
        }
        let more = populations.count > 5 ? " and \(populations.count - 5) more" : ""
        return ". The database does not have \(named.joined(separator: ", "))\(more), made after it was saved: what "
            + "was charged to their clients cannot be charged again, and a new population of the same people needs that much less"
    }
}

/// Why the ledger's second record does not hold what the ledger does.
struct LedgerRecordTrouble: Sendable {
    var reason: String
    var since: Date
    /// When it is tried again.
    var until: Date
    var pause: Double
    /// Whether the record was never read since the server's start: it may know of more than the ledger.
    var isUnread: Bool

    var code: String { isUnread ? "ledger_record_unread" : "ledger_record_unwritable" }

    /// What a round that wants to open is told.
    var error: CoordinationError {
        CoordinationError(
            .unavailable,
            code,
            "\(reason): private runs wait until it can be kept, and go on by themselves"
        )
    }
}

/// Whether the ledger may be believed: what its second record, a restore and a stop say against it.
///
/// A ledger that may have forgotten charges can promise nothing about a release made now. So no private run hands out work,
/// accepts updates, aggregates or publishes while the alarm stands: time does nothing to its attempts either.
struct LedgerTrust: Sendable {
    /// Why the stored ledger contradicts its second record; `nil` where it does not.
    var alarm: LedgerAlarm?
    /// Why the second record is behind the ledger; `nil` where it is not.
    private(set) var trouble: LedgerRecordTrouble?
    /// Whether this process has read or written a second record, so that one that is gone is missed.
    var hasRecord = false
    /// Whether a second record that is there could not be read since the start: it may know of more than the ledger.
    private(set) var isUnread = false
    /// Whether an acknowledged record is still in the way.
    var overrulesRecord = false
    /// Whether this directory was made of a backup, and the note that says so is still there.
    private(set) var isRestored = false
    /// Whether the open attempts of private runs have to be abandoned first, since this directory was made of a backup.
    private(set) var isRestoreDue = false
    /// Attempts of halted private runs that lost accepted updates: their charge stays when the alarm ends.
    var attemptsWithLostUpdates: Set<ChargedAttempt> = []

    /// Seconds between two tries to keep the second record.
    private static let pauses = 0.5...10.0

    /// Whether the run stands still until an administrator has acknowledged the ledger's alarm.
    func isHalted(_ specification: RunSpecification) -> Bool {
        (isUndecided || isRestoreDue) && specification.isPrivate
    }

    /// Whether it is not known yet what becomes of open attempts of private runs.
    var isUndecided: Bool { alarm != nil || isUnread }

    /// Why a run may publish nothing now; `nil` where it may.
    func publishingHalt(_ specification: RunSpecification) -> CoordinationError? {
        if isHalted(specification) { return haltError }
        return specification.isPrivate ? trouble?.error : nil
    }

    /// Refuses what a halted run would take.
    ///
    /// - Throws: ``CoordinationError`` `ledger_rolled_back`, which is temporary: a client keeps its update.
    func requireNotHalted(_ specification: RunSpecification) throws(CoordinationError) {
        if isHalted(specification) { throw haltError }
    }

    /// Whether another server may have gone on with an open attempt: this database may be older than what was published.
    func mayHaveGoneOnElsewhere(_ attempt: ChargedAttempt) -> Bool {
        alarm != nil || isUnread || isRestored || attemptsWithLostUpdates.contains(attempt)
    }

    /// What private runs wait for, in words; `nil` where they go on.
    var holdReason: String? {
        if let alarm { return "an administrator, who ends the ledger's alarm: " + alarm.reason }
        if let trouble { return "the disk: " + trouble.reason }
        return isRestoreDue ? "the end of the attempts that a backup had open" : nil
    }

    /// Whether private runs may have to wait.
    var isInQuestion: Bool { alarm != nil || trouble != nil }

    /// Refuses a reservation.
    ///
    /// - Throws: ``CoordinationError`` with code `ledger_rolled_back` until an operator has acknowledged a roll-back, or
    ///   `ledger_record_unwritable` while the second record cannot be kept.
    func requireOpening() throws(CoordinationError) {
        if let alarm {
            throw CoordinationError(
                .conflict,
                "ledger_rolled_back",
                "\(alarm.reason). No private round opens until an administrator has acknowledged that: restore the newest "
                    + "database, or POST /v1/ledger/acknowledgement with a reason, which charges what was lost again"
            )
        }
        if let trouble { throw trouble.error }
    }

    /// What halts a private run.
    private var haltError: CoordinationError {
        if alarm == nil, let trouble { return trouble.error }
        return CoordinationError(
            .unavailable,
            "ledger_rolled_back",
            "\(alarm?.reason ?? "the server was restored from a backup"). Private rounds stand still until an administrator has acknowledged that; try again later"
        )
    }

    // MARK: - Restores

    /// Notes that this directory was made of a backup: once, however often the note is read again.
    mutating func noteRestored() {
        guard !isRestored else { return }
        (isRestored, isRestoreDue) = (true, true)
    }

    /// Notes that the attempts that the backup had open are abandoned.
    mutating func noteRestoreSettled() { isRestoreDue = false }

    /// Notes that the note of the restore is gone.
    mutating func noteRestoredNoteGone() { (isRestored, isRestoreDue) = (false, false) }

    // MARK: - The second record

    /// Notes that the second record cannot be read, so that it may know of more than the ledger.
    mutating func noteUnread() { isUnread = true }

    /// Notes that the record's place has been looked at, whatever is there.
    ///
    /// - Parameter time: Now.
    /// - Returns: Seconds for which it could not be read; `nil` where it could, or nobody waited.
    mutating func noteRead(at time: Date) -> (wasUnread: Bool, waited: Int?) {
        guard isUnread else { return (false, nil) }
        isUnread = false
        return (true, endTrouble(at: time))
    }

    /// Notes that the second record holds what the ledger does.
    ///
    /// - Parameter time: Now.
    /// - Returns: Seconds for which it did not; `nil` where it did.
    mutating func noteKept(at time: Date) -> Int? {
        hasRecord = true
        return endTrouble(at: time)
    }

    private mutating func endTrouble(at time: Date) -> Int? {
        guard let trouble else { return nil }
        self.trouble = nil
        return Int(time.timeIntervalSince(trouble.since).rounded())
    }

    /// Notes that the second record could not be read or kept; the next try comes after a longer pause.
    ///
    /// - Returns: Whether that is news.
    mutating func noteTrouble(_ reason: String, at time: Date) -> Bool {
        let known = trouble
        let pause = min(Self.pauses.upperBound, known.map { $0.pause * 2 } ?? Self.pauses.lowerBound)
        trouble = LedgerRecordTrouble(
            reason: reason,
            since: known?.since ?? time,
            until: time.addingTimeInterval(pause),
            pause: pause,
            isUnread: isUnread
        )
        return known == nil
    }

    /// The second record's state in a word: `kept`, `unwritable`, `unread`, or `alarm`.
    var word: String {
        if alarm != nil { return "alarm" }
        if isUnread { return "unread" }
        return trouble != nil ? "unwritable" : "kept"
    }

    /// What is the matter with the second record, for operators; empty where nothing is.
    func problems(at time: Date) -> [ProblemView] {
        if let alarm {
            return [
                ProblemView(
                    code: "ledger_alarm",
                    severity: "error",
                    detail:
                        "The privacy ledger and its second record disagree: \(alarm.reason). Private runs stand still until the "
                        + "newest database is put back, or an administrator acknowledges it (POST /v1/ledger/acknowledgement), which "
                        + "charges again what was lost."
                )
            ]
        }
        guard let trouble else { return [] }
        let also =
            trouble.isUnread
            ? " It was never read since the server's start, and may know of charges that the database has forgotten."
            : ""
        let seconds = max(0, Int(time.timeIntervalSince(trouble.since)))
        return [
            ProblemView(
                code: trouble.code,
                severity: "error",
                detail:
                    "\(trouble.reason.prefix(1).uppercased() + trouble.reason.dropFirst()).\(also) Private runs have waited for "
                    + "\(seconds) s; they go on by themselves, and lose nothing."
            )
        ]
    }
}
