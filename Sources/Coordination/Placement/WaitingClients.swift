/// The long polls that wait for work: by population in the order in which they came, and by client.
///
/// Each operation costs no more than the polls that it touches, however many wait.
struct WaitingClients {
    /// Resumed with whether the poll may look for work again; `false` where a newer one of the same client waits in its place.
    typealias Continuation = CheckedContinuation<Bool, Never>

    private struct Waiter {
        var client: String
        var population: String
        var continuation: Continuation
    }

    private var waiters: [Int: Waiter] = [:]
    private var byClient: [String: Set<Int>] = [:]
    /// Ids in the order of arrival; those that are gone are left out when half of a queue is.
    private var queues: [String: [Int]] = [:]
    private var counts: [String: Int] = [:]
    /// By population, the id at which a look at those who wait has stopped.
    private var shownLast: [String: Int] = [:]
    private var lastID = 0

    var count: Int { waiters.count }
    var isEmpty: Bool { waiters.isEmpty }

    mutating func nextID() -> Int {
        lastID += 1
        return lastID
    }

    /// Lets a poll wait; a client has one, and its older one ends.
    mutating func add(_ id: Int, client: String, population: String, _ continuation: Continuation) {
        for older in ids(ofClient: client) { remove(older)?.resume(returning: false) }
        waiters[id] = Waiter(client: client, population: population, continuation: continuation)
        byClient[client, default: []].insert(id)
        queues[population, default: []].append(id)
        counts[population, default: 0] += 1
    }

    /// Takes one out; `nil` when it is gone already.
    mutating func remove(_ id: Int) -> Continuation? {
        guard let waiter = waiters.removeValue(forKey: id) else { return nil }
        byClient[waiter.client]?.remove(id)
        if byClient[waiter.client]?.isEmpty == true { byClient[waiter.client] = nil }
        let left = (counts[waiter.population] ?? 1) - 1
        counts[waiter.population] = left == 0 ? nil : left
        if left == 0 {
            queues[waiter.population] = nil
        } else if let queue = queues[waiter.population], queue.count > 64, queue.count > 2 * left {
            queues[waiter.population] = queue.filter { waiters[$0] != nil }
        }
        return waiter.continuation
    }

    /// Takes all out.
    mutating func removeAll() -> [Continuation] {
        let all = waiters.values.map(\.continuation)
        let last = lastID
        self = WaitingClients()
        lastID = last
        return all
    }

    func ids(ofClient client: String) -> Set<Int> { byClient[client] ?? [] }

    /// Everyone who waits in a population, those first who have waited longest.
    func clients(population: String) -> [String] { (queues[population] ?? []).compactMap { waiters[$0]?.client } }

    /// Who waits in a population, those first who have waited longest, until `body` has had enough.
    ///
    /// - Parameters:
    ///   - population: Whose clients.
    ///   - limit: How many are shown at most; the next call goes on with the others.
    ///   - body: Gets id and client; says whether it wants to see the next one.
    /// - Returns: Whether the end was reached, or `body` had enough.
    mutating func inOrder(population: String, limit: Int, _ body: (_ id: Int, _ client: String) -> Bool) -> Bool {
        let queue = queues[population] ?? []
        let last = shownLast.removeValue(forKey: population) ?? 0
        // Ids rise along the queue.
        var (place, high) = (0, queue.count)
        while place < high {
            let middle = (place + high) / 2
            if queue[middle] > last { high = middle } else { place = middle + 1 }
        }
        var count = 0
        for id in queue[place...] {
            guard let waiter = waiters[id] else { continue }
            guard count < limit else { return false }
            shownLast[population] = id
            count += 1
            guard body(id, waiter.client) else { break }
        }
        shownLast[population] = nil
        return true
    }
}
