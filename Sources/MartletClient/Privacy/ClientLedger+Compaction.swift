import WireFormat

/// What a ledger keeps of work without privacy, which costs nothing: a server may hand out any number of it, in any number of runs.
extension ClientLedger {
    /// How often a device took part in a run.
    struct RunCount: Codable, Equatable, Sendable {
        var run: String
        var count: Int
    }

    /// Events without privacy that stay as they are, at most twice as many: the last ones, whose assignments may come again.
    static let openEventLimit = 32
    /// Runs whose older events are counted; the one used longest ago is forgotten first.
    static let countedRunLimit = 256

    /// How many events of a run are counted only.
    func countedEvents(of run: String) -> Int { counted?.first { $0.run == run }?.count ?? 0 }

    /// Turns old events without privacy into counts, once there are many; events with privacy stay for ever.
    mutating func compact() {
        let open = events.indices.filter { events[$0].mode.is(.none) }
        guard open.count > 2 * Self.openEventLimit else { return }
        let old = Set(open.dropLast(Self.openEventLimit))
        var counts = counted ?? []
        for place in old.sorted() {
            let run = events[place].run
            let before = countedPlace(run, in: counts).map { counts.remove(at: $0).count } ?? 0
            counts.append(RunCount(run: run, count: before + 1))
        }
        counted = Array(counts.suffix(Self.countedRunLimit))
        keep(events.indices.filter { !old.contains($0) }.map { events[$0] })
    }

    private func countedPlace(_ run: String, in counts: [RunCount]) -> Int? { counts.firstIndex { $0.run == run } }
}
