import Foundation
import TestSupport
import Testing

/// `martlet client` as a process: killed at each step, beside a second one, and with no space left.
@Suite(.timeLimit(.minutes(60)), .serialized)
struct DeviceProcessTests {
    private let directory: TemporaryDirectory
    private let server: ServerProcess
    private let token: String

    init() throws {
        directory = try TemporaryDirectory()
        server = try ServerProcess.start(dataDirectory: directory.path + "/data")
        #expect(try server.martlet("population", "create", "p", "--epsilon", "1000").status == 0)
        token = try #require(
            try server.martlet("population", "token", "p", "--json").output.split(separator: "\"").dropLast().last
                .map(String.init)
        )
        try "good morning, see you at the station.\n"
            .write(toFile: directory.path + "/text", atomically: true, encoding: .utf8)
    }

    /// A run with mode `local`, one client a round.
    private func start(rounds: Int) throws {
        let runFile = directory.path + "/run.yaml"
        try """
        population: p
        model: {architecture: cifg-lstm, config: {vocab_size: 52, embedding_dim: 4, hidden_dim: 8}}
        rounds: \(rounds)
        cohort: {goal: 1, minimum: 1, over_selection: 1.0, max_participations: \(rounds)}
        aggregation: {weighting: uniform}
        privacy: {mode: local, clipping: {norm: 1.0}, noise_multiplier: 2.0}
        """.write(toFile: runFile, atomically: true, encoding: .utf8)
        let created = try server.martlet("run", "create", runFile, "--start", "--json")
        #expect(created.status == 0, "\(created.output)")
    }

    private var arguments: [String] {
        [
            "client", "--enrollment-token", token, "--data", directory.path + "/text", "--state-dir",
            directory.path + "/device",
        ]
    }

    private func ledger() throws -> [String] {
        let data = try Data(contentsOf: URL(fileURLWithPath: directory.path + "/device/ledger.json"))
        let document = try JSONSerialization.jsonObject(with: data) as? [String: [[String: Any]]]
        return (document?["events"] ?? []).compactMap { $0["assignment"] as? String }
    }

    /// SIGKILL at the n-th point of one process after the other, all with the same state: each step of registration, work and
    /// upload is cut once.
    @Test(.slow) func aDeviceThatIsKilledAtEachStepReportsEachAssignmentOnce() throws {
        defer { server.stop(SIGTERM) }
        let every = ProcessInfo.processInfo.environment["MARTLET_DEVICE_POINTS"].flatMap { Int($0) } ?? 4
        // The run must not end before the sweep does: some fifteen points are one participation.
        let rounds = 160 / every
        try start(rounds: rounds)
        var kills = 0
        for point in stride(from: 1, through: 60, by: every) {
            let result = try server.run(
                ServerProcess.binary,
                arguments + ["--once"],
                environment: ["MARTLET_DIE_AT_POINT": "\(point)"]
            )
            kills += result.status == SIGKILL ? 1 : 0
        }
        #expect(kills >= 30 / every, "\(kills)")
        var patience = Patience("the end of the run", seconds: 1500)
        while try !server.martlet("run", "list").output.contains("completed") {
            let result = try server.run(ServerProcess.binary, arguments + ["--once"])
            #expect(result.status == 0, "\(result.output)")
            try patience.pauseThread()
        }
        let events = try ledger()
        // One client, one event a round: what was accepted is what the ledger has, and nothing was done twice.
        #expect(events.count == rounds && Set(events).count == rounds, "\(events.count)")
    }

    @Test(.slow) func aSecondProcessIsToldWhichOneHasTheState() throws {
        defer { server.stop(SIGTERM) }
        let first = Process()
        first.executableURL = URL(fileURLWithPath: ServerProcess.binary)
        first.arguments = arguments + ["--server", server.url]
        first.standardOutput = FileHandle.nullDevice
        first.standardError = FileHandle.nullDevice
        try first.run()
        defer {
            first.terminate()
            first.waitUntilExit()
        }
        var patience = Patience("the first client to register")
        while !FileManager.default.fileExists(atPath: directory.path + "/device/credential.json") {
            try patience.pauseThread()
        }
        let second = try server.run(ServerProcess.binary, arguments + ["--once"])
        #expect(second.status != 0)
        #expect(second.output.contains("process \(first.processIdentifier)"), "\(second.output)")
    }

    @Test(.slow) func aFullDiskIsCalledThat() throws {
        defer { server.stop(SIGTERM) }
        try start(rounds: 1)
        // No file may be longer than a few kilobytes: neither the model nor an update has space.
        let command = "trap '' XFSZ; ulimit -f 4; exec \"$0\" \"$@\""
        let full = try server.run("/bin/sh", ["-c", command, ServerProcess.binary] + arguments + ["--once"])
        #expect(full.status != 0)
        #expect(full.output.contains("disk_full") && full.output.contains("no space"), "\(full.output)")
        #expect(!full.output.contains("network") && !full.output.contains("NSCocoa"), "\(full.output)")
        let mended = try server.run(ServerProcess.binary, arguments + ["--once"])
        #expect(mended.output.contains("accepted: round 1"), "\(mended.output)")
    }

    /// The disk is full when the fleet starts, and has space again while it runs.
    @Test func aFleetWaitsForADiskThatIsFull() throws {
        defer { server.stop(SIGTERM) }
        try start(rounds: 3)
        let log = directory.path + "/fleet.log"
        #expect(FileManager.default.createFile(atPath: log, contents: nil))
        let fleet = Process()
        fleet.executableURL = URL(fileURLWithPath: "/bin/sh")
        // A soft limit: no file may be longer than two kilobytes until it is lifted.
        fleet.arguments = [
            "-c", "trap '' XFSZ; ulimit -S -f 4; exec \"$0\" \"$@\"", ServerProcess.binary, "fleet", "--server",
            server.url, "--enrollment-token", token, "--clients", "3", "--state-dir", directory.path + "/fleet",
        ]
        let output = try #require(FileHandle(forWritingAtPath: log))
        (fleet.standardOutput, fleet.standardError) = (output, output)
        try fleet.run()
        defer {
            fleet.terminate()
            fleet.waitUntilExit()
        }
        func text() -> String { (try? String(contentsOfFile: log, encoding: .utf8)) ?? "" }
        var full = Patience("the fleet to say that the disk is full")
        while !text().contains("no space") {
            try #require(fleet.isRunning, "\(text())")
            try full.pauseThread()
        }
        let lifted = try ServerProcess.capture(
            "/usr/bin/prlimit",
            ["--pid", "\(fleet.processIdentifier)", "--fsize=unlimited"]
        )
        #expect(lifted.status == 0, "\(lifted.output)")
        var patience = Patience("the end of the run", seconds: 240)
        while try !server.martlet("run", "list").output.contains("completed") {
            try #require(fleet.isRunning, "\(text())")
            try patience.pauseThread()
        }
        #expect(!text().contains("left out"), "\(text())")
    }

    @Test(.slow) func aDamagedNoteDoesNotHoldUpTheDevice() throws {
        defer { server.stop(SIGTERM) }
        let device = directory.path + "/device"
        try FileManager.default.createDirectory(atPath: device, withIntermediateDirectories: true)
        let note = #"{"assignment":"asg_0","updateUrl":"/v1/assignments/asg_0/update","sha256":"AAAA"}"#
        try note.write(toFile: device + "/pending.json", atomically: true, encoding: .utf8)
        try start(rounds: 1)
        let result = try server.run(ServerProcess.binary, arguments + ["--once"])
        #expect(result.status == 0 && result.output.contains("ended: state_damaged"), "\(result.output)")
        #expect(result.output.contains("accepted: round 1") && !result.output.contains("network"), "\(result.output)")
    }

    /// A server that hears nothing of a device that it knows would hear that its data cannot be read.
    @Test(.slow) func aDataFileThatCannotBeReadKeepsOnlyAnUnknownDeviceAway() throws {
        defer { server.stop(SIGTERM) }
        let text = directory.path + "/text"
        try FileManager.default.moveItem(atPath: text, toPath: text + ".away")
        try start(rounds: 1)
        let unknown = try server.run(ServerProcess.binary, arguments + ["--once"])
        #expect(unknown.status != 0 && unknown.output.contains("cannot read the file"), "\(unknown.output)")
        try FileManager.default.moveItem(atPath: text + ".away", toPath: text)
        let known = try server.run(ServerProcess.binary, arguments + ["--once"])
        #expect(known.output.contains("accepted: round 1"), "\(known.output)")
        try FileManager.default.removeItem(atPath: text)
        try start(rounds: 1)
        let lost = try server.run(ServerProcess.binary, arguments + ["--once"])
        #expect(lost.output.contains("Warning: cannot read the file"), "\(lost.output)")
        #expect(lost.output.contains("accepted: round 1") && lost.output.contains("zeros were sent"), "\(lost.output)")
        #expect(try ledger().count == 2)
    }

    /// The operator reads why a client's work came to nothing, and not the code alone.
    @Test(.slow) func causesAreInTheStoryOfARound() throws {
        defer { server.stop(SIGTERM) }
        let file = directory.path + "/open.yaml"
        #expect(try server.martlet("population", "create", "open").status == 0)
        let open = try #require(
            try server.martlet("population", "token", "open", "--json").output.split(separator: "\"").dropLast().last
                .map(String.init)
        )
        try """
        population: open
        model: {architecture: cifg-lstm, config: {vocab_size: 52, embedding_dim: 4, hidden_dim: 8}}
        rounds: 1
        cohort: {goal: 2, minimum: 2, over_selection: 1.0}
        """.write(toFile: file, atomically: true, encoding: .utf8)
        let created = try server.martlet("run", "create", file, "--start", "--json")
        let found = created.output.firstMatch(of: /run_[0-9a-zA-Z]+/).map { String($0.output) }
        let run = try #require(found, "\(created.output)")
        let device = arguments.map { $0 == token ? open : $0 }
        _ = try server.run(ServerProcess.binary, device + ["--once", "--trainer-command", "exit 3"])
        let story = try server.martlet("run", "explain", run, "--round", "1").output
        #expect(story.contains("failed: training_failed: external trainer: exit_code"), "\(story)")
    }

    private func isAlive(_ process: pid_t) -> Bool {
        guard let stat = FileManager.default.contents(atPath: "/proc/\(process)/stat") else { return false }
        return !String(decoding: stat, as: UTF8.self).contains(") Z")
    }

    private func process(_ name: String) throws -> pid_t {
        var patience = Patience("the command to begin")
        while true {
            if let text = try? String(contentsOfFile: directory.path + "/" + name, encoding: .utf8),
                let number = pid_t(text.trimmingCharacters(in: .whitespacesAndNewlines))
            {
                return number
            }
            try patience.pauseThread()
        }
    }

    /// SIGKILL of the client: its command lived on with a copy of the model, and the next one began beside it.
    @Test(.slow) func theCommandOfAKilledClientEndsWithIt() throws {
        defer { server.stop(SIGTERM) }
        try start(rounds: 1)
        let here = directory.path
        let command =
            "trap '' TERM; (setsid sh -c 'echo $$ > \(here)/far; exec sleep 3600' &); echo $$ > \(here)/near; sleep 3600; sleep 3600"
        let trainer = arguments + ["--made-up-data", here + "/text", "--trainer-command"]
        let client = Process()
        client.executableURL = URL(fileURLWithPath: ServerProcess.binary)
        client.arguments = trainer + [command, "--server", server.url]
        client.standardOutput = FileHandle.nullDevice
        client.standardError = FileHandle.nullDevice
        try client.run()
        let (near, far) = (try process("near"), try process("far"))
        let work = here + "/device/trainer"
        func assignments() throws -> [String] {
            try FileManager.default.contentsOfDirectory(atPath: work).filter { $0.hasPrefix("assignment-") }
        }
        #expect(try assignments().count == 1)
        kill(client.processIdentifier, SIGKILL)
        // Not by `waitUntilExit`: what is left of the command holds what that waits for.
        var patience = Patience("the command to end")
        while isAlive(client.processIdentifier) { try patience.pauseThread() }
        while isAlive(near) { try patience.pauseThread() }
        // What left its process group is found by its environment when the state is opened again.
        #expect(isAlive(far))
        let next = try server.run(ServerProcess.binary, trainer + ["exit 10", "--once"])
        #expect(next.output.contains("accepted: round 1"), "\(next.output)")
        #expect(!isAlive(far))
        #expect(try assignments().isEmpty)
    }

    @Test(.slow) func aTrainerCommandTakesPartInPrivateRunsWithMadeUpDataOnly() throws {
        defer { server.stop(SIGTERM) }
        try start(rounds: 1)
        let trainer = arguments + ["--once", "--trainer-command", "exit 10"]
        let hasty = try server.run(ServerProcess.binary, trainer)
        #expect(hasty.output.contains("private runs are refused"), "\(hasty.output)")
        #expect(hasty.output.contains("ended: privacy_refused: "), "\(hasty.output)")
        #expect(try ledger().isEmpty)
        let nowhere = try server.run(ServerProcess.binary, trainer + ["--made-up-data", directory.path + "/none"])
        #expect(nowhere.status != 0 && nowhere.output.contains("there is no file"), "\(nowhere.output)")
        // Another device: the first one has had its turns.
        let other = trainer.map { $0.replacing("/device", with: "/other") }
        let rehearsed = try server.run(ServerProcess.binary, other + ["--made-up-data", directory.path + "/text"])
        #expect(rehearsed.output.contains("accepted: round 1"), "\(rehearsed.output)")
        #expect(rehearsed.output.contains("zeros were sent"), "\(rehearsed.output)")
    }
}
