import Coordination
import Foundation
import StrictJSON
import Tensors
import TestSupport
import Testing
import WireFormat

/// A run driven through its state machines alone: no store, no actor, a clock of its own.
private struct Simulation {
    let terms: RoundTerms
    var random: Xoshiro256StarStar
    var time = Date(timeIntervalSince1970: 1_000_000)
    var run: RunRecord
    var round: RoundRecord
    var assignments: [AssignmentRecord] = []
    var committed = 0
    var trace: [String] = []

    init(terms: RoundTerms, run: RunRecord, seed: UInt64) {
        self.terms = terms
        self.run = run
        random = Xoshiro256StarStar(seed: seed)
        round = Self.opened(number: 1, attempt: 1, at: time, terms: terms)
        if terms.policy.isDrawn { round.drawn = Int(random.next() % 8) }
    }

    static func opened(number: Int, attempt: Int, at time: Date, terms: RoundTerms) -> RoundRecord {
        let isReporting = terms.policy.isDrawn || terms.isBuffered
        return RoundRecord(
            runId: "r",
            number: number,
            attempt: attempt,
            opening: isReporting ? .reporting : .selecting,
            at: time,
            deadline: time.addingTimeInterval(isReporting ? terms.reportTimeoutS : terms.selectionTimeoutS)
        )
    }

    var live: [Int] { assignments.indices.filter { assignments[$0].state.isLive } }

    /// Feeds the round; a refused event must leave it as it was.
    mutating func feed(_ event: RoundEvent) {
        let before = round
        trace.append("\(event)")
        do {
            for effect in try round.apply(event, at: time, terms: terms) { perform(effect) }
        } catch {
            #expect(round == before, "a refused event changed the round: \(trace)")
        }
    }

    mutating func feed(_ event: AssignmentEvent, to index: Int) {
        let before = assignments[index]
        trace.append("\(index): \(event)")
        do {
            for case .round(let counted) in try assignments[index].apply(event, at: time) { feed(counted) }
        } catch {
            #expect(assignments[index] == before, "a refused event changed the assignment: \(trace)")
        }
    }

    /// Feeds the run, and follows it as the coordinator does.
    mutating func feed(_ event: RunEvent) {
        let before = run
        trace.append("\(event)")
        do {
            for effect in try run.apply(event) {
                switch effect {
                case .history: break
                case .openRound: openNext()
                // A round whose sum is being made is abandoned when the arithmetic has ended.
                case .abandonRound(let reason): if round.phase.isCollecting { feed(.abandoned(reason: reason)) }
                }
            }
        } catch {
            #expect(run == before, "a refused event changed the run: \(trace)")
        }
    }

    private mutating func perform(_ effect: RoundEffect) {
        switch effect {
        case .history, .freed: break
        case .draw:
            let count = Int(random.next() % UInt64(terms.wanted + 1))
            for _ in 0..<count { assign() }
            feed(.drawn(count))
        case .aggregate, .discard:
            if case .aggregate = effect, terms.isBuffered { return }
            for index in live { _ = try? assignments[index].apply(.superseded(code: "round_closed"), at: time) }
        }
    }

    mutating func assign() {
        guard run.state == .running, round.phase.isCollecting, live.count < terms.wanted else { return }
        assignments.append(
            AssignmentRecord(
                id: "a\(assignments.count)",
                of: round,
                client: "c\(assignments.count)",
                at: time,
                deadline: time.addingTimeInterval(terms.reportTimeoutS)
            )
        )
        feed(.assigned)
    }

    mutating func step() {
        let index = assignments.isEmpty ? nil : Int(random.next() % UInt64(assignments.count))
        switch random.next() % 15 {
        case 0, 1, 2: assign()
        case 3, 4, 5:
            // As intake does: an update counts only while the round collects.
            if let index, round.phase.isCollecting {
                feed(.accepted(sha256: "s", bytes: 1, examples: 1), to: index)
                feed(.tick(live: live.count))
            }
        case 6: if let index, round.phase.isCollecting { feed(.rejected(code: "not_finite"), to: index) }
        case 7: if let index, round.phase.isCollecting { feed(.failed(code: "no_data"), to: index) }
        case 8: if let index { feed(.heartbeat(phase: .training, progress: nil, lease: 5), to: index) }
        case 9: if round.phase == .aggregating { close() }
        case 10:
            switch random.next() % 16 {
            case 0, 1: feed(.clockWentBack)
            case 2: feed(.arrivalsForgotten)
            default: break
            }
        case 11: feed(.paused)
        case 12: feed(.resumed)
        case 13: if random.next() % 40 == 0 { feed(.cancelled) }
        default: tick(after: Double(random.next() % 30))
        }
        check()
    }

    mutating func tick(after seconds: Double) {
        time += seconds
        if round.phase.isCollecting { for index in live { feed(.tick, to: index) } }
        if run.state == .running || run.state == .paused { feed(.tick(live: live.count)) }
        openNext()
    }

