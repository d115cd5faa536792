import Foundation
import MartletClient
import MartletTesting
import Testing

private struct MyTrainer: LocalTrainer {
    func train(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingResult {
        TrainingResult(delta: ParameterVector(layout: model.layout, values: [1, 1]), exampleCount: 3)
    }
}

struct TestingSnippets {
    // snippet
    @Test func theAppTakesPartAndSurvivesALostAnswer() async throws {
        let model = ParameterVector(zeros: ParameterLayout([.init(name: "w", shape: [2])]))
        // The answer to the upload is lost once: the same bytes are sent again, and count once.
        let server = try InMemoryServer(model: model) { number, _ in number == 4 ? .answerLost : nil }
        let directory = NSTemporaryDirectory() + "martlet-" + UUID().uuidString
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let client = try FederatedClient(
            server: "http://test",
            enrollmentToken: "any",
            directory: directory,
            trainer: MyTrainer(),
            transport: server
        )
        #expect(try await client.participateOnce(waitSeconds: 0) == .accepted(run: "run_1", round: 1))
        #expect(server.updates.count == 1 && server.model.values == [1, 1])
        #expect(server.requests.filter { $0.hasPrefix("PUT") }.count == 2)
    }
    // end
}
