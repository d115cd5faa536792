import Foundation

/// Time in which nobody could deliver, which is given back: to rounds, assignments and leases, never to tokens, certificates or keys.
///
/// A hold begins when a run hands out no work and its clock stands still. A gap between two ticks says that the server was away.
struct LostTime: Sendable {
    /// Seconds of a hold after which what it has lasted is given back and stored, so that a stop does not lose it.
    static let holdPortion = 30.0
    /// The longest time in seconds that is given back at once: what is longer ago was no pause.
    static let longestPause = 30.0 * 86_400

    /// Runs whose clock stands still, and since when.
    private(set) var holds: [String: Date] = [:]
    /// When the last tick was.
    private(set) var lastTick: Date?

    /// Whether a run's clock stands still.
    func isHeld(_ run: String) -> Bool { holds[run] != nil }

    /// Takes whether a run hands out no work.
    ///
    /// - Returns: Seconds to give back now; ``noteGivenBack(_:isHeld:at:)`` says that they are stored.
    mutating func note(_ run: String, isHeld: Bool, at now: Date) -> Double? {
        guard let since = holds[run] else {
            if isHeld { holds[run] = now }
            return nil
        }
        let seconds = now.timeIntervalSince(since)
        return !isHeld || seconds >= Self.holdPortion ? seconds : nil
    }

    /// Notes that what a hold has lasted until now is stored.
    mutating func noteGivenBack(_ run: String, isHeld: Bool = true, at now: Date) { holds[run] = isHeld ? now : nil }

    /// Notes that the time since a moment could not be stored: it is given back later.
    mutating func owe(_ run: String, since: Date) { holds[run] = since }

    /// Forgets the holds of runs that are over.
    mutating func keep(where isOpen: (String) -> Bool) { holds = holds.filter { isOpen($0.key) } }

    /// Seconds that a run is owed before one of its deadlines is judged; `nil` below a second.
    func owed(_ run: String, at now: Date) -> Double? {
        holds[run].map { now.timeIntervalSince($0) }.flatMap { $0 >= 1 ? $0 : nil }
    }

    /// Whether the server was away since the last tick for longer than a limit.
    func isAway(limit: Double?, at now: Date) -> Bool {
        guard let limit, let lastTick else { return false }
        return now.timeIntervalSince(lastTick) > limit
    }

    /// Notes a tick.
    mutating func noteTick(at now: Date) { lastTick = now }
}