    /// Opens what is due, as the coordinator's `takeNextStep`.
    mutating func openNext() {
        guard run.state == .running else { return }
        switch round.phase {
        case .abandoned where time >= (round.closedAt ?? time) + terms.backoff(afterAttempt: round.attempt):
            open(number: round.number, attempt: round.attempt + 1)
        case .committed: open(number: round.number + 1, attempt: 1)
        default: break
        }
    }

    mutating func close() {
        if run.state == .cancelled {
            feed(.abandoned(reason: "the run was cancelled"))
        } else if random.next() % 5 == 0 {
            feed(.abandoned(reason: "the aggregation failed"))
        } else {
            feed(.aggregated(sha256: "m"))
            committed += 1
            #expect(round.phase == .committed && round.accepted >= terms.minimum, "\(trace)")
            openNext()
        }
    }

    private mutating func open(number: Int, attempt: Int) {
        let carried = terms.isBuffered ? live.map { assignments[$0] } : []
        #expect(terms.isBuffered || live.isEmpty, "an assignment outlived its round: \(trace)")
        assignments = carried
        carriedCount = carried.count
        round = Self.opened(number: number, attempt: attempt, at: time, terms: terms)
        if terms.policy.isDrawn { round.drawn = Int(random.next() % 8) }
    }

    var carriedCount = 0

    /// What must hold after every event.
    func check() {
        func count(_ state: AssignmentState) -> Int { assignments.count { $0.state == state } }
        if run.state == .cancelled && round.phase != .aggregating {
            #expect(round.phase.isFinal && (live.isEmpty || round.phase == .committed), "at work for nothing: \(trace)")
        }
        guard round.phase != .committed else { return }
        // Exactly once: what the round counts is what the assignments say.
        #expect(round.accepted == count(.accepted), "accepted: \(trace)")
        #expect(round.rejected == count(.rejected), "rejected: \(trace)")
        #expect(round.failed == count(.failed), "failed: \(trace)")
        #expect(round.expired == count(.expired), "expired: \(trace)")
        #expect(round.assigned == assignments.count - carriedCount, "assigned: \(trace)")
        if round.phase == .aggregating { #expect(round.accepted >= terms.minimum, "minimum: \(trace)") }
        if !terms.isBuffered && !round.phase.isCollecting { #expect(live.isEmpty, "lost: \(trace)") }
    }
}

@Suite(.timeLimit(.minutes(60)))
struct StateMachineSimulationTests {
    /// `MARTLET_SIMULATION_SEQUENCES=100000` runs the full number; a fiftieth of it keeps CI fast.
    static let count = ProcessInfo.processInfo.environment["MARTLET_SIMULATION_SEQUENCES"].flatMap { Int($0) } ?? 2000

    private func terms(_ seed: Int) throws -> RoundTerms {
        let policies = ["first_come", "uniform", "poisson", "all", "buffered"]
        let policy = policies[seed % policies.count]
        let isBuffered = policy == "buffered"
        let goal = 1 + seed / 5 % 5
        return RoundTerms(
            try RunSpecification.sample {
                $0.rounds = 9
                $0.cohort += [
                    "goal": goal, "minimum": 1 + seed / 25 % goal, "over_selection": 1 + Double(seed % 3) / 2,
                    "policy": isBuffered ? "first_come" : policy, "sampling_rate": 0.5, "selection_timeout_s": 20,
                    "report_timeout_s": 60,
                ]
                $0.aggregation += ["mode": isBuffered ? "buffered" : "synchronous"]
            }
        )
    }

    @Test(.slow) func randomSequencesOfEventsKeepEveryInvariant() throws {
        var (committed, cancelled) = (0, 0)
        for seed in 0..<Self.count {
            let terms = try terms(seed)
            var simulation = Simulation(terms: terms, run: try Self.run(), seed: UInt64(seed))
            for _ in 0..<40 { simulation.step() }
            // No round is stuck: time alone ends every one of them, or in mode buffered lets it wait on with what it has.
            simulation.feed(.resumed)
            if simulation.run.state == .cancelled {
                if simulation.round.phase == .aggregating { simulation.close() }
                #expect(simulation.round.phase.isFinal, "stuck, seed \(seed): \(simulation.trace)")
                cancelled += 1
            } else if !terms.isBuffered {
                let attempt = simulation.round.attempt
                let number = simulation.round.number
                for _ in 0..<4 {
                    if simulation.round.phase == .aggregating { simulation.close() }
                    simulation.tick(after: 61)
                    simulation.check()
                }
                #expect(
                    simulation.round.number > number || simulation.round.attempt > attempt
                        || simulation.round.phase.isFinal,
                    "stuck, seed \(seed): \(simulation.trace)"
                )
            }
            committed += simulation.committed
        }
        #expect(committed > Self.count / 4)
        #expect(cancelled > Self.count / 50)
    }

    private static func run() throws -> RunRecord {
        let text = """
            {"id": "r", "populationId": "p", "name": "r", "specification": "{}", "state": "running", "createdAt": 0}
            """
        return try JSONDecoder().decode(RunRecord.self, from: Data(text.utf8))
    }
}
