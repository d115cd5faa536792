import Foundation
import MartletClient
import MartletTesting
import Synchronization
import TestSupport
import Testing

/// The public test double plays a server's side as strictly as a server does.
@Suite(.timeLimit(.minutes(10)))
struct InMemoryServerTests {
    private let directory: TemporaryDirectory
    private static let model = ParameterVector(zeros: ParameterLayout([.init(name: "w", shape: [2])]))

    init() throws { directory = try TemporaryDirectory() }

    private struct Trainer: LocalTrainer {
        var values: [Float]
        var exampleCount = 1
        let canRehearse = true

        func train(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingResult {
            TrainingResult(delta: ParameterVector(layout: model.layout, values: values), exampleCount: exampleCount)
        }
    }

    private func client(_ server: InMemoryServer, _ trainer: Trainer, _ name: String) throws -> FederatedClient {
        try FederatedClient(
            server: "http://server",
            enrollmentToken: "enroll",
            directory: directory.path + "/" + name,
            trainer: trainer,
            transport: server
        )
    }

    @Test func roundsAreAveragedByExamples() async throws {
        let server = try InMemoryServer(model: Self.model, run: .init(rounds: 2, goal: 2))
        let first = try client(server, Trainer(values: [1, 0], exampleCount: 3), "first")
        let second = try client(server, Trainer(values: [5, 4], exampleCount: 1), "second")
        for round in 1...2 {
            #expect(try await first.participateOnce(waitSeconds: 0) == .accepted(run: "run_1", round: round))
            if round == 1 {
                guard case .noWork(.noOpenSlot, _) = try await first.participateOnce(waitSeconds: 0) else {
                    Issue.record("a client has two places in one round")
                    return
                }
            }
            #expect(try await second.participateOnce(waitSeconds: 0) == .accepted(run: "run_1", round: round))
        }
        #expect(server.model.values == [4, 2] && server.committedRounds == 2)
        #expect(server.updates.map(\.exampleCount) == [3, 1, 3, 1] && Set(server.updates.map(\.client)).count == 2)
        guard case .noWork(.noRun, _) = try await first.participateOnce(waitSeconds: 0) else {
            Issue.record("there is work after the last round")
            return
        }
    }

    @Test func aModeOfPrivacyIsTheClientsAffair() async throws {
        let privacy = #"{"mode": "local", "noise_multiplier": 1, "clipping": {"norm": 1}}"#
        let server = try InMemoryServer(model: Self.model, run: .init(privacy: privacy))
        let client = try client(server, Trainer(values: [30, 40]), "phone")
        #expect(try await client.participateOnce(waitSeconds: 0) == .accepted(run: "run_1", round: 1))
        // Clipped to norm 1 and noised: neither what the trainer brought, nor its direction to the bit.
        let delta = try #require(server.updates.first?.delta.values)
        #expect(delta != [30, 40] && delta != [0.6, 0.8])
    }

    @Test func anUpdateThatIsNotFiniteIsRefusedOnTheDevice() async throws {
        let server = try InMemoryServer(model: Self.model)
        let client = try client(server, Trainer(values: [.nan, 1]), "phone")
        #expect(try await client.participateOnce(waitSeconds: 0) == .ended(.device(.trainingFailed)))
        #expect(server.updates.isEmpty && server.failures.count == 1)
    }

    /// An answer that is lost, at any request in turn, costs nothing: the update counts once.
    @Test(arguments: 1...4)
    func anAnswerThatIsLostChangesNothing(_ lost: Int) async throws {
        let server = try InMemoryServer(model: Self.model, run: .init(rounds: 1)) { number, _ in
            number == lost ? .answerLost : nil
        }
        let client = FederatedClient(
            server: "http://server",
            enrollmentToken: "enroll",
            state: try ClientState(directory: directory.path + "/phone"),
            trainer: Trainer(values: [1, 2]),
            transport: server,
            models: try ModelCache(directory: directory.path + "/models"),
            retry: RetryPolicy(sleep: { _ in }, uniform: { 0 })
        )
        #expect(try await client.participateOnce(waitSeconds: 0) == .accepted(run: "run_1", round: 1))
        #expect(server.updates.count == 1 && server.model.values == [1, 2])
    }

    @Test func whatARunFileWouldBeRefusedForIsRefused() {
        #expect(throws: (any Error).self) {
            try InMemoryServer(model: Self.model, run: .init(training: #"{"local": {"epochs": 0}}"#))
        }
    }
}
