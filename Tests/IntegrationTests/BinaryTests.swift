import Foundation
import TestSupport
import Testing

/// The built binary and its server, driven from outside as a user would.
struct ServerProcess {
    static let binary: String = {
        // The test bundle and the executables lie in one directory.
        URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().deletingLastPathComponent().path + "/martlet"
    }()
    static let python = ProcessInfo.processInfo.environment["MARTLET_TEST_PYTHON"]
    static let repository = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().path

    let process: Process
    let url: String
    let token: String

    /// Starts a server on a free port and waits until it says that it listens.
    static func start(
        dataDirectory: String,
        _ more: [String] = [],
        token known: String? = nil,
        log: String? = nil,
        environment: [String: String] = [:]
    ) throws -> ServerProcess {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: binary)
        process.arguments = ["serve", "--data-dir", dataDirectory, "--listen", "127.0.0.1:0"] + more
        process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }
        let output = Pipe()
        process.standardOutput = output
        if let log { _ = FileManager.default.createFile(atPath: log, contents: nil) }
        process.standardError = log.flatMap { FileHandle(forWritingAtPath: $0) } ?? FileHandle.nullDevice
        try process.run()
        let line = String(decoding: output.fileHandleForReading.availableData, as: UTF8.self)
        let url = try #require(line.split(separator: " ").last).trimmingCharacters(in: .whitespacesAndNewlines)
        let token = try known ?? String(contentsOfFile: dataDirectory + "/admin-token", encoding: .utf8)
        return ServerProcess(process: process, url: url, token: token.trimmingCharacters(in: .whitespacesAndNewlines))
    }

    /// Sends a signal and waits for the end; a server that does not stop is killed, and fails its test instead of holding it up.
    func stop(_ signal: Int32) {
        kill(process.processIdentifier, signal)
        if !process.ends(within: 600) {
            Issue.record("the server did not stop within 600 s of signal \(signal)")
            kill(process.processIdentifier, SIGKILL)
        }
        process.waitUntilExit()
    }

    /// Runs a command with the server's address in the environment.
    func run(
        _ command: String,
        _ arguments: [String],
        environment more: [String: String] = [:]
    ) throws -> (status: Int32, output: String) {
        var environment = ["MARTLET_URL": url, "MARTLET_TOKEN": token]
        environment["PYTHON"] = Self.python
        return try Self.capture(command, arguments, environment: environment.merging(more) { $1 })
    }

    /// Runs a command to its end, with additions to this process's environment.
    static func capture(
        _ command: String,
        _ arguments: [String],
        environment more: [String: String] = [:]
    ) throws -> (status: Int32, output: String) {
        let child = Process()
        child.executableURL = URL(fileURLWithPath: command)
        child.arguments = arguments
        child.environment = ProcessInfo.processInfo.environment.merging(more) { $1 }
        let output = Pipe()
        child.standardOutput = output
        child.standardError = output
        try child.run()
        let data = output.fileHandleForReading.readDataToEndOfFile()
        child.waitUntilExit()
        return (child.terminationStatus, String(decoding: data, as: UTF8.self))
    }

    func martlet(_ arguments: String...) throws -> (status: Int32, output: String) {
        try run(Self.binary, arguments)
    }

    /// `curl -i` with the administrator's token.
    func curl(_ arguments: String...) throws -> String {
        try run("/usr/bin/env", ["curl", "-s", "-i", "-H", "Authorization: Bearer \(token)"] + arguments).output
    }
}

