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
    /// The same for clients that have had work, over all populations.
    private var workers: [Int: Int] = [:]

    /// Takes space for so many clients now, so that memory does not grow while they come for the first time.
    mutating func reserve(_ clientCount: Int) { sightings.reserveCapacity(clientCount) }

    /// How many clients fit without more memory.
    var capacity: Int { sightings.capacity }

    /// When a client was last seen, since the server started.
    func lastSeen(_ client: String) -> Date? { sightings[client] }

    /// Notes that a client is there, which is one that has had work or has not.
    mutating func note(_ client: String, population: String, isWorker: Bool = false, at time: Date) {
        let minute = Self.minute(of: time)
        if isWorker, sightings[client].map(Self.minute) != minute {
            countWorker(sightings[client], by: -1)
            countWorker(time, by: 1)
        }
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

    /// Notes that a client counts as one that has had work from now on, or no longer does.
    mutating func setWorker(_ client: String, _ isWorker: Bool) {
        countWorker(sightings[client], by: isWorker ? 1 : -1)
    }

    /// Forgets who has had work; each counts again when ``setWorker(_:_:)`` says so.
    mutating func forgetWorkers() { workers = [:] }

    /// How many clients that have had work were seen in the last quarter of an hour.
    func workerCount(at time: Date) -> Int {
        let oldest = Self.minute(of: time) - Self.minutes
        return workers.reduce(0) { $0 + ($1.key >= oldest ? $1.value : 0) }
    }

    private mutating func countWorker(_ seen: Date?, by change: Int) {
        guard let minute = seen.map(Self.minute) else { return }
        if workers[minute] == nil {
            workers = workers.filter { $0.key >= minute - 4 * Self.minutes }
        }
        let left = (workers[minute] ?? 0) + change
        workers[minute] = left > 0 ? left : nil
    }

    /// How many clients of a population were seen in the last quarter of an hour.
    func count(population: String, at time: Date) -> Int {
        let oldest = Self.minute(of: time) - Self.minutes
        return (counts[population] ?? [:]).reduce(0) { $0 + ($1.key >= oldest ? $1.value : 0) }
    }

    private static func minute(of time: Date) -> Int { Int((time.timeIntervalSince1970 / 60).rounded(.down)) }
}
