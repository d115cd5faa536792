import Foundation
import LocalTraining
import MartletClient
import Tensors
import TestSupport
import Testing

#if canImport(Glibc)
import Glibc
#endif

/// What a command finds around it, and what is left of it: files, variables, logs, processes.
@Suite(.timeLimit(.minutes(10)), .serialized)
struct TrainerContractTests {
    private static let model = ParameterVector(
        layout: ParameterLayout([.init(name: "weight", shape: [1])]),
        values: [0.5]
    )
    private let directory: TemporaryDirectory

    init() throws {
        directory = try TemporaryDirectory()
        try "a\n1\n".write(toFile: directory.path + "/mine.csv", atomically: true, encoding: .utf8)
        try "a\n2\n".write(toFile: directory.path + "/held.tsv", atomically: true, encoding: .utf8)
    }

    private func trainer(
        _ command: String,
        _ change: (inout ExternalTrainer.Settings) -> Void = { _ in }
    ) -> ExternalTrainer {
        var settings = ExternalTrainer.Settings(
            command: command,
            data: directory.path + "/mine.csv",
            workDirectory: directory.path + "/work",
            timeLimitSeconds: 600,
            gracePeriodSeconds: 1
        )
        change(&settings)
        return ExternalTrainer(settings)
    }

    private static let instructions = TrainingInstructions(learningRate: 0.5, batchSize: 2, epochs: 1, seed: 7)

    private func detail(_ trainer: ExternalTrainer) -> String {
        do {
            _ = try trainer.train(model: Self.model, instructions: Self.instructions)
            return ""
        } catch let error as ExternalTrainerError { return error.detail } catch { return "\(error)" }
    }

    private func evaluation(_ metrics: String, _ check: String = "true") throws -> TrainingMetrics {
        try trainer("\(check) && printf '%s' '\(metrics)' > \"$MARTLET_UPDATE_DIR/metrics.json\"") {
            $0.evaluationData = directory.path + "/held.tsv"
        }.evaluate(model: Self.model, instructions: Self.instructions)
    }

    @Test func modelsAreJudgedOnTheEvaluationData() throws {
        let check =
            #"test "$MARTLET_OP" = evaluate && test "$(cat "$MARTLET_DATA_DIR/train.tsv")" = "$(printf 'a\n2')""#
        #expect(try evaluation(#"{"schema": 1, "tokens": 3, "nll": 1.5}"#, check).tokens == 3)
        #expect(detail(trainer(#"test -f "$MARTLET_DATA_DIR/train.csv" && exit 41"#)).contains("exit code 41"))
    }

