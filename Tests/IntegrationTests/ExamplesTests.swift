import Foundation
import TestSupport
import Testing

/// Every example runs as it stands, in fewer rounds.
@Suite(.timeLimit(.minutes(30)), .serialized)
struct ExamplesTests {
    private func run(
        _ example: String,
        rounds: Int,
        python: String? = nil
    ) throws -> (status: Int32, output: String) {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/bin/bash")
        process.arguments = [ServerProcess.repository + "/Examples/\(example)/run.sh"]
        var environment = ProcessInfo.processInfo.environment
        environment["MARTLET"] = ServerProcess.binary
        environment["ROUNDS"] = String(rounds)
        // What no machine needs: a run that hangs is seen as such, and a slow machine's is waited for.
        environment["PATIENCE"] = "1500"
        if let python { environment["PYTHON"] = python }
        process.environment = environment
        let output = Pipe()
        process.standardOutput = output
        process.standardError = output
        try process.run()
        let data = output.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        return (process.terminationStatus, String(decoding: data, as: UTF8.self))
    }

    @Test(.slow) func keyboardLearnsUnderABudget() throws {
        let (status, output) = try run("keyboard", rounds: 1)
        #expect(status == 0, "\(output)")
        #expect(output.contains("SPENT"), "\(output)")
    }

    @Test func theRunFileSaysHowManyParametersItTrains() throws {
        let path = ServerProcess.repository + "/Examples/keyboard/run.yaml"
        let text = try String(contentsOfFile: path, encoding: .utf8)
        let said = try #require(text.firstMatch(of: /([0-9,]+) parameters/)?.1).replacing(",", with: "")
        let directory = try TemporaryDirectory()
        let server = try ServerProcess.start(dataDirectory: directory.path)
        defer { server.stop(SIGTERM) }
        #expect(try server.martlet("population", "create", "keyboards", "--epsilon", "8").status == 0)
        let plan = try server.martlet("run", "create", path, "--dry-run")
        #expect(plan.output.contains(" \(said) parameters"), "\(said): \(plan.output)")
    }

    @Test(.slow) func aVocabularyIsFoundAndTrainedOn() throws {
        let (status, output) = try run("keyboard-vocabulary", rounds: 1)
        #expect(status == 0, "\(output)")
        #expect(output.contains("WORD") && output.contains("trained: a model over"), "\(output)")
        #expect(!output.contains("zeppelin") && !output.contains("unicorn"), "\(output)")
    }

    @Test(.slow) func voiceCommandsShowHowFarUpdatesStandOut() throws {
        let (status, output) = try run("voice-commands", rounds: 1)
        #expect(status == 0, "\(output)")
        #expect(output.contains("cosine") && output.contains("counted true"), "\(output)")
    }

    @Test(.slow) func hospitalsFitOneModel() throws {
        let (status, output) = try run("hospitals", rounds: 3)
        #expect(status == 0, "\(output)")
        let weights = output.split(separator: "\n").first { $0.hasPrefix("layers.0.weight") }
        #expect(weights?.split(separator: " ").count == 14, "\(output)")
    }

    @Test(.slow) func ownTrainersTakePart() throws {
        let (status, output) = try run("trainers", rounds: 2)
        #expect(status == 0, "\(output)")
        #expect(output.contains("passed  sigterm") && output.contains("trained: 2 rounds"), "\(output)")
    }

    /// A Python with PyTorch: that of `MARTLET_TEST_PYTHON`; the test is skipped without it.
    private static let torch: String? = ServerProcess.python.flatMap { python in
        let status = try? ServerProcess.capture(python, ["-c", "import torch, safetensors"]).status
        return status == 0 ? python : nil
    }

    /// Conformance, two rounds of LoRA by three devices, and adapters that help texts nobody trained on.
    @Test(.enabled(if: ExamplesTests.torch != nil, "needs torch and safetensors in MARTLET_TEST_PYTHON"))
    func aFrozenModelIsAdaptedInPyTorch() throws {
        let (status, output) = try run("trainers/pytorch-lora", rounds: 2, python: Self.torch)
        #expect(status == 0, "\(output)")
        #expect(output.contains("passed  repeatable") && !output.contains("failed  "), "\(output)")
        #expect(output.contains("trained: 2 rounds"), "\(output)")
        let figures = output.split(separator: "\n").last?.split(separator: " ").compactMap { Double($0) } ?? []
        #expect(figures.count == 2 && figures[1] < figures[0] - 0.5, "\(output)")
    }
}
