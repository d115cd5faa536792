import Foundation
import TestSupport
import Testing

/// `martlet privacy …` and a device's policy, as they are typed.
@Suite(.timeLimit(.minutes(30)), .serialized)
struct PrivacyCommandTests {
    private static func privacy(_ arguments: String) throws -> (status: Int32, output: String) {
        try ServerProcess.capture(ServerProcess.binary, ["privacy"] + arguments.split(separator: " ").map(String.init))
    }

    @Test(arguments: [
        ("epsilon --noise-multiplier 1", "epsilon  4.377\n"),
        ("epsilon --noise-multiplier 1 --json", #""epsilon":4.37717809568"#),
        ("epsilon --noise-multiplier 1e-4", "by gaussian  5.004e+07"),
        ("epsilon --laplace-scale 2 --rounds 10 --accountant basic", "epsilon  5\n"),
        ("epsilon --noise-multiplier 1 --rounds 10 --sampling-rate 0.01 --json", #""delta":1e-05,"epsilon_pld":"#),
        ("delta --epsilon 4 --noise-multiplier 1", "delta  4.712"),
        ("calibrate --epsilon 4 --delta 1e-5 --rounds 2", "noise_multiplier  1.529\n"),
        ("calibrate --epsilon 4 --delta 1e-5 --rounds 2 --json", #""noise_multiplier":1.52899375"#),
    ])
    func answers(_ arguments: String, _ expected: String) throws {
        let result = try Self.privacy(arguments)
        #expect(result.status == 0 && result.output.contains(expected), "\(result)")
    }

    @Test(
        .slow,
        arguments: [
            ("epsilon", "give either --noise-multiplier or --laplace-scale"),
            ("epsilon --noise-multiplier 0", "noise_multiplier is 0.0"),
            ("epsilon --noise-multiplier 1e-9", "allowed is 1e-4 to 1e12"),
            ("epsilon --noise-multiplier nan", "noise_multiplier is nan"),
            ("epsilon --noise-multiplier 1 --delta 0", "delta is 0.0"),
            ("epsilon --noise-multiplier 1 --delta 1", "delta is 1.0"),
            ("epsilon --noise-multiplier 1 --sampling-rate 1.5", "sampling_rate is 1.5"),
            ("epsilon --noise-multiplier 1 --rounds 0", "--rounds must be 1"),
            ("epsilon --noise-multiplier 1 --accountant basic", "no sound rule"),
            ("epsilon --noise-multiplier 1 --accountant hope", "the accountant must be"),
            ("calibrate --epsilon 0", "epsilon is 0.0"), ("calibrate --epsilon inf", "epsilon is inf"),
            ("calibrate --epsilon 4 --delta 1.5", "delta is 1.5"),
            ("calibrate --epsilon 4 --rounds 0", "--rounds must"),
            ("calibrate --epsilon 4 --sampling-rate 2", "sampling_rate is 2.0"),
            ("plan /nowhere.yaml", "cannot read /nowhere.yaml"),
            ("plan /nowhere.yaml --parameters 9223372036854775807", "--parameters must be between 1 and 1099511627776"),
            ("plan /nowhere.yaml --parameters 0", "--parameters must be between 1"),
            ("verify-ledger /nowhere.json", "cannot read /nowhere.json"),
            ("verify-ledger \(#filePath)", "neither a document of schema"),
            ("check-vectors /nowhere.json", "/nowhere.json cannot be read"),
        ]
    )
    func refuses(_ arguments: String, _ expected: String) throws {
        let result = try Self.privacy(arguments)
        #expect(result.status != 0 && result.output.contains(expected), "\(result)")
    }

    /// A head whose number stands twice is none: two readers would take different ones.
    @Test func aHeadThatCanBeReadInTwoWaysIsNotTaken() throws {
        let directory = try TemporaryDirectory()
        let path = directory.path + "/heads.json"
        let hash = String(repeating: "0", count: 64)
        try #"{"population": "pop_x", "number": 1, "number": 2, "hash": "\#(hash)"}"#
            .write(toFile: path, atomically: true, encoding: .utf8)
        let result = try Self.privacy("verify-ledger \(#filePath) --head \(path)")
        #expect(result.status != 0 && result.output.contains("holds no head"), "\(result)")
    }

    /// Run files name the architectures of this program, of which only the module knows that has them.
    @Test(arguments: [
        ("gpt", "'gpt' is not one of cifg-lstm, decoder, tabular, tabular-statistics, external"),
        ("votes", "analytics"),
    ])
    func anArchitectureOfNobodyIsRefusedByItsField(_ name: String, _ expected: String) throws {
        let directory = try TemporaryDirectory()
        let path = directory.path + "/run.yaml"
        try """
        {population: p, rounds: 2, model: {architecture: \(name)}, cohort: {goal: 10},
         privacy: {mode: central, noise_multiplier: 1}}
        """.write(toFile: path, atomically: true, encoding: .utf8)
        let result = try Self.privacy("plan \(path) --delta 1e-5")
        #expect(result.status != 0 && result.output.contains("/model/architecture"), "\(result)")
        #expect(result.output.contains(expected), "\(result)")
    }

    /// What takes more arithmetic than one question may is refused in words.
    @Test(.slow) func aPlanThatTakesTooMuchIsRefused() throws {
        let directory = try TemporaryDirectory()
        let path = directory.path + "/run.yaml"
        try """
        population: p
        rounds: 1000000
        model: {architecture: external}
        cohort: {goal: 100, policy: poisson, sampling_rate: 0.01}
        privacy: {mode: central, amplification: poisson, target: {epsilon: 500}}
        """.write(toFile: path, atomically: true, encoding: .utf8)
        let result = try Self.privacy("plan \(path) --epsilon 500 --parameters 1000")
        #expect(
            result.status != 0 && result.output.contains("it takes too much arithmetic by loss distributions"),
            "\(result)"
        )
        #expect(result.output.contains("where 8.0 million are allowed"), "\(result)")
    }

    @Test func aFileThatHoldsNoVectorsDoesNotKeepTheOthersFromBeingJudged() throws {
        let directory = try TemporaryDirectory()
        try "{}".write(toFile: directory.path + "/a.json", atomically: true, encoding: .utf8)
        func vectors(_ epsilon: Double) throws -> String {
            let path = directory.path + "/\(epsilon).json"
            try """
            {"schema": "fl-privacy-vectors/1", "cases": [
              {"id": "e", "kind": "gaussian_epsilon", "params": {"sigma": 1, "sensitivity": 1, "delta": 1e-5},
               "expect": {"epsilon": \(epsilon)}, "tolerance": {"rel": 1e-9}},
              {"id": "u", "kind": "soothsaying", "params": {}, "expect": {"epsilon": 1}}]}
            """.write(toFile: path, atomically: true, encoding: .utf8)
            return path
        }
        let good = try vectors(4.377178095681302)
        let result = try Self.privacy("check-vectors \(good)")
        // An unknown kind is no failure.
        #expect(result.status == 0 && result.output.contains(#""id":"u","kind":"soothsaying","status":"unsupported""#))
        #expect(result.output.contains(#"{"computed":{"epsilon":4.37717"#), "\(result)")
        let mixed = try Self.privacy("check-vectors \(directory.path)/a.json \(good)")
        #expect(mixed.status == 1 && mixed.output.contains("another schema"), "\(mixed)")
        #expect(mixed.output.contains(#""status":"pass""#), "\(mixed)")
        let wrong = try Self.privacy("check-vectors \(try vectors(4.4))")
        #expect(wrong.status == 1 && wrong.output.contains(#""status":"fail""#), "\(wrong)")
    }

    /// The device's owner says no before anything is trained, and reads why; the ledger of the server is verified by its URL.
    @Test(.slow) func thePolicyFileIsObeyedAndTheLedgerVerified() throws {
        let directory = try TemporaryDirectory()
        let server = try ServerProcess.start(dataDirectory: directory.path + "/data")
        defer { server.stop(SIGTERM) }
        for (budget, expected) in [
            (["--epsilon", "0"], "admits no round"), (["--epsilon", "inf"], "must be a finite number"),
            (["--epsilon", "-1"], "--epsilon must not be negative"),
            (["--epsilon", "8", "--delta", "1"], "/budget/delta"), (["--delta", "1e-6"], "give its --epsilon too"),
        ] {
            let refused = try server.run(ServerProcess.binary, ["population", "create", "p"] + budget)
            #expect(refused.status != 0 && refused.output.contains(expected), "\(refused)")
        }
        func write(_ name: String, _ text: String) throws -> String {
            try text.write(toFile: directory.path + "/" + name, atomically: true, encoding: .utf8)
            return directory.path + "/" + name
        }
        let runFile = try write(
            "run.yaml",
            """
            population: p
            model: {architecture: cifg-lstm, config: {vocab_size: 52, embedding_dim: 4, hidden_dim: 8}}
            rounds: 1
            cohort: {goal: 1, minimum: 1, over_selection: 1.0, max_participations: 1}
            privacy: {mode: central, noise_multiplier: 1}
            """
        )
        #expect(try server.martlet("population", "create", "p", "--epsilon", "8").status == 0)
        #expect(try server.martlet("run", "create", runFile, "--start").status == 0)
        let token = try #require(
            try server.martlet("population", "token", "p", "--json").output.split(separator: "\"").dropLast().last
        )
        let data = try write("text", "good morning, see you at the station.\n")
        var devices = 0
        func client(_ options: [String]) throws -> (status: Int32, output: String) {
            devices += 1
            return try server.run(
                ServerProcess.binary,
                [
                    "client", "--enrollment-token", String(token), "--data", data, "--state-dir",
                    directory.path + "/client-\(devices)", "--once",
                ] + options
            )
        }
        let local = try write("local.yaml", "accepted_modes: [local]\n")
        let poor = try write("poor.json", #"{"max_epsilon": 4, "delta": 1e-5}"#)
        let shy = try write("shy.yaml", "minimum_cohort: 2\n")
        let bad = try write("bad.yaml", "max_epsilom: 4\naccepted_modes: [sideways]\n")
        for (options, expected) in [
            (["--policy", bad], "/max_epsilom"), (["--policy", bad], "'sideways' is no mode"),
            (["--policy", directory.path + "/none"], "cannot read"),
            (["--max-epsilon", "nan"], "--max-epsilon must be 0 or more"),
            (["--accept-modes", "central,sideways"], "'sideways' is no mode"),
        ] {
            let result = try client(options)
            #expect(result.status != 0 && result.output.contains(expected), "\(result)")
        }
        for (policy, why) in [
            (local, "mode central is not accepted on this device"), (poor, "epsilon would reach 4.37"),
            (shy, "this device wants 2"),
        ] {
            let result = try client(["--policy", policy])
            #expect(result.output.contains("ended: privacy_refused: ") && result.output.contains(why), "\(result)")
        }
        // Options take precedence over the file.
        let willing = try client(["--policy", poor, "--max-epsilon", "4.5"])
        #expect(willing.output.contains("accepted: round 1"), "\(willing)")
        // A device that has taken part stays the client that it is, where its owner says so.
        let loyal = try write("loyal.yaml", "may_register_again: false\nmax_epsilon: 100\n")
        let (first, number) = (directory.path + "/client-\(devices)", devices)
        devices = number - 1
        let again = try client(["--policy", loyal, "--register-again"])
        #expect(again.status != 0 && again.output.contains("may_register_again"), "\(again)")
        #expect(FileManager.default.fileExists(atPath: first + "/credential.json"))
        let verified = try server.martlet("privacy", "verify-ledger", server.url, "--population", "p")
        #expect(verified.status == 0 && verified.output.contains("the ledger holds"), "\(verified)")
        #expect(verified.output.contains("by gaussian  epsilon 4.37"), "\(verified)")
        // The head that this look ended with, and the one that the device keeps, hold the next one.
        #expect(verified.output.contains("NOT PROVEN  that no rows were cut at the end"), "\(verified)")
        let line = try #require(verified.output.split(separator: "\n").first { $0.hasPrefix("head  ") })
        let head = String(line.dropFirst(6))
        let kept = directory.path + "/client-\(devices)/ledger-head.json"
        let held = try server.martlet(
            "privacy",
            "verify-ledger",
            server.url,
            "--population",
            "p",
            "--head",
            head,
            "--head",
            kept
        )
        #expect(held.status == 0 && held.output.contains("proven  the document extends 2 heads"), "\(held)")
        let forged = head.dropLast() + (head.hasSuffix("0") ? "1" : "0")
        let other = try server.martlet(
            "privacy",
            "verify-ledger",
            server.url,
            "--population",
            "p",
            "--head",
            String(forged)
        )
        #expect(other.status == 1 && other.output.contains("another ledger than the head's"), "\(other)")
        let nothing = try server.martlet(
            "privacy",
            "verify-ledger",
            server.url,
            "--population",
            "p",
            "--head",
            "pop_x:24"
        )
        #expect(
            nothing.status != 0 && nothing.output.contains("neither POPULATION:NUMBER:HASH nor a file"),
            "\(nothing)"
        )
        let unnamed = try server.martlet("privacy", "verify-ledger", server.url)
        #expect(unnamed.status != 0 && unnamed.output.contains("--population"), "\(unnamed)")
    }
}
