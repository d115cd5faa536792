import Foundation
import Tensors
import TestSupport
import Testing
import WireFormat

@testable import Coordination

struct RunTableTests {
    @Test("The lists go by the states of the runs, whatever order those have.")
    func lists() throws {
        var sample = try SampleRun { $0.cohort.goal = 2 }
        let specification = try sample.run.specification
        for id in ["run_b", "run_c"] { try sample.add(id, specification) }
        #expect(sample.runs.open == ["run_a", "run_b", "run_c"])
        for (id, state) in [("run_b", RunPhase.paused), ("run_c", .failed), ("run_a", .cancelled)] {
            var record = try sample.runs.run(id).record
            record.state = state
            let changed = sample.runs.set(record)
            let again = sample.runs.set(record)
            #expect(changed && !again)
        }
        #expect(sample.runs.open == ["run_b"] && sample.runs.open(population: "p") == ["run_b"])
        #expect(sample.runs.failed == ["run_c"] && sample.runs.order == ["run_a", "run_b", "run_c"])
        let counts = sample.runs.stateCounts.filter { $0.value > 0 }
        #expect(counts == [.paused: 1, .failed: 1, .cancelled: 1])
        #expect(refusalCode { _ = try sample.runs.run("run_x") } == "not_found")
    }

    @Test("A page of runs is cut where their run files are large, and every run is on a page.")
    func pagesByBytes() throws {
        var sample = try SampleRun { $0.cohort.goal = 2 }
        let specification = try sample.run.specification
        for number in 0..<9 { try sample.add("run_b\(number)", specification) }
        let size = try sample.run.record.specification.utf8.count
        #expect(size > 10)
        func count(from cursor: Int, limit: Int = 100, _ sizes: Int) -> Int {
            sample.runs.countOnPage(from: cursor, limit: limit, byteLimit: sizes * size)
        }
        #expect(count(from: 0, 3) == 3 && count(from: 8, 3) == 2 && count(from: 0, limit: 2, 3) == 2)
        #expect(count(from: 0, 100) == 10)
        // A page that is asked for is never empty for its size.
        #expect(count(from: 0, 0) == 1 && count(from: 99, 3) == 1)
    }

    @Test("A run whose transaction failed leaves nothing, and one that is stored has its place.")
    func prepared() throws {
        let sample = try SampleRun { $0.cohort.goal = 2 }
        var table = RunTable()
        let (run, changes) = try RunState.creating(
            sample.run.specification,
            population: "p",
            model: ("abc", 7),
            at: SampleRun.start
        )
        #expect(changes.map(\.word) == ["run created", "history created", "version 0"])
        table.prepare(run)
        #expect(table[run.record.id] != nil && table.order.isEmpty && table.open.isEmpty)
        table.withdraw(run.record.id)
        #expect(table[run.record.id] == nil)
        table.prepare(run)
        _ = table.set(run.record)
        table.enlist(run.record.id)
        #expect(table.order == [run.record.id] && table.open == [run.record.id])
    }

    @Test("A client is at one assignment, and its refusals and participations are counted once.")
    func assignments() throws {
        var sample = try SampleRun { $0.cohort += ["goal": 2, "max_participations": 3] }
        try sample.open()
        let first = try sample.assign("c0")
        #expect(sample.runs.liveByClient == ["c0": first.id] && sample.runs.liveCount == 1)
        var failed = first
        let effects = try failed.taking(.failed(code: "no_data"), at: sample.now)
        try sample.take(effects.roundEvents, with: failed.changes(effects, at: sample.now))
        sample.runs.set(failed)
        #expect(sample.runs.liveByClient.isEmpty)
        #expect(try sample.run.refusals == [1: ["no_data": 1]])
        let second = try sample.assign("c0")
        #expect(second.turn == 2)
        #expect(try sample.run.participations == ["c0": 1])
        try sample.accept(second.id)
        #expect(try sample.runs.counted(sample.run).map(\.id) == [second.id])
        let ended = sample.runs.endAttempt(run: sample.id)
        #expect(ended.sorted() == [first.id, second.id].sorted())
        #expect(try sample.runs.assignments.isEmpty && sample.run.assignmentIDs.isEmpty)
    }

