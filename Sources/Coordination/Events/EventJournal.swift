import Foundation

/// Which events have been written, which small changes still wait to be told, and who listens.
///
/// A phase change is an event at once. Changes that only move a counter are gathered: at most one `round` event a run in
/// ``progressInterval`` and one `clients` event a population in ``clientsInterval``, so that ten thousand check-ins do not
/// write ten thousand rows.
struct EventJournal: Sendable {
    static let progressInterval = 0.25
    static let clientsInterval = 1.0
    static let keepAliveInterval = 15.0

    /// The newest event's id, and the oldest one's that is still kept.
    var lastID = 0
    var firstID = 1
    var subscribers: [Int: Subscriber] = [:]
    var nextSubscriber = 0
    var lastKeepAlive = Date.distantPast
    private var progressTold: [String: Date] = [:]
    private(set) var progressWaiting: Set<String> = []
    private var clientsTold: [String: Date] = [:]
    private(set) var clientsWaiting: Set<String> = []

    /// Who listens, and by what right.
    struct Subscriber: Sendable {
        var stream: AsyncStream<EventSignal>.Continuation
        /// The hash of the token that opened the stream; `nil` on a server without tokens.
        var tokenHash: String?
    }

    /// Whether a change of counters may be told now; if not it is noted for later.
    mutating func mayTellProgress(run: String, at time: Date) -> Bool {
        guard let told = progressTold[run], (0..<Self.progressInterval).contains(time.timeIntervalSince(told)) else {
            toldProgress(run: run, at: time)
            return true
        }
        progressWaiting.insert(run)
        return false
    }

    mutating func toldProgress(run: String, at time: Date) {
        progressTold[run] = time
        progressWaiting.remove(run)
    }

    /// The same for the numbers of a population's clients.
    mutating func mayTellClients(population: String, at time: Date) -> Bool {
        guard let told = clientsTold[population], (0..<Self.clientsInterval).contains(time.timeIntervalSince(told))
        else {
            clientsTold[population] = time
            clientsWaiting.remove(population)
            return true
        }
        clientsWaiting.insert(population)
        return false
    }

    /// Hands an event to every listener; one that is too slow to take it loses its stream, and comes back by its last id.
    mutating func publish(_ signal: EventSignal) {
        for (id, listener) in subscribers {
            if case .enqueued = listener.stream.yield(signal) { continue }
            listener.stream.finish()
            subscribers[id] = nil
        }
    }

    /// Ends the streams whose token does not count any more.
    mutating func endStreams(unless counts: (_ tokenHash: String) -> Bool) {
        for (id, listener) in subscribers {
            guard let hash = listener.tokenHash, !counts(hash) else { continue }
            listener.stream.finish()
            subscribers[id] = nil
        }
    }

    /// Ends every stream.
    mutating func close() {
        for listener in subscribers.values { listener.stream.finish() }
        subscribers = [:]
    }
}

/// What a listener receives.
package enum EventSignal: Sendable {
    case event(EventRow)
    /// Nothing happened for a while; shows the peer that the stream lives.
    case keepAlive
}

/// A place in the stream of events.
package struct EventSubscription: Sendable {
    /// The newest event when the subscription began; older ones are read from the store.
    package var headID: Int
    /// The oldest event that is kept.
    package var firstID: Int
    /// What comes after `headID`; ends when the listener is too slow or the server stops.
    package var live: AsyncStream<EventSignal>
}