    @Test func whatWasNotMeasuredIsAbsent() throws {
        let metrics = try evaluation(#"{"schema": 1, "examples": 50, "steps": 3, "hit1": null}"#)
        #expect(metrics.unmeasured == Set(TrainingMetrics.Measure.allCases))
        #expect(metrics.tokens == 50)
        let some = try evaluation(#"{"schema": 1, "examples": 50, "nll": 0, "hit1": 0}"#)
        #expect(some.unmeasured == [.lossTokens, .hit3] && some.nll == 0 && some.hit1 == 0)
        // The server refuses more targets in the loss than targets.
        #expect(try evaluation(#"{"schema": 1, "examples": 2, "loss_tokens": 9}"#).tokens == 9)
    }

    /// A count is a number: `true` is none, and a fraction is none.
    @Test(arguments: ["true", "1.5", "-1", "\"3\"", "1e13"])
    func whatIsNoCountIsRefused(value: String) {
        let error = #expect(throws: ExternalTrainerError.self) {
            try evaluation(#"{"schema": 1, "tokens": \#(value)}"#)
        }
        #expect(error?.detail.contains("tokens must be a whole number") == true, "\(error?.detail ?? "")")
    }

    @Test func notANumberIsNamed() {
        let error = #expect(throws: ExternalTrainerError.self) {
            try evaluation(#"{"schema": 1, "examples": 5, "nll": NaN}"#)
        }
        #expect(error?.detail.contains("JSON has no NaN") == true)
    }

    @Test func commandsRunWhereTheUserStandsWithWhatIsPassedByName() {
        #expect(detail(trainer("pwd -P >&2; exit 40")).contains("ends: " + FileManager.default.currentDirectoryPath))
        #expect(detail(trainer("pwd >&2; exit 40") { $0.directory = "/usr" }).hasSuffix("ends: /usr"))
        setenv("MARTLET_CONTRACT_TEST", "17", 1)
        defer { unsetenv("MARTLET_CONTRACT_TEST") }
        let show = "echo \"got ${MARTLET_CONTRACT_TEST-nothing}\" >&2; exit 40"
        #expect(detail(trainer(show)).hasSuffix("got nothing"))
        #expect(detail(trainer(show) { $0.environment = ["MARTLET_CONTRACT_TEST"] }).hasSuffix("got 17"))
        #expect(detail(trainer(show) { $0.environment = ["NO_SUCH_VARIABLE"] }).contains("NO_SUCH_VARIABLE"))
    }

    @Test func aGivenConfigurationIsTheModels() throws {
        let path = directory.path + "/config.json"
        try #"{"model_type": "mine"}"#.write(toFile: path, atomically: true, encoding: .utf8)
        let show = "cat \"$MARTLET_MODEL_DIR/config.json\" >&2; exit 40"
        #expect(detail(trainer(show) { $0.modelFiles = ["config.json": path] }).hasSuffix(#"{"model_type": "mine"}"#))
        #expect(detail(trainer(show)).hasSuffix("ends: {}"))
        #expect(detail(trainer(show) { $0.modelFiles = ["model.safetensors": path] }).contains("comes from the server"))
        #expect(
            detail(trainer(show) { $0.modelFiles = ["vocab.txt": path + ".none"] }).contains("there is no model file")
        )
    }

    /// Thirty megabytes of one run are a megabyte on the disk, with the beginning and the end; of many runs twenty are kept.
    @Test(.slow) func logsAreBounded() throws {
        let flood =
            "echo begin >&2; head -c 30000000 /dev/zero | tr '\\0' 'x' >&2; echo >&2; echo last words >&2; exit 40"
        let said = detail(trainer(flood))
        #expect(said.hasSuffix("ends: last words") && said.contains(directory.path + "/work/logs/"))
        for _ in 0..<22 { _ = detail(trainer("exit 40")) }
        let logs = directory.path + "/work/logs"
        let names = try FileManager.default.contentsOfDirectory(atPath: logs)
        #expect(names.count == 20)
        let trainer = trainer(flood)
        _ = detail(trainer)
        let sizes = try FileManager.default.contentsOfDirectory(atPath: logs).compactMap {
            try FileManager.default.attributesOfItem(atPath: logs + "/" + $0)[.size] as? Int
        }
        #expect((sizes.max() ?? 0) <= 1 << 20 && (sizes.max() ?? 0) > 900_000)
    }

    /// A child in a session of its own, whose parent has ended, ends with the assignment.
    @Test func aChildInItsOwnSessionEndsToo() throws {
        let mark = directory.path + "/child"
        let said = detail(
            trainer(
                "setsid sh -c 'echo $$ > \(mark); exec sleep 3600' & while ! test -s \(mark); do sleep 0.01; done; exit 40"
            )
        )
        #expect(said.contains("exit code 40"))
        try waitUntilGone(mark)
    }

    /// Twice in a session of its own, each parent gone, and nothing of the client's environment left: only the kernel knows whose
    /// they are.
    @Test(.slow, arguments: ["exit 41", "exec false", "trap '' TERM; sleep 3600"])
    func whatForkedTwiceWithoutItsEnvironmentEndsToo(_ end: String) throws {
        let mark = directory.path + "/child"
        let program = directory.path + "/daemon"
        // It forks as it is killed, too.
        try "echo $$ > \(mark).new; mv \(mark).new \(mark); trap '' TERM HUP; (while :; do sleep 1; done) & wait\n"
            .write(toFile: program, atomically: true, encoding: .utf8)
        let fork = "setsid sh -c \"setsid env -i PATH=$PATH sh \(program) >/dev/null 2>&1 &\" >/dev/null 2>&1 &"
        let mine = try stranger()
        defer { kill(mine, SIGKILL) }
        // Long enough for both forks, which the last case waits for: where it was not, longer.
        let limits = end.contains("sleep") ? [2.0, 20, 200] : [600]
        for limit in limits where !FileManager.default.fileExists(atPath: mark) {
            let said = detail(
                trainer("\(fork) while ! test -s \(mark); do sleep 0.01; done; \(end)") {
                    $0.timeLimitSeconds = limit
                    $0.gracePeriodSeconds = 0.2
                }
            )
            #expect(!said.isEmpty)
        }
        try waitUntilGone(mark)
        #expect(Self.isAlive(mine), "a child of the app's own has ended")
    }

    /// A child of this process that has nothing to do with trainers.
    private func stranger() throws -> pid_t {
        var process: pid_t = 0
        let words: [UnsafeMutablePointer<CChar>?] = [strdup("/bin/sleep"), strdup("3600"), nil]
        defer { for word in words { free(word) } }
        #expect(posix_spawn(&process, "/bin/sleep", nil, nil, words, nil) == 0)
        return process
    }

    private static func isAlive(_ process: pid_t) -> Bool {
        // A zombie that nobody has waited for yet is gone too.
        guard let stat = FileManager.default.contents(atPath: "/proc/\(process)/stat") else { return false }
        return !String(decoding: stat, as: UTF8.self).contains(") Z")
    }

    private func waitUntilGone(_ mark: String) throws {
        let text = try String(contentsOfFile: mark, encoding: .utf8).trimmingCharacters(in: .whitespacesAndNewlines)
        let child = try #require(pid_t(text))
        var patience = Patience("the child to be gone")
        while Self.isAlive(child) { try patience.pauseThread() }
    }

    /// The check's words are the server's: both say the error as it is.
    @Test(arguments: [("I64", "leave it out"), ("F64", "cast it"), ("BOOL", "leave it out"), ("BF16", "cast it")])
    func aModelThatTheServerRefusesIsRefusedByTheCheck(_ type: String, _ advice: String) throws {
        let width = ["I64": 8, "F64": 8, "BOOL": 1, "BF16": 2][type] ?? 0
        let header = #"{"n":{"dtype":"\#(type)","shape":[1],"data_offsets":[0,\#(width)]}}"#
        var file = withUnsafeBytes(of: UInt64(header.utf8.count).littleEndian) { Data($0) }
        file += Data(header.utf8) + Data(count: width)
        let path = directory.path + "/model.safetensors"
        try file.write(to: URL(fileURLWithPath: path))
        var conformance = TrainerConformance(command: "true")
        do throws(SafetensorsError) {
            conformance.modelDataTypes = ["n": try SafetensorsFile(path: path).header.entries[0].dataType]
        } catch {
            conformance.modelRefusal = error.description
        }
        let first = try conformance.run().first { $0.rule == "first_model" }
        #expect(first?.outcome == .failed && first?.detail.contains("tensor 'n' is \(type)") == true)
        #expect(first?.detail.contains(advice) == true, "\(String(describing: first))")
    }

    /// What a finding names is there when somebody looks for it; what passes leaves nothing.
    @Test func theLogThatAFindingNamesStays() throws {
        let findings = try TrainerConformance(command: "echo the reason >&2; exit 7; true").run()
        let failed = try #require(findings.first { $0.outcome == .failed && $0.rule == "exit_code" })
        let path = try #require(failed.detail.firstMatch(of: /its log, ([^,]+),/)?.1)
        let log = try String(contentsOfFile: String(path), encoding: .utf8)
        #expect(log.contains("the reason"), "\(log)")
        let assignment = URL(fileURLWithPath: String(path)).deletingLastPathComponent()
        #expect(try FileManager.default.contentsOfDirectory(atPath: assignment.path) == ["trainer.log"])
        try FileManager.default.removeItem(at: assignment.deletingLastPathComponent())
    }

    @Test(.slow) func theCheckSaysWhatTheServerWillSay() throws {
        let example =
            URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().deletingLastPathComponent().path + "/Examples/trainers/plain-python/trainer.py"
        var conformance = TrainerConformance(command: "python3 " + example)
        conformance.modelDataTypes = ["bias": .float32, "weight": .bfloat16]
        conformance.valueBound = 1e-9
        let findings = try conformance.run()
        let first = findings.first { $0.rule == "first_model" }
        #expect(first?.outcome == .failed && first?.detail.contains("'weight' is BF16") == true)
        let bound = findings.first { $0.rule == "value_bound" }
        #expect(bound?.outcome == .failed && bound?.detail.contains("aggregation.value_bound") == true)
    }
}