    @Test("Random work leaves the table as if it had been read from what is stored.", arguments: [1, 2, 3])
    func reading(seed: UInt64) throws {
        var sample = try SampleRun(clients: 6) { $0.cohort += ["goal": 3, "minimum": 1] }
        try sample.open()
        var generator = Xoshiro256StarStar(seed: seed)
        var stored: [String: AssignmentRecord] = [:]
        for _ in 0..<40 {
            let client = "c\(Int.random(in: 0..<6, using: &generator))"
            if let live = sample.runs.liveByClient[client], var record = sample.runs.assignments[live] {
                let effects = try record.taking(.failed(code: "no_data"), at: sample.now)
                sample.runs.set(record)
                #expect(!effects.isEmpty)
                stored[live] = record
            } else if try !sample.run.members.contains(client) {
                let record = try sample.assign(client)
                stored[record.id] = record
            }
        }
        var state = StoredState()
        state.runs = [try sample.run.record]
        state.rounds = try Array(sample.run.rounds)
        state.assignments = Array(stored.values)
        var read = RunTable()
        try read.load(state)
        #expect(read.liveByClient == sample.runs.liveByClient && read.assignments == sample.runs.assignments)
        #expect(try read.run(sample.id).training == sample.run.training)
        for client in (0..<6).map({ "c\($0)" }) {
            #expect(try read.run(sample.id).members.contains(client) == sample.run.members.contains(client))
        }
    }

    /// What of a run decides who is given work, what counts, and who may send what.
    private func facts(_ runs: RunTable, _ id: String) throws -> [String] {
        let run = try runs.run(id)
        let live = runs.liveByClient.sorted { $0.key < $1.key }
        var facts = ["counted \(runs.counted(run).map(\.id).sorted())", "live \(live)"]
        // Whoever is at work is given no other.
        for client in (0..<6).map({ "c\($0)" }) where runs.liveByClient[client] == nil {
            facts.append("\(client) member \(run.members.contains(client)) turn \(run.members.nextTurn(of: client))")
        }
        for (client, work) in live {
            for digest: [UInt8] in [[1], [2]] {
                var copy = runs
                let record = try #require(runs.assignments[work])
                facts.append("\(client) may send \(digest): \(copy.holdsToRelease(record, digest))")
            }
        }
        return facts
    }

    @Test(
        "A restart at any moment changes nothing of what counts, who has work and who may send what, over abandoned attempts too.",
        arguments: ["none", "local"],
        ["synchronous", "buffered"]
    )
    func restarts(privacy: String, mode: String) throws {
        for seed in UInt64(1)...20 {
            var sample = try SampleRun(rounds: 9, clients: 6) {
                $0.cohort += ["goal": 4, "minimum": 1]
                if privacy == "local" { $0.privacy += ["mode": "local", "noise_multiplier": 3] }
                if mode == "buffered" {
                    $0.aggregation.mode = "buffered"
                    $0.aggregation.buffered += ["concurrency": 5, "max_staleness": 3]
                }
            }
            try sample.open()
            var generator = Xoshiro256StarStar(seed: seed)
            var stored: [String: AssignmentRecord] = [:]
            for step in 0..<60 {
                let client = "c\(Int.random(in: 0..<6, using: &generator))"
                let live = sample.runs.liveByClient[client].flatMap { sample.runs.assignments[$0] }
                switch (Int.random(in: 0..<8, using: &generator), live) {
                case (0, _):
                    try sample.take([.abandoned(reason: "a test")])
                    stored.merge(sample.runs.assignments) { $1 }
                    _ = sample.runs.endAttempt(run: sample.id)
                    try sample.open()
                case (1...2, let record?):
                    var failed = record
                    _ = try failed.taking(.failed(code: "no_data"), at: sample.now)
                    sample.runs.set(failed)
                case (3...4, let record?):
                    let digest: [UInt8]? = [[1], [2], nil][step % 3]
                    guard sample.runs.holdsToRelease(record, digest) else { continue }
                    if let noted = sample.runs.noting(release: digest, of: record) { sample.runs.set(noted) }
                case (5, let record?) where try sample.runs.liveCount > 1 && sample.round.accepted < 3:
                    try sample.accept(record.id)
                case (_, nil) where try !sample.run.members.contains(client): try sample.assign(client)
                default: continue
                }
                stored.merge(sample.runs.assignments) { $1 }
                var state = StoredState()
                state.runs = [try sample.run.record]
                state.rounds = try Array(sample.run.rounds)
                state.assignments = Array(stored.values)
                var read = RunTable()
                try read.load(state)
                let (after, before) = try (facts(read, sample.id), facts(sample.runs, sample.id))
                #expect(after == before, "seed \(seed), step \(step): \(Set(after).symmetricDifference(before))")
            }
        }
    }

    @Test(
        "In mode buffered work that an attempt handed out is paid for by it, whoever gives up what another one handed out."
    )
    func outstandingWork() throws {
        var round = try SampleRun { $0.cohort.goal = 2 }.opened().round
        (round.assigned, round.failed) = (1, 1)
        #expect(!round.mayReceive(isBuffered: false) && round.mayReceive(isBuffered: true))
        round.assigned = 0
        #expect(!round.mayReceive(isBuffered: true))
        round.hasReceived = true
        #expect(round.mayReceive(isBuffered: false) && round.mayReceive(isBuffered: true))
    }

