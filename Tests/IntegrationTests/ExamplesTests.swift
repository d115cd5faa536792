import Foundation
import TestSupport
import Testing

/// Every example runs as it stands, in fewer rounds.
@Suite(.timeLimit(.minutes(4)), .serialized)
struct ExamplesTests {
    private func run(_ example: String, rounds: Int) throws -> (status: Int32, output: String) {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/bin/bash")
        process.arguments = [ServerProcess.repository + "/Examples/\(example)/run.sh"]
        var environment = ProcessInfo.processInfo.environment
        environment["MARTLET"] = ServerProcess.binary
        environment["ROUNDS"] = String(rounds)
        environment["PATIENCE"] = "40"
        process.environment = environment
        let output = Pipe()
        process.standardOutput = output
        process.standardError = output
        try process.run()
        let data = output.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        return (process.terminationStatus, String(decoding: data, as: UTF8.self))
    }

    @Test func keyboardLearnsUnderABudget() throws {
        let (status, output) = try run("keyboard", rounds: 1)
        #expect(status == 0, "\(output)")
        #expect(output.contains("SPENT"), "\(output)")
    }

    @Test func aVocabularyIsFoundAndTrainedOn() throws {
        let (status, output) = try run("keyboard-vocabulary", rounds: 1)
        #expect(status == 0, "\(output)")
        #expect(output.contains("WORD") && output.contains("trained: a model over"), "\(output)")
        #expect(!output.contains("zeppelin") && !output.contains("unicorn"), "\(output)")
    }

    @Test func voiceCommandsShowHowFarUpdatesStandOut() throws {
        let (status, output) = try run("voice-commands", rounds: 1)
        #expect(status == 0, "\(output)")
        #expect(output.contains("cosine") && output.contains("counted true"), "\(output)")
    }

    @Test func hospitalsFitOneModel() throws {
        let (status, output) = try run("hospitals", rounds: 3)
        #expect(status == 0, "\(output)")
        let weights = output.split(separator: "\n").first { $0.hasPrefix("layers.0.weight") }
        #expect(weights?.split(separator: " ").count == 14, "\(output)")
    }

    @Test func ownTrainersTakePart() throws {
        let (status, output) = try run("trainers", rounds: 2)
        #expect(status == 0, "\(output)")
        #expect(output.contains("passed  sigterm") && output.contains("trained: 2 rounds"), "\(output)")
    }
}
