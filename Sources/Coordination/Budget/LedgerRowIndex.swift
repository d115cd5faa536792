import Foundation
import WireFormat

/// What one population's rows of the ledger are looked up by; a place is counted among these rows, from 0.
struct LedgerRowIndex: Sendable {
    private struct Release: Hashable {
        var run: String
        var round: Int
    }

    private var count = 0
    private var committed: [Release: Int] = [:]
    /// Rows after which no row is as early, oldest first: the last row that was there at a time is always one of them, also where a clock
    /// was put back.
    private var steps: [(createdAt: Date, place: Int)] = []

    /// Takes the next row.
    mutating func take(_ row: LedgerRow) {
        defer { count += 1 }
        if row.state == .committed { committed[Release(run: row.runId, round: row.round)] = count }
        while let last = steps.last, last.createdAt >= row.createdAt { steps.removeLast() }
        steps.append((row.createdAt, count))
    }

    /// The last row that commits a round of a run, or what was measured of its version.
    func lastCommitted(run: String, round: Int) -> Int? { committed[Release(run: run, round: round)] }

    /// The last row that was made by a time.
    func last(by time: Date) -> Int? {
        var (low, high) = (0, steps.count)
        while low < high {
            let middle = (low + high) / 2
            if steps[middle].createdAt <= time { low = middle + 1 } else { high = middle }
        }
        return low > 0 ? steps[low - 1].place : nil
    }
}