@Suite(.timeLimit(.minutes(30)), .serialized)
struct BinaryTests {
    /// With Python's safetensors, and with nothing that a machine with Python has not: `-S` leaves its packages out.
    @Test(.slow, arguments: [false, true])
    func aWholeRoundByHand(withPackages: Bool) throws {
        let directory = try TemporaryDirectory()
        let bare = directory.path + "/python"
        try "#!/bin/sh\nexec python3 -S \"$@\"\n".write(toFile: bare, atomically: true, encoding: .utf8)
        try FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: bare)
        let server = try ServerProcess.start(dataDirectory: directory.path + "/data")
        defer { server.stop(SIGTERM) }
        let result = try server.run(
            "/bin/bash",
            [ServerProcess.repository + "/scripts/round-by-hand"],
            environment: ["PYTHON": withPackages ? ServerProcess.python ?? "python3" : bare]
        )
        #expect(result.status == 0, "\(result.output)")
        #expect(result.output.contains("layer.weight [[1.75, 1.75, 1.75], [1.75, 1.75, 1.75]]"), "\(result.output)")
        #expect(result.output.contains("layer.bias [2.75, 2.75]"))
    }

    @Test(.slow) func aRunGoesOnAfterKill9AndTheBudgetStands() throws {
        let directory = try TemporaryDirectory()
        var server = try ServerProcess.start(dataDirectory: directory.path)
        let runFile = directory.path + "/run.yaml"
        try """
        population: p
        model: {architecture: cifg-lstm, config: {vocab_size: 52, embedding_dim: 4, hidden_dim: 8}}
        rounds: 2
        cohort: {goal: 4, minimum: 4, over_selection: 1.0, max_participations: 1}
        privacy: {mode: central, noise_multiplier: 0.7}
        """.write(toFile: runFile, atomically: true, encoding: .utf8)
        #expect(try server.martlet("population", "create", "p", "--epsilon", "8").status == 0)
        let created = try server.martlet("run", "create", runFile, "--start", "--json")
        #expect(created.status == 0, "\(created.output)")
        let token = try #require(
            try server.martlet("population", "token", "p", "--json").output.split(separator: "\"").dropLast().last
        )
        let text = directory.path + "/text"
        try "good morning, see you at the station.\n".write(toFile: text, atomically: true, encoding: .utf8)
        for index in 0..<8 {
            if index == 2 || index == 5 {
                server.stop(SIGKILL)
                server = try ServerProcess.start(dataDirectory: directory.path)
            }
            let client = try server.martlet(
                "client",
                "--enrollment-token",
                String(token),
                "--data",
                text,
                "--state-dir",
                directory.path + "/client-\(index)",
                "--once"
            )
            #expect(client.output.contains("accepted"), "\(client.output)")
        }
        let run = try server.martlet("run", "list")
        let id = try #require(run.output.firstMatch(of: /run_[0-9a-f]+/)).0
        let watched = try server.martlet("run", "watch", String(id))
        #expect(watched.output.contains("completed: 2/2 rounds"), "\(watched.output)")
        let population = try server.martlet("population", "show", "p", "--json").output
        #expect(population.contains("\"spent_epsilon\":6.652"), "\(population)")
        let credential = directory.path + "/client-0/credential.json"
        #expect(try FileManager.default.attributesOfItem(atPath: credential)[.posixPermissions] as? Int == 0o600)
        server.stop(SIGTERM)
        #expect(server.process.terminationStatus == 0)
    }

    @Test(.slow) func theComposeFilesFleetTakesPart() throws {
        let directory = try TemporaryDirectory()
        let data = directory.path + "/data"
        let server = try ServerProcess.start(dataDirectory: data)
        defer { server.stop(SIGTERM) }
        let runFile = directory.path + "/run.yaml"
        try """
        population: keyboards
        model: {architecture: cifg-lstm, config: {vocab_size: 52, embedding_dim: 4, hidden_dim: 8}}
        rounds: 1
        cohort: {goal: 3, over_selection: 1.0, max_participations: 1}
        training: {encoding: topk}
        privacy: {mode: central, noise_multiplier: 1.0}
        """.write(toFile: runFile, atomically: true, encoding: .utf8)
        let bin = directory.path + "/bin"
        try FileManager.default.createDirectory(atPath: bin, withIntermediateDirectories: true)
        try FileManager.default.createSymbolicLink(atPath: bin + "/martlet", withDestinationPath: ServerProcess.binary)
        let log = directory.path + "/fleet.log"
        _ = FileManager.default.createFile(atPath: log, contents: nil)
        let fleet = Process()
        fleet.executableURL = URL(fileURLWithPath: ServerProcess.repository + "/docker/demo-fleet.sh")
        fleet.environment = [
            "PATH": bin + ":/usr/bin:/bin", "DATA_DIR": data, "RUN_FILE": runFile, "CLIENTS": "3",
            "MARTLET_URL": server.url,
        ].merging(ProcessInfo.processInfo.environment.filter { $0.key.hasSuffix("SAN_OPTIONS") }) { $1 }
        fleet.standardOutput = FileHandle(forWritingAtPath: log)
        try fleet.run()
        // The fleet waits for further runs until it is told to stop.
        defer { fleet.terminate() }
        var patience = Patience("the fleet to complete the run")
        while fleet.isRunning, try !server.martlet("run", "list").output.contains("completed") {
            try patience.pauseThread()
        }
        fleet.terminate()
        fleet.waitUntilExit()
        let output = try String(contentsOfFile: log, encoding: .utf8)
        #expect(output.contains("accepted 3"), "\(output)")
    }

    @Test(.slow) func theDemoEndsWellAndKeepsItsServerOnlyWhenAsked() throws {
        let directory = try TemporaryDirectory()
        for keep in [false, true] {
            let data = directory.path + "/\(keep)"
            let demo = Process()
            demo.executableURL = URL(fileURLWithPath: ServerProcess.binary)
            demo.arguments =
                ["demo", "--clients", "20", "--rounds", "1", "--data-dir", data, "--json"]
                + (keep ? ["--keep"] : ["--privacy", "none"])
            let output = Pipe()
            demo.standardOutput = output
            demo.standardError = FileHandle.nullDevice
            try demo.run()
            demo.waitUntilExit()
            #expect(demo.terminationStatus == 0)
            let line = output.fileHandleForReading.availableData
            let summary = try #require(try JSONSerialization.jsonObject(with: line) as? [String: Any])
            #expect(summary["rounds"] as? Int == 1 && summary["clients"] as? Int == 20)
            #expect(FileManager.default.fileExists(atPath: summary["model_path"] as? String ?? ""))
            // Two fleet processes, each of which fetches the one version that was trained once.
            let modelBytes = try Data(contentsOf: URL(fileURLWithPath: data + "/model.safetensors")).count
            #expect(summary["bytes_down"] as? Int == 2 * modelBytes)
            #expect(keep ? (summary["epsilon"] as? Double ?? 0) > 1 : summary["epsilon"] is NSNull)
            let pid = try #require(
                Int32(
                    try String(contentsOfFile: data + "/server/pid", encoding: .utf8).trimmingCharacters(in: .newlines)
                )
            )
            let command = try? String(contentsOfFile: "/proc/\(pid)/cmdline", encoding: .utf8)
            #expect((command?.contains(data) ?? false) == keep)
            if keep { kill(pid, SIGTERM) }
        }
    }

    /// What cannot be built or trained is refused when the run is created, by its field and in words.
    @Test(.slow) func modelsThatCannotBeBuiltAreRefusedByField() throws {
        let directory = try TemporaryDirectory()
        let server = try ServerProcess.start(dataDirectory: directory.path)
        defer { server.stop(SIGTERM) }
        #expect(try server.martlet("population", "create", "p").status == 0)
        func create(_ model: String) throws -> (status: Int32, output: String) {
            let path = directory.path + "/run.yaml"
            let text = "population: p\nrounds: 1\ncohort: {goal: 2}\nprivacy: {mode: none}\nmodel: \(model)\n"
            try text.write(toFile: path, atomically: true, encoding: .utf8)
            return try server.martlet("run", "create", path, "--json")
        }
        let sizes = "hidden_size: 16, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2"
        for (model, words) in [
            (
                "{architecture: cifg-lstm, config: {vocab_size: 60, embedding_dim: 4, hidden_dim: 8}}",
                "/model/config/vocab_size must be 52"
            ),
            ("{architecture: decoder, config: {\(sizes), rope_scaling: {type: linear}}}", "/model/config/rope_scaling"),
            ("{architecture: decoder, config: {\(sizes), hidden_act: gelu}}", "/model/config/hidden_act"),
            (
                "{architecture: decoder, config: {\(sizes), sliding_window: 8, use_sliding_window: true}}",
                "sliding_window"
            ),
            ("{architecture: decoder, config: {\(sizes), lora: {r: 2}}}", "/model/base is required"),
        ] {
            let (status, output) = try create(model)
            #expect(status != 0 && output.contains(words), "\(model): \(output)")
        }
        // Adapters over a base of other sizes: the first tensor that is wrong.
        let created = try create("{architecture: decoder, config: {\(sizes)}}")
        let view = try JSONSerialization.jsonObject(with: Data(created.output.utf8)) as? [String: Any]
        let run = try #require(view?["id"] as? String, "\(created)")
        let wider = sizes.replacing("intermediate_size: 16", with: "intermediate_size: 24")
        let (status, output) = try create(
            "{architecture: decoder, base: {run: \(run)}, config: {\(wider), lora: {r: 2}}}"
        )
        #expect(status != 0 && output.contains("/model/base version 0 of run \(run)'s tensor"), "\(output)")
        #expect(output.contains("mlp.down_proj.weight' has shape [16, 16], not [16, 24]"), "\(output)")
        let right = try create("{architecture: decoder, base: {run: \(run)}, config: {\(sizes), lora: {r: 2}}}")
        #expect(right.status == 0, "\(right.output)")
    }

    @Test func badRequestsGetProblemDocumentsAndTheServerStaysUp() throws {
        let directory = try TemporaryDirectory()
        let server = try ServerProcess.start(dataDirectory: directory.path)
        defer { server.stop(SIGTERM) }
        func expect(_ status: Int, _ code: String, _ arguments: [String]) throws {
            let answer = try server.run(
                "/usr/bin/env",
                ["curl", "-s", "-i", "-H", "Authorization: Bearer \(server.token)"] + arguments
            ).output
            #expect(answer.contains("HTTP/1.1 \(status) "), "\(arguments): \(answer)")
            #expect(answer.contains("\"code\":\"\(code)\"") && answer.contains("application/problem+json"), "\(answer)")
        }
        let api = server.url + "/v1/"
        let json = ["-H", "Content-Type: application/json"]
        try expect(404, "not_found", [api + "nothing"])
        try expect(404, "not_found", [api + "runs/run_x"])
        try expect(405, "method_not_allowed", ["-X", "DELETE", api + "runs"])
        try expect(422, "invalid_document", [api + "populations", "-d", "{"] + json)
        try expect(422, "invalid_document", [api + "populations", "-d", "{\"nome\": 1}"] + json)
        try expect(415, "unsupported_media_type", [api + "populations", "-d", "x", "-H", "Content-Type: text/plain"])
        try expect(401, "unauthorized", ["-H", "Authorization: Bearer wrong", api + "runs"])
        try expect(403, "forbidden", [api + "checkins", "-d", "{}"] + json)
        let big = directory.path + "/big"
        try Data(count: 2 << 20).write(to: URL(fileURLWithPath: big))
        try expect(413, "too_large", [api + "populations", "--data-binary", "@" + big] + json)
        #expect(try server.curl(server.url + "/healthz").hasPrefix("HTTP/1.1 200"))
    }
}
