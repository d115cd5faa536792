import Foundation
import TestSupport
import Testing

#if canImport(Glibc)
import Glibc
#endif

/// Attacks on a running server: each has its documented answer, and none moves memory beyond a ceiling.
@Suite(.timeLimit(.minutes(3)), .serialized)
struct AttackTests {
    /// Resident memory may grow by so much over all attacks together.
    private static let ceilingMiB = 64

    private struct Attack {
        var name: String
        var bytes: [UInt8]
        /// The beginning of the answer; empty where the connection just ends.
        var answer: String
        /// Sent again and again, until the server ends the connection.
        var repeats: [UInt8] = []

        init(_ name: String, _ text: String, _ answer: String, repeats: String = "") {
            self.name = name
            bytes = Array(text.utf8)
            self.answer = answer
            self.repeats = Array(repeats.utf8)
        }
    }

    private static func post(_ fields: String, _ body: String = "") -> String {
        "POST /v1/populations HTTP/1.1\r\nHost: a\r\n\(fields)\r\n\(body)"
    }

    /// Ten lines of YAML that stand for 3.5 billion values.
    private static let aliases =
        "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + zip("abcdefghi", "bcdefghij").map { before, name in
            "\(name): &\(name) [" + [String](repeating: "*\(before)", count: 9).joined(separator: ",") + "]\n"
        }.joined()

    private static let attacks: [Attack] = [
        .init("two lengths", post("Content-Length: 3\r\nContent-Length: 4\r\n"), "400"),
        .init("length and chunks", post("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"), "400"),
        .init("an unknown transfer coding", post("Transfer-Encoding: xchunked\r\n"), "501"),
        .init("a space before the colon", post("Transfer-Encoding : chunked\r\n"), "400"),
        .init("a folded field", post("A: b\r\n c\r\n"), "400"),
        .init("a bare LF", "GET / HTTP/1.1\nHost: a\r\n\r\n", "400"),
        .init("a bare CR", "GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", "400"),
        .init("no Host", "GET / HTTP/1.1\r\n\r\n", "400"),
        .init("two Hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400"),
        .init("HTTP/2's preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505"),
        .init("a tunnel", "CONNECT internal:22 HTTP/1.1\r\nHost: a\r\n\r\n", "501"),
        .init("path traversal", "GET /v1/../../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        .init("encoded path traversal", "GET /v1/%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        .init("an encoded slash", "GET /v1%2fruns HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        .init("a NUL in the path", "GET /v1/runs%00 HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        .init("overlong UTF-8", "GET /%c0%ae%c0%ae/ HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        .init(
            "a head without an end",
            "GET / HTTP/1.1\r\nHost: a\r\n",
            "431",
            repeats: "X-Fill: " + String(repeating: "x", count: 1000) + "\r\n"
        ),
        .init("a request line without an end", "GET /", "431", repeats: String(repeating: "a", count: 1000)),
        .init(
            "101 fields",
            "GET / HTTP/1.1\r\nHost: a\r\n" + String(repeating: "A: b\r\n", count: 100) + "\r\n",
            "431"
        ),
        .init("a slow head", "GET / HTTP/1.1\r\nHost: a\r\nX", "408"),
        .init("a slow body", post("Content-Length: 1000\r\nAuthorization: Bearer TOKEN\r\n", "{"), "408"),
        .init("silence", "", ""),
        .init(
            "a declared body of 1 TB",
            post("Content-Length: 1099511627776\r\nAuthorization: Bearer TOKEN\r\n"),
            "413"
        ),
        .init(
            "a chunked body without an end",
            post("Transfer-Encoding: chunked\r\nAuthorization: Bearer TOKEN\r\n"),
            "413",
            repeats: "10000\r\n" + String(repeating: "x", count: 65536) + "\r\n"
        ),
        .init(
            "a chunk of 2^63 bytes",
            post("Transfer-Encoding: chunked\r\nAuthorization: Bearer TOKEN\r\n", "8000000000000000\r\n"),
            "400"
        ),
        .init(
            "a bomb of nesting",
            post("Content-Length: 100000\r\nAuthorization: Bearer TOKEN\r\n", String(repeating: "[", count: 100_000)),
            "422"
        ),
        .init(
            "a bomb of aliases",
            post(
                "Content-Type: application/yaml\r\nContent-Length: \(aliases.utf8.count)\r\nAuthorization: Bearer TOKEN\r\n",
                aliases
            ),
            "422"
        ),
        .init(
            "a guessed token",
            "GET /v1/runs HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer mlt_guess\r\nConnection: close\r\n\r\n",
            "401"
        ),
        .init("binary garbage", String(repeating: "\u{1}\u{7F}\u{80}", count: 300) + "\r\n\r\n", "400"),
        .init("TLS to a plain port", "\u{16}\u{3}\u{1}\u{0}\u{0}\r\n\r\n", "400"),
    ]

    @Test func everyAttackHasItsAnswerAndMemoryStaysBounded() throws {
        let directory = try TemporaryDirectory()
        let server = try ServerProcess.start(
            dataDirectory: directory.path,
            [
                "--set", "limits.head_timeout_s=0.5", "--set", "limits.first_byte_timeout_s=0.5", "--set",
                "limits.transfer_timeout_s=0.5",
            ]
        )
        defer { server.stop(SIGTERM) }
        let port = try #require(Int(server.url.split(separator: ":").last ?? ""))
        let before = try residentMiB(server)
        var table = """
            # Attacks and answers

            Made by `AttackTests`, which sends each of them to a running server, four at a time; `MARTLET_UPDATE_DOCS=1 swift test --filter
            AttackTests` writes this page anew. All of them together may move the server's resident memory by \(Self.ceilingMiB) MiB at most.

            | attack | answer |
            |---|---|

            """
        for attack in Self.attacks {
            var attack = attack
            attack.bytes = Array(
                String(decoding: attack.bytes, as: UTF8.self).replacing("TOKEN", with: server.token).utf8
            )
            for answer in try exchange(port, attack, count: 4) {
                let status =
                    answer.hasPrefix("HTTP/1.1 ") ? String(answer.dropFirst(9).prefix(3)) : String(answer.prefix(3))
                #expect(status == attack.answer, "\(attack.name): \(answer.prefix(200))")
            }
            table += "| \(attack.name) | \(attack.answer.isEmpty ? "the connection ends" : attack.answer) |\n"
        }
        let grown = try residentMiB(server) - before
        #expect(grown <= Self.ceilingMiB, "resident memory grew by \(grown) MiB")
        #expect(server.process.isRunning)
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

    @Test(.enabled(if: ServerProcess.python != nil, "scripts/test sets MARTLET_TEST_PYTHON"))
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
            #expect(try residentMiB(server) - before <= Self.ceilingMiB)
            print("siege \(isAttacked): \(summary)")
        }
        #expect(models[0] == models[1])
    }

    private func residentMiB(_ server: ServerProcess) throws -> Int {
        let text = try String(contentsOfFile: "/proc/\(server.process.processIdentifier)/statm", encoding: .utf8)
        return (Int(text.split(separator: " ").dropFirst().first ?? "") ?? 0) * 4096 >> 20
    }

    /// What several connections at once are answered.
    private func exchange(_ port: Int, _ attack: Attack, count: Int) throws -> [String] {
        let sockets = try (0..<count).map { _ in try LoopbackSocket(port: port) }
        var listening = sockets.filter { $0.write(attack.bytes) }
        for _ in 0..<(attack.repeats.isEmpty ? 0 : 100) { listening = listening.filter { $0.write(attack.repeats) } }
        return sockets.map { String(decoding: $0.read { $0.count >= 12 }, as: UTF8.self) }
    }
}
