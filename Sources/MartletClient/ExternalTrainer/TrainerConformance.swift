import Crypto
public import Foundation
import MartletTransport
import StrictJSON
public import Tensors
import TrainerInterface

/// Runs an external trainer on a small task and judges every rule of the contract by itself.
public struct TrainerConformance: Sendable {
    /// One rule and how it went.
    public struct Finding: Sendable, Equatable {
        /// How it went.
        public enum Outcome: String, Sendable {
            case passed, failed, skipped
        }
        /// The rule's name.
        public var rule: String
        /// How it went.
        public var outcome: Outcome
        /// What was found.
        public var detail: String
    }

    /// The trainer's command.
    public var command: String
    /// A model of the trainer's kind; `nil` takes `weight` [3] and `bias` [1].
    public var model: ParameterVector?
    /// Its `config.json`.
    public var configuration: Data?
    /// Data for it; `nil` takes a small table.
    public var data: String?
    /// Seconds that one run may take.
    public var timeLimitSeconds = 60.0
    /// From SIGTERM to SIGKILL.
    public var gracePeriodSeconds = 10.0
    /// The learning rate that the trainer is told.
    public var learningRate = 0.1
    /// The dtypes of the model's file by tensor, where it was read from one.
    public var modelDataTypes: [String: TensorDataType] = [:]
    /// Why the model's file cannot be read, which the server will say too; nothing is tried with it then.
    public var modelRefusal: String?
    /// The run's `aggregation.value_bound`.
    public var valueBound: Float = 64
    /// Names of variables of this process that the command gets too.
    public var environment: [String] = []

    /// Names a command.
    public init(command: String) {
        self.command = command
    }

    private static let toyModel = ParameterVector(
        layout: ParameterLayout([.init(name: "weight", shape: [3]), .init(name: "bias", shape: [1])]),
        values: [0.1, 0.2, -0.1, 0]
    )
    private static let toyTable = """
        a,b,c,label
        0.5,1.2,-0.3,1
        -1.1,0.4,0.9,0
        0.8,0.7,0.1,1
        -0.4,-1.5,0.6,0
        1.3,0.2,-0.8,1
        -0.9,-0.3,1.1,0

        """

    /// What one run left.
    private struct Run {
        var error: ExternalTrainerError?
        var report: TrainerReport?
        var update: ParameterVector?
        var lines: [String] = []
        var seconds = 0.0
        var ending: TrainerProcess.Ending?
        var modelUnchanged = true
    }

    /// Judges the trainer; takes up to five runs of it.
    ///
    /// A log that a finding names stays where it is.
    ///
    /// - Returns: One finding a rule, in the order of the contract.
    /// - Throws: The file system's error.
    public func run() throws -> [Finding] {
        let directory = NSTemporaryDirectory() + "martlet-trainer-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        var isNamed = false
        defer { if !isNamed { try? FileManager.default.removeItem(atPath: directory) } }
        let findings = try findings(in: directory)
        isNamed = findings.contains { $0.outcome == .failed && $0.detail.contains(directory) }
        return findings
    }

    private func findings(in directory: String) throws -> [Finding] {
        let table = directory + "/train.csv"
        try Data(Self.toyTable.utf8).write(to: URL(fileURLWithPath: table))
        let data = data ?? table
        let model = model ?? Self.toyModel
        var findings = [
            judgeFirstModel(),
            Finding(
                rule: "blas_core",
                outcome: MatrixProducts.canRun ? .passed : .failed,
                detail: MatrixProducts.sentence
            ),
        ]
        guard modelRefusal == nil else { return findings }
        let first = try perform(.train, model: model, data: data, in: directory)
        findings += judge(first)
        guard first.error == nil else { return findings }
        let second = try perform(.train, model: model, data: data, in: directory)
        findings.append(
            .init(
                rule: "repeatable",
                outcome: second.update == first.update ? .passed : .failed,
                detail: "the same seed and threads give the same update"
            )
        )
        let evaluation = try perform(.evaluate, model: model, data: data, in: directory)
        findings.append(
            finding("evaluate", evaluation.error, "op evaluate ends with 0 and writes metrics.json")
        )
        findings.append(try judgeStop(model: model, data: data, in: directory))
        let empty = directory + "/empty"
        try FileManager.default.createDirectory(atPath: empty, withIntermediateDirectories: true)
        let starved = try perform(.train, model: model, data: empty, in: directory)
        findings.append(exit(starved, 10, rule: "no_data", "without data"))
        let foreign = ParameterVector(
            layout: ParameterLayout([.init(name: "of.another.model", shape: [2, 2])]),
            values: [0, 0, 0, 0]
        )
        let strange = try perform(.train, model: foreign, data: data, in: directory)
        findings.append(exit(strange, 14, rule: "foreign_model", "with tensors of another model"))
        return findings
    }

    // MARK: -

    /// What the server says of such a model as a run's first one.
    private func judgeFirstModel() -> Finding {
        let refusals = modelDataTypes.sorted { $0.key < $1.key }
            .lazy.compactMap { ModelTensors.refusal(of: $0.key, dataType: $0.value.rawValue) }
        guard let refusal = modelRefusal ?? refusals.first else {
            return .init(rule: "first_model", outcome: .passed, detail: "the server takes it as a run's first model")
        }
        return .init(rule: "first_model", outcome: .failed, detail: "the server will say: \(refusal)")
    }

