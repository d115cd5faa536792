import Foundation

/// When each client was last seen, and how many of each population were seen lately.
///
/// The counts move with the clients, minute by minute: nobody is ever looked for among all of them.
struct Presence {
    /// Minutes that count as lately, beside the present one.
    static let minutes = 15

    private var sightings: [String: Date] = [:]
    /// By population, how many clients were seen last in which minute.
    private var counts: [String: [Int: Int]] = [:]

    /// Takes space for so many clients now, so that memory does not grow while they come for the first time.
    mutating func reserve(_ clientCount: Int) { sightings.reserveCapacity(clientCount) }

    /// How many clients fit without more memory.
    var capacity: Int { sightings.capacity }

    /// When a client was last seen, since the server started.
    func lastSeen(_ client: String) -> Date? { sightings[client] }

    /// Notes that a client is there.
    mutating func note(_ client: String, population: String, at time: Date) {
        let minute = Self.minute(of: time)
        if let before = sightings.updateValue(time, forKey: client).map(Self.minute) {
            guard before != minute else { return }
            if let left = counts[population]?[before] { counts[population]?[before] = left > 1 ? left - 1 : nil }
        }
        guard counts[population]?[minute] == nil else {
            counts[population]?[minute]? += 1
            return
        }
        // A new minute: those that are long over are not asked for again; a clock may be put back a little.
        var table = counts[population]?.filter { $0.key >= minute - 4 * Self.minutes } ?? [:]
        table[minute] = 1
        counts[population] = table
    }

    /// How many clients of a population were seen in the last quarter of an hour.
    func count(population: String, at time: Date) -> Int {
        let oldest = Self.minute(of: time) - Self.minutes
        return (counts[population] ?? [:]).reduce(0) { $0 + ($1.key >= oldest ? $1.value : 0) }
    }

    private static func minute(of time: Date) -> Int { Int((time.timeIntervalSince1970 / 60).rounded(.down)) }
}
