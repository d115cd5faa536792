import Coordination
import Foundation
import Synchronization

/// How many bytes of updates may be on their way in at the same time; more are sent away before their bodies.
///
/// An assignment has room for one upload, and no longer than its update is wanted. While others wait for room the slowest
/// uploads lose theirs: ``UploadRoom`` decides, and an upload notices with its next bytes.
final class UploadBudget: Sendable {
    private struct State: Sendable {
        var room: UploadRoom
        /// The request that has each assignment's room.
        var holders: [String: Int] = [:]
        /// Requests whose room went to others.
        var ended: Set<Int> = []
        var lastID = 0
    }

    private let state: Mutex<State>
    private let metrics: MetricsRegistry
    private let now: @Sendable () -> Date

    init(byteLimit: Int, metrics: MetricsRegistry, now: @escaping @Sendable () -> Date) {
        state = Mutex(State(room: UploadRoom(limit: byteLimit)))
        self.metrics = metrics
        self.now = now
    }

    /// Room for one upload's body, held until it is released or let go.
    final class Lease: Sendable {
        private let budget: UploadBudget
        private let assignment: String
        private let id: Int
        private let deadline: Date
        private let permit: UploadPermit

        fileprivate init(
            _ budget: UploadBudget,
            _ assignment: String,
            _ id: Int,
            _ deadline: Date,
            _ permit: UploadPermit
        ) {
            self.budget = budget
            self.assignment = assignment
            self.id = id
            self.deadline = deadline
            self.permit = permit
        }

        deinit { release() }

        /// Gives the room back; once more does nothing.
        func release() { budget.giveBack(assignment, id) }

        /// Whether more of the body may come; notes that so much of it has.
        ///
        /// - Throws: ``CoordinationError`` with code `upload_taken_over`, `uploads_full`, `round_closed`, or why the assignment has ended.
        func check(_ byteCount: Int) throws {
            try permit.require()
            let time = budget.now()
            try budget.state.withLock { state in
                guard state.holders[assignment] == id else {
                    throw state.ended.contains(id) ? UploadBudget.givenAway : UploadBudget.takenOver
                }
                state.room.note(assignment, receivedCount: byteCount, at: time)
            }
            guard time <= deadline else { throw RoundError.deadlinePassed.refusal }
        }
    }

    /// Takes room for a body; an earlier upload of the same assignment loses its own, and can write no more.
    ///
    /// - Parameters:
    ///   - byteCount: The body's size, or the most that it can be.
    ///   - assignment: Whose update it is.
    ///   - run: The run that has it.
    ///   - deadline: When the room is given to others.
    ///   - permit: What the coordinator withdraws when the update is not wanted any more.
    /// - Returns: The room.
    /// - Throws: ``CoordinationError`` with code `uploads_full` when the bytes do not fit; answered as 503 with
    ///   `Retry-After`.
    func take(
        _ byteCount: Int,
        for assignment: String,
        run: String,
        until deadline: Date,
        permit: UploadPermit
    ) throws -> Lease {
        let time = now()
        let request = UploadRoom.Request(assignment: assignment, run: run, byteCount: byteCount, deadline: deadline)
        let id = state.withLock { state -> Int? in
            let answer = state.room.ask(request, at: time)
            setCount(state)
            state.holders[assignment] = nil
            guard case .admitted(let ended) = answer else { return nil }
            for other in ended {
                if let holder = state.holders.removeValue(forKey: other) { state.ended.insert(holder) }
            }
            if !ended.isEmpty { metrics.add("martlet_uploads_given_way_total", Double(ended.count)) }
            state.lastID += 1
            state.holders[assignment] = state.lastID
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
        return Lease(self, assignment, id, deadline, permit)
    }

    private func giveBack(_ assignment: String, _ id: Int) {
        let time = now()
        state.withLock { state in
            state.ended.remove(id)
            guard state.holders[assignment] == id else { return }
            state.holders[assignment] = nil
            state.room.leave(assignment, at: time)
            setCount(state)
        }
    }

    private func setCount(_ state: State) {
        metrics.set("martlet_uploads_in_flight_bytes", Double(state.room.byteCount))
    }

    private static var givenAway: CoordinationError {
        CoordinationError(
            .unavailable,
            "uploads_full",
            "others wait for room, and this upload was the slowest: ask with HEAD how much has arrived, and go on from there later"
        )
    }

    static var takenOver: CoordinationError {
        CoordinationError(.conflict, "upload_taken_over", "another request goes on with this upload")
    }
}
