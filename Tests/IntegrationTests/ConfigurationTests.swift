import Foundation
import TestSupport
import Testing

/// Settings from flags, environment and file, as a user gives them.
@Suite(.timeLimit(.minutes(30)))
struct ConfigurationTests {
    private func check(
        _ arguments: [String],
        environment: [String: String] = [:]
    ) throws -> (status: Int32, output: String) {
        try ServerProcess.capture(ServerProcess.binary, ["config", "check"] + arguments, environment: environment)
    }

    private func value(_ key: String, _ output: String) throws -> [String] {
        let object = try JSONSerialization.jsonObject(with: Data(output.utf8)) as? [String: [String: String]]
        let entry = try #require(object?[key])
        return [entry["value"] ?? "", entry["source"] ?? ""]
    }

    @Test func flagsComeBeforeTheEnvironmentBeforeTheFileBeforeTheDefaults() throws {
        let directory = try TemporaryDirectory()
        let file = directory.path + "/martlet.yaml"
        try
            "listen: 127.0.0.1:1\ndata_dir: /nowhere\nlog: {level: error}\nlimits:\n  head_bytes: 32KiB\n  head_fields: 50\n"
            .write(toFile: file, atomically: true, encoding: .utf8)
        let result = try check(
            ["--config", file, "--listen", "127.0.0.1:3", "--json"],
            environment: ["MARTLET_LISTEN": "127.0.0.1:2", "MARTLET_LIMITS_HEAD_FIELDS": "60"]
        )
        #expect(result.status == 0, "\(result.output)")
        #expect(try value("listen", result.output) == ["127.0.0.1:3", "--listen"])
        #expect(try value("limits.head_fields", result.output) == ["60", "MARTLET_LIMITS_HEAD_FIELDS"])
        #expect(try value("limits.head_bytes", result.output) == ["32KiB", file])
        #expect(try value("limits.connections", result.output) == ["8192", "default"])
        let named = try check(["--json"], environment: ["MARTLET_CONFIG": file])
        #expect(try value("log.level", named.output) == ["error", file])
    }

