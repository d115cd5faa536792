public import Foundation
public import MartletClient

/// Two devices in one process, each with a state and data of its own.
public enum Devices {
    /// Takes part until the server has no work any more.
    ///
    /// - Parameters:
    ///   - arguments: `first-model PATH` writes the model to begin with; `SERVER TOKEN DIRECTORY` takes part.
    ///   - transport: Shared by both.
    /// - Throws: What ends a device's participation.
    public static func run(_ arguments: [String], over transport: any Transport) async throws {
        if arguments.count == 2, arguments[0] == "first-model" {
            try SafetensorsWriter.encode(PriceTrainer.firstModel).write(to: URL(fileURLWithPath: arguments[1]))
            return
        }
        guard arguments.count == 3 else { fatalError("usage: first-model PATH | SERVER TOKEN DIRECTORY") }
        try await withThrowingTaskGroup(of: Void.self) { group in
            for device in 0..<2 {
                let client = try FederatedClient(
                    server: arguments[0],
                    enrollmentToken: arguments[1],
                    directory: arguments[2] + "/device-\(device)",
                    trainer: PriceTrainer(device: device),
                    transport: transport
                )
                group.addTask {
                    // Until the run is over: this program is for a test, an app calls `run()`.
                    while true {
                        let outcome = try await client.participateOnce(waitSeconds: 5)
                        print("device \(device): \(outcome)")
                        if case .noWork(let reason, _) = outcome, [.noRun, .participationLimit].contains(reason) {
                            return
                        }
                    }
                }
            }
            try await group.waitForAll()
        }
    }
}
