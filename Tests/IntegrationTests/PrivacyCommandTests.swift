import Foundation
import TestSupport
import Testing

/// `martlet privacy …` and a device's policy, as they are typed.
@Suite(.timeLimit(.minutes(2)), .serialized)
struct PrivacyCommandTests {
    private static func privacy(_ arguments: String) throws -> (status: Int32, output: String) {
        try ServerProcess.capture(ServerProcess.binary, ["privacy"] + arguments.split(separator: " ").map(String.init))
    }

    @Test(arguments: [
        ("epsilon --noise-multiplier 1", "epsilon  4.37717809568"),
        ("epsilon --noise-multiplier 1e-9", "by gaussian  inf"),
        ("epsilon --laplace-scale 2 --rounds 10 --accountant basic", "epsilon  5.0"),
        ("epsilon --noise-multiplier 1 --rounds 10 --sampling-rate 0.01 --json", #""delta":1e-05,"epsilon_pld":"#),
        ("delta --epsilon 4 --noise-multiplier 1", "delta  4.7122412007"),
        ("calibrate --epsilon 4 --delta 1e-5 --rounds 2", "noise_multiplier  1.52899375"),
    ])
    func answers(_ arguments: String, _ expected: String) throws {
        let result = try Self.privacy(arguments)
        #expect(result.status == 0 && result.output.contains(expected), "\(result)")
    }

    @Test(arguments: [
        ("epsilon", "give either --noise-multiplier or --laplace-scale"),
        ("epsilon --noise-multiplier 0", "noise_multiplier is 0.0"),
        ("epsilon --noise-multiplier nan", "noise_multiplier is nan"),
        ("epsilon --noise-multiplier 1 --delta 0", "delta is 0.0"),
        ("epsilon --noise-multiplier 1 --delta 1", "delta is 1.0"),
        ("epsilon --noise-multiplier 1 --sampling-rate 1.5", "sampling_rate is 1.5"),
        ("epsilon --noise-multiplier 1 --rounds 0", "--rounds must be 1"),
        ("epsilon --noise-multiplier 1 --accountant basic", "no sound rule"),
        ("epsilon --noise-multiplier 1 --accountant hope", "the accountant must be"),
        ("calibrate --epsilon 0", "epsilon is 0.0"), ("calibrate --epsilon inf", "epsilon is inf"),
        ("calibrate --epsilon 4 --delta 1.5", "delta is 1.5"), ("calibrate --epsilon 4 --rounds 0", "--rounds must"),
        ("calibrate --epsilon 4 --sampling-rate 2", "sampling_rate is 2.0"),
        ("plan /nowhere.yaml", "cannot read /nowhere.yaml"),
        ("verify-ledger /nowhere.json", "cannot read /nowhere.json"),
        ("verify-ledger \(#filePath)", "neither a document of schema"),
        ("check-vectors /nowhere.json", "/nowhere.json cannot be read"),
    ])
    func refuses(_ arguments: String, _ expected: String) throws {
        let result = try Self.privacy(arguments)
        #expect(result.status != 0 && result.output.contains(expected), "\(result)")
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
    @Test func thePolicyFileIsObeyedAndTheLedgerVerified() throws {
        let directory = try TemporaryDirectory()
        let server = try ServerProcess.start(dataDirectory: directory.path + "/data")
        defer { server.stop(SIGTERM) }
        for (budget, expected) in [
            (["--epsilon", "0"], "admits no round"), (["--epsilon", "inf"], "must be a finite number"),
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
        let verified = try server.martlet("privacy", "verify-ledger", server.url, "--population", "p")
        #expect(verified.status == 0 && verified.output.contains("the ledger holds"), "\(verified)")
        #expect(verified.output.contains("by gaussian  epsilon 4.37"), "\(verified)")
        let unnamed = try server.martlet("privacy", "verify-ledger", server.url)
        #expect(unnamed.status != 0 && unnamed.output.contains("--population"), "\(unnamed)")
    }
}
