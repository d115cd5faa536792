import Dispatch

extension EventLoop {
    /// Notes how many bytes of answers wait in a connection for its peer; of those who read slowest some lose their connection while all
    /// connections of this loop hold more than the limit together.
    ///
    /// - Parameters:
    ///   - connection: The connection.
    ///   - count: Bytes that wait in it now.
    ///   - limit: Bytes that may wait in all connections of this loop.
    func hold(_ connection: HTTPConnection, _ count: Int, limit: Int = .max) {
        dispatchPrecondition(condition: .onQueue(queue))
        held.set(connection.id, count)
        while held.sum > limit, let slowest = slowestReader() {
            // Its memory is free in the next turn of the loop: the caller may be in the middle of writing to it.
            held.set(slowest.id, 0)
            submit { slowest.giveWay() }
        }
    }

    /// Who has taken least of an answer for the time that it had; of several who took nothing the one who has waited longest.
    private func slowestReader() -> HTTPConnection? {
        held.counts.keys.compactMap { connection($0) }.min { first, second in
            let paces = (first.outputPace, second.outputPace)
            return (paces.0.rate(now: now), paces.0.start) < (paces.1.rate(now: now), paces.1.start)
        }
    }
}

/// Bytes of answers that wait for peers, by connection.
struct HeldBytes {
    private(set) var counts: [UInt64: Int] = [:]
    private(set) var sum = 0

    mutating func set(_ connection: UInt64, _ count: Int) {
        let before = count > 0 ? counts.updateValue(count, forKey: connection) : counts.removeValue(forKey: connection)
        sum += count - (before ?? 0)
    }
}
