import Foundation
import MartletClient
import MartletURLSession

// What stands in the documents between the marks below; SnippetTests holds the two together.

private let token = "mlt_example"
private let myExamples = [1, 2, 3]
private func myOwnTraining(_ model: ParameterVector, epochs: Int) async throws -> ParameterVector { model }
private func show(_ text: String) {}
private func step(_ values: UnsafeMutableBufferPointer<Float>, _ shape: [Int]) {}

enum AppSnippets {
    static func firstClient() async throws {
        // snippet
        struct MyTrainer: LocalTrainer {
            func train(model: ParameterVector, instructions: TrainingInstructions) async throws -> TrainingResult {
                // On this device's data.
                let trained = try await myOwnTraining(model, epochs: instructions.epochs)
                return TrainingResult(delta: trained - model, exampleCount: myExamples.count)
            }
        }

        let client = try FederatedClient(
            server: "https://learning.example.org",
            enrollmentToken: token,
            directory: "/var/lib/my-app/martlet",
            trainer: MyTrainer()
        )
        try await client.run()
        // end
    }

    static func helper(_ trainer: any LocalTrainer) throws -> FederatedClient {
        // snippet
        let client = try FederatedClient(
            server: "https://learning.example.org",
            enrollmentToken: token,
            directory: "/var/lib/my-app/martlet",
            trainer: trainer,
            policy: ClientPrivacyPolicy(minimumCohort: 50, minimumNoise: 0.8, domains: ["keyboards"]),
            helper: try HelperKey(file: "/usr/share/my-app/helper.pub")
        )
        // end
        return client
    }

    static func watch(_ client: FederatedClient) async throws {
        // snippet
        let events = client.events()
        let watching = Task {
            for await event in events {
                switch event {
                case .phase(let phase): show(phase.rawValue)
                case .progress(let share): show("training: \(Int(share * 100)) %")
                case .bytes(let moved): show("\(moved.sentByteCount) bytes sent")
                case .accepted(let run, let round, _): show("round \(round) of \(run) has this device's update")
                case .refused(let reason, let sentence): show(sentence ?? reason.code)
                case .noWork(_, let seconds): show("asking again in \(Int(seconds)) s")
                case .assigned, .notice, .finished: break
                }
            }
        }
        try await client.run()
        watching.cancel()
        // end
    }

    static func reasons(_ client: FederatedClient) async throws {
        // snippet
        switch try await client.participateOnce(waitSeconds: 30) {
        case .accepted: show("thank you")
        case .noWork(.participationLimit, _): show("this device has done its part")
        case .noWork: show("nothing to do now")
        case .ended(.device(.diskFull)): show("free some space")
        case .ended(.device(.privacyRefused)): show(await client.lastRefusal ?? "the terms were refused")
        case .ended(.server(.roundClosed)): show("too late this time")
        case .ended(let reason): show("ended: \(reason)")
        case .finished: show("this device was taken out")
        }
        // end
    }

    static func tensors(_ model: ParameterVector) throws -> ParameterVector {
        // snippet
        var trained = model
        guard let weight = model["layer.weight"], weight.shape == [2, 3] else {
            throw LocalTrainingError.modelMismatch(reason: "layer.weight is not 2 x 3")
        }
        show("the first row begins with \(weight[0, 0])")
        try trained.write("layer.bias", [0.5, -0.5])
        try trained.update("layer.weight") { values, shape in step(values, shape) }
        // end
        return trained
    }

    static func transport(_ trainer: any LocalTrainer) async throws {
        // snippet
        let client = try FederatedClient(
            server: "https://learning.example.org",
            enrollmentToken: token,
            directory: "/var/lib/my-app/martlet",
            trainer: trainer,
            transport: URLSessionTransport()
        )
        // end
        _ = client
    }
}
