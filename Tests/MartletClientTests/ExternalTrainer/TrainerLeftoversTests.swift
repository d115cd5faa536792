import Foundation
import LocalTraining
import Synchronization
import Tensors
import TestSupport
import Testing

@testable import MartletClient

#if canImport(Glibc)
import Glibc
#endif

/// One command at a time on one state, nothing left of one whose client was killed, and a full disk that is called so.
@Suite(.timeLimit(.minutes(10)), .serialized)
struct TrainerLeftoversTests {
    private static let model = ParameterVector(
        layout: ParameterLayout([.init(name: "weight", shape: [1])]),
        values: [0.5]
    )
    private static let instructions = TrainingInstructions(learningRate: 0.5, batchSize: 2, epochs: 1, seed: 7)
    private let directory: TemporaryDirectory

    init() throws {
        directory = try TemporaryDirectory()
        try "a\n1\n".write(toFile: directory.path + "/mine.csv", atomically: true, encoding: .utf8)
    }

    private func trainer(
        _ command: String,
        work: String = "/work",
        grace: Double = 2,
        report: @escaping @Sendable (ExternalTrainer.Event) -> Void = { _ in }
    ) -> ExternalTrainer {
        ExternalTrainer(
            .init(
                command: command,
                data: directory.path + "/mine.csv",
                workDirectory: directory.path + work,
                timeLimitSeconds: 600,
                gracePeriodSeconds: grace
            ),
            report: report
        )
    }

    private func isAlive(_ process: pid_t) -> Bool {
        guard let stat = FileManager.default.contents(atPath: "/proc/\(process)/stat") else { return false }
        return !String(decoding: stat, as: UTF8.self).contains(") Z")
    }

    /// What a client that was killed has left: a directory with a copy of the model, and a command that works in it.
    @Test func whatAKilledClientHasLeftIsEndedWhenTheStateIsOpened() throws {
        let state = directory.path + "/device"
        let left = state + "/trainer/assignment-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: left + "/model", withIntermediateDirectories: true)
        try Data(count: 100).write(to: URL(fileURLWithPath: left + "/model/model.safetensors"))
        chmod(left + "/model", 0o500)
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/bin/sleep")
        process.arguments = ["600"]
        process.environment = ["MARTLET_ASSIGNMENT": left + "/assignment.json"]
        try process.run()
        #expect(isAlive(process.processIdentifier))
        _ = try ClientState(directory: state)
        process.waitUntilExit()
        #expect(process.terminationReason == .uncaughtSignal)
        #expect(try FileManager.default.contentsOfDirectory(atPath: state + "/trainer") == ["lock"])
    }

    /// A process whose parent goes on may be within `execve` still, where its environment reads as empty.
    @Test(.slow) func commandsThatWereJustStartedAreFound() throws {
        for number in 0..<200 {
            let process = Process()
            process.executableURL = URL(fileURLWithPath: "/bin/sleep")
            process.arguments = ["600"]
            process.environment = ["MARTLET_TEST_MARK": "\(directory.path)/\(number)"]
            try process.run()
            Descendants.killAll(marked: "MARTLET_TEST_MARK", endingIn: "\(directory.path)/\(number)")
            kill(process.processIdentifier, SIGTERM)
            process.waitUntilExit()
            #expect(process.terminationStatus == SIGKILL, "process \(number)")
        }
    }

    /// Another process's command is no leftover while its client lives.
    @Test func aCommandThatRunsIsLeftAlone() throws {
        let state = directory.path + "/device"
        try FileManager.default.createDirectory(atPath: state + "/trainer", withIntermediateDirectories: true)
        let mark = directory.path + "/begun"
        let goOn = directory.path + "/go-on"
        let trainer = trainer(
            "touch \(mark); while ! test -e \(goOn); do sleep 0.05; done; exit 40",
            work: "/device/trainer"
        )
        let ended = Counter()
        let thread = Thread {
            do { _ = try trainer.train(model: Self.model, instructions: Self.instructions) } catch {
                ended.value = "\(error)".contains("exit code 40") ? 1 : 2
            }
        }
        thread.start()
        var patience = Patience("the command")
        while !FileManager.default.fileExists(atPath: mark) { try patience.pauseThread() }
        _ = try ClientState(directory: state)
        try Data().write(to: URL(fileURLWithPath: goOn))
        while ended.value == 0 { try patience.pauseThread() }
        #expect(ended.value == 1)
    }

