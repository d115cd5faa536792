import Coordination
import Foundation
import Synchronization

/// How many bytes of updates may be on their way in at the same time; more are sent away before their bodies.
///
/// An assignment has room for one upload, and no longer than its update is wanted: else one client could take all of the
/// room by uploads that it begins again and again, and keep it by sending as slowly as the server allows.
final class UploadBudget: Sendable {
    private struct State {
        var byteCount = 0
        var leases: [String: (id: Int, byteCount: Int)] = [:]
        var lastID = 0
    }

    private let byteLimit: Int
    private let state = Mutex(State())
    private let metrics: MetricsRegistry
    private let now: @Sendable () -> Date

    init(byteLimit: Int, metrics: MetricsRegistry, now: @escaping @Sendable () -> Date) {
        self.byteLimit = byteLimit
        self.metrics = metrics
        self.now = now
    }

    /// Room for one upload's body, held until it is released or let go.
    final class Lease: Sendable {
        private let budget: UploadBudget
        private let assignment: String
        private let id: Int
        private let deadline: Date

        fileprivate init(_ budget: UploadBudget, _ assignment: String, _ id: Int, _ deadline: Date) {
            self.budget = budget
            self.assignment = assignment
            self.id = id
            self.deadline = deadline
        }

        deinit { release() }

        /// Gives the room back; once more does nothing.
        func release() { budget.giveBack(assignment, id) }

        /// Whether more of the body may come.
        ///
        /// - Throws: ``CoordinationError`` with code `upload_taken_over` or `round_closed`.
        func check() throws {
            guard budget.state.withLock({ $0.leases[assignment]?.id == id }) else { throw UploadBudget.takenOver }
            guard budget.now() <= deadline else { throw RoundError.deadlinePassed.refusal }
        }
    }

    /// Takes room for a body; an earlier upload of the same assignment loses its own, and can write no more.
    ///
    /// - Parameters:
    ///   - byteCount: The body's size, or the most that it can be.
    ///   - assignment: Whose update it is.
    ///   - deadline: When the room is given to others.
    /// - Returns: The room.
    /// - Throws: ``CoordinationError`` with code `uploads_full` when the bytes do not fit; answered as 503 with
    ///   `Retry-After`.
    func take(_ byteCount: Int, for assignment: String, until deadline: Date) throws -> Lease {
        let id = state.withLock { state -> Int? in
            let others = state.byteCount - (state.leases[assignment]?.byteCount ?? 0)
            // Alone, an upload is let in whatever its size: no limit may make a run impossible.
            guard others == 0 || others + byteCount <= byteLimit else { return nil }
            state.lastID += 1
            state.leases[assignment] = (state.lastID, byteCount)
            setCount(others + byteCount, &state)
            return state.lastID
        }
        guard let id else {
            metrics.add("martlet_uploads_refused_total")
            throw CoordinationError(
                .unavailable,
                "uploads_full",
                "as many bytes of updates as the server takes at a time are on their way; try again later"
            )
        }
        return Lease(self, assignment, id, deadline)
    }

    private func giveBack(_ assignment: String, _ id: Int) {
        state.withLock { state in
            guard let lease = state.leases[assignment], lease.id == id else { return }
            state.leases[assignment] = nil
            setCount(state.byteCount - lease.byteCount, &state)
        }
    }

    private func setCount(_ count: Int, _ state: inout State) {
        state.byteCount = count
        metrics.set("martlet_uploads_in_flight_bytes", Double(count))
    }

    static var takenOver: CoordinationError {
        CoordinationError(.conflict, "upload_taken_over", "another request goes on with this upload")
    }
}
