import Foundation
import LocalTraining
import MartletClient
import Synchronization
import Tensors

/// A device, a new process for each piece of work, that takes part in a run with control variates and in one with sparse updates.
///
/// What it trains depends on what it has kept, and nothing of it is drawn: a control variate or a remainder that was lost, or
/// taken for missing, changes the bytes of the next update.
struct DeviceJob {
    /// What a job has come to.
    struct Outcome: Equatable {
        /// Hashes of the accepted updates, in their order.
        var accepted: [String] = []
        /// What is kept for the next rounds.
        var kept: [String: Data] = [:]
    }

    private struct Trainer: LocalTrainer {
        var canRehearse: Bool { true }

        func train(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingResult {
            let round = Float(instructions.context?.round ?? 0)
            let correction = instructions.gradientCorrection ?? []
            var delta = model
            for index in delta.values.indices {
                delta.values[index] = Float(index % 7) * round * 0.01 - (correction.isEmpty ? 0 : correction[index])
            }
            return TrainingResult(delta: delta, exampleCount: 7, stepCount: 4)
        }
    }

    let directory: String
    private let server = DeviceServer()

    init(directory: String) { self.directory = directory }

    private var state: String { directory + "/device" }

    /// Lets the device take part until all work is done.
    ///
    /// - Throws: ``Deviation`` for an error that does not name this device's disk, and where the work does not end.
    func play() async throws {
        for _ in 0..<60 {
            if server.isOver { return }
            do {
                let client = FederatedClient(
                    server: "http://server",
                    enrollmentToken: "enroll",
                    state: try ClientState(directory: state),
                    trainer: Trainer(),
                    transport: server,
                    models: try ModelCache(directory: state + "/models"),
                    retry: RetryPolicy(attemptLimit: 1, sleep: { _ in }, uniform: { 0 }),
                    arithmetic: ArithmeticQueue(width: 1)
                )
                let outcome = try await client.participateOnce(waitSeconds: 0)
                if case .ended(let code) = outcome, !["storage", "ledger_forked"].contains("\(code)") {
                    throw Deviation("work ended with \(code): \(await client.lastReason ?? "")")
                }
            } catch let error as ClientError {
                guard ["storage", "network"].contains(error.code) else { throw Deviation("\(error)") }
            } catch let error where !(error is Deviation) {
                // The directory of the models is made by Foundation.
                guard "\(error)".contains("NSPOSIXErrorDomain") || "\(error)".contains("Cocoa") else { throw error }
            }
        }
        guard server.isOver else { throw Deviation("the work does not end") }
    }

    /// What was accepted and what is kept, after a look at what must never be.
    func outcome() throws -> Outcome {
        let (keys, sent, accepted) = server.state.withLock { ($0.keys, $0.sent, ($0.accepted, $0.acceptedBy)) }
        guard keys.count == 1 else { throw Deviation("\(keys.count) clients were registered") }
        for (id, updates) in sent where updates.count != 1 || accepted.1[id] == nil {
            throw Deviation("of \(id) \(updates.count) updates were sent, accepted: \(accepted.1[id] != nil)")
        }
        struct Ledger: Decodable {
            struct Event: Decodable { var assignment: String }
            var events: [Event]
        }
        let data = try Data(contentsOf: URL(fileURLWithPath: state + "/ledger.json"))
        let charged = try JSONDecoder().decode(Ledger.self, from: data).events.map(\.assignment)
        guard Set(charged).count == charged.count else { throw Deviation("charged twice: \(charged)") }
        guard Set(sent.keys).isSubset(of: charged) else { throw Deviation("sent without a charge: \(sent.keys)") }
        let head = try String(contentsOfFile: state + "/ledger-head.json", encoding: .utf8)
        guard head.contains("aaaa") else { throw Deviation("the forked head was taken") }
        var outcome = Outcome(accepted: accepted.0)
        // Bytes that were settled may lie there until the next update takes their place.
        for name in try FileManager.default.contentsOfDirectory(atPath: state)
        where name != "update.safetensors"
            && ["f32", "safetensors", "waiting"].contains(String(name.split(separator: ".").last ?? ""))
        {
            outcome.kept[name] = FileManager.default.contents(atPath: state + "/" + name)
        }
        return outcome
    }
}