    /// A cancelled command has its grace period; the next one waits for its end, and its owner is told.
    @Test(.slow) func twoCommandsNeverShareAState() throws {
        let log = directory.path + "/order"
        let mark = directory.path + "/begun"
        let goOn = directory.path + "/go-on"
        // It ignores SIGTERM, and ends when the next one has said that it waits.
        let stubborn = trainer(
            "trap '' TERM; echo first >> \(log); touch \(mark); while ! test -e \(goOn); do sleep 0.05; done",
            grace: 600
        )
        let cancellation = TrainingCancellation()
        var cancelled = Self.instructions
        cancelled.cancellation = cancellation
        let told = cancelled
        let ended = Counter()
        let thread = Thread {
            _ = try? stubborn.train(model: Self.model, instructions: told)
            ended.value = 1
        }
        thread.start()
        var patience = Patience("the command")
        while !FileManager.default.fileExists(atPath: mark) { try patience.pauseThread() }
        cancellation.cancel()
        let words = Mutex<[String]>([])
        let second = trainer("echo second >> \(log); exit 40") { event in
            guard case .log(_, let message) = event else { return }
            words.withLock { $0.append(message) }
            if message.contains("another command still runs") {
                _ = FileManager.default.createFile(atPath: goOn, contents: nil)
            }
        }
        let error = #expect(throws: ExternalTrainerError.self) {
            try second.train(model: Self.model, instructions: Self.instructions)
        }
        #expect(error?.detail.contains("exit code 40") == true)
        while ended.value == 0 { try patience.pauseThread() }
        #expect(words.withLock { $0.contains { $0.contains("another command still runs") } })
        let order = try String(contentsOfFile: log, encoding: .utf8)
        #expect(order.hasPrefix("first\n") && order.contains("second"), "\(order)")
    }

    /// Seen by the watcher alone: nobody is left to kill the command.
    @Test func aCommandEndsWithItsClient() throws {
        let mark = directory.path + "/child"
        var pipe: [Int32] = [0, 0]
        #expect(Glibc.pipe(&pipe) == 0)
        for end in pipe { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        let process = try TrainerProcess.spawnWatched(
            "echo $$ > \(mark); trap '' TERM; sleep 600",
            in: directory.path,
            alive: pipe[0]
        )
        close(pipe[0])
        var patience = Patience("the command")
        while (try? Data(contentsOf: URL(fileURLWithPath: mark)))?.isEmpty ?? true { try patience.pauseThread() }
        #expect(isAlive(process))
        // The client's end of the pipe goes with it.
        close(pipe[1])
        var status: Int32 = 0
        #expect(waitpid(process, &status, 0) == process && status & 0x7F == SIGKILL)
    }

    // MARK: - This device's disk

    private func assignment(_ mode: String) -> RehearsalServer { RehearsalServer(mode: mode) }

    /// A work directory that cannot be written is no fault of the trainer's or of the data's: nothing is charged, and nothing is sent.
    @Test(arguments: ["none", "local"])
    func anErrorOfTheDiskBeforeTheDataIsCalledThat(_ mode: String) async throws {
        let work = directory.path + "/blocked"
        try Data().write(to: URL(fileURLWithPath: work))
        var settings = ExternalTrainer.Settings(
            command: "exit 10",
            data: directory.path + "/mine.csv",
            workDirectory: work
        )
        settings.madeUpData = directory.path + "/mine.csv"
        let (device, server) = (try RehearsalDevice(), assignment(mode))
        let client = try device.client(server, ExternalTrainer(settings))
        let outcome = try await client.participateOnce(waitSeconds: 0)
        #expect(outcome == .ended(code: "storage"), "\(outcome)")
        #expect(server.state.withLock { $0.sent.isEmpty })
        #expect(try device.ledger().isEmpty)
    }

    /// What a trainer throws is told in words, and not as Swift writes a value.
    @Test func theOwnerReadsWordsInPrivateRunsToo() async throws {
        let trainer = RehearsalTrainer { _ in
            throw NSError(domain: "mine", code: 3, userInfo: [NSLocalizedDescriptionKey: "no camera"])
        }
        let (device, server) = (try RehearsalDevice(), assignment("local"))
        let client = try device.client(server, trainer)
        #expect(try await client.participateOnce(waitSeconds: 0) == .accepted(run: "run_1", round: 1))
        let words = await client.lastShortfall ?? ""
        #expect(words.contains("no camera") && !words.contains("TrainerFailure"), "\(words)")
    }

    /// F10: a trainer that writes a name in another normal form is told so by that rule, before its values are looked at.
    @Test func aNameInAnotherNormalFormIsAnotherName() throws {
        func vector(_ name: String) -> ParameterVector {
            ParameterVector(zeros: ParameterLayout([.init(name: name, shape: [1])]))
        }
        let task = try TrainerTask(
            directory: TrainerWork.newAssignment(in: directory.path),
            model: vector("cafe\u{301}"),
            configuration: nil,
            modelFiles: [:],
            state: directory.path
        )
        defer { task.remove() }
        for (name, isRight) in [("caf\u{E9}", false), ("cafe\u{301}", true)] {
            try SafetensorsWriter.encode(vector(name), metadata: ["kind": "delta", "base": task.modelSHA256])
                .write(to: URL(fileURLWithPath: task.directory + "/update/model.safetensors"))
            do {
                _ = try task.update()
                #expect(isRight)
            } catch let error as ExternalTrainerError {
                #expect(!isRight && error.rule == .names && error.detail.contains("other code points"), "\(error)")
            }
        }
    }

    /// The state of each run is kept apart and from round to round; of many runs the one used longest ago makes room.
    @Test func statesAreKeptForTheLastRuns() throws {
        let states = TrainerStates(directory: directory.path + "/state", count: 3)
        for number in 1...5 {
            let path = try states.path(run: "run_\(number)")
            try "\(number)".write(toFile: path + "/memory", atomically: true, encoding: .utf8)
            // The first run is used again and again.
            if number > 1 { _ = try states.path(run: "run_1") }
            RealTime.pass(0.02, because: "the clock of files ticks every few milliseconds")
        }
        let kept = try FileManager.default.contentsOfDirectory(atPath: states.directory).sorted()
        #expect(kept == ["run_1", "run_4", "run_5"], "\(kept)")
        #expect(try String(contentsOfFile: states.path(run: "run_1") + "/memory", encoding: .utf8) == "1")
        // Nothing outside is reached through a link of that name.
        unlink(states.directory + "/run_9")
        symlink("/tmp", states.directory + "/run_9")
        #expect(throws: ClientError.self) { try states.path(run: "run_9") }
    }

    // MARK: - Metrics of the trainer's own

    private func evaluation(_ metrics: String) throws -> TrainingMetrics {
        try trainer("printf '%s' '\(metrics)' > \"$MARTLET_UPDATE_DIR/metrics.json\"")
            .evaluate(model: Self.model, instructions: Self.instructions)
    }

    @Test func metricsOfItsOwnAreSums() throws {
        let metrics = try evaluation(#"{"schema": 1, "examples": 4, "metrics": {"pearson": 3, "f1_micro": 0.5}}"#)
        #expect(metrics.custom == ["pearson": 3, "f1_micro": 0.5])
        #expect(metrics.sums["pearson"] == 3 && metrics.sums["tokens"] == 4)
        for (text, says) in [
            (#"{"loss": 1}"#, "another name"), (#"{"Bad": 1}"#, "lower-case"), (#"{"a": "x"}"#, "2^40"),
            ("[1]", "object"),
            (#"{"a": 1e300}"#, "2^40"), (#"{"num_examples": 1}"#, "another name"),
        ] {
            let error = #expect(throws: ExternalTrainerError.self) {
                try evaluation(#"{"schema": 1, "examples": 4, "metrics": \#(text)}"#)
            }
            #expect(error?.rule == .metrics && error?.detail.contains(says) == true, "\(error?.detail ?? "")")
        }
    }

    @Test func sumsOfAnAppAreSentUnderTheRulesOfNames() {
        var metrics = TrainingMetrics()
        (metrics.tokens, metrics.custom) = (2, ["mine": 1, "tokens": 9, "No": 1, "far": 0x1p41, "base": 1, "kind": 2])
        #expect(metrics.sums["mine"] == 1 && metrics.sums["tokens"] == 2)
        for name in ["No", "far", "base", "kind"] { #expect(metrics.sums[name] == nil) }
        var both = metrics
        both += metrics
        #expect(both.custom["mine"] == 2)
    }
}
