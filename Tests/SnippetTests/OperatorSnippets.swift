import Foundation
import MartletOperator

// What stands in the documents between the marks below; SnippetTests holds the two together.

private let token = "mlt_example"
private let runFile = URL(fileURLWithPath: "run.yaml")
private func show(_ text: String) {}

enum OperatorSnippets {
    static func wholeRun() async throws {
        // snippet
        let client = try OperatorClient(
            server: "https://learning.example.org",
            token: token,
            transport: CurlTransport()
        )
        try await client.createPopulation("phones", epsilon: 6)
        let enrollment = try await client.createEnrollmentToken(for: "phones", clientCount: 1000)
        show("devices register with \(enrollment.token)")
        let run = try await client.createRun(try Data(contentsOf: runFile))
        try await client.startRun(run.id)
        let ended = try await client.waitForEnd(of: run.id, interval: .seconds(10))
        show("\(ended.committedRounds) rounds, epsilon \(ended.epsilon ?? 0)")
        try await client.downloadModel(ended.bestVersion, of: run.id, to: "/tmp/model.safetensors")
        // end
    }
}
