import Foundation
import GRDB
import SQLiteStorage
import Tensors
import TestSupport
import Testing
import WireFormat

@testable import Coordination

/// A start reads what matters by columns; what it leaves out is counted by the database.
struct StartTests {
    @Test func aStartReadsWhatAWholeReadingComesTo() throws {
        let directory = try TemporaryDirectory()
        let store = try SQLiteRunStore(path: directory.path + "/martlet.sqlite")
        let time = Date(timeIntervalSince1970: 1_800_000_000.125)
        var generator = SplitMix64(state: 4)
        try store.commit([.population(PopulationRecord(id: "pop", name: "p", createdAt: time))])
        for index in 0..<20 {
            var client = ClientRecord(
                id: "c\(19 - index)",
                populationId: "pop",
                name: index.isMultiple(of: 2) ? "n\(index)" : nil,
                labels: #"{"tier":"1"}"#,
                state: .active,
                registrationKey: index.isMultiple(of: 3) ? "k\(index)" : nil,
                registeredAt: time.addingTimeInterval(Double(index))
            )
            if index.isMultiple(of: 4) {
                client.stepsPerSecond = 1.5
                client.secondsPerAssignment = 0.25
                client.certificateKey = "key"
                client.quarantineReason = "why"
                client.quarantinedAt = time
                client.stateGeneration = 7
                client.stateGenerationSaid = 6
            }
            var token = TokenRecord(hash: "h\(index)", role: .client, clientId: client.id, createdAt: time)
            if index.isMultiple(of: 5) { token.expiresAt = time.addingTimeInterval(1e6) }
            try store.commit([.client(client), .token(token)])
        }
        try store.commit([
            .token(
                TokenRecord(
                    hash: "e",
                    role: .enrollment,
                    name: "n",
                    createdBy: "tok_1",
                    populationId: "pop",
                    usesLeft: 3,
                    createdAt: time
                )
            )
        ])
        let states: [AssignmentState] = [
            .assigned, .downloading, .training, .uploading, .accepted, .rejected, .failed, .expired, .superseded,
        ]
        for run in ["a", "b"] {
            try store.commit([
                .run(
                    RunRecord(
                        id: run,
                        populationId: "pop",
                        name: run,
                        specification: "{}",
                        state: .running,
                        createdAt: time
                    )
                )
            ])
            var late = 0
            for number in [1, 2, 3, -1, 4] {
                var round = RoundRecord(
                    runId: run,
                    number: number,
                    attempt: 1,
                    opening: .selecting,
                    at: time,
                    deadline: time.addingTimeInterval(10)
                )
                if number != 4 { round.phase = .committed }
                try store.commit([.round(round)])
                for client in 0..<20 where Bool.random(using: &generator) {
                    var record = AssignmentRecord(
                        id: "\(run)\(number)c\(client)",
                        of: round,
                        client: "c\(client)",
                        at: time,
                        deadline: time.addingTimeInterval(5)
                    )
                    try store.commit([.assignment(record)])
                    // A second writing of it is no second participation.
                    record.state = states[Int.random(in: 0..<states.count, using: &generator)]
                    if record.state == .rejected || record.state == .failed {
                        record.code = ["too_large", "no_data", nil][client % 3]
                    }
                    if run == "b", record.state == .accepted, number == 3 {
                        (record.countedRound, record.countedAttempt) = (4, 1 + late % 2)
                        late += 1
                    }
                    try store.commit([.assignment(record)])
                }
                for state in ["reporting", "aggregating", "committed"] {
                    try store.commit([
                        .history(
                            HistoryRow(
                                runId: run,
                                round: number,
                                attempt: 1,
                                at: time.addingTimeInterval(Double(number)),
                                state: state,
                                cause: "why"
                            )
                        )
                    ])
                }
            }
        }
        let whole = try store.load()
        let start = try store.loadForStart()
        #expect(start.clients == whole.clients && start.clients.map(\.id) == (0..<20).map { "c\(19 - $0)" })
        #expect(start.clients.first?.registeredAt == time)
        #expect(start.tokens == whole.tokens && start.tokens.contains { $0.usesLeft == 3 && $0.createdBy == "tok_1" })
        func sorted(_ rows: [ParticipationRecord]) -> [ParticipationRecord] {
            rows.sorted { ($0.runId, $0.clientId) < ($1.runId, $1.clientId) }
        }
        #expect(sorted(start.participations) == sorted(ParticipationRecord.counted(whole.assignments)))
        #expect(
            try sorted(store.participations(clients: ["c3", "c7", "nobody"]))
                == sorted(
                    ParticipationRecord.counted(whole.assignments.filter { ["c3", "c7"].contains($0.clientId) })
                )
        )
        let bad = whole.assignments.filter { $0.state == .rejected || $0.state == .failed }
        #expect(!bad.isEmpty && start.refusals.reduce(0) { $0 + $1.count } == bad.count)
        for row in start.refusals {
            let count = bad.count {
                $0.runId == row.runId && $0.round == row.round && ($0.code ?? "unknown") == row.code
            }
            #expect(row.count == count)
        }
        let matters = whole.assignments.filter { $0.state.isLive || $0.round == 4 || $0.countedAttempt == 1 }
        #expect(start.assignments == matters && matters.contains { $0.countedAttempt == 1 })
        #expect(whole.assignments.contains { $0.countedAttempt == 2 }, "what another attempt took is not this one's")
        #expect(start.phaseChanges.count == 2 * 4 * 2 && start.rounds == whole.rounds)
    }

    /// Clients and tokens are read column by column: a column that is new must be read in `SQLiteRunStore+Start` too.
    @Test func everyColumnOfLargeTablesIsRead() throws {
        let directory = try TemporaryDirectory()
        let path = directory.path + "/martlet.sqlite"
        _ = try SQLiteRunStore(path: path)
        let queue = try DatabaseQueue(path: path)
        func columns(_ table: String) throws -> Set<String> {
            try queue.read { database in try Set(database.columns(in: table).map(\.name)) }
        }
        #expect(
            try columns("client") == [
                "id", "population_id", "name", "labels", "state", "registration_key", "registered_at", "capabilities",
                "steps_per_second", "seconds_per_assignment", "certificate_key", "quarantine_reason", "quarantined_at",
                "state_generation", "state_generation_said",
            ]
        )
        #expect(
            try columns("token") == [
                "hash", "id", "role", "name", "created_by", "population_id", "client_id", "uses_left", "expires_at",
                "created_at",
            ]
        )
    }
}
