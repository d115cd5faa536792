import Foundation
import TestSupport
import Testing

/// Certificates made by the openssl command for one test.
private struct Authority {
    let directory: TemporaryDirectory

    init() throws {
        directory = try TemporaryDirectory()
        try selfSigned("ca", subject: "/CN=Test authority", days: 30)
    }

    /// Makes `name.key` and a certificate `name.pem` that nobody else signs.
    func selfSigned(_ name: String, subject: String, days: Int, _ extra: String...) throws {
        try openssl(
            ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
                + ["-keyout", name + ".key", "-out", name + ".pem", "-subj", subject, "-days", String(days)] + extra
        )
    }

    func path(_ name: String) -> String { directory.path + "/" + name }

    @discardableResult
    func openssl(_ arguments: String...) throws -> String { try openssl(arguments) }

    @discardableResult
    private func openssl(_ arguments: [String]) throws -> String {
        let child = Process()
        child.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        child.arguments = ["openssl"] + arguments
        child.currentDirectoryURL = URL(fileURLWithPath: directory.path)
        let output = Pipe()
        child.standardOutput = output
        child.standardError = output
        child.standardInput = FileHandle.nullDevice
        try child.run()
        let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        child.waitUntilExit()
        return text
    }

    /// `NAME.pem` and `NAME.key`, issued by the authority.
    func issue(_ name: String, alternatives: String = "DNS:localhost,IP:127.0.0.1", days: String = "30") throws {
        try openssl(
            "req",
            "-new",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            "\(name).key",
            "-out",
            "\(name).csr",
            "-subj",
            "/CN=\(name)"
        )
        try "subjectAltName=\(alternatives)".write(toFile: path("\(name).ext"), atomically: true, encoding: .utf8)
        try openssl(
            "x509",
            "-req",
            "-in",
            "\(name).csr",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            days,
            "-extfile",
            "\(name).ext",
            "-out",
            "\(name).pem"
        )
        try #require(FileManager.default.fileExists(atPath: path("\(name).pem")))
    }

    /// The certificate's public key as a pin.
    func pin(_ name: String) throws -> String {
        let command =
            "openssl x509 -in \(name).pem -pubkey -noout | openssl pkey -pubin -outform der | openssl dgst -sha256 -binary | base64"
        let child = Process()
        child.executableURL = URL(fileURLWithPath: "/bin/sh")
        child.arguments = ["-c", command]
        child.currentDirectoryURL = URL(fileURLWithPath: directory.path)
        let output = Pipe()
        child.standardOutput = output
        try child.run()
        let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        child.waitUntilExit()
        return "sha256//" + text.trimmingCharacters(in: .whitespacesAndNewlines)
    }

    func server(_ name: String, in data: TemporaryDirectory, _ more: [String] = []) throws -> ServerProcess {
        try ServerProcess.start(
            dataDirectory: data.path,
            ["--tls-certificate", path("\(name).pem"), "--tls-key", path("\(name).key")] + more
        )
    }
}

@Suite(.timeLimit(.minutes(30)), .serialized)
struct TLSTests {
    private func curl(_ server: ServerProcess, _ arguments: String...) throws -> (status: Int32, output: String) {
        try server.run("/usr/bin/env", ["curl", "-sS", "-m", "600"] + arguments)
    }

