import Foundation
import LocalTraining
import MartletClient
import Tensors
import TestSupport
import Testing

/// Trainers that do as they should, and trainers that do not: each is reported by its rule, and nothing is taken from it.
@Suite(.timeLimit(.minutes(10)), .serialized)
struct ExternalTrainerTests {
    private static let example =
        URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent().path + "/Examples/trainers/plain-python/trainer.py"
    private static let model = ParameterVector(
        layout: ParameterLayout([.init(name: "weight", shape: [3]), .init(name: "bias", shape: [1])]),
        values: [0.5, 0.1, -0.2, 0.3]
    )

    /// The example with one line changed.
    private func example(_ directory: TemporaryDirectory, _ changes: [(String, String)]) throws -> String {
        var text = try String(contentsOfFile: Self.example, encoding: .utf8)
        for (old, new) in changes {
            try #require(text.contains(old), "the example has no line: \(old)")
            text = text.replacing(old, with: new)
        }
        let path = directory.path + "/trainer-\(UUID().uuidString).py"
        try text.write(toFile: path, atomically: true, encoding: .utf8)
        return "python3 " + path
    }

    private func train(_ command: String, timeLimit: Double = 600, grace: Double = 5) throws -> TrainingResult {
        let directory = try TemporaryDirectory()
        let data = directory.path + "/rows.csv"
        try "a,b,c,y\n1,0,0,1\n0,1,0,0\n0,0,1,0\n1,1,0,1\n".write(toFile: data, atomically: true, encoding: .utf8)
        let work = directory.path + "/work"
        let trainer = ExternalTrainer(
            .init(
                command: command,
                data: data,
                workDirectory: work,
                timeLimitSeconds: timeLimit,
                gracePeriodSeconds: grace
            )
        )
        defer {
            // Whatever came of it, no assignment's directory is left.
            let left = (try? FileManager.default.contentsOfDirectory(atPath: work)) ?? []
            #expect(!left.contains { $0.hasPrefix("assignment-") })
        }
        return try trainer.train(
            model: Self.model,
            instructions: TrainingInstructions(learningRate: 0.5, batchSize: 2, epochs: 3, seed: 7)
        )
    }