    private func judge(_ run: Run) -> [Finding] {
        let order: [(ExternalTrainerError.Rule, String)] = [
            (.start, "the command starts"), (.signal, "no signal ends it"), (.deadline, "it ends in time"),
            (.exitCode, "exit code 0"), (.metrics, "update/metrics.json is written and counts its data"),
            (.file, "update/model.safetensors is a whole safetensors file"), (.names, "the model's tensor names"),
            (.shape, "the model's shapes"), (.dataType, "dtype F32"), (.kind, "metadata kind is delta or weights"),
            (.base, "metadata base is the SHA-256 of the model file"), (.finite, "every value is finite"),
        ]
        var findings: [Finding] = []
        var isBroken = false
        for (rule, meaning) in order {
            if run.error?.rule == rule {
                findings.append(.init(rule: rule.rawValue, outcome: .failed, detail: run.error?.detail ?? meaning))
                isBroken = true
            } else {
                let outcome: Finding.Outcome = isBroken ? .skipped : .passed
                findings.append(.init(rule: rule.rawValue, outcome: outcome, detail: meaning))
            }
        }
        guard !isBroken, let report = run.report, let update = run.update else { return findings }
        func add(_ rule: String, _ holds: Bool, _ detail: String) {
            findings.append(.init(rule: rule, outcome: holds ? .passed : .failed, detail: detail))
        }
        add("steps", report.steps <= 2, "\(report.steps) steps, at most max_steps = 2")
        let largest = update.values.indices.max { abs(update.values[$0]) < abs(update.values[$1]) }
        if let largest, abs(update.values[largest]) > valueBound {
            let tensor = update.layout.tensors.indices.last { update.layout.offsets[$0] <= largest }
            add(
                "value_bound",
                false,
                "tensor '\(tensor.map { update.layout.tensors[$0].name } ?? "")' moves by \(update.values[largest]); the server "
                    + "refuses more than the run's aggregation.value_bound, \(valueBound) unless it is set"
            )
        } else {
            add("value_bound", true, "no value moves by more than \(valueBound), the usual aggregation.value_bound")
        }
        add("moves", update.values.contains { $0 != 0 }, "training changes the model")
        add("inputs", run.modelUnchanged, "the model directory is left as it was")
        let events = run.lines.filter { $0.hasPrefix("{") }
        let broken = events.first { (try? JSONValue(parsing: Array($0.utf8))) == nil }
        add(
            "progress",
            broken == nil,
            broken.map { "not a JSON line: \($0.prefix(80))" } ?? "\(events.count) JSON lines"
        )
        return findings
    }

    private func judgeStop(model: ParameterVector, data: String, in directory: String) throws -> Finding {
        let detail =
            "after SIGTERM it writes what there is with partial true and ends with 0 within \(gracePeriodSeconds) s"
        var endless = ExternalInstructions()
        endless.epochs = 1_000_000
        endless.maxSteps = 1_000_000_000
        endless.batchSize = 2
        endless.learningRate = learningRate * 1e-3
        let stopped = try perform(.train, model: model, data: data, in: directory, endless, stopsAtFirstLine: true)
        if let error = stopped.error { return .init(rule: "sigterm", outcome: .failed, detail: error.detail) }
        guard stopped.report?.partial == true else {
            return .init(rule: "sigterm", outcome: .failed, detail: "metrics.json does not say partial; " + detail)
        }
        return .init(rule: "sigterm", outcome: .passed, detail: detail)
    }

    private func exit(_ run: Run, _ code: Int32, rule: String, _ when: String) -> Finding {
        let found =
            switch run.ending {
            case .exited(let code): "exit code \(code)"
            case .killed(let signal): "signal \(signal)"
            case nil: "no start"
            }
        return .init(
            rule: rule,
            outcome: run.ending == .exited(code) ? .passed : .failed,
            detail: "exit code \(code) \(when); found \(found)"
        )
    }

    private func finding(_ rule: String, _ error: ExternalTrainerError?, _ detail: String) -> Finding {
        .init(rule: rule, outcome: error == nil ? .passed : .failed, detail: error?.detail ?? detail)
    }

    private func perform(
        _ operation: TrainerTask.Operation,
        model: ParameterVector,
        data: String,
        in directory: String,
        _ given: ExternalInstructions? = nil,
        stopsAtFirstLine: Bool = false
    ) throws -> Run {
        var instructions = given ?? ExternalInstructions()
        if given == nil {
            instructions.maxSteps = 2
            instructions.batchSize = 4
            instructions.learningRate = learningRate
        }
        try PlainFile.makeDirectory(directory + "/state")
        let task = try TrainerTask(
            directory: directory + "/assignment-\(UUID().uuidString)",
            model: model,
            configuration: configuration,
            modelFiles: [:],
            state: directory + "/state"
        )
        var run = Run()
        defer { if run.error == nil { task.remove() } else { task.removeAllButLog() } }
        let limit = stopsAtFirstLine ? min(timeLimitSeconds, 5) : timeLimitSeconds
        let deadline = ContinuousClock.now + .seconds(limit)
        try task.describe(operation, instructions: instructions, deadline: deadline)
        try task.link(data)
        let process = TrainerProcess(
            command: command,
            directory: FileManager.default.currentDirectoryPath,
            environment: task.environment(operation, instructions: instructions, deadline: deadline)
                .merging(try ExternalTrainer.passed(environment)) { own, _ in own },
            deadline: deadline,
            gracePeriod: gracePeriodSeconds,
            logPath: task.logPath
        )
        do {
            let result = try process.run { line in
                run.lines.append(line)
                return stopsAtFirstLine
            }
            run.ending = result.ending
            run.seconds = result.seconds
            try ExternalTrainer.check(result, logPath: task.logPath)
            run.report = try TrainerReport(path: task.directory + "/update/metrics.json")
            if operation == .train { run.update = try task.update() }
        } catch let error as ExternalTrainerError {
            run.error = error
        }
        let content = FileManager.default.contents(atPath: task.directory + "/model/model.safetensors") ?? Data()
        run.modelUnchanged = SHA256.hash(data: content).hexadecimal == task.modelSHA256
        return run
    }
}
