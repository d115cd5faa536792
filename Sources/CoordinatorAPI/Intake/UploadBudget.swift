import Coordination
import Synchronization

/// How many bytes of updates may be on their way in at the same time; more are sent away before their bodies.
final class UploadBudget: Sendable {
    private let byteLimit: Int
    private let bytes = Mutex(0)
    private let metrics: MetricsRegistry

    init(byteLimit: Int, metrics: MetricsRegistry) {
        self.byteLimit = byteLimit
        self.metrics = metrics
    }

    /// Room for one upload's body, held until it is released or let go.
    final class Lease: Sendable {
        private let budget: UploadBudget
        private let held: Mutex<Int>

        fileprivate init(_ budget: UploadBudget, _ byteCount: Int) {
            self.budget = budget
            held = Mutex(byteCount)
        }

        deinit { release() }

        /// Gives the room back; once more does nothing.
        func release() {
            let count = held.withLock { count in
                defer { count = 0 }
                return count
            }
            if count > 0 { budget.giveBack(count) }
        }
    }

    /// Takes room for a body.
    ///
    /// - Throws: ``CoordinationError`` with code `uploads_full` when the bytes do not fit; answered as 503 with
    ///   `Retry-After`.
    func take(_ byteCount: Int) throws -> Lease {
        let fits = bytes.withLock { bytes in
            // Alone, an upload is let in whatever its size: no limit may make a run impossible.
            guard bytes == 0 || bytes + byteCount <= byteLimit else { return false }
            bytes += byteCount
            metrics.set("martlet_uploads_in_flight_bytes", Double(bytes))
            return true
        }
        guard fits else {
            metrics.add("martlet_uploads_refused_total")
            throw CoordinationError(
                .unavailable,
                "uploads_full",
                "as many bytes of updates as the server takes at a time are on their way; try again later"
            )
        }
        return Lease(self, byteCount)
    }

    private func giveBack(_ count: Int) {
        bytes.withLock { bytes in
            bytes -= count
            metrics.set("martlet_uploads_in_flight_bytes", Double(bytes))
        }
    }
}