    /// The server said that nobody waits: the command is ended long before its deadline.
    @Test func aCommandWhoseWorkIsUnwantedIsEnded() throws {
        let directory = try TemporaryDirectory()
        let trainer = ExternalTrainer(
            .init(
                command: "touch \(directory.path)/begun; exec sleep 3600",
                data: directory.path,
                workDirectory: directory.path + "/work",
                timeLimitSeconds: 600
            )
        )
        var instructions = TrainingInstructions(learningRate: 0.5, batchSize: 2, epochs: 3, seed: 7)
        let cancellation = TrainingCancellation()
        instructions.cancellation = cancellation
        let watcher = Thread {
            // Training ends by its own limit if this does not come.
            var patience = Patience("the trainer to begin")
            while !FileManager.default.fileExists(atPath: directory.path + "/begun") {
                guard (try? patience.pauseThread()) != nil else { return }
            }
            cancellation.cancel()
        }
        watcher.start()
        // Its own limit would end it by another error.
        #expect(throws: LocalTrainingError.cancelled) {
            try trainer.train(model: Self.model, instructions: instructions)
        }
    }

    private func rule(of command: String, timeLimit: Double = 600, grace: Double = 5) -> ExternalTrainerError? {
        do {
            _ = try train(command, timeLimit: timeLimit, grace: grace)
            return nil
        } catch {
            return error as? ExternalTrainerError
        }
    }

    @Test func theExampleTrains() throws {
        let result = try train("python3 " + Self.example)
        #expect(result.exampleCount == 4 && result.stepCount == 6)
        #expect(result.delta.layout == Self.model.layout && result.delta.values.contains { $0 != 0 })
        // Same seed, same update.
        #expect(try train("python3 " + Self.example).delta == result.delta)
    }

    @Test(.slow) func theExamplePassesTheConformanceCommand() throws {
        let findings = try TrainerConformance(command: "python3 " + Self.example).run()
        #expect(findings.allSatisfy { $0.outcome == .passed }, "\(findings.filter { $0.outcome != .passed })")
        #expect(Set(findings.map(\.rule)).isSuperset(of: ["sigterm", "no_data", "foreign_model", "evaluate", "base"]))
    }

    private func isAlive(_ process: pid_t) -> Bool {
        // A zombie that nobody has waited for yet is gone too.
        guard let stat = FileManager.default.contents(atPath: "/proc/\(process)/stat") else { return false }
        return !String(decoding: stat, as: UTF8.self).contains(") Z")
    }

    @Test func aTrainerThatHangsIsKilledWithItsChildren() throws {
        let directory = try TemporaryDirectory()
        let mark = directory.path + "/child"
        // It ignores SIGTERM, and so does its child. The limit grows until it lets both begin.
        let begin = "echo $$ >\(mark).new; mv \(mark).new \(mark); exec sleep 3600"
        var child: pid_t?
        for limit in [0.2, 2, 20, 200] where child == nil {
            let error = rule(
                of: "trap '' TERM; sh -c '\(begin)' & sleep 3600; sleep 3600",
                timeLimit: limit,
                grace: 0.3
            )
            #expect(error?.rule == .deadline && error?.failureCode == "training_failed")
            child = (try? String(contentsOfFile: mark, encoding: .utf8)).flatMap {
                pid_t($0.trimmingCharacters(in: .whitespacesAndNewlines))
            }
        }
        let process = try #require(child)
        var patience = Patience("the child's end")
        while isAlive(process) { try patience.pauseThread() }
    }

    @Test func crashesAndExitCodesAreNamed() {
        #expect(rule(of: "kill -SEGV $$")?.rule == .signal)
        for (code, failure) in [
            (10, "no_data"), (12, "out_of_memory"), (14, "not_eligible"), (75, "cancelled"), (3, "training_failed"),
        ] {
            let error = rule(of: "exit \(code)")
            #expect(error?.rule == .exitCode && error?.failureCode == failure, "\(code)")
        }
        #expect(rule(of: "no-such-command-anywhere")?.rule == .exitCode)
        #expect(rule(of: "true")?.rule == .metrics)
    }

    @Test(
        .slow,
        arguments: [
            ("return OK", "return OK", nil as ExternalTrainerError.Rule?),
            ("if not all(map(math.isfinite, weight + [bias])):", "bias = float('nan')\n    if False:", .finite),
            ("\"weight\": (model[\"weight\"][0],", "\"weight\": ([1, 3],", .shape),
            ("\"bias\": (model", "\"extra\": (model", .names),
            ("\"dtype\": \"F32\", \"shape\": shape,", "\"dtype\": \"F16\", \"shape\": [2] + shape,", .shape),
            ("{\"kind\": \"delta\", \"base\": base}", "{\"kind\": \"delta\", \"base\": \"0\"}", .base),
            ("{\"kind\": \"delta\", \"base\": base}", "{\"kind\": \"gradient\", \"base\": base}", .kind),
            (
                "struct.pack(\"<Q\", len(text)) + text + data)", "(struct.pack(\"<Q\", len(text)) + text + data)[:-5])",
                .file
            ),
            ("\"schema\": 1, \"examples\": len(rows)", "\"schema\": 2, \"examples\": len(rows)", .metrics),
        ]
    )
    func whatATrainerLeavesIsCheckedRuleByRule(
        _ old: String,
        _ new: String,
        _ expected: ExternalTrainerError.Rule?
    ) throws {
        let directory = try TemporaryDirectory()
        let command = try example(directory, [(old, new)])
        #expect(rule(of: command)?.rule == expected)
    }

    @Test func weightsAreTurnedIntoADelta() throws {
        let directory = try TemporaryDirectory()
        let delta = try train("python3 " + Self.example).delta
        let command = try example(
            directory,
            [
                ("[new - before for new, before in zip(weight, old[0])]", "weight"), ("[bias - old[1]]", "[bias]"),
                ("\"kind\": \"delta\"", "\"kind\": \"weights\""),
            ]
        )
        for (value, right) in zip(try train(command).delta.values, delta.values) { #expect(abs(value - right) < 1e-6) }
    }

    /// What a command cannot be told to do is refused before it is started, in words that name the way out.
    @Test func whatACommandCannotDoIsRefusedByName() throws {
        let directory = try TemporaryDirectory()
        let mark = directory.path + "/started"
        let trainer = ExternalTrainer(
            .init(command: "touch \(mark)", data: directory.path, workDirectory: directory.path + "/work")
        )
        func refusal(
            _ body: (TrainingInstructions) throws -> TrainingResult,
            _ change: (inout TrainingInstructions) -> Void
        )
            -> String
        {
            var instructions = TrainingInstructions(learningRate: 0.5, batchSize: 2, epochs: 3, seed: 7)
            change(&instructions)
            do {
                _ = try body(instructions)
                return ""
            } catch LocalTrainingError.unsupported(let operation) { return operation } catch { return "\(error)" }
        }
        let train = { try trainer.train(model: Self.model, instructions: $0) }
        #expect(refusal(train) { $0.gradientCorrection = [0, 0, 0, 0] }.contains("algorithm fedavg"))
        #expect(
            refusal({ try trainer.gradient(model: Self.model, instructions: $0) }) { _ in }.contains("submit delta")
        )
        for name in ["histogram", "votes", "triehh"] {
            let words = refusal(train) { $0.model = .init(architecture: name, config: "{}") }
            #expect(words.contains("method \(name)") && words.contains("no --trainer-command"))
        }
        #expect(!FileManager.default.fileExists(atPath: mark))
    }

    /// The optimiser's constants reach the command, each where it has a meaning.
    @Test func theCommandIsToldTheOptimizersConstants() throws {
        let directory = try TemporaryDirectory()
        let copy = directory.path + "/assignment.json"
        let trainer = ExternalTrainer(
            .init(
                command: "cp $MARTLET_ASSIGNMENT \(copy); exit 10",
                data: directory.path,
                workDirectory: directory.path + "/work"
            )
        )
        func hyper(_ optimizer: LocalOptimizerSettings) throws -> [String: Any] {
            let instructions = TrainingInstructions(optimizer: optimizer, batchSize: 2, epochs: 1, seed: 7)
            #expect(throws: ExternalTrainerError.self) {
                try trainer.train(model: Self.model, instructions: instructions)
            }
            let data = try Data(contentsOf: URL(fileURLWithPath: copy))
            let fields = try JSONSerialization.jsonObject(with: data) as? [String: Any]
            return try #require(fields?["hyper"] as? [String: Any])
        }
        let adam = try hyper(
            .init(rule: .adamw, learningRate: 0.1, beta1: 0.5, beta2: 0.75, epsilon: 0.25, weightDecay: 2)
        )
        #expect(
            adam["beta1"] as? Double == 0.5 && adam["beta2"] as? Double == 0.75 && adam["epsilon"] as? Double == 0.25
        )
        #expect(adam["weight_decay"] as? Double == 2 && adam["momentum"] == nil)
        let momentum = try hyper(.init(rule: .momentum, learningRate: 0.1, momentum: 0.5))
        #expect(momentum["momentum"] as? Double == 0.5 && momentum["beta1"] == nil)
    }

    @Test func theEnvironmentIsCleanAndTheInputClosed() throws {
        setenv("MARTLET_TOKEN", "secret", 1)
        defer { unsetenv("MARTLET_TOKEN") }
        let check = """
            test -z "$MARTLET_TOKEN" || exit 31; test -z "$(cat)" || exit 32; \
            test "$OMP_NUM_THREADS" = 2 || exit 33; test "$(cut -d' ' -f5 /proc/$$/stat)" = $$ || exit 34; exit 40
            """
        #expect(rule(of: check)?.detail.contains("exit code 40") == true)
    }
}
