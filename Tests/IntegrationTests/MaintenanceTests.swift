import Foundation
import TestSupport
import Testing

/// Backup, restore and doctor, and a database that cannot be used, with the built binary.
@Suite(.timeLimit(.minutes(30)), .serialized)
struct MaintenanceTests {
    private func command(_ arguments: String...) throws -> (status: Int32, output: String) {
        try ServerProcess.capture(ServerProcess.binary, arguments)
    }

    private func startRun(_ server: ServerProcess, _ directory: String, isPrivate: Bool = true) throws -> String {
        let runFile = directory + "/run.yaml"
        try """
        population: p
        model: {architecture: cifg-lstm, config: {vocab_size: 52, embedding_dim: 4, hidden_dim: 8}}
        rounds: 1
        cohort: {goal: 3, minimum: 3, over_selection: 1.0, max_participations: \(isPrivate ? 1 : 0)}
        privacy: \(isPrivate ? "{mode: central, noise_multiplier: 1}" : "{mode: none}")
        """.write(toFile: runFile, atomically: true, encoding: .utf8)
        let budget = isPrivate ? ["--epsilon", "8"] : []
        _ = try server.run(ServerProcess.binary, ["population", "create", "p"] + budget)
        let created = try server.martlet("run", "create", runFile, "--start", "--json")
        try #require(created.status == 0, "\(created.output)")
        try "good morning, see you at the station.\n".write(
            toFile: directory + "/text",
            atomically: true,
            encoding: .utf8
        )
        let token = try server.martlet("population", "token", "p", "--json").output
        return String(try #require(token.split(separator: "\"").dropLast().last))
    }

    private func participate(_ server: ServerProcess, _ directory: String, _ token: String, _ index: Int) throws {
        let client = try server.martlet(
            "client",
            "--enrollment-token",
            token,
            "--data",
            directory + "/text",
            "--state-dir",
            directory + "/client-\(index)",
            "--once"
        )
        #expect(client.output.contains("accepted"), "\(client.output)")
    }

    /// Everything is lost but the names; the server of the restored directory goes on where the backup was made.
    @Test(.slow) func aBackupOfARunningServerRestoresToARunThatGoesOn() throws {
        let directory = try TemporaryDirectory()
        let data = directory.path + "/data"
        let backup = directory.path + "/backup"
        var server = try ServerProcess.start(dataDirectory: data)
        let token = try startRun(server, directory.path, isPrivate: false)
        try participate(server, directory.path, token, 0)
        let made = try command("backup", backup + "/", "--data-dir", data)
        #expect(made.status == 0 && made.output.contains("1 updates of open rounds"), "\(made.output)")
        #expect(try command("backup", backup, "--data-dir", data).status != 0, "a backup never overwrites one")
        let health = try command("doctor", "--data-dir", data, "--deep")
        #expect(health.status == 0 && health.output.contains("a server is using the directory"), "\(health.output)")
        server.stop(SIGKILL)
        for name in try FileManager.default.contentsOfDirectory(atPath: data) {
            try FileManager.default.removeItem(atPath: data + "/" + name)
        }
        // It is a volume: the directory itself stays.
        try FileManager.default.createDirectory(atPath: data + "/lost+found", withIntermediateDirectories: false)
        let volume = try FileManager.default.attributesOfItem(atPath: data)[.systemFileNumber] as? Int
        let restored = try command("restore", backup, "--data-dir", data + "//")
        #expect(restored.status == 0 && restored.output.contains("restored \(data) as of"), "\(restored.output)")
        #expect(try FileManager.default.attributesOfItem(atPath: data)[.systemFileNumber] as? Int == volume)
        #expect(!FileManager.default.fileExists(atPath: data + "/.restoring"))
        #expect(try command("restore", backup, "--data-dir", data).status != 0, "a full directory is left alone")
        let loop = directory.path + "/loop"
        try FileManager.default.createSymbolicLink(atPath: loop, withDestinationPath: loop)
        #expect(try command("restore", backup, "--data-dir", loop).status != 0, "nor is one that cannot be listed")
        #expect(try command("doctor", "--data-dir", data, "--deep").status == 0)
        let admin = server.token
        server = try ServerProcess.start(dataDirectory: data, token: admin)
        defer { server.stop(SIGTERM) }
        let run = try runID(server)
        // The update that the backup holds counts: two more make the round.
        for index in 1..<3 { try participate(server, directory.path, token, index) }
        #expect(try server.martlet("run", "watch", run).output.contains("1/1"))
        let round = try server.curl(server.url + "/v1/runs/\(run)/rounds/1")
        #expect(round.contains("\"attempt\":1") && round.contains("\"accepted\":3"), "\(round)")
    }

    /// A directory that the disk does not list may hold a server's data: nothing is begun or put there.
    @Test func aDirectoryThatCannotBeListedIsNotTakenForEmpty() throws {
        let directory = try TemporaryDirectory()
        let data = directory.path + "/data"
        try FileManager.default.createDirectory(atPath: data, withIntermediateDirectories: false)
        try FileManager.default.createSymbolicLink(atPath: data + "/blobs", withDestinationPath: data + "/blobs")
        let health = try command("doctor", "--data-dir", data)
        #expect(health.status == 1 && health.output.contains("cannot be opened"), "\(health.output)")
        let started = try command("serve", "--data-dir", data, "--listen", "127.0.0.1:0")
        #expect(started.status != 0 && started.output.contains("cannot be opened"), "\(started.output)")
        #expect(!FileManager.default.fileExists(atPath: data + "/martlet.sqlite"))
    }

    /// Updates of a private run are in no backup: the attempt that waited for them is given up and stays charged, since the lost server
    /// may have published it, and the run goes on with another one.
    @Test(.slow) func aRestoredPrivateRunAbandonsItsOpenAttemptAndKeepsItsCharge() throws {
        let directory = try TemporaryDirectory()
        let data = directory.path + "/data"
        let backup = directory.path + "/backup"
        var server = try ServerProcess.start(dataDirectory: data)
        let token = try startRun(server, directory.path)
        try participate(server, directory.path, token, 0)
        let made = try command("backup", backup, "--data-dir", data)
        #expect(made.status == 0 && made.output.contains("0 updates of open rounds"), "\(made.output)")
        server.stop(SIGKILL)
        // The database is lost, its ledger's second record is not.
        for name in try FileManager.default.contentsOfDirectory(atPath: data) where name != "ledger.head" {
            try FileManager.default.removeItem(atPath: data + "/" + name)
        }
        let restored = try command("restore", backup, "--data-dir", data)
        #expect(restored.status == 0 && restored.output.contains("the second record agrees"), "\(restored.output)")
        let admin = server.token
        server = try ServerProcess.start(dataDirectory: data, token: admin)
        defer { server.stop(SIGTERM) }
        let run = try runID(server)
        let history = try server.curl(server.url + "/v1/runs/\(run)/rounds/1/history")
        #expect(history.contains("1 acknowledged updates were missing or damaged after a stop"), "\(history)")
        func states() throws -> [String] {
            try server.curl(server.url + "/v1/populations/p/ledger?format=jsonl").split(separator: "\n").compactMap {
                line in
                line.contains("\"run_id\":\"\(run)\"")
                    ? line.split(separator: "\"state\":\"").last?.split(separator: "\"").first.map(String.init) : nil
            }
        }
        let restoredStates = try states()
        #expect(restoredStates.contains("committed"), "\(restoredStates)")
        // The next attempt opens by itself, a while after the one that failed.
        var round = ""
        var patience = Patience("the next attempt")
        while !(round.contains("\"attempt\":2") && round.contains("\"state\":\"selecting\"")) {
            try patience.pauseThread()
            round = try server.curl(server.url + "/v1/runs/\(run)/rounds/1")
        }
        for index in 1..<4 { try participate(server, directory.path, token, index) }
        #expect(try server.martlet("run", "watch", run).output.contains("1/1"))
        let charges = try states()
        // What the lost server may have published is a charge of its own, in no run's cap; then the attempt that was made here.
        #expect(charges == ["reserved", "released", "committed", "reserved", "committed"])
    }

    @Test(.slow) func anOldBackupIsNoticedAndWhatItForgotIsChargedAgain() throws {
        let directory = try TemporaryDirectory()
        let data = directory.path + "/data"
        let backup = directory.path + "/backup"
        var server = try ServerProcess.start(dataDirectory: data)
        let token = try startRun(server, directory.path)
        try participate(server, directory.path, token, 0)
        #expect(try command("backup", backup, "--data-dir", data).status == 0)
        for index in 1..<3 { try participate(server, directory.path, token, index) }
        #expect(try server.martlet("run", "watch", try runID(server)).output.contains("1/1"))
        let admin = server.token
        server.stop(SIGTERM)
        let lost = directory.path + "/lost"
        try FileManager.default.moveItem(atPath: data, toPath: lost)
        let other = directory.path + "/other"
        let unknown = try command("restore", backup, "--data-dir", other)
        #expect(unknown.output.contains("no second record") && unknown.output.contains("acknowledgement"))
        let vouched = try command("restore", backup, "--data-dir", other + "2", "--nothing-charged-since")
        #expect(vouched.output.contains("as you vouched"), "\(vouched.output)")
        #expect(
            try command("restore", backup, "--data-dir", other + "3", "--ledger-head", "/none").status != 0
                && !FileManager.default.fileExists(atPath: other + "3")
        )
        let restored = try command("restore", backup, "--data-dir", data, "--ledger-head", lost + "/ledger.head")
        #expect(restored.status == 0 && restored.output.contains("restored from an old backup"), "\(restored.output)")
        let sick = try command("doctor", "--data-dir", data)
        #expect(sick.status == 1 && sick.output.contains("/v1/ledger/acknowledgement"), "\(sick.output)")
        server = try ServerProcess.start(dataDirectory: data, token: admin)
        defer { server.stop(SIGTERM) }
        #expect(try server.curl(server.url + "/v1/ledger").contains("old backup"))
        let answer = try server.curl(
            "-H",
            "Content-Type: application/json",
            "-d",
            "{\"reason\": \"the disk failed\"}",
            server.url + "/v1/ledger/acknowledgement"
        )
        #expect(answer.contains("HTTP/1.1 200"), "\(answer)")
        let population = try server.martlet("population", "show", "p", "--json").output
        // The release that the backup does not know is charged; the attempt that was open in it is given up and keeps its charge.
        #expect(population.contains("\"spent_epsilon\":6.57"), "\(population)")
        #expect(try command("doctor", "--data-dir", data).status == 0)
    }

