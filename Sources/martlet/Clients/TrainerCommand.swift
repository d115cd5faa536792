import ArgumentParser
import Foundation
import MartletClient
import StrictJSON
import Tensors

struct TrainerCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "trainer",
        abstract: "Work with external trainers.",
        subcommands: [Check.self]
    )

    struct Check: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Run a trainer on a small task and report each rule that it keeps or breaks.",
            discussion: """
                Without --model and --data the task is a logistic regression: tensors weight [3] and bias [1], and
                train.csv with three numbers and a label 0 or 1. Exit status 2 when a rule is broken.
                """
        )

        @Option(name: .customLong("cmd"), help: "The trainer's command, as for martlet client --trainer-command.")
        var command: String
        @Option(help: "A model of yours, as safetensors.") var model: String?
        @Option(help: "Its config.json.") var config: String?
        @Option(help: "Data for it: a file or a directory.") var data: String?
        @Option(help: "Seconds that one run may take.") var timeLimit = 60.0
        @Option(help: "The learning rate that the trainer is told.") var learningRate = 0.1
        @Option(help: "The run's aggregation.value_bound.") var valueBound: Float = 64
        @Option(help: "A variable of this environment that the command gets too; may be repeated.")
        var trainerEnv: [String] = []
        @Flag(help: "Print one JSON line for each rule.") var json = false

        /// Names what was mistyped, before the trainer is started and could be blamed for it.
        private func requireInputs() throws {
            guard (model == nil) == (data == nil) else {
                throw ValidationError("a model of yours needs data for it: give --model and --data, or neither")
            }
            var isDirectory: ObjCBool = false
            for (option, path) in [("--model", model), ("--config", config), ("--data", data)] {
                guard let path else { continue }
                guard FileManager.default.fileExists(atPath: path, isDirectory: &isDirectory) else {
                    throw ValidationError("\(option): there is no file or directory \(path)")
                }
                guard option.hasPrefix("--data") || !isDirectory.boolValue else {
                    throw ValidationError("\(option): \(path) is a directory; name the file")
                }
            }
            let own = ProcessInfo.processInfo.environment
            if let name = trainerEnv.first(where: { own[$0] == nil }) {
                throw ValidationError("--trainer-env: the variable \(name) is not set")
            }
        }

        func run() async throws {
            try requireInputs()
            var conformance = TrainerConformance(command: command)
            if let model {
                try Failure.explaining(model) {
                    do throws(SafetensorsError) {
                        let file = try SafetensorsFile(path: model)
                        conformance.modelDataTypes = Dictionary(
                            file.header.entries.map { ($0.specification.name, $0.dataType) },
                            uniquingKeysWith: { first, _ in first }
                        )
                        conformance.model = try file.readAll()
                    } catch {
                        if case .inputOutput = error { throw error }
                        conformance.modelRefusal = error.description
                    }
                }
            }
            conformance.environment = trainerEnv
            conformance.valueBound = valueBound
            conformance.configuration = try config.map { try Data(contentsOf: URL(fileURLWithPath: $0)) }
            conformance.data = data
            conformance.timeLimitSeconds = timeLimit
            conformance.learningRate = learningRate
            let findings = try conformance.run()
            for finding in findings {
                if json {
                    Terminal.document(
                        JSONText.object([
                            ("detail", JSONText.quoted(finding.detail)),
                            ("outcome", JSONText.quoted(finding.outcome.rawValue)),
                            ("rule", JSONText.quoted(finding.rule)),
                        ])
                    )
                } else {
                    let rule = finding.rule.padding(toLength: 18, withPad: " ", startingAt: 0)
                    print(
                        "\(finding.outcome.rawValue.padding(toLength: 8, withPad: " ", startingAt: 0))\(rule)\(finding.detail)"
                    )
                }
            }
            if findings.contains(where: { $0.outcome == .failed }) { throw ExitCode(2) }
        }
    }
}

/// Prints what an external trainer says; it goes nowhere else.
enum ExternalTrainerLog {
    static let show: @Sendable (ExternalTrainer.Event) -> Void = { event in
        switch event {
        case .progress(let step, let steps, let loss):
            printError("trainer: step \(step) of \(steps)\(loss.map { ", loss \($0)" } ?? "")")
        case .log(let level, let message):
            printError(Terminal.printable("trainer: \(level): \(message)"))
        case .output(let line):
            printError(Terminal.printable("trainer: \(line)"))
        }
    }
}