    @Test(.slow) func everyProblemIsNamedWithItsSource() throws {
        let directory = try TemporaryDirectory()
        let file = directory.path + "/martlet.yaml"
        try "data_dir: x\nlimits: {head_byte: 1, head_fields: 7}\n".write(
            toFile: file,
            atomically: true,
            encoding: .utf8
        )
        let result = try check(
            ["--config", file, "--set", "limits.idle_timeout_s=soon"],
            environment: ["MARTLET_LOG_LEVEL": "loud"]
        )
        #expect(result.status != 0)
        for part in [
            "\(file): 'limits.head_byte' is not a setting; did you mean 'limits.head_bytes'?",
            "limits.head_fields (\(file)) must be a whole number from 24 to 1000, not '7'",
            "log.level (MARTLET_LOG_LEVEL) must be one of", "limits.idle_timeout_s (--set) must be a number",
        ] {
            #expect(result.output.contains(part), "\(part) in \(result.output)")
        }
        // Limits under which the client's own requests could not work.
        for (setting, words) in [
            ("limits.document_bytes=32KiB", "limits.document_bytes (--set) must be"),
            ("limits.head_bytes=1KiB", "limits.head_bytes (--set) must be"),
            ("limits.least_bytes_per_s=100000000", "limits.least_bytes_per_s (--set) must be"),
            ("rate.client_burst=5", "rate.client_burst must be at least 20"),
            ("rate.address_burst=5", "rate.address_burst must be at least 20"),
        ] {
            let result = try check(["--data-dir", "x", "--set", setting])
            #expect(result.status != 0 && result.output.contains(words), "\(setting): \(result.output)")
        }
        let unlimited = try check(["--data-dir", "x", "--set", "rate.client_burst=5", "--set", "rate.client_per_s=0"])
        #expect(unlimited.status == 0, "\(unlimited.output)")
        // A misspelt variable must not leave a setting at its default in silence.
        let misspelt = try check(
            ["--data-dir", "x"],
            environment: [
                "MARTLET_TLS_CLIENT_CERTIFICATE": "required", "MARTLET_RATE_LIMIT": "1", "MARTLET_TOKEN": "t",
            ]
        )
        #expect(misspelt.status != 0 && misspelt.output.contains("did you mean MARTLET_TLS_CLIENT_CERTIFICATES?"))
        #expect(misspelt.output.contains("MARTLET_RATE_LIMIT is not a setting's variable"))
        #expect(!misspelt.output.contains("MARTLET_TOKEN"), "\(misspelt.output)")
        for (name, suggestion) in [
            ("MARTLET_PORT", "did you mean MARTLET_LISTEN, which is HOST:PORT?"),
            ("MARTLET_DATADIR", "did you mean MARTLET_DATA_DIR?"), ("MARTLET_LISTN", "did you mean MARTLET_LISTEN?"),
            ("MARTLET_LISTEN_ADDRESS", "did you mean MARTLET_LISTEN, which is HOST:PORT?"),
            ("MARTLET_TOKENS", "did you mean MARTLET_TOKEN?"),
            ("MARTLET_SOMETHING_ELSE", "'martlet config check' shows"),
            ("MARTLET_LOG_LEVLE", "did you mean MARTLET_LOG_LEVEL?"),
        ] {
            let result = try check(["--data-dir", "x"], environment: [name: "8080"])
            #expect(result.status != 0, "\(name)")
            #expect(result.output.contains("\(name) is not a setting's variable; \(suggestion)"), "\(result.output)")
        }
        // What Kubernetes and Docker put there for a service of this name, other commands' variables, and tests'.
        let others = try check(
            ["--data-dir", "x"],
            environment: [
                "MARTLET_PORT": "tcp://10.0.0.7:8080", "MARTLET_SERVICE_HOST": "10.0.0.7",
                "MARTLET_PORT_8080_TCP": "tcp://10.0.0.7:8080", "MARTLET_PORT_8080_TCP_ADDR": "10.0.0.7",
                "MARTLET_SERVICE_PORT": "8080", "MARTLET_URL": "http://x", "MARTLET_CA_FILE": "x",
                "MARTLET_TEST_PYTHON": "x", "MARTLET_FAULT_POINTS": "3", "MARTLET_SLOW_TESTS": "1",
            ]
        )
        #expect(others.status == 0, "\(others.output)")
        // A check needs no directory, and says that a server does.
        let checked = try check(["--explain"])
        #expect(checked.status == 0 && checked.output.contains("data_dir is not set"), "\(checked.output)")
        for (given, missing) in [("certificate", "key"), ("key", "certificate")] {
            let half = try check(["--data-dir", "x", "--tls-\(given)", "some.pem"])
            let words = "tls.\(given) needs tls.\(missing) too: give --tls-\(missing)"
            #expect(half.status != 0 && half.output.contains(words), "\(half.output)")
        }
        #expect(try check(["--data-dir", "x", "--listen", "here"]).output.contains("listen must be HOST:PORT"))
        let open = try check(["--data-dir", "x", "--listen", "0.0.0.0:1", "--set", "insecure_no_auth=true"])
        // A name that begins like a loopback address is somebody's name.
        #expect(try check(["--data-dir", "x", "--listen", "127.0.0.example:1"]).output.contains("can be reached"))
        #expect(try check(["--data-dir", "x", "--listen", "127.0.0.2:1"]).status == 0)
        #expect(open.status != 0 && open.output.contains("insecure_no_auth is for loopback addresses only"))
        let missing = try check(["--data-dir", "x", "--config", directory.path + "/none"])
        #expect(missing.output.contains("cannot read \(directory.path)/none: no such file"), "\(missing.output)")
    }

