import Synchronization

/// All connections by the party that holds them, so that nobody can hold them all.
final class ConnectionTable: Sendable {
    /// What becomes of a newcomer.
    enum Admission {
        case admitted
        /// Admitted, and this one is to be ended for it.
        case admittedInPlaceOf(HTTPConnection)
        /// Turned away: `limit` or `address`.
        case refused(String)
    }

    private struct State {
        var count = 0
        var counts: [String: Int] = [:]
        /// The connections of each party, oldest first; those that are being ended for others are no longer here.
        var members: [String: [HTTPConnection]] = [:]
    }

    private let state = Mutex(State())
    private let limit: Int
    private let partyLimit: Int
    /// A connection that is ended for another finishes its answer first: so many may be open beyond the limit.
    private static let overshoot = 64

    init(limit: Int, partyLimit: Int) {
        self.limit = limit
        self.partyLimit = partyLimit
    }

    var count: Int { state.withLock { $0.count } }

    /// Counts a newcomer in, or says why not.
    func admit(_ party: String, isUnlimited: Bool) -> Admission {
        state.withLock { state in
            guard isUnlimited || state.counts[party, default: 0] < partyLimit else { return .refused("address") }
            var victim: HTTPConnection?
            if state.count >= limit {
                // Full: whoever holds the most gives one back, unless that is the newcomer.
                let heaviest = state.members.max { ($0.value.count, $0.key) < ($1.value.count, $1.key) }
                guard state.count < limit + Self.overshoot, let heaviest, heaviest.key != party,
                    heaviest.value.count > state.counts[party, default: 0], let oldest = heaviest.value.first
                else { return .refused("limit") }
                state.members[heaviest.key]?.removeFirst()
                victim = oldest
            }
            state.count += 1
            state.counts[party, default: 0] += 1
            return victim.map { .admittedInPlaceOf($0) } ?? .admitted
        }
    }

    /// Remembers the connection that was made for an admitted newcomer.
    func attach(_ connection: HTTPConnection, _ party: String) {
        state.withLock { $0.members[party, default: []].append(connection) }
    }

    /// Counts a connection out.
    func remove(_ connection: HTTPConnection?, _ party: String) {
        state.withLock { state in
            state.count -= 1
            let left = state.counts[party, default: 1] - 1
            state.counts[party] = left > 0 ? left : nil
            guard let connection else { return }
            state.members[party]?.removeAll { $0 === connection }
            if state.members[party]?.isEmpty == true { state.members[party] = nil }
        }
    }
}
