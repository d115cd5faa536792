import CLibrary
public import Foundation
import MartletTransport
import StrictJSON
import Synchronization
public import Tensors
public import TrainerInterface
import WireFormat

/// Trains by running a command of any language, and believes nothing of what it says.
///
/// The command gets an assignment's directory (see `docs`: external trainers) and a clean environment without credentials or
/// server address. What it leaves is checked here: names, shapes, dtype, finite values, base hash, size. Clipping, noise and
/// encoding follow in the client, so that no guarantee rests on the command.
public struct ExternalTrainer: LocalTrainer {
    /// What is known beyond the instructions of one training.
    public struct Settings: Sendable {
        /// Run by `/bin/sh`, in ``directory``.
        public var command: String
        /// Where the command runs: `nil` for the directory that the process stands in.
        public var directory: String?
        /// A file or a directory.
        public var data: String
        /// A file or a directory on which models are judged; `nil` for the training data.
        public var evaluationData: String?
        /// Names of variables of this process that the command gets too, such as `CUDA_VISIBLE_DEVICES`.
        public var environment: [String] = []
        /// Assignment directories and the trainer's own state lie here.
        public var workDirectory: String
        /// Further files of the model directory by name, such as `tokenizer.json`.
        public var modelFiles: [String: String]
        /// `config.json`, where the run gives none.
        public var configuration: Data?
        /// The thread limit that the trainer is told.
        public var threads: Int
        /// When it is asked to stop, where the instructions set no limit.
        public var timeLimitSeconds: Double
        /// From SIGTERM to SIGKILL.
        public var gracePeriodSeconds: Double
        /// Runs whose state the command's directory keeps, at most: the one used longest ago is removed first.
        public var keptRuns = 32
        /// Made-up data in the command's own format, for ``ExternalTrainer/rehearse(_:model:instructions:)``.
        public var madeUpData: String?

        /// Names the command and its data.
        public init(
            command: String,
            data: String,
            workDirectory: String,
            modelFiles: [String: String] = [:],
            configuration: Data? = nil,
            threads: Int = 2,
            timeLimitSeconds: Double = 3600,
            gracePeriodSeconds: Double = 10,
            madeUpData: String? = nil
        ) {
            self.madeUpData = madeUpData
            self.command = command
            self.data = data
            self.workDirectory = workDirectory
            self.modelFiles = modelFiles
            self.configuration = configuration
            self.threads = threads
            self.timeLimitSeconds = timeLimitSeconds
            self.gracePeriodSeconds = gracePeriodSeconds
        }
    }

    /// A line that the trainer printed, progress or a message; it stays on the device.
    public enum Event: Sendable, Equatable {
        /// Steps done and to do, and the loss.
        case progress(step: Int, steps: Int, loss: Double?)
        /// A message with its level.
        case log(level: String, message: String)
        /// Anything else.
        case output(String)

        init(_ line: String) {
            guard line.hasPrefix("{"), let event = try? JSONValue(parsing: Array(line.utf8)) else {
                self = .output(line)
                return
            }
            switch event.field("event")?.stringValue {
            case "progress":
                self = .progress(
                    step: event.field("step")?.integerValue ?? 0,
                    steps: event.field("steps")?.integerValue ?? 0,
                    loss: event.field("loss")?.numberValue
                )
            case "log":
                self = .log(
                    level: event.field("level")?.stringValue ?? "info",
                    message: event.field("message")?.stringValue ?? ""
                )
            default: self = .output(line)
            }
        }
    }

    private var settings: Settings
    private let report: @Sendable (Event) -> Void

    /// Prepares a trainer; nothing runs yet.
    ///
    /// - Parameters:
    ///   - settings: The command, its data and its limits.
    ///   - report: Receives what the trainer prints, at most some ten lines a second.
    public init(_ settings: Settings, report: @escaping @Sendable (Event) -> Void = { _ in }) {
        self.settings = settings
        self.report = report
    }

    /// Stops every external trainer of this process: SIGTERM now, SIGKILL after its grace period.
    public static func stopAll() { TrainerProcess.stopAll() }

    /// Waits until no external trainer of this process runs any more; after ``stopAll()`` that is their grace period at most.
    public static func waitUntilStopped() async {
        while TrainerProcess.isRunning {
            do { try await Task.sleep(for: .milliseconds(20)) } catch { return }
        }
    }