    @Test("What is live ends with its round; in mode buffered it goes on while the run does.")
    func superseding() throws {
        var sample = try SampleRun { $0.cohort.goal = 2 }
        try sample.open()
        try sample.assign("c1")
        try sample.assign("c0")
        let ended = try sample.runs.superseding(sample.run, code: "round_full", at: sample.now)
        let both = ["assignment superseded", "history superseded"]
        #expect(ended.map(\.word) == both + both)
        var buffered = try SampleRun {
            $0.cohort.goal = 2
            $0.aggregation.mode = "buffered"
            $0.aggregation.buffered += ["concurrency": 3, "max_staleness": 1]
        }
        try buffered.open()
        try buffered.assign("c0")
        #expect(try buffered.runs.superseding(buffered.run, code: "round_full", at: buffered.now).isEmpty)
        var over = try buffered.run
        over.record.state = .cancelled
        #expect(buffered.runs.superseding(over, code: "run_ended", at: buffered.now).count == 2)
        // Its work outlives the attempt.
        let gone = buffered.runs.endAttempt(run: buffered.id)
        #expect(gone.isEmpty && buffered.runs.liveCount == 1)
    }

    @Test(
        "A lease that is over ends the work, unless its update is on its way; a clock that was put back ends nothing."
    )
    func leases() throws {
        var sample = try SampleRun { $0.cohort += ["goal": 2, "lease_s": 10] }
        try sample.open()
        let (idle, busy) = (try sample.assign("c0"), try sample.assign("c1"))
        let begun = [
            sample.runs.beginUpload(of: busy.id, client: "c1"), sample.runs.beginUpload(of: busy.id, client: "c0"),
        ]
        #expect(begun == [true, false])
        var record = busy
        sample.runs.keepLease(of: &record, at: sample.now)
        sample.runs.keep(record)
        #expect(record.leaseUntil == record.deadline)
        sample.now += 11
        let (events, changes) = try sample.runs.passTime(run: sample.id, now: sample.now)
        #expect(events == [.expired] && changes.map(\.word) == ["assignment expired", "history expired"])
        try sample.take(events, with: changes)
        #expect(sample.runs.assignments[idle.id]?.state == .expired)
        sample.runs.endUpload(of: busy.id, at: sample.now)
        #expect(sample.runs.assignments[busy.id]?.leaseUntil == sample.now + 10)
        sample.now -= 1000
        let back = try sample.runs.passTime(run: sample.id, now: sample.now)
        #expect(back.events.contains(.clockWentBack) && !back.events.contains(.expired))
    }

    @Test("Lost time moves deadlines and leases alike.")
    func lostTime() throws {
        var sample = try SampleRun { $0.cohort += ["goal": 2, "lease_s": 10] }
        try sample.open()
        let work = try sample.assign("c0")
        let moved = try sample.runs.givingBack(30, run: sample.run)
        guard case .assignment(let record)? = moved.first, moved.count == 1 else {
            Issue.record("nothing was moved")
            return
        }
        #expect(record.deadline == work.deadline + 30 && record.leaseUntil == sample.now + 40)
    }

    @Test("An update that nobody waits for is refused with the reason.")
    func unwanted() throws {
        var sample = try SampleRun { $0.cohort.goal = 2 }
        try sample.open()
        let work = try sample.assign("c0")
        func code(_ record: AssignmentRecord, at time: Date) -> String? {
            refusalCode { try sample.runs.requireWanted(record, at: time) { _ in } }
        }
        #expect(code(work, at: sample.now) == nil)
        #expect(code(work, at: work.deadline + 1) == "round_closed")
        var other = work
        other.attempt = 2
        #expect(code(other, at: sample.now) == "round_closed")
        other.state = .expired
        #expect(code(other, at: sample.now) == "lease_expired")
        let halted = refusalCode {
            try sample.runs.requireWanted(work, at: work.deadline + 1) { _ in
                throw CoordinationError(.unavailable, "ledger_rolled_back", "")
            }
        }
        #expect(halted == "ledger_rolled_back", "time that stands still refuses nothing")
    }

    @Test(
        "With mode local a client keeps to the bytes that it has begun to send, and one that names none has no further turn."
    )
    func releases() throws {
        let privacy = #", "privacy": {"mode": "local", "noise_multiplier": 2}"#
        var sample = try SampleRun {
            $0.cohort += ["goal": 2, "max_participations": 3]
            $0.privacy += ["mode": "local", "noise_multiplier": 2]
        }
        try sample.open()
        let work = try sample.assign("c0")
        #expect(try sample.run.receiving(work)?.hasReceived == true)
        let answers = [[1], [1], [2], nil].map { sample.runs.holdsToRelease(work, $0) }
        #expect(answers == [true, true, false, true])
        sample.runs[sample.id]?.members.readmit("c0")
        #expect(try sample.run.members.contains("c0"))
        let open = try SampleRun { $0.cohort.goal = 2 }
        #expect(try open.run.receiving(work) == nil)
    }
}
