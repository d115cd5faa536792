import Coordination
import Foundation
import StrictJSON
import TestSupport
import Testing
import WireFormat

/// The state machines one transition at a time: what each event does in each state, without store, actor or clock.
struct TransitionTests {
    private let start = Date(timeIntervalSince1970: 1_000_000)

    private func terms(_ change: (inout RunFile) throws -> Void) throws -> RoundTerms {
        RoundTerms(
            try RunSpecification.sample {
                $0.rounds = 9
                $0.cohort += ["selection_timeout_s": 20, "report_timeout_s": 60]
                try change(&$0)
            }
        )
    }

    private func round(_ phase: RoundPhase, _ terms: RoundTerms) -> RoundRecord {
        RoundRecord(
            runId: "r",
            number: 1,
            attempt: 1,
            opening: phase,
            at: start,
            deadline: start.addingTimeInterval(
                phase == .selecting ? terms.selectionTimeoutS : terms.reportTimeoutS
            )
        )
    }

    // MARK: - Runs

    @Test func aRunTakesEachEventInItsStatesOnly() throws {
        let states = RunPhase.allCases
        let allowed: [(event: RunEvent, from: [RunPhase], to: RunPhase, opens: Bool, abandons: Bool)] = [
            (.started, [.created], .running, true, false), (.paused, [.running], .paused, false, false),
            (.resumed, [.paused], .running, true, false),
            (.cancelled, [.created, .running, .paused], .cancelled, false, true),
            (.finished(cause: "c"), [.running, .paused], .completed, false, false),
            (.failed(code: "budget_exhausted", cause: "c"), [.running, .paused], .failed, false, true),
        ]
        for state in states {
            for (event, from, next, opens, abandons) in allowed {
                var run = try Self.run(state)
                let before = run
                guard from.contains(state) else {
                    #expect(throws: RoundError.self) { try run.apply(event) }
                    #expect(run == before)
                    continue
                }
                let effects = try run.apply(event)
                #expect(run.state == next && run.reason == (next == .failed ? "budget_exhausted" : nil))
                guard case .history(next, _)? = effects.first else {
                    Issue.record("\(event) in \(state) leaves no history: \(effects)")
                    continue
                }
                #expect(effects.contains(.openRound) == opens)
                let isAbandoning = effects.contains { if case .abandonRound = $0 { true } else { false } }
                #expect(isAbandoning == abandons, "\(event) in \(state)")
            }
        }
    }

    private static func run(_ state: RunPhase) throws -> RunRecord {
        let text = """
            {"id": "r", "populationId": "p", "name": "r", "specification": "{}", "state": "\(state)", "createdAt": 0}
            """
        return try JSONDecoder().decode(RunRecord.self, from: Data(text.utf8))
    }

    // MARK: - Rounds

    @Test func theBackoffDoublesAndEnds() throws {
        let terms = try terms { $0.cohort += ["goal": 2, "retry_backoff_s": 10] }
        #expect([1, 2, 3, 4].map { terms.backoff(afterAttempt: $0) } == [10, 20, 40, 80])
        #expect(terms.backoff(afterAttempt: 8) == 900 && terms.backoff(afterAttempt: 1_000_000) == 900)
    }

    /// Updates stay good in mode `buffered`: time alone throws none of them away.
    @Test func aBufferThatIsNotFullWaitsOn() throws {
        let terms = try terms {
            $0.cohort += ["goal": 3, "minimum": 2]
            $0.aggregation.mode = "buffered"
        }
        var round = round(.reporting, terms)
        _ = try round.apply(.accepted(bytes: 1, examples: 1), at: start, terms: terms)
        let late = start.addingTimeInterval(61)
        let effects = try round.apply(.tick(live: 0), at: late, terms: terms)
        #expect(effects == [.history(state: .reporting, cause: "the buffer is not full yet: 1 so far")])
        #expect(round.attempt == 1 && round.accepted == 1 && round.deadline == late.addingTimeInterval(60))
        _ = try round.apply(.accepted(bytes: 1, examples: 1), at: late, terms: terms)
        let end = late.addingTimeInterval(61)
        #expect(try round.apply(.tick(live: 0), at: end, terms: terms).contains(.aggregate))
    }

    /// Else the end of the round would tell that nobody else was drawn.
    @Test func aSecretCohortIsWaitedForUntilTheDeadline() throws {
        let cohort = #""goal": 3, "minimum": 2, "policy": "poisson", "sampling_rate": 0.5"#
        for isSecret in [true, false] {
            var terms = try terms { $0.cohort += ["goal": 3, "minimum": 2, "policy": "poisson", "sampling_rate": 0.5] }
            terms.isSecret = isSecret
            for accepted in [1, 2] {
                var round = round(.reporting, terms)
                _ = try round.apply(.drawn(accepted), at: start, terms: terms)
                for _ in 0..<accepted { _ = try round.apply(.accepted(bytes: 1, examples: 1), at: start, terms: terms) }
                // Somebody still at work, nobody, and then the deadline.
                #expect(try round.apply(.tick(live: 1), at: start, terms: terms).isEmpty)
                _ = try round.apply(.tick(live: 0), at: start, terms: terms)
                let end: RoundPhase = accepted < 2 ? .abandoned : .aggregating
                #expect(round.phase == (isSecret ? .reporting : end))
                _ = try round.apply(.tick(live: 0), at: start.addingTimeInterval(60), terms: terms)
                #expect(round.phase == end)
            }
        }
    }

    // MARK: - Assignments

    private func assignment(lease: Double? = nil) throws -> AssignmentRecord {
        let round = round(.reporting, try terms { $0.cohort.goal = 2 })
        var record = AssignmentRecord(
            id: "a",
            of: round,
            client: "c",
            at: start,
            deadline: start.addingTimeInterval(100)
        )
        record.leaseUntil = lease.map { start.addingTimeInterval($0) }
        return record
    }

    @Test func nothingCountsAfterTheDeadline() throws {
        let late = start.addingTimeInterval(100.1)
        for event: AssignmentEvent in [
            .heartbeat(phase: .training, progress: nil, lease: 10), .accepted(sha256: "s", bytes: 1, examples: 1),
            .rejected(code: "not_finite"), .failed(code: "no_data"),
        ] {
            var record = try assignment()
            let before = record
            #expect(throws: RoundError.deadlinePassed) { try record.apply(event, at: late) }
            #expect(record == before)
            _ = try record.apply(event, at: start.addingTimeInterval(99.9))
        }
        var record = try assignment()
        #expect(try record.apply(.tick, at: late).contains(.round(.expired)))
    }

    @Test func aLeaseEndsWithTheDeadlineAtTheLatest() throws {
        var record = try assignment(lease: 10)
        _ = try record.apply(
            .heartbeat(phase: .training, progress: nil, lease: 50),
            at: start.addingTimeInterval(9)
        )
        #expect(record.leaseUntil == start.addingTimeInterval(59) && record.state == .training)
        let almost = start.addingTimeInterval(58)
        #expect(try record.apply(.heartbeat(phase: .training, progress: nil, lease: 50), at: almost).isEmpty)
        #expect(record.leaseUntil == record.deadline)
    }

    /// Only an update ends well: a client cannot say that it was accepted.
    @Test func aClientCannotSayHowItEnds() throws {
        for phase: AssignmentState in [.accepted, .rejected, .failed, .expired, .superseded] {
            var record = try assignment()
            #expect(try record.apply(.heartbeat(phase: phase, progress: nil, lease: 50), at: start).isEmpty)
            #expect(record.state == .assigned)
        }
    }
}