    /// Runs the command for one assignment.
    ///
    /// - Throws: ``ExternalTrainerError`` naming the rule that was broken; `LocalTrainingError.unsupported` for what a command
    ///   cannot be told to do, before it is started.
    public func train(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingResult {
        try check(.train, model: model, instructions: instructions)
        let (task, report) = try run(.train, model: model, instructions: instructions)
        defer { task.remove() }
        let update = try task.update()
        return TrainingResult(
            delta: update,
            exampleCount: report.examples,
            metrics: report.metrics,
            stepCount: report.steps,
            isPartial: report.partial
        )
    }

    /// Refuses: a command trains, and what it sends is where its steps came to.
    public func gradient(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingResult {
        throw Self.noGradients
    }

    private static let noGradients = LocalTrainingError.unsupported(
        operation: "submit gradient by a trainer command; the run needs submit delta, with one step a round for FedSGD"
    )

    /// Refuses what a command cannot be told to do.
    public func check(_ task: TrainingTask, model: ParameterVector, instructions: TrainingInstructions) throws {
        guard task != .gradient else { throw Self.noGradients }
        guard instructions.gradientCorrection == nil else {
            throw LocalTrainingError.unsupported(
                operation:
                    "SCAFFOLD by a trainer command, which cannot correct its steps; the run needs algorithm fedavg"
            )
        }
        if let name = instructions.model?.architecture, ["histogram", "votes", "triehh"].contains(name) {
            throw LocalTrainingError.unsupported(
                operation: "method \(name) by a trainer command; start this client with --data and no --trainer-command"
            )
        }
    }

    /// Whether the settings name made-up data.
    public var canRehearse: Bool { settings.madeUpData != nil }

    /// Runs the command on the made-up data of the settings.
    public func rehearse(_ task: TrainingTask, model: ParameterVector, instructions: TrainingInstructions) throws {
        guard let madeUp = settings.madeUpData else { return }
        var rehearsal = self
        rehearsal.settings.data = madeUp
        let (work, _) = try rehearsal.run(
            task == .evaluate ? .evaluate : .train,
            model: model,
            instructions: instructions
        )
        work.remove()
    }

    /// Judges a model by the command's `evaluate`.
    ///
    /// - Throws: ``ExternalTrainerError`` naming the rule that was broken.
    public func evaluate(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingMetrics {
        let (task, report) = try run(.evaluate, model: model, instructions: instructions)
        task.remove()
        return report.metrics
    }

    /// Waits until no other command runs in the directory, such as one that was cancelled and has its grace period.
    private func hold(_ work: String, _ cancellation: TrainingCancellation?) throws -> TrainerWork {
        try SetupFailure.catching(work) {
            try FileManager.default.createDirectory(atPath: work, withIntermediateDirectories: true)
        }
        var waits = 0
        while true {
            if let held = try SetupFailure.catching(work, { try TrainerWork.take(work) }) { return held }
            try cancellation?.check()
            if TrainerProcess.isStopping {
                throw ExternalTrainerError(.cancelled, "the client was stopped", failure: .cancelled)
            }
            waits += 1
            if waits == 50 {
                report(
                    .log(
                        level: "warning",
                        message:
                            "another command still runs in \(work), perhaps one that was cancelled; waiting for its end"
                    )
                )
            }
            usleep(20_000)
        }
    }

    private func run(
        _ operation: TrainerTask.Operation,
        model: ParameterVector,
        instructions: TrainingInstructions
    ) throws -> (TrainerTask, TrainerReport) {
        let context = instructions.context ?? TrainingContext()
        let name = context.run.filter { $0.isLetter || $0.isNumber || $0 == "_" || $0 == "-" }
        let work = URL(fileURLWithPath: settings.workDirectory).standardizedFileURL.path
        let cancellation = instructions.cancellation
        let held = try hold(work, cancellation)
        // All that does not depend on the data comes before they are looked at.
        var task = try SetupFailure.catching(work) {
            try TrainerTask(
                directory: TrainerWork.newAssignment(in: work),
                model: model,
                configuration: context.configuration ?? settings.configuration,
                modelFiles: settings.modelFiles,
                state: try TrainerStates(directory: work + "/state", count: settings.keptRuns)
                    .path(run: name.isEmpty ? "run" : name)
            )
        }
        task.work = held
        do {
            let limit = ContinuousClock.now + .seconds(settings.timeLimitSeconds)
            // Asked to stop early enough to write what there is before the server's deadline.
            let deadline = min(limit, context.deadline.map { $0 - .seconds(settings.gracePeriodSeconds) } ?? limit)
            var external = ExternalInstructions(instructions, context: context)
            external.threads = settings.threads
            let round = external.round
            let logPath = try SetupFailure.catching(work) {
                try task.describe(operation, instructions: external, deadline: deadline)
                return try TrainerLogs(directory: work + "/logs").path(
                    run: name.isEmpty ? "run" : name,
                    round: round,
                    operation: operation.rawValue
                )
            }
            try task.link(operation == .evaluate ? settings.evaluationData ?? settings.data : settings.data)
            var environment = task.environment(operation, instructions: external, deadline: deadline)
            environment.merge(try Self.passed(settings.environment)) { own, _ in own }
            var process = TrainerProcess(
                command: settings.command,
                directory: settings.directory ?? FileManager.default.currentDirectoryPath,
                environment: environment,
                deadline: deadline,
                gracePeriod: settings.gracePeriodSeconds,
                logPath: logPath
            )
            process.isCancelled = { cancellation?.isCancelled ?? false }
            var budget = LineBudget()
            let result = try process.run { line in
                if budget.admits(at: .now) { report(Event(line)) }
                return false
            }
            try cancellation?.check()
            try Self.check(result, logPath: process.logPath)
            return (task, try TrainerReport(path: task.directory + "/update/metrics.json"))
        } catch {
            task.remove()
            throw error
        }
    }

    /// The variables of this process that the command gets by name.
    ///
    /// - Throws: ``ExternalTrainerError`` with rule `start` for one that is not set.
    static func passed(_ names: [String]) throws -> [String: String] {
        let own = ProcessInfo.processInfo.environment
        return try names.reduce(into: [:]) { passed, name in
            guard let value = own[name] else {
                throw ExternalTrainerError(.start, "the variable \(name), which the command is to get, is not set")
            }
            passed[name] = value
        }
    }

    static func check(_ result: TrainerProcess.Result, logPath: String) throws {
        if case .exited(0) = result.ending { return }
        if TrainerProcess.isStopping {
            throw ExternalTrainerError(.cancelled, "the client was stopped", failure: .cancelled)
        }
        switch result.ending {
        case .exited(let code):
            var error = ExternalTrainerError.exit(code)
            if result.wasStopped { error.detail += ", after it was asked to stop at its deadline" }
            error.detail += tail(of: logPath)
            throw error
        case .killed(let signal):
            if result.wasStopped {
                throw ExternalTrainerError(
                    .deadline,
                    "it had not ended \(Int(result.seconds)) s after its start, was asked to stop (SIGTERM), and ended by "
                        + "signal \(signal)"
                )
            }
            throw ExternalTrainerError(.signal, "it ended by signal \(signal)" + tail(of: logPath))
        }
    }

    /// The last words of the trainer's log, for the local message; the server is told the rule only.
    private static func tail(of path: String) -> String {
        let descriptor = PlainFile.open(path, O_RDONLY)
        guard descriptor >= 0 else { return "" }
        let file = FileHandle(fileDescriptor: descriptor, closeOnDealloc: true)
        let end = (try? file.seekToEnd()) ?? 0
        try? file.seek(toOffset: end > 300 ? end - 300 : 0)
        let text = (try? file.readToEnd()).map { String(decoding: $0, as: UTF8.self) } ?? ""
        let line = text.split(separator: "\n").last.map(String.init) ?? ""
        return line.isEmpty ? "; its log, \(path), is empty" : "; its log, \(path), ends: \(line)"
    }
}

/// At most ten lines a second, with a burst of twenty.
private struct LineBudget {
    private var left = 20.0
    private var last = ContinuousClock.now

    mutating func admits(at now: ContinuousClock.Instant) -> Bool {
        left = min(20, left + (now - last) / .seconds(1) * 10)
        last = now
        guard left >= 1 else { return false }
        left -= 1
        return true
    }
}

extension TrainerReport {
    /// The sums as built-in trainers give them.
    fileprivate var metrics: TrainingMetrics {
        var metrics = TrainingMetrics()
        metrics.tokens = tokens
        metrics.custom = custom
        func take<Value>(
            _ value: Value?,
            _ measure: TrainingMetrics.Measure,
            _ field: WritableKeyPath<TrainingMetrics, Value>
        ) {
            if let value { metrics[keyPath: field] = value } else { metrics.unmeasured.insert(measure) }
        }
        take(nll, .nll, \.nll)
        take(lossTokens, .lossTokens, \.lossTokens)
        take(hit1, .hit1, \.hit1)
        take(hit3, .hit3, \.hit3)
        return metrics
    }
}
