import Foundation
import TestSupport
import Testing

#if canImport(Glibc)
import Glibc
#endif

/// Attacks on a running server: each has its documented answer, and none moves memory beyond a ceiling.
@Suite(.timeLimit(.minutes(30)), .serialized)
struct AttackTests {
    /// Resident memory may grow by so much over all attacks together.
    private static let ceilingMiB = 64

    private struct Attack {
        var name: String
        var bytes: [UInt8]
        /// Status and code of the answer's problem document; empty where the connection just ends.
        var answer: String
        /// What the log says of it: the message, by default that of a request that never reached a route.
        var log: String
        /// Sent again and again, until the server ends the connection.
        var repeats: [UInt8] = []
        /// The time-out that answers it, which is short on the server that it is sent to; the others never come.
        var timeout: String?

        init(
            _ name: String,
            _ text: String,
            _ answer: String,
            log: String = notUnderstood,
            repeats: String = "",
            timeout: String? = nil
        ) {
            self.name = name
            self.timeout = timeout
            bytes = Array(text.utf8)
            self.answer = answer
            self.log = log
            self.repeats = Array(repeats.utf8)
        }
    }

    private static let notUnderstood = "A request was not understood"
    private static let answered = "A request was answered"

    private static func post(_ fields: String, _ body: String = "") -> String {
        "POST /v1/populations HTTP/1.1\r\nHost: a\r\n\(fields)\r\n\(body)"
    }

