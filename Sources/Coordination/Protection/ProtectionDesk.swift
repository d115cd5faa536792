import Foundation
import WireFormat

/// What is going on with helpers; no transaction keeps it, and after a restart it begins again.
struct ProtectionDesk: Sendable {
    /// Seconds until the first and the longest pause between two tries.
    static let pauses = 1.0...60.0

    private struct Opening: Sendable {
        var round: Int
        var attempt: Int
        /// What the helper has granted; absent while it is asked.
        var session: ProtectedSessionRecord?

        func isOf(_ record: RoundRecord) -> Bool { (round, attempt) == (record.number, record.attempt) }
    }

    private struct Pause: Sendable {
        var until: Date
        var seconds: Double
    }

    private var openings: [String: Opening] = [:]
    /// By run and round the least attempt that the helper has not had: it may know more than a database that was restored.
    private var leastAttempts: [String: Int] = [:]
    /// Runs whose next round waits for the helper.
    private(set) var waits: [String: Stall] = [:]
    /// Sessions whose end the helper is still to be told, by their names.
    private var owed: [String: ProtectedSessionRecord] = [:]
    private var ending: Set<String> = []
    private var pauses: [String: Pause] = [:]

    // MARK: - Openings

    /// What the helper has granted for an attempt that is not open yet.
    func session(of round: RoundRecord) -> ProtectedSessionRecord? {
        openings[round.runId].flatMap { $0.isOf(round) ? $0.session : nil }
    }

    /// Forgets what was granted for another attempt than this one: that is open, and its session stored.
    mutating func keepOnly(_ round: RoundRecord) {
        if let known = openings[round.runId], known.session != nil, !known.isOf(round) { openings[round.runId] = nil }
    }

    /// The number of an attempt, which the helper has not had.
    func attempt(of round: RoundRecord) -> Int {
        max(round.attempt, leastAttempts["\(round.runId)/\(round.number)"] ?? 0)
    }

    /// Notes that the helper has had an attempt that the database does not know.
    mutating func noteConflict(_ round: RoundRecord) {
        leastAttempts["\(round.runId)/\(round.number)"] = round.attempt + 1
    }

    /// Whether the helper may be asked now.
    func mayAsk(_ run: String, at now: Date) -> Bool {
        guard openings[run] == nil else { return false }
        return waits[run].map { $0.until.isDue(at: now, setAhead: $0.pause) } ?? true
    }

    /// Notes that the helper is asked.
    mutating func beginAsking(for round: RoundRecord) {
        openings[round.runId] = Opening(round: round.number, attempt: round.attempt)
    }

    /// Keeps what was granted until the round opens.
    mutating func take(_ session: ProtectedSessionRecord) {
        openings[session.runId] = Opening(round: session.round, attempt: session.attempt, session: session)
        waits[session.runId] = nil
    }

    /// Lets a run wait, each time for longer.
    ///
    /// - Returns: Whether it is the first time.
    mutating func wait(_ run: String, reason: String, at now: Date) -> Bool {
        openings[run] = nil
        let known = waits[run]
        let pause = min(Self.pauses.upperBound, known.map { $0.pause * 2 } ?? Self.pauses.lowerBound)
        waits[run] = Stall(
            failure: nil,
            reason: reason,
            since: known?.since ?? now,
            until: now.addingTimeInterval(pause),
            pause: pause
        )
        return known == nil
    }

    /// Forgets what was granted: its round is open, and its session stored.
    mutating func opened(_ run: String) {
        openings[run] = nil
        waits[run] = nil
    }

    /// Gives up what was granted and not used.
    mutating func withdraw(_ run: String) {
        waits[run] = nil
        guard var session = openings.removeValue(forKey: run)?.session else { return }
        session.state = .abandoned
        owed[session.session] = session
    }

    /// Runs that the helper is asked for, or has granted something, or that wait for it.
    var opening: [String] { openings.isEmpty && waits.isEmpty ? [] : Array(Set(openings.keys).union(waits.keys)) }

    /// What a run waits for before its next round.
    func reason(_ run: String, at now: Date) -> String? {
        if let wait = waits[run] {
            let seconds = max(0, Int(wait.until.timeIntervalSince(now).rounded(.up)))
            return "\(wait.reason); asked again in \(seconds) s"
        }
        return openings[run] == nil ? nil : "the helper to grant a session"
    }

    /// Runs whose rounds do not open, because the helper does not grant a session.
    func problems(_ runs: RunTable, at now: Date) -> [ProblemView] {
        waits.sorted { $0.key < $1.key }.compactMap { id, wait in
            guard let run = runs[id], !run.isOver else { return nil }
            let seconds = max(0, Int(now.timeIntervalSince(wait.since)))
            return ProblemView(
                code: "helper_unavailable",
                severity: "error",
                run: id,
                runName: run.record.name,
                count: nil,
                detail:
                    "The next round has waited for \(seconds) s for a session of the helper, because \(wait.reason). It is "
                    + "asked again by itself; nothing is lost meanwhile."
            )
        }
    }

    // MARK: - Ends

    /// Notes a session as it is stored.
    mutating func note(_ session: ProtectedSessionRecord) {
        owed[session.session] = session.state.isOwed ? session : nil
        if !session.state.isOwed { pauses[session.session] = nil }
    }

    /// Sessions that the helper may be told of now; each is told of once at a time.
    mutating func takeOwed(at now: Date) -> [ProtectedSessionRecord] {
        guard !owed.isEmpty else { return [] }
        let due = owed.values.filter { session in
            !ending.contains(session.session)
                && pauses[session.session].map { $0.until.isDue(at: now, setAhead: $0.seconds) } ?? true
        }
        for session in due { ending.insert(session.session) }
        return due.sorted { $0.session < $1.session }
    }

    /// Notes that a try has ended.
    mutating func endTrying(_ session: String, at now: Date) {
        ending.remove(session)
        let seconds = min(Self.pauses.upperBound, pauses[session].map { $0.seconds * 2 } ?? Self.pauses.lowerBound)
        pauses[session] = Pause(until: now.addingTimeInterval(seconds), seconds: seconds)
    }

    /// Forgets what is stored, before it is read again.
    mutating func forgetStored() { owed = [:] }
}
