import Foundation
import MartletTransport
import Synchronization

/// What a client has to say about its surroundings while it works, for a log or the device's owner.
public struct ClientNotice: Sendable, Equatable {
    /// What it is about.
    public enum Kind: String, Sendable {
        /// The server cannot be reached, or something answers in its place; the client tries again and again.
        case outageBegan = "outage_began"
        /// The server answers again.
        case outageEnded = "outage_ended"
        /// Something about the state directory.
        case state
        /// In a fleet: the first assignment since an update was accepted that came to nothing for this reason.
        case ended
    }
    /// What it is about.
    public var kind: Kind
    /// A sentence.
    public var message: String
}

/// Follows whether a client's requests are answered, tells once when that stops and once when it comes back, and says when it
/// has lasted too long.
final class OutageWatch: Sendable {
    private struct State {
        var since: Date?
        var failures = 0
        /// What was told of it; an outage with a new cause is told again.
        var told: Set<String> = []
        var limit: Double?
    }
    private let state = Mutex(State())
    private let now: @Sendable () -> Date
    private let notify: @Sendable (ClientNotice) -> Void

    init(now: @escaping @Sendable () -> Date, notify: @escaping @Sendable (ClientNotice) -> Void) {
        self.now = now
        self.notify = notify
    }

    /// Seconds of an outage after which the client gives up; `nil` for never.
    var limit: Double? {
        get { state.withLock { $0.limit } }
        set { state.withLock { $0.limit = newValue } }
    }

    /// Whether the outage has lasted longer than the limit, or would after so many seconds more.
    func isTooLong(after seconds: Double = 0) -> Bool {
        let time = now()
        return state.withLock { state in
            guard let limit = state.limit, let since = state.since else { return false }
            return time.timeIntervalSince(since) + seconds > limit
        }
    }

    /// There was no answer, or none of the server's, or it cannot do now what was asked.
    func failed(_ error: ClientError) {
        let time = now()
        let isNew = state.withLock { state in
            if state.since == nil { state.since = time }
            state.failures += 1
            // A server that is busy for a moment, or limits a rate, is no outage yet.
            let isBusy =
                error.code != ClientError.network && error.code != ClientError.foreignAnswer && error.status != nil
            guard state.failures >= (isBusy ? 4 : 1), state.told.count < 8 else { return false }
            return state.told.insert("\(error.code) \(error.status ?? 0)").inserted
        }
        if isNew { notify(.init(kind: .outageBegan, message: "\(error.message); waiting, and trying again")) }
    }

    /// The server has answered.
    func answered() {
        let time = now()
        let (since, wasTold) = state.withLock { state in
            defer { (state.since, state.failures, state.told) = (nil, 0, []) }
            return (state.since, !state.told.isEmpty)
        }
        guard let since, wasTold else { return }
        let seconds = max(0, min(1e9, time.timeIntervalSince(since)))
        notify(.init(kind: .outageEnded, message: "going on after \(Int(seconds.rounded())) s"))
    }
}