    /// Ten lines of YAML that stand for 3.5 billion values.
    private static let aliases =
        "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + zip("abcdefghi", "bcdefghij").map { before, name in
            "\(name): &\(name) [" + [String](repeating: "*\(before)", count: 9).joined(separator: ",") + "]\n"
        }.joined()

    private static let unknownFields = "{" + (0..<20_000).map { "\"field\($0)\":0" }.joined(separator: ",") + "}"
    private static let turningName = #"{"name": "a\u202eb"}"#

    private static let attacks: [Attack] = [
        .init("two lengths", post("Content-Length: 3\r\nContent-Length: 4\r\n"), "400 bad_request"),
        .init("length and chunks", post("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"), "400 bad_request"),
        .init("an unknown transfer coding", post("Transfer-Encoding: xchunked\r\n"), "501 not_implemented"),
        .init("a space before the colon", post("Transfer-Encoding : chunked\r\n"), "400 bad_request"),
        .init("a folded field", post("A: b\r\n c\r\n"), "400 bad_request"),
        .init("a bare LF", "GET / HTTP/1.1\nHost: a\r\n\r\n", "400 bad_request"),
        .init("a bare CR", "GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", "400 bad_request"),
        .init("no Host", "GET / HTTP/1.1\r\n\r\n", "400 bad_request"),
        .init("two Hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400 bad_request"),
        .init("HTTP/2's preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505 bad_request"),
        .init("a tunnel", "CONNECT internal:22 HTTP/1.1\r\nHost: a\r\n\r\n", "501 not_implemented"),
        .init("path traversal", "GET /v1/../../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n", "400 bad_request"),
        .init(
            "encoded path traversal",
            "GET /v1/%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n",
            "400 bad_request"
        ),
        .init("an encoded slash", "GET /v1%2fruns HTTP/1.1\r\nHost: a\r\n\r\n", "400 bad_request"),
        .init("a NUL in the path", "GET /v1/runs%00 HTTP/1.1\r\nHost: a\r\n\r\n", "400 bad_request"),
        .init("a forged line of the log", "GET /v1/%0d%0a{} HTTP/1.1\r\nHost: a\r\n\r\n", "400 bad_request"),
        .init(
            "a forged field of the log",
            "GET /v1/%22,%22level%22:%22error%22,%22x%22:%22%5C HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            "404 not_found",
            log: answered
        ),
        .init("overlong UTF-8", "GET /%c0%ae%c0%ae/ HTTP/1.1\r\nHost: a\r\n\r\n", "400 bad_request"),
        .init(
            "a head without an end",
            "GET / HTTP/1.1\r\nHost: a\r\n",
            "431 head_too_large",
            repeats: "X-Fill: " + String(repeating: "x", count: 1000) + "\r\n"
        ),
        .init(
            "a request line without an end",
            "GET /",
            "431 head_too_large",
            repeats: String(repeating: "a", count: 1000)
        ),
        .init(
            "101 fields",
            "GET / HTTP/1.1\r\nHost: a\r\n" + String(repeating: "A: b\r\n", count: 100) + "\r\n",
            "431 head_too_large"
        ),
        .init("a slow head", "GET / HTTP/1.1\r\nHost: a\r\nX", "408 timeout", timeout: "head"),
        .init(
            "a slow body",
            post("Content-Length: 1000\r\nAuthorization: Bearer TOKEN\r\n", "{"),
            "408 timeout",
            log: answered,
            timeout: "transfer"
        ),
        .init("silence", "", "", log: "A peer was too slow", timeout: "first_byte"),
        .init(
            "a declared body of 1 TB",
            post("Content-Length: 1099511627776\r\nAuthorization: Bearer TOKEN\r\n"),
            "413 too_large",
            log: answered
        ),
        .init(
            "a chunked body without an end",
            post("Transfer-Encoding: chunked\r\nAuthorization: Bearer TOKEN\r\n"),
            "413 too_large",
            log: answered,
            repeats: "10000\r\n" + String(repeating: "x", count: 65536) + "\r\n"
        ),
        .init(
            "a chunk of 2^63 bytes",
            post("Transfer-Encoding: chunked\r\nAuthorization: Bearer TOKEN\r\n", "8000000000000000\r\n"),
            "400 bad_request",
            log: answered
        ),
        .init(
            "a bomb of nesting",
            post("Content-Length: 100000\r\nAuthorization: Bearer TOKEN\r\n", String(repeating: "[", count: 100_000)),
            "422 invalid_document",
            log: answered
        ),
        .init(
            "a bomb of aliases",
            post(
                "Content-Type: application/yaml\r\nContent-Length: \(aliases.utf8.count)\r\nAuthorization: Bearer TOKEN\r\n",
                aliases
            ),
            "422 invalid_document",
            log: answered
        ),
        .init(
            "a document of 20,000 unknown fields",
            post(
                "Content-Length: \(unknownFields.utf8.count)\r\nAuthorization: Bearer TOKEN\r\nConnection: close\r\n",
                unknownFields
            ),
            "422 invalid_document",
            log: answered
        ),
        .init(
            "a name that turns the line it is in",
            post(
                "Content-Length: \(turningName.utf8.count)\r\nAuthorization: Bearer TOKEN\r\nConnection: close\r\n",
                turningName
            ),
            "422 invalid_document",
            log: answered
        ),
        .init(
            "a guessed token",
            "GET /v1/runs HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer mlt_guess\r\nConnection: close\r\n\r\n",
            "401 unauthorized",
            log: answered
        ),
        .init(
            "5,000 requests in a row, and garbage",
            String(repeating: "HEAD /healthz HTTP/1.1\r\nHost: a\r\n\r\n", count: 5000) + "GARBAGE\r\n\r\n",
            "400 bad_request"
        ),
        .init("binary garbage", String(repeating: "\u{1}\u{7F}\u{80}", count: 300) + "\r\n\r\n", "400 bad_request"),
        .init("TLS to a plain port", "\u{16}\u{3}\u{1}\u{0}\u{0}\r\n\r\n", "400 bad_request"),
    ]

    /// A server that is attacked, and its log.
    private struct Target {
        let server: ServerProcess
        let log: String
        let port: Int
        let before: Int
    }

    /// Starts a server of which one time-out is short: how fast the attacker is decides over nothing else.
    private func target(_ timeout: String?, in directory: TemporaryDirectory) throws -> Target {
        let place = directory.path + "/" + (timeout ?? "none")
        let settings = ["head", "first_byte", "transfer"].map {
            "limits.\($0)_timeout_s=\($0 == timeout ? "0.5" : "3600")"
        }
        try FileManager.default.createDirectory(atPath: place, withIntermediateDirectories: true)
        let server = try ServerProcess.start(
            dataDirectory: place + "/data",
            (settings + ["log.level=info", "log.format=json", "log.slow_request_s=3600"]).flatMap { ["--set", $0] },
            log: place + "/log"
        )
        let port = try #require(Int(server.url.split(separator: ":").last ?? ""))
        return Target(server: server, log: place + "/log", port: port, before: try residentMiB(server))
    }

    @Test(.slow) func everyAttackHasItsAnswerAndMemoryStaysBounded() throws {
        let directory = try TemporaryDirectory()
        var targets: [String?: Target] = [:]
        defer { for target in targets.values { target.server.stop(SIGTERM) } }
        for timeout in Set(Self.attacks.map(\.timeout)) { targets[timeout] = try target(timeout, in: directory) }
        var table = """
            # Attacks and answers

            Made by `AttackTests`, which sends each of them to a running server, four at a time; `MARTLET_UPDATE_DOCS=1 swift test --filter
            AttackTests` writes this page anew. All of them together may move the server's resident memory by \(Self.ceilingMiB) MiB at most.

            | attack | answer | in the log, at `info` |
            |---|---|---|

            """
        for attack in Self.attacks {
            var attack = attack
            let target = try #require(targets[attack.timeout])
            let (server, log) = (target.server, target.log)
            attack.bytes = Array(
                String(decoding: attack.bytes, as: UTF8.self).replacing("TOKEN", with: server.token).utf8
            )
            let logged = try Data(contentsOf: URL(fileURLWithPath: log)).count
            // Answers of long rows fill what the system keeps for a reader: one at a time is read while it is sent.
            let answers = try exchange(target.port, attack, count: attack.bytes.count > 1 << 17 ? 1 : 4)
            for answer in answers {
                #expect(try Self.statusAndCode(answer) == attack.answer, "\(attack.name): \(answer.prefix(400))")
            }
            // The line is written before the answer.
            let lines = try Data(contentsOf: URL(fileURLWithPath: log)).dropFirst(logged).split(separator: 10).map {
                try JSONSerialization.jsonObject(with: $0) as? [String: String] ?? [:]
            }
            let own = lines.filter { line in
                let answer = [line["http.status"], line["error.code"]].compactMap { $0 }.joined(separator: " ")
                return line["message"] == attack.log && answer == attack.answer
                    && line["client.address"] == "127.0.0.1"
            }
            #expect(own.count == answers.count, "\(attack.name): \(lines)")
            // Whoever sees the answer finds the line by its id.
            for id in own.compactMap({ $0["request.id"] }) {
                #expect(answers.contains { $0.contains("\"request_id\":\"\(id)\"") }, "\(attack.name): \(id)")
            }
            #expect(lines.allSatisfy { $0["level"] == "info" } && !lines.description.contains(server.token))
            table +=
                "| \(attack.name) | \(attack.answer.isEmpty ? "the connection ends" : attack.answer) | \(attack.log) |\n"
        }
        let grown = try targets.values.reduce(0) { try $0 + residentMiB($1.server) - $1.before }
        #expect(grown <= Self.ceilingMiB || Sanitizer.isWatching, "resident memory grew by \(grown) MiB")
        #expect(targets.values.allSatisfy { $0.server.process.isRunning })
        let path = ServerProcess.repository + "/docs/attacks.md"
        // What follows was measured on a quiet machine, not here.
        let page = try String(contentsOfFile: path, encoding: .utf8)
        let siege = page.range(of: "\n## Under siege").map { String(page[$0.lowerBound...]) } ?? ""
        if ProcessInfo.processInfo.environment["MARTLET_UPDATE_DOCS"] != nil {
            try (table + siege).write(toFile: path, atomically: true, encoding: .utf8)
        } else {
            #expect(page == table + siege, "docs/attacks.md is not what the test finds")
        }
    }

    @Test(.slow, .enabled(if: ServerProcess.python != nil, "scripts/test sets MARTLET_TEST_PYTHON"))
    func aRunUnderSiegeEndsWithTheSameModel() throws {
        let script = ServerProcess.repository + "/Tests/Python/siege.py"
        var models: [String] = []
        for isAttacked in [false, true] {
            let directory = try TemporaryDirectory()
            let server = try ServerProcess.start(dataDirectory: directory.path)
            defer { server.stop(SIGTERM) }
            let before = try residentMiB(server)
            let attackers = Process()
            attackers.executableURL = URL(fileURLWithPath: try #require(ServerProcess.python))
            attackers.arguments = [script, "attack", server.url]
            let ready = Pipe()
            attackers.standardOutput = ready
            if isAttacked {
                try attackers.run()
                _ = ready.fileHandleForReading.availableData
            }
            defer {
                if isAttacked {
                    // Not SIGTERM: where this process ignores that, so do its children.
                    kill(attackers.processIdentifier, SIGKILL)
                    attackers.waitUntilExit()
                }
            }
            let result = try server.run(try #require(ServerProcess.python), [script, "job", server.url, server.token])
            #expect(result.status == 0, "\(result.output)")
            let summary = try #require(
                try JSONSerialization.jsonObject(with: Data(result.output.utf8)) as? [String: Any]
            )
            #expect(summary["rounds"] as? Int == 10)
            models.append(try #require(summary["model"] as? String))
            #expect(try residentMiB(server) - before <= Self.ceilingMiB || Sanitizer.isWatching)
            print("siege \(isAttacked): \(summary)")
        }
        #expect(models[0] == models[1])
    }

    /// Status and code of an answer with a problem document; empty where there is no answer.
    private static func statusAndCode(_ answer: String) throws -> String {
        // After those of other requests on the same connection.
        guard let start = answer.ranges(of: /HTTP\/1\.1 [0-9]{3}/).last?.lowerBound else { return "" }
        let answer = answer[start...]
        let code = answer.firstMatch(of: /"code":"([a-z_]+)"/).map { String($0.1) } ?? "no code"
        #expect(answer.hasPrefix("HTTP/1.1 ") && answer.contains("application/problem+json"))
        return answer.dropFirst("HTTP/1.1 ".count).prefix(3) + " " + code
    }

    private func residentMiB(_ server: ServerProcess) throws -> Int {
        let text = try String(contentsOfFile: "/proc/\(server.process.processIdentifier)/statm", encoding: .utf8)
        return (Int(text.split(separator: " ").dropFirst().first ?? "") ?? 0) * 4096 >> 20
    }

    /// What several connections at once are answered.
    private func exchange(_ port: Int, _ attack: Attack, count: Int) throws -> [String] {
        let sockets = try (0..<count).map { _ in try LoopbackSocket(port: port) }
        if count == 1 {
            let socket = sockets[0]
            Thread { socket.write(attack.bytes) }.start()
            return [String(decoding: socket.read { $0.last == 125 }, as: UTF8.self)]
        }
        var listening = sockets.filter { $0.write(attack.bytes) }
        for _ in 0..<(attack.repeats.isEmpty ? 0 : 100) { listening = listening.filter { $0.write(attack.repeats) } }
        return sockets.map { socket in
            String(decoding: socket.read { String(decoding: $0, as: UTF8.self).hasSuffix("}") }, as: UTF8.self)
        }
    }
}