    private func runID(_ server: ServerProcess) throws -> String {
        let list = try server.martlet("run", "list", "--json").output
        return String(try #require(list.split(separator: "\"").first { $0.hasPrefix("run_") }))
    }

    /// Another process begins a transaction and keeps it; then it goes.
    @Test(.slow) func aLockedDatabaseIsSaidSoAndNothingAcknowledgedIsLost() throws {
        let directory = try TemporaryDirectory()
        let server = try ServerProcess.start(dataDirectory: directory.path)
        defer { server.stop(SIGTERM) }
        _ = try server.martlet("population", "create", "before")
        let holder = Process()
        holder.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        holder.arguments = [
            ServerProcess.python ?? "python3", "-c",
            """
            import sqlite3, sys
            c = sqlite3.connect(sys.argv[1], isolation_level=None)
            c.execute('BEGIN IMMEDIATE')
            print('held', flush=True)
            sys.stdin.read()
            """, directory.path + "/martlet.sqlite",
        ]
        let (output, input) = (Pipe(), Pipe())
        holder.standardOutput = output
        holder.standardInput = input
        try holder.run()
        #expect(String(decoding: output.fileHandleForReading.availableData, as: UTF8.self).hasPrefix("held"))
        func create() throws -> String {
            try server.curl(
                "-d",
                "{\"name\": \"after\"}",
                "-H",
                "Content-Type: application/json",
                server.url + "/v1/populations"
            )
        }
        let refused = try create()
        #expect(refused.contains("HTTP/1.1 503") && refused.contains("another process holds"), "\(refused)")
        #expect(refused.lowercased().contains("retry-after"), "\(refused)")
        #expect(try server.curl(server.url + "/v1/populations").contains("\"before\""))
        try input.fileHandleForWriting.close()
        holder.waitUntilExit()
        #expect(try create().contains("HTTP/1.1 201"))
    }

    @Test(.slow) func damageIsFoundAndSaidAndTheServerDoesNotStartOnIt() throws {
        let directory = try TemporaryDirectory()
        let data = directory.path + "/data"
        let server = try ServerProcess.start(dataDirectory: data)
        let token = try startRun(server, directory.path)
        try participate(server, directory.path, token, 0)
        let backup = directory.path + "/backup"
        #expect(try command("backup", backup, "--data-dir", data).status == 0)
        server.stop(SIGTERM)
        // A model file with one byte changed: a restore of it is refused.
        let blobs = try #require(FileManager.default.enumerator(atPath: backup + "/blobs")).compactMap { $0 as? String }
        let blob = backup + "/blobs/" + (try #require(blobs.first { $0.count > 60 }))
        var bytes = try Data(contentsOf: URL(fileURLWithPath: blob))
        bytes[bytes.count - 1] ^= 1
        try FileManager.default.removeItem(atPath: blob)
        try bytes.write(to: URL(fileURLWithPath: blob))
        let refused = try command("restore", backup, "--data-dir", directory.path + "/other")
        #expect(refused.status != 0 && refused.output.contains("is not what was written"), "\(refused.output)")
        #expect(!FileManager.default.fileExists(atPath: directory.path + "/other"))
        // A database with damaged pages: found before anything is served. The backup's is one file, without a log.
        let database = data + "/martlet.sqlite"
        for name in ["-wal", "-shm"] { try? FileManager.default.removeItem(atPath: database + name) }
        var torn = try Data(contentsOf: URL(fileURLWithPath: backup + "/martlet.sqlite"))
        try #require(torn.count > 65_536)
        for index in stride(from: 8192, to: torn.count, by: 97) { torn[index] ^= 0x5a }
        try torn.write(to: URL(fileURLWithPath: database))
        let damaged = try ServerProcess.capture(
            "/usr/bin/timeout",
            ["600", ServerProcess.binary, "serve", "--data-dir", data, "--listen", "127.0.0.1:0"]
        )
        #expect(damaged.status != 0 && damaged.output.contains("cannot be used"), "\(damaged.output)")
        #expect(damaged.output.contains("the database is damaged"), "\(damaged.output)")
        #expect(damaged.output.contains("martlet restore"), "\(damaged.output)")
        #expect(try Data(contentsOf: URL(fileURLWithPath: database)) == torn, "nothing was changed")
        // A database that is none.
        try Data("no database".utf8).write(to: URL(fileURLWithPath: data + "/martlet.sqlite"))
        for name in ["-wal", "-shm"] { try? FileManager.default.removeItem(atPath: data + "/martlet.sqlite" + name) }
        let sick = try command("doctor", "--data-dir", data)
        #expect(sick.status == 1 && sick.output.contains("error"), "\(sick.output)")
        let start = try command("serve", "--data-dir", data, "--listen", "127.0.0.1:0")
        #expect(start.status != 0 && start.output.contains("martlet doctor"), "\(start.output)")
        #expect(try command("doctor", "--data-dir", directory.path).output.contains("holds no martlet.sqlite"))
        let nothing = try command("restore", directory.path + "/nope", "--data-dir", directory.path + "/new")
        #expect(nothing.status != 0 && nothing.output.contains("name a backup"), "\(nothing.output)")
        #expect(!nothing.output.contains("Usage:"), "\(nothing.output)")
    }

    /// A disk that is not mounted, and a database that was removed or never filled: each beside what says that there was one.
    @Test(.slow, arguments: ["blobs", "second record", "second record elsewhere", "empty file"])
    func aLostDatabaseDoesNotStartEmpty(_ evidence: String) throws {
        let directory = try TemporaryDirectory()
        let data = directory.path + "/data"
        let elsewhere = evidence == "second record elsewhere"
        let head = elsewhere ? directory.path + "/other/ledger.head" : data + "/ledger.head"
        try FileManager.default.createDirectory(atPath: directory.path + "/other", withIntermediateDirectories: false)
        let setting = elsewhere ? ["--set", "ledger_head=" + head] : []
        let server = try ServerProcess.start(dataDirectory: data, setting)
        _ = try startRun(server, directory.path)
        server.stop(SIGTERM)
        let kept: Set =
            switch evidence {
            case "blobs": ["blobs", "admin-token"]
            case "second record": ["ledger.head"]
            case "empty file": ["blobs", "spool", "ledger.head", "admin-token"]
            default: []
            }
        for name in try FileManager.default.contentsOfDirectory(atPath: data) where !kept.contains(name) {
            try FileManager.default.removeItem(atPath: data + "/" + name)
        }
        if evidence == "empty file" {
            _ = FileManager.default.createFile(atPath: data + "/martlet.sqlite", contents: nil)
        }
        func names() throws -> [String] { try FileManager.default.subpathsOfDirectory(atPath: directory.path).sorted() }
        let before = try names()
        let arguments = ["serve", "--data-dir", data, "--listen", "127.0.0.1:0"] + setting
        let refused = try ServerProcess.capture("/usr/bin/timeout", ["600", ServerProcess.binary] + arguments)
        #expect(refused.status != 0 && refused.status != 124, "\(refused.output)")
        #expect(
            refused.output.contains("martlet.sqlite is gone") && refused.output.contains("--start-anew"),
            "\(refused.output)"
        )
        #expect(refused.output.contains("martlet restore"), "\(refused.output)")
        // Nothing was made, moved or overwritten, but for the lock that kept others away meanwhile.
        #expect(try names().filter { !$0.hasSuffix("/lock") } == before.filter { !$0.hasSuffix("/lock") })
        let sick = try command("doctor", "--data-dir", data, "--ledger-head", head)
        #expect(sick.status == 1 && sick.output.contains("martlet.sqlite is gone"), "\(sick.output)")
        // Who gives it up gets an empty server, and finds what said so under other names.
        let anew = try ServerProcess.start(dataDirectory: data, setting + ["--start-anew"])
        defer { anew.stop(SIGTERM) }
        #expect(try anew.curl(anew.url + "/v1/populations").contains("\"items\":[]"))
        #expect(try anew.curl(anew.url + "/v1/ledger").contains("\"alarm\"") == false)
        let after = try names()
        for name in before where name.hasSuffix("admin-token") || name.hasSuffix("ledger.head") {
            #expect(after.contains { $0.hasPrefix(name + ".before-") }, "\(name): \(after)")
        }
    }

    /// Changes a database beside the program, as another version would.
    private func change(_ database: String, _ sql: String) throws {
        let script = "import sqlite3, sys; d = sqlite3.connect(sys.argv[1]); d.executescript(sys.argv[2]); d.close()"
        let changed = try ServerProcess.capture("/usr/bin/env", ["python3", "-c", script, database, sql])
        try #require(changed.status == 0, "\(changed.output)")
    }

    /// Every table and row, as SQL.
    private func contents(_ database: String) throws -> String {
        let script = "import sqlite3, sys; print(*sqlite3.connect(sys.argv[1]).iterdump(), sep='\\n')"
        return try ServerProcess.capture("/usr/bin/env", ["python3", "-c", script, database]).output
    }

    /// What a newer version wrote is left as it is by every command of this one, and each says what to do.
    @Test(.slow) func aNewerVersionsDirectoryAndItsBackupAreLeftAlone() throws {
        let directory = try TemporaryDirectory()
        let data = directory.path + "/data"
        let backup = directory.path + "/backup"
        let server = try ServerProcess.start(dataDirectory: data)
        _ = try server.martlet("population", "create", "p", "--epsilon", "8")
        #expect(try command("backup", backup, "--data-dir", data).status == 0)
        server.stop(SIGTERM)
        for path in [data, backup] {
            try change(
                path + "/martlet.sqlite",
                "INSERT INTO grdb_migrations VALUES ('of the future'); ALTER TABLE run ADD COLUMN future TEXT"
            )
        }
        let before = try contents(data + "/martlet.sqlite")
        try #require(before.contains("of the future"))
        let start = try command("serve", "--data-dir", data, "--listen", "127.0.0.1:0")
        #expect(start.status != 0 && start.output.contains("newer version of Martlet"), "\(start.output)")
        #expect(start.output.contains("restore a backup made before the upgrade"), "\(start.output)")
        let copy = try command("backup", directory.path + "/copy", "--data-dir", data)
        #expect(copy.status != 0 && copy.output.contains("with that version's martlet"), "\(copy.output)")
        #expect(!FileManager.default.fileExists(atPath: directory.path + "/copy"))
        let sick = try command("doctor", "--data-dir", data)
        #expect(sick.status == 1 && sick.output.contains("run that version"), "\(sick.output)")
        let restored = try command("restore", backup, "--data-dir", directory.path + "/other")
        #expect(restored.status != 0 && restored.output.contains("with the version that made it"), "\(restored.output)")
        #expect(!restored.output.contains("damaged"), "\(restored.output)")
        #expect(!FileManager.default.fileExists(atPath: directory.path + "/other"))
        #expect(try contents(data + "/martlet.sqlite") == before, "nothing was changed")
    }

    /// The last backup is often older than the program: files and ledger are checked as in one of today.
    @Test(.slow) func anOlderVersionsBackupIsCheckedAndRestoredWhole() throws {
        let directory = try TemporaryDirectory()
        let data = directory.path + "/data"
        let backup = directory.path + "/backup"
        var server = try ServerProcess.start(dataDirectory: data)
        let token = try startRun(server, directory.path)
        for index in 0..<3 { try participate(server, directory.path, token, index) }
        #expect(try server.martlet("run", "watch", try runID(server)).output.contains("1/1"))
        let admin = server.token
        server.stop(SIGTERM)
        try change(
            data + "/martlet.sqlite",
            "ALTER TABLE model_version DROP COLUMN clipping_norm; "
                + "DELETE FROM grdb_migrations WHERE identifier = 'model versions: clipping norm'"
        )
        let made = try command("backup", backup, "--data-dir", data)
        #expect(made.status == 0 && !made.output.contains(" 0 ledger rows"), "\(made.output)")
        let old = try command("doctor", "--data-dir", backup, "--deep")
        #expect(old.status == 0 && old.output.contains("an older version"), "\(old.output)")
        let other = directory.path + "/other"
        let restored = try command("restore", backup, "--data-dir", other, "--ledger-head", data + "/ledger.head")
        #expect(restored.status == 0 && restored.output.contains("the second record agrees"), "\(restored.output)")
        server = try ServerProcess.start(dataDirectory: other, token: admin)
        defer { server.stop(SIGTERM) }
        let population = try server.martlet("population", "show", "p", "--json").output
        #expect(population.contains("\"spent_epsilon\":4.37"), "\(population)")
        // A file that is not what was written is found in an old backup, too.
        let blobs = try #require(FileManager.default.enumerator(atPath: backup + "/blobs")).compactMap { $0 as? String }
        let blob = backup + "/blobs/" + (try #require(blobs.first { $0.count > 60 }))
        try FileManager.default.removeItem(atPath: blob)
        try Data("torn".utf8).write(to: URL(fileURLWithPath: blob))
        let refused = try command("restore", backup, "--data-dir", directory.path + "/third")
        #expect(refused.status != 0 && refused.output.contains("damaged"), "\(refused.output)")
    }

    /// An answer about readiness is good for a second.
    private func expectReadiness(_ status: String, of server: ServerProcess) throws {
        var patience = Patience("readiness to be \(status)")
        while try !server.curl(server.url + "/readyz").contains("HTTP/1.1 \(status)") { try patience.pauseThread() }
    }

    /// A limit on the size of files acts as a full disk does; it is lifted from outside, as when space returns.
    @Test(
        .slow,
        .enabled(if: FileManager.default.isExecutableFile(atPath: "/usr/bin/prlimit"), "prlimit lifts the limit")
    )
    func aFullDiskRefusesClearlyAndWorkGoesOnWhenThereIsSpace() throws {
        let directory = try TemporaryDirectory()
        let server = try ServerProcess.start(dataDirectory: directory.path)
        defer { server.stop(SIGTERM) }
        let pid = "\(server.process.processIdentifier)"
        _ = try server.martlet("population", "create", "before")
        let token = try startRun(server, directory.path)
        try participate(server, directory.path, token, 0)
        #expect(try server.run("/usr/bin/prlimit", ["--pid", pid, "--fsize=1000:"]).status == 0)
        let arguments = ["-d", "{\"name\": \"after\"}", "-H", "Content-Type: application/json"]
        let full = try server.curl(
            arguments[0],
            arguments[1],
            arguments[2],
            arguments[3],
            server.url + "/v1/populations"
        )
        #expect(full.contains("HTTP/1.1 503") && full.contains("storage_failed"), "\(full)")
        // The limit by its name, and no fault of the disk.
        #expect(full.contains("may not grow any more") && !full.contains("EIO"), "\(full)")
        let shown = try server.curl(server.url + "/v1/overview")
        #expect(shown.contains("\"storage_failed\"") && shown.contains("LimitFSIZE"), "\(shown)")
        #expect(full.lowercased().contains("retry-after"), "\(full)")
        try expectReadiness("503", of: server)
        #expect(try server.curl(server.url + "/v1/populations").contains("\"before\""))
        #expect(try server.run("/usr/bin/prlimit", ["--pid", pid, "--fsize=unlimited:"]).status == 0)
        #expect(try server.martlet("population", "create", "after").status == 0)
        try expectReadiness("200", of: server)
        // The update that was acknowledged before counts, and the round goes on to its end.
        for index in 1..<3 { try participate(server, directory.path, token, index) }
        #expect(try server.martlet("run", "watch", try runID(server)).output.contains("1/1"))
    }
}
