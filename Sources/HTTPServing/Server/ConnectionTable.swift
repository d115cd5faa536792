import Synchronization

/// Counts connections by party, so that no party can hold them all.
final class ConnectionTable: Sendable {
    /// The decision about a new connection.
    enum Admission {
        case admitted
        /// Admitted; this other connection must end for it.
        case admittedInPlaceOf(HTTPConnection)
        /// Refused, with the reason for the metric: `limit` or `address`.
        case refused(String)
    }

    private struct State {
        var count = 0
        var counts: [String: Int] = [:]
        /// The connections of each party, oldest first, without those that are being ended for others.
        var members: [String: [HTTPConnection]] = [:]
    }

    private let state = Mutex(State())
    private let limit: Int
    private let partyLimit: Int
    /// How many connections may be open beyond the limit: one that ends for another finishes its answer first.
    private static let overshoot = 64

    init(limit: Int, partyLimit: Int) {
        self.limit = limit
        self.partyLimit = partyLimit
    }

    var count: Int { state.withLock { $0.count } }

    /// Counts a new connection, or refuses it.
    func admit(_ party: String, isUnlimited: Bool) -> Admission {
        state.withLock { state in
            guard isUnlimited || state.counts[party, default: 0] < partyLimit else { return .refused("address") }
            var victim: HTTPConnection?
            if state.count >= limit {
                // Full: the party with the most connections loses its oldest, unless that is the new connection's party.
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

    /// Records the connection that was made for an admitted one.
    func attach(_ connection: HTTPConnection, _ party: String) {
        state.withLock { $0.members[party, default: []].append(connection) }
    }

    /// Uncounts a connection.
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
