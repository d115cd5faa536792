import Foundation
import TestBenches
import TestSupport
import Testing
import WireFormat

@testable import Coordination

/// A run in memory with its clients, rounds and assignments: no store, clock or coordinator.
struct SampleRun {
    static let start = Date(timeIntervalSince1970: 1_800_000_000)

    var runs = RunTable()
    var clients = ClientTable()
    let id: String
    var now = Self.start

    /// A running run of version 0, without a round.
    init(
        rounds: Int = 3,
        clients count: Int = 4,
        id: String = "run_a",
        _ change: (inout RunFile) throws -> Void
    ) throws {
        self.id = id
        try add(id, Bench.exactSpecification(rounds: rounds, change))
        for index in 0..<count {
            clients.set(
                ClientRecord(
                    id: "c\(index)",
                    populationId: "p",
                    labels: "{}",
                    state: .active,
                    registeredAt: Self.start.addingTimeInterval(-100)
                )
            )
        }
    }

    var run: RunState { get throws { try runs.run(id) } }

    var round: RoundRecord {
        get throws {
            guard let round = try run.round else { throw CoordinationError(.notFound, "not_found", "no round") }
            return round
        }
    }

    mutating func add(_ id: String, _ specification: RunSpecification, _ state: RunPhase = .running) throws {
        let record = RunRecord(
            id: id,
            populationId: "p",
            name: id,
            specification: String(decoding: try WireCoding.encode(specification), as: UTF8.self),
            state: state,
            createdAt: Self.start.addingTimeInterval(-50)
        )
        runs.add(try RunState(record: record))
        publish(0, of: id)
    }

    mutating func publish(_ version: Int, of run: String? = nil) {
        let id = run ?? self.id
        runs[id]?.versions.append(
            ModelVersionRecord(runId: id, version: version, sha256: "\(version)", bytes: 10, createdAt: now)
        )
    }

    /// Opens the next attempt, as the run decides it.
    mutating func open() throws {
        let next = try run.nextRound(at: now, missingNoise: { _ in nil }, drawKey: { "key" })
        guard case .opens(let round) = next else { throw CoordinationError(.conflict, "no_round", "\(next)") }
        runs[id]?.setRound(round)
    }

    /// The run with its next attempt open.
    func opened() throws -> Self {
        var sample = self
        try sample.open()
        return sample
    }

    /// Gives a client work of the open round.
    @discardableResult
    mutating func assign(_ client: String) throws -> AssignmentRecord {
        let record = try AssignmentRecord(for: client, clients[client], in: run, round, at: now)
        try take([.assigned], with: [.assignment(record)])
        return record
    }

    /// Takes an update for an assignment.
    mutating func accept(_ id: String) throws {
        var record = try #require(runs.assignments[id])
        let update = ReceivedUpdate(path: "", sha256: "s", byteCount: 5, exampleCount: 2)
        let effects = try record.accept(update, run.specification, round, at: now)
        try take(effects.roundEvents, with: record.changes(effects, at: now))
    }

    /// Feeds events to the open round and applies what they come to, as the coordinator does once it is stored.
    @discardableResult
    mutating func take(_ events: [RoundEvent], with others: [StoreChange] = []) throws -> RoundStep {
        let step = try RoundStep(of: run, round, runs, events, with: others, code: "round_closed", at: now)
        apply(step.changes)
        return step
    }

    mutating func apply(_ changes: [StoreChange]) {
        for change in changes {
            switch change {
            case .run(let record): _ = runs.set(record)
            case .round(let record): runs[record.runId]?.setRound(record)
            case .assignment(let record): runs.set(record)
            case .client(let record): clients.set(record)
            case .modelVersion(let record): runs[record.runId]?.versions.append(record)
            case .modelMetrics(let record): runs[record.runId]?.noteMetrics(record)
            default: continue
            }
        }
    }
}

extension StoreChange {
    /// The change's kind and what it says, in a word.
    var word: String {
        switch self {
        case .run(let record): "run \(record.state)"
        case .round(let record): "round \(record.phase)"
        case .assignment(let record): "assignment \(record.state)"
        case .history(let row): "history \(row.state)"
        case .modelVersion(let record): "version \(record.version)"
        case .modelMetrics(let record): "metrics \(record.source)"
        case .ledger(let row): "ledger \(row.state)"
        case .client: "client"
        case .updateScore: "score"
        default: "other"
        }
    }
}

/// The code of the refusal that a body throws.
func refusalCode(_ body: () throws -> Void) -> String? {
    do { try body() } catch { return (error as? CoordinationError)?.code ?? "\(error)" }
    return nil
}
