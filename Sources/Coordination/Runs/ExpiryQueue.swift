import Foundation

/// When to look at each live assignment again: by the time at which it expires, or before.
///
/// A binary heap. A lease that is extended leaves its entry where it is, and moves it when its time has come; so each assignment
/// is looked at about once a lease, and not at every tick with all the others. A reference, like ``ParticipationTable``.
final class ExpiryQueue: @unchecked Sendable {
    // SAFETY: touched by the coordinator only, as the run that owns it.

    private var heap: [(time: Date, id: String)] = []
    /// The entry of each assignment that counts; an earlier one takes the place of a later one.
    private var times: [String: Date] = [:]
    /// When ``due(at:)`` was last asked; a time before it says that the clock went back.
    private(set) var lastAsked: Date?

    var count: Int { times.count }

    /// Sees to it that an assignment is looked at when a time has passed, or before.
    func note(_ id: String, _ time: Date) {
        if let known = times[id], known <= time { return }
        times[id] = time
        heap.append((time, id))
        var child = heap.count - 1
        while child > 0, heap[child].time < heap[(child - 1) / 2].time {
            heap.swapAt(child, (child - 1) / 2)
            child = (child - 1) / 2
        }
    }

    /// Takes out what is to be looked at.
    func due(at now: Date) -> [String] {
        lastAsked = now
        var result: [String] = []
        while let first = heap.first, first.time < now {
            removeFirst()
            // One that was noted again for an earlier time has had its turn.
            guard times[first.id] == first.time else { continue }
            times[first.id] = nil
            result.append(first.id)
        }
        return result
    }

    private func removeFirst() {
        let last = heap.removeLast()
        guard !heap.isEmpty else { return }
        heap[0] = last
        var parent = 0
        while true {
            var smallest = parent
            for child in [2 * parent + 1, 2 * parent + 2]
            where child < heap.count && heap[child].time < heap[smallest].time {
                smallest = child
            }
            guard smallest != parent else { return }
            heap.swapAt(parent, smallest)
            parent = smallest
        }
    }
}