    @Test func everySettingIsDocumentedWithItsDefault() throws {
        let output = try check(["--data-dir", "x", "--explain"]).output
        let lines = output.split(separator: "\n").map(String.init)
        var page = """
            # Settings

            Every setting of `martlet serve`, for operators. `ConfigurationTests` makes this page from `martlet config check --explain`.
            A setting is given as a flag (`--set limits.head_bytes=32KiB`; some have a flag of their own, see `martlet serve --help`),
            in the environment (`MARTLET_LIMITS_HEAD_BYTES`) or in the file (`limits: {head_bytes: 32KiB}`). Flags take precedence
            over the environment, and the environment over the file.

            | setting | default | meaning |
            |---|---|---|

            """
        for (setting, help) in zip(lines, lines.dropFirst()) where help.hasPrefix("    ") {
            let words = setting.split(separator: " ")
            let value = words.dropFirst().prefix { !$0.hasPrefix("(") }.joined(separator: " ")
            let meaning = help.trimmingCharacters(in: .whitespaces).split(separator: " ").dropLast().joined(
                separator: " "
            )
            page += "| `\(words[0])` | \(words[0] == "data_dir" ? "-" : value) | \(meaning) |\n"
        }
        page += """

            Some limits have no setting:

            | limit | value |
            |---|---|
            | line of a chunk's size | 1 KiB |
            | trailers of a body | 8 KiB |
            | bytes of an unwanted body that are read before the connection ends | 64 KiB |
            | series that `/metrics` keeps under one name | 2,000 |
            | events that a listener may be behind; beyond, its stream ends and it resumes by id | 512 |
            | files in `variants/` | 32 |
            | wait of `Prefer: wait` | 60 s |
            | length of an `Idempotency-Key` | 200 bytes |
            | wrong fields that one answer names | 100 |
            | answers of one connection before others have their turn | 64 |

            """
        let path = ServerProcess.repository + "/docs/settings.md"
        if ProcessInfo.processInfo.environment["MARTLET_UPDATE_DOCS"] != nil {
            try page.write(toFile: path, atomically: true, encoding: .utf8)
        }
        #expect(
            try String(contentsOfFile: path, encoding: .utf8) == page,
            "MARTLET_UPDATE_DOCS=1 swift test --filter ConfigurationTests writes docs/settings.md again"
        )
    }

    @Test func secretsComeFromFiles() throws {
        let directory = try TemporaryDirectory()
        let secret = directory.path + "/secret"
        try "short".write(toFile: secret, atomically: true, encoding: .utf8)
        let refused = try check(["--data-dir", "x", "--set", "admin_token_file=" + secret])
        #expect(refused.status != 0 && refused.output.contains("at least 32 printable characters"))
        let token = "a-secret-of-more-than-thirty-two-characters"
        try (token + "\n").write(toFile: secret, atomically: true, encoding: .utf8)
        let accepted = try check(["--data-dir", "x", "--set", "admin_token_file=" + secret])
        #expect(accepted.status == 0 && !accepted.output.contains(token))
        // The server takes the one as the administrator's, and writes the other for whoever reads its metrics.
        let data = directory.path + "/data"
        let scrape = directory.path + "/scrape"
        let server = try ServerProcess.start(
            dataDirectory: data,
            ["--set", "admin_token_file=" + secret, "--set", "viewer_token_file=" + scrape],
            token: token
        )
        defer { server.stop(SIGTERM) }
        #expect(!FileManager.default.fileExists(atPath: data + "/admin-token"))
        #expect(try server.martlet("population", "create", "p").status == 0)
        let viewer = try String(contentsOfFile: scrape, encoding: .utf8).trimmingCharacters(in: .whitespacesAndNewlines)
        func curl(_ arguments: String...) throws -> String {
            let head = ["curl", "-s", "-i", "-H", "Authorization: Bearer \(viewer)"]
            return try server.run("/usr/bin/env", head + arguments).output
        }
        #expect(try curl(server.url + "/metrics").hasPrefix("HTTP/1.1 200"))
        #expect(try curl("-d", "{}", server.url + "/v1/populations").hasPrefix("HTTP/1.1 403"))
        #expect(try FileManager.default.attributesOfItem(atPath: scrape)[.posixPermissions] as? Int == 0o600)
    }
}
