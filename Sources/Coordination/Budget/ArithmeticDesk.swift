import DifferentialPrivacy
import Dispatch

/// Whose request the present task serves.
package enum Caller {
    /// What the caller's requests are counted by; `nil` for work of the server itself.
    @TaskLocal package static var key: String?
}

/// Has long arithmetic done beside the coordinator, one piece at a time: noise for a target, projections and claims take up to a second
/// each, and anybody who may plan a run or read models may ask for one after the other.
///
/// Callers take turns, and each has few places. So whoever asks for much waits for itself.
actor ArithmeticDesk {
    /// How many pieces of one caller may be computed or wait; the next one is told to come again.
    static let placesPerCaller = 4
    /// How many callers may have places: who comes when there are so many has none.
    static let callerLimit = 64

    private typealias Turn = CheckedContinuation<Void, Never>

    /// Who waits, by caller, oldest first.
    private var waiting: [String: [Turn]] = [:]
    /// Callers in the order in which they have their next turn.
    private var order: [String] = []
    /// Pieces that are computed or wait, by caller.
    private var places: [String: Int] = [:]

    /// Pieces that are being computed, and those that wait for it.
    var waitingCount: Int { places.values.reduce(0, +) }

    /// Computes in the caller's turn; no thread of the shared pool is kept meanwhile.
    ///
    /// - Parameter body: The arithmetic, with the limits of the caller's task.
    /// - Returns: What it gives.
    /// - Throws: ``CoordinationError`` `claims_busy`, which is temporary, and what `body` throws.
    func compute<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws -> Value {
        let limits = LossLimits()
        return try await inTurn {
            try await DispatchQueue.global(qos: .utility).result { try limits.apply(body) }
        }
    }

    /// Does something in the caller's turn; nothing else is done meanwhile.
    ///
    /// - Throws: ``CoordinationError`` `claims_busy`, which is temporary, and what `body` throws.
    func inTurn<Value: Sendable>(_ body: @Sendable () async throws -> Value) async throws -> Value {
        let caller = Caller.key ?? ""
        try await enter(caller)
        defer { leave(caller) }
        return try await body()
    }

    private func enter(_ caller: String) async throws(CoordinationError) {
        let held = places[caller] ?? 0
        guard held < Self.placesPerCaller, held > 0 || places.count < Self.callerLimit else {
            throw CoordinationError(
                .unavailable,
                "claims_busy",
                held > 0
                    ? "\(held) costs or claims are being computed for this caller; send it again later"
                    : "costs and claims are being computed for \(places.count) others; send it again later"
            )
        }
        let isFree = places.isEmpty
        places[caller] = held + 1
        guard !isFree else { return }
        await withCheckedContinuation { turn in
            if waiting[caller] == nil { order.append(caller) }
            waiting[caller, default: []].append(turn)
        }
    }

    /// Gives the turn to the caller that has waited longest for one.
    private func leave(_ caller: String) {
        let held = (places[caller] ?? 1) - 1
        places[caller] = held > 0 ? held : nil
        guard !order.isEmpty else { return }
        let next = order.removeFirst()
        guard var turns = waiting.removeValue(forKey: next), !turns.isEmpty else { return }
        let turn = turns.removeFirst()
        if !turns.isEmpty {
            waiting[next] = turns
            order.append(next)
        }
        turn.resume()
    }
}
