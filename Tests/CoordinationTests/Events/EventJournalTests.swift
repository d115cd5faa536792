import Foundation
import Synchronization
import TestSupport
import Testing
import WireFormat

@testable import Coordination

/// Which events a transaction makes, as values; how they are stored and streamed is in `EventTests`.
struct EventJournalTests {
    private func sources(_ sample: SampleRun) -> EventSources {
        EventSources(runs: sample.runs, clients: sample.clients) { run in
            RunProgress(run: run, time: sample.now, waitingFor: "w") { 0 }
        }
    }

    @Test("A phase is told at once, counters a few times a second, and what was held back is told later.")
    func progress() throws {
        var sample = try SampleRun { $0.cohort.goal = 3 }
        try sample.open()
        var journal = EventJournal()
        var round = try sample.round
        var told: [Int] = []
        for step in 0..<4 {
            round.assigned += 1
            let time = sample.now + 0.1 * Double(step)
            if !journal.rows(for: [.round(round)], sources(sample), at: time).isEmpty { told.append(step) }
        }
        #expect(told == [0, 3])
        round.assigned += 1
        let held = journal.rows(for: [.round(round)], sources(sample), at: sample.now + 0.35)
        #expect(held.isEmpty && journal.progressWaiting == [sample.id])
        round.phase = .reporting
        let phase = journal.rows(for: [.round(round)], sources(sample), at: sample.now + 0.36)
        #expect(phase.map(\.type) == ["round"] && journal.progressWaiting.isEmpty)
        sample.apply([.round(round)])
        round.assigned += 1
        _ = journal.rows(for: [.round(round)], sources(sample), at: sample.now + 0.4)
        let gathered = journal.gatheredRows(sources(sample), at: sample.now + 9)
        #expect(gathered.map(\.type) == ["round"])
    }

    @Test("Events have the order of the changes, tell of the state after the ones before them, and are numbered on.")
    func order() throws {
        var sample = try SampleRun { $0.cohort.goal = 3 }
        try sample.open()
        var journal = EventJournal()
        journal.lastID = 7
        var (round, record) = (try sample.round, try sample.run.record)
        round.phase = .abandoned
        record.state = .cancelled
        let version = ModelVersionRecord(runId: sample.id, version: 1, sha256: "1", bytes: 1, createdAt: sample.now)
        let changes: [StoreChange] = [.modelVersion(version), .run(record), .round(round)]
        let rows = journal.rows(for: changes, sources(sample), at: sample.now)
        #expect(rows.map(\.type) == ["model", "run", "round"] && rows.map(\.id) == [8, 9, 10])
        #expect(rows.allSatisfy { $0.runId == sample.id && $0.populationId == "p" })
        #expect(rows[1].data.contains("cancelled") && rows[2].data.contains("abandoned"))
        journal.tell(rows, unless: { _ in true })
        #expect(journal.lastID == 10)
    }

    @Test("A client's change is told if it changes a count, at most once a second a population.")
    func clients() throws {
        let sample = try SampleRun { $0.cohort.goal = 3 }
        var journal = EventJournal()
        var client = try sample.clients.client("c0")
        let same = journal.rows(for: [.client(client)], sources(sample), at: sample.now)
        client.state = .revoked
        let first = journal.rows(for: [.client(client)], sources(sample), at: sample.now)
        let second = journal.rows(for: [.client(client)], sources(sample), at: sample.now + 0.5)
        #expect(same.isEmpty && first.map(\.type) == ["clients"] && second.isEmpty)
        #expect(journal.clientsWaiting == ["p"])
    }

    @Test("A token has a quarter of the streams at most, and all together have the limit.")
    func streams() throws {
        var journal = EventJournal()
        var held: [EventSubscription] = []
        func join(_ token: String?) -> String? {
            refusalCode {
                held.append(try journal.subscribe(tokenHash: token, limit: 8, queueLimit: 4, onEnd: { _ in }))
            }
        }
        #expect(join("a") == nil && join("a") == nil && join("a") == "too_many_listeners")
        for _ in 0..<6 { #expect(join(nil) == nil) }
        #expect(join("b") == "too_many_listeners" && held.count == 8)
        journal.endStreams { $0 != "a" }
        #expect(journal.subscribers.count == 6)
    }

    @Test("Old events go when there is a tenth too many of them.")
    func retention() {
        var journal = EventJournal()
        journal.lastID = 105
        #expect(journal.surplus(retention: 100) == nil)
        journal.lastID = 111
        #expect(journal.surplus(retention: 100) == 11)
        journal.noteRemoved(through: 11)
        #expect(journal.firstID == 12 && journal.surplus(retention: 100) == nil)
    }
}