    @Test(.slow) func onlyModernVersionsAndSuitesAreSpoken() throws {
        let authority = try Authority()
        try authority.issue("server")
        let data = try TemporaryDirectory()
        let server = try authority.server("server", in: data)
        defer { server.stop(SIGTERM) }
        #expect(server.url.hasPrefix("https://"))
        let ca = authority.path("ca.pem")
        for version in ["--tlsv1.3", "--tls-max 1.2"] {
            let flags = version.split(separator: " ").map(String.init)
            let answer = try server.run(
                "/usr/bin/env",
                ["curl", "-sS", "-i", "--cacert", ca] + flags + [server.url + "/healthz"]
            )
            #expect(answer.output.hasPrefix("HTTP/1.1 200"), "\(version): \(answer.output)")
        }
        let port = server.url.split(separator: ":").last ?? ""
        func handshake(_ arguments: String...) throws -> String {
            let command = (["openssl", "s_client", "-connect", "127.0.0.1:\(port)"] + arguments).joined(separator: " ")
            return try server.run("/bin/sh", ["-c", command + " </dev/null 2>&1"]).output
        }
        #expect(try handshake("-tls1_3").contains("TLS_AES_128_GCM_SHA256"))
        for weak in [
            "AES128-SHA", "AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA", "ECDHE-ECDSA-AES256-SHA384", "ALL:!ECDHE",
        ] {
            let output = try handshake("-tls1_2", "-cipher", "'\(weak):@SECLEVEL=0'")
            #expect(output.contains("Cipher is (NONE)") || output.contains("Cipher    : 0000"), "\(weak): \(output)")
        }
        for old in ["-tls1_1", "-tls1"] {
            let output = try handshake(old, "-cipher", "'ALL:@SECLEVEL=0'")
            #expect(output.contains("Cipher is (NONE)") || output.contains("Cipher    : 0000"), "\(old): \(output)")
        }
        #expect(
            try handshake("-tls1_2", "-reconnect").contains("Reused") == false,
            "nothing is resumed without forward secrecy"
        )
        #expect(try curl(server, server.url.replacing("https", with: "http") + "/").output.contains("use https://"))
        // A body larger than one record, both ways.
        let big = data.path + "/big"
        try Data(repeating: 32, count: 900_000).write(to: URL(fileURLWithPath: big))
        let answer = try curl(
            server,
            "--cacert",
            ca,
            "-H",
            "Authorization: Bearer \(server.token)",
            "-H",
            "Content-Type: application/json",
            "--data-binary",
            "@" + big,
            server.url + "/v1/populations"
        )
        #expect(answer.output.contains("invalid_document"), "\(answer.output)")
        #expect(try curl(server, "--cacert", ca, server.url + "/openapi.yaml").output.contains("openapi: 3.1"))
    }

    @Test(.slow) func theClientNamesWhatIsWrongWithACertificate() throws {
        let authority = try Authority()
        try authority.issue("good")
        try authority.issue("expired", days: "-1")
        try authority.issue("elsewhere", alternatives: "DNS:other.example")
        let pin = try authority.pin("good")
        let trust = ["MARTLET_CA_FILE": authority.path("ca.pem")]
        let cases: [(String, [String: String], String?)] = [
            ("good", trust, nil), ("good", trust.merging(["MARTLET_PINNED_KEY": pin]) { $1 }, nil),
            ("good", [:], "tls_self_signed|tls_unknown_authority"),
            (
                "good",
                trust.merging(["MARTLET_PINNED_KEY": "sha256//AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="]) { $1 },
                "tls_pin_mismatch"
            ),
            ("expired", trust, "tls_certificate_expired"), ("elsewhere", trust, "tls_wrong_host"),
            ("good", ["MARTLET_CA_FILE": "/nowhere"], "tls_unreadable_file"),
        ]
        for (name, environment, code) in cases {
            let data = try TemporaryDirectory()
            let server = try authority.server(name, in: data)
            defer { server.stop(SIGTERM) }
            let result = try server.run(ServerProcess.binary, ["population", "show"], environment: environment)
            if let code {
                let isNamed = code.split(separator: "|").contains { result.output.contains("(\($0))") }
                #expect(result.status != 0 && isNamed, "\(name): \(result.output)")
                #expect(!result.output.contains("Is the server running"), "\(name): \(result.output)")
            } else {
                #expect(result.status == 0, "\(name): \(result.output)")
            }
        }
        try authority.selfSigned("self", subject: "/CN=localhost", days: 2, "-addext", "subjectAltName=IP:127.0.0.1")
        let data = try TemporaryDirectory()
        let server = try authority.server("self", in: data)
        defer { server.stop(SIGTERM) }
        let result = try server.run(ServerProcess.binary, ["population", "show"], environment: trust)
        #expect(
            result.output.contains("(tls_self_signed)") && result.output.contains("self-signed"),
            "\(result.output)"
        )
        let plain = ["MARTLET_URL": server.url.replacing("https:", with: "http:")]
        let misled = try server.run(ServerProcess.binary, ["population", "show"], environment: plain)
        #expect(misled.status != 0 && misled.output.contains("this port speaks HTTPS"), "\(misled.output)")
    }

    /// `env` says at once what waiting does not change, and prints whom to trust for the commands that follow.
    @Test func theEnvironmentHoldsWhomToTrust() throws {
        let authority = try Authority()
        try authority.issue("good")
        let data = try TemporaryDirectory()
        let server = try authority.server("good", in: data)
        defer { server.stop(SIGTERM) }
        let arguments = ["env", "--data-dir", data.path, "--timeout", "600"]
        let refused = try server.run(ServerProcess.binary, arguments)
        #expect(refused.status == 1 && refused.output.contains("--ca-file"), "\(refused.output)")
        #expect(!refused.output.contains("martlet serve"), "\(refused.output)")
        let trusted = try server.run(ServerProcess.binary, arguments + ["--ca-file", authority.path("ca.pem")])
        #expect(trusted.output.contains("export MARTLET_CA_FILE='\(authority.path("ca.pem"))'"), "\(trusted.output)")
        #expect(trusted.status == 0 && trusted.output.contains("export MARTLET_TOKEN="), "\(trusted.output)")
    }

    @Test(.slow) func aPortThatSpeaksPlainHTTPIsNamed() throws {
        let data = try TemporaryDirectory()
        let server = try ServerProcess.start(dataDirectory: data.path)
        defer { server.stop(SIGTERM) }
        let secure = ["MARTLET_URL": server.url.replacing("http:", with: "https:")]
        let misled = try server.run(ServerProcess.binary, ["population", "show"], environment: secure)
        #expect(misled.status == 1 && misled.output.contains("plain HTTP; use http://"), "\(misled.output)")
    }

    /// A server that offers nothing newer than TLS 1.1, which OpenSSL's own command still does.
    @Test func theClientSpeaksNoOldVersion() throws {
        let authority = try Authority()
        try authority.issue("old")
        for (version, code) in [("-tls1_1", "(tls_old_version)"), ("-tls1_2", "")] {
            let old = Process()
            old.executableURL = URL(fileURLWithPath: "/usr/bin/env")
            old.arguments =
                ["openssl", "s_server", version, "-cipher", "ALL:@SECLEVEL=0", "-accept", "127.0.0.1:0", "-www"]
                + ["-cert", authority.path("old.pem"), "-key", authority.path("old.key")]
            let output = Pipe()
            (old.standardOutput, old.standardError) = (output, FileHandle.nullDevice)
            try old.run()
            defer {
                kill(old.processIdentifier, SIGKILL)
                old.waitUntilExit()
            }
            var text = ""
            while text.firstMatch(of: /ACCEPT [0-9.]+:[0-9]+\n/) == nil {
                let block = output.fileHandleForReading.availableData
                if block.isEmpty { break }
                text += String(decoding: block, as: UTF8.self)
            }
            let port = try #require(text.firstMatch(of: /ACCEPT [0-9.]+:([0-9]+)\n/)?.1, "\(text)")
            let result = try ServerProcess.capture(
                ServerProcess.binary,
                ["population", "show", "--server", "https://127.0.0.1:\(port)"],
                environment: ["MARTLET_CA_FILE": authority.path("ca.pem"), "MARTLET_TOKEN": "t"]
            )
            #expect(result.status != 0)
            // The newer one is heard, though what it says is no answer of ours.
            #expect(code.isEmpty ? !result.output.contains("(tls_") : result.output.contains(code), "\(result.output)")
        }
    }

    @Test func aHangUpReadsTheCertificateAgain() throws {
        let authority = try Authority()
        try authority.issue("first")
        try authority.issue("second")
        for suffix in ["pem", "key"] {
            try FileManager.default.copyItem(
                atPath: authority.path("first." + suffix),
                toPath: authority.path("live." + suffix)
            )
        }
        let data = try TemporaryDirectory()
        let server = try authority.server("live", in: data)
        defer { server.stop(SIGTERM) }
        let port = server.url.split(separator: ":").last ?? ""
        func subject() throws -> String {
            let command =
                "openssl s_client -connect 127.0.0.1:\(port) </dev/null 2>/dev/null | openssl x509 -noout -subject"
            return try server.run("/bin/sh", ["-c", command]).output
        }
        func replace(_ name: String) throws {
            for suffix in ["pem", "key"] {
                try Data(contentsOf: URL(fileURLWithPath: authority.path("\(name).\(suffix)"))).write(
                    to: URL(fileURLWithPath: authority.path("live." + suffix))
                )
            }
            kill(server.process.processIdentifier, SIGHUP)
        }
        #expect(try subject().contains("first"))
        try replace("second")
        // The signal is handled soon, not at once.
        var present = ""
        var patience = Patience("the second certificate")
        while !present.contains("second") {
            try patience.pauseThread()
            present = try subject()
        }
        try "no certificate".write(toFile: authority.path("live.pem"), atomically: true, encoding: .utf8)
        kill(server.process.processIdentifier, SIGHUP)
        for _ in 0..<5 { #expect(try subject().contains("second"), "a wrong file changes nothing") }
    }

    @Test func aClientIsBoundToTheCertificateThatItRegisteredWith() throws {
        let authority = try Authority()
        try authority.issue("server")
        for name in ["phone", "thief"] { try authority.issue(name) }
        let data = try TemporaryDirectory()
        let ca = authority.path("ca.pem")
        let server = try authority.server("server", in: data, ["--tls-client-ca", ca])
        defer { server.stop(SIGTERM) }
        let trust = ["MARTLET_CA_FILE": ca]
        #expect(try server.run(ServerProcess.binary, ["population", "create", "p"], environment: trust).status == 0)
        let made = try server.run(ServerProcess.binary, ["population", "token", "p", "--json"], environment: trust)
            .output
        let enrollment = try #require(made.firstMatch(of: /"token":"([^"]+)"/)?.1)
        func call(_ token: some StringProtocol, _ path: String, as name: String?) throws -> String {
            var arguments = [
                "curl", "-sS", "--cacert", ca, "-H", "Authorization: Bearer \(token)", "-H",
                "Content-Type: application/json", "-d", "{}",
            ]
            if let name {
                arguments += ["--cert", authority.path("\(name).pem"), "--key", authority.path("\(name).key")]
            }
            return try server.run("/usr/bin/env", arguments + [server.url + path]).output
        }
        let registered = try call(enrollment, "/v1/clients", as: "phone")
        let token = try #require(registered.firstMatch(of: /"token":"([^"]+)"/)?.1, "\(registered)")
        #expect(try call(token, "/v1/checkins", as: "phone").contains("no_run"))
        for name in ["thief", nil] {
            #expect(try call(token, "/v1/checkins", as: name).contains("certificate_mismatch"))
        }
        // A client that showed none is bound to none.
        let plain = try #require(try call(enrollment, "/v1/clients", as: nil).firstMatch(of: /"token":"([^"]+)"/)?.1)
        #expect(try call(plain, "/v1/checkins", as: nil).contains("no_run"))
    }

    @Test func clientCertificatesCanBeDemanded() throws {
        let authority = try Authority()
        let stranger = try Authority()
        try authority.issue("server")
        try authority.issue("phone")
        try stranger.issue("phone")
        let data = try TemporaryDirectory()
        let ca = authority.path("ca.pem")
        let server = try authority.server(
            "server",
            in: data,
            ["--tls-client-ca", ca, "--set", "tls.client_certificates=required"]
        )
        defer { server.stop(SIGTERM) }
        let url = server.url + "/healthz"
        #expect(try curl(server, "--cacert", ca, url).status != 0)
        for (owner, works) in [(authority, true), (stranger, false)] {
            let result = try curl(
                server,
                "--cacert",
                ca,
                "--cert",
                owner.path("phone.pem"),
                "--key",
                owner.path("phone.key"),
                url
            )
            #expect((result.status == 0) == works, "\(result.output)")
        }
    }

    @Test func version12CanBeRefused() throws {
        let authority = try Authority()
        try authority.issue("server")
        let data = try TemporaryDirectory()
        let server = try authority.server("server", in: data, ["--set", "tls.minimum_version=1.3"])
        defer { server.stop(SIGTERM) }
        let trust = ["--cacert", authority.path("ca.pem"), server.url + "/healthz"]
        for (flags, works) in [(["--tlsv1.3"], true), (["--tls-max", "1.2"], false)] {
            let answer = try server.run("/usr/bin/env", ["curl", "-sS", "-m", "600"] + flags + trust)
            #expect((answer.status == 0) == works, "\(flags): \(answer.output)")
        }
        // What the first start wrote is for its owner only.
        let token = data.path + "/admin-token"
        #expect(try FileManager.default.attributesOfItem(atPath: token)[.posixPermissions] as? Int == 0o600)
    }

    /// As the image's HEALTHCHECK asks, which knows nothing of the certificate.
    @Test func theHealthCheckWorksWhateverTheCertificate() throws {
        let authority = try Authority()
        try authority.issue("server", alternatives: "DNS:federated.example")
        let data = try TemporaryDirectory()
        let file = try String(contentsOfFile: ServerProcess.repository + "/docker/Dockerfile", encoding: .utf8)
        let line = try #require(file.firstMatch(of: /HEALTHCHECK .*CMD (\[.*\])/)?.1)
        let command = try JSONDecoder().decode([String].self, from: Data(line.utf8)).map {
            $0.replacing("/data", with: data.path)
        }
        #expect(command.first == "martlet" && command.contains(data.path))
        func health() throws -> Int32 {
            try ServerProcess.capture(ServerProcess.binary, Array(command.dropFirst())).status
        }
        let required = ["--tls-client-ca", authority.path("ca.pem"), "--set", "tls.client_certificates=required"]
        for more in [[], required] {
            let server = try authority.server("server", in: data, more)
            #expect(try health() == 0)
            server.stop(SIGTERM)
            #expect(try health() == 1)
        }
        let plain = try ServerProcess.start(dataDirectory: data.path)
        #expect(try health() == 0)
        plain.stop(SIGTERM)
        #expect(try health() == 1)
    }

    @Test func plainHTTPOnAReachableAddressIsRefused() throws {
        let data = try TemporaryDirectory()
        let child = Process()
        child.executableURL = URL(fileURLWithPath: ServerProcess.binary)
        child.arguments = ["serve", "--data-dir", data.path, "--listen", "0.0.0.0:0"]
        let output = Pipe()
        child.standardError = output
        try child.run()
        let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        child.waitUntilExit()
        #expect(child.terminationStatus != 0)
        #expect(text.contains("--tls-certificate") && text.contains("--behind-proxy"), "\(text)")
    }
}
