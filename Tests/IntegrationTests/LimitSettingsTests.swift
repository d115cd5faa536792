import Foundation
import TestSupport
import Testing

/// Limits as an operator sets them, at the running server.
@Suite(.timeLimit(.minutes(30)), .serialized)
struct LimitSettingsTests {
    private func status(_ answer: String) -> String { String(answer.dropFirst("HTTP/1.1 ".count).prefix(3)) }

    /// The largest document that is read has exactly as many bytes as the setting says, declared or in chunks.
    @Test func documentsHaveTheSizeThatTheSettingSays() throws {
        let directory = try TemporaryDirectory()
        let server = try ServerProcess.start(
            dataDirectory: directory.path,
            ["--set", "limits.document_bytes=64KiB"]
        )
        defer { server.stop(SIGTERM) }
        for (size, expected) in [(65536, "201"), (65537, "413")] {
            for fields in [["-H", "Expect:"], ["-H", "Expect:", "-H", "Transfer-Encoding: chunked"]] {
                let name = "p\(size)-\(fields.count)"
                let document = "{\"name\": \"\(name)\"}"
                let path = directory.path + "/document"
                let text = document + String(repeating: " ", count: size - document.utf8.count)
                try text.write(toFile: path, atomically: true, encoding: .utf8)
                let answer = try server.run(
                    "/usr/bin/env",
                    [
                        "curl", "-s", "-i", "-H", "Authorization: Bearer \(server.token)", "-H",
                        "Content-Type: application/json", "--data-binary", "@" + path,
                    ] + fields + [server.url + "/v1/populations"]
                ).output
                #expect(status(answer) == expected, "\(size) \(fields): \(answer)")
                #expect(answer.contains("\"code\":\"too_large\"") == (expected == "413"), "\(answer)")
            }
        }
        // What was refused left nothing.
        let list = try server.curl(server.url + "/v1/populations")
        #expect(list.contains("p65536-2") && list.contains("p65536-4") && !list.contains("p65537"), "\(list)")
    }

    /// One listener more than the setting allows is refused before its stream begins, and has its place when one has gone.
    @Test func listenersOfEventsAreAsManyAsTheSettingSays() throws {
        let directory = try TemporaryDirectory()
        let server = try ServerProcess.start(
            dataDirectory: directory.path,
            ["--set", "limits.event_streams=2"]
        )
        defer { server.stop(SIGTERM) }
        let port = try #require(Int(server.url.split(separator: ":").last ?? ""))
        let request = Array(
            "GET /v1/events HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer \(server.token)\r\n\r\n".utf8
        )
        func listen() throws -> (socket: LoopbackSocket, answer: String) {
            let socket = try LoopbackSocket(port: port)
            #expect(socket.write(request))
            let bytes = socket.read {
                let text = String(decoding: $0, as: UTF8.self)
                return text.contains("retry: 2000") || text.contains("too_many_listeners")
            }
            return (socket, String(decoding: bytes, as: UTF8.self))
        }
        let first = try listen()
        var listeners = [try listen()]
        #expect(([first] + listeners).allSatisfy { status($0.answer) == "200" && $0.answer.contains("retry: 2000") })
        let refused = try listen().answer
        #expect(status(refused) == "503" && refused.contains("too_many_listeners"), "\(refused)")
        #expect(refused.lowercased().contains("retry-after:") && refused.contains("2 streams of events"), "\(refused)")
        // Who is refused may poll.
        let page = try server.curl("-H", "Accept: application/json", server.url + "/v1/events")
        #expect(status(page) == "200", "\(page)")
        // The server sees that a listener has gone when it writes an event to it.
        listeners = []
        func create(_ path: String, _ document: String) throws {
            let made = try server.curl("-d", document, "-H", "Content-Type: application/json", server.url + path)
            try #require(status(made) == "201", "\(made)")
        }
        try create("/v1/populations", "{\"name\": \"p\"}")
        let run =
            "{\"population\":\"p\",\"rounds\":1,\"cohort\":{\"goal\":2},\"model\":{\"architecture\":\"external\"}}"
        var answer = ""
        for _ in 0..<200 where status(answer) != "200" {
            try create("/v1/runs", run)
            let next = try listen()
            answer = next.answer
            listeners = [next]
        }
        #expect(status(answer) == "200" && answer.contains("retry: 2000"), "\(answer)")
        withExtendedLifetime(first) {}
    }

    /// A request that takes 300 ms is slow where the setting says 100 ms, and not where it says an hour.
    @Test(arguments: [("0.1", true), ("3600", false)])
    func slowRequestsAreLoggedFromTheSettingOn(_ setting: String, isSlow: Bool) throws {
        let directory = try TemporaryDirectory()
        let log = directory.path + "/log"
        let server = try ServerProcess.start(
            dataDirectory: directory.path + "/data",
            ["--set", "log.slow_request_s=\(setting)", "--set", "log.format=json"],
            log: log
        )
        defer { server.stop(SIGTERM) }
        let socket = try LoopbackSocket(port: try #require(Int(server.url.split(separator: ":").last ?? "")))
        let body = #"{"name": "p"}"#
        let head =
            "POST /v1/populations HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer \(server.token)\r\nX-Request-Id: slow-1\r\n"
            + "Content-Length: \(body.utf8.count)\r\n\r\n"
        socket.write(Array(head.utf8))
        RealTime.pass(0.3, because: "a client is slow")
        socket.write(Array(body.utf8))
        let answer = String(
            decoding: socket.read { String(decoding: $0, as: UTF8.self).contains("\"name\"") },
            as: UTF8.self
        )
        #expect(status(answer) == "201", "\(answer)")
        let lines = try String(contentsOfFile: log, encoding: .utf8).split(separator: "\n").filter {
            $0.contains("A request was slow")
        }
        #expect(lines.count == (isSlow ? 1 : 0), "\(lines)")
        #expect(lines.allSatisfy { $0.contains(#""level":"warning""#) && $0.contains(#""request.id":"slow-1""#) })
    }

    /// Without descriptors new connections wait, those that are there are served, and everything goes on when there are some.
    @Test func withoutFileDescriptorsNewConnectionsWait() throws {
        let directory = try TemporaryDirectory()
        let log = directory.path + "/log"
        let server = try ServerProcess.start(
            dataDirectory: directory.path + "/data",
            ["--set", "log.format=json"],
            log: log
        )
        defer { server.stop(SIGTERM) }
        let port = try #require(Int(server.url.split(separator: ":").last ?? ""))
        let request = Array("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n".utf8)
        func answer(_ socket: LoopbackSocket) -> String {
            String(decoding: socket.read { $0.count > 20 }, as: UTF8.self)
        }
        let old = try LoopbackSocket(port: port)
        old.write(request)
        #expect(status(answer(old)) == "200")
        let id = server.process.processIdentifier
        func allow(_ count: Int) throws {
            let change = try server.run("/usr/bin/env", ["prlimit", "--pid", String(id), "--nofile=\(count):"])
            try #require(change.status == 0, "\(change.output)")
        }
        try allow(3)
        let waiting = try LoopbackSocket(port: port)
        waiting.write(request)
        for _ in 0..<20 {
            old.write(request)
            #expect(status(answer(old)) == "200")
        }
        var lines: [Substring] = []
        var patience = Patience("the line of the log")
        while lines.isEmpty {
            try patience.pauseThread()
            lines = try String(contentsOfFile: log, encoding: .utf8).split(separator: "\n").filter {
                $0.contains("no more open files")
            }
        }
        #expect(lines.count == 1 && lines.allSatisfy { $0.contains(#""level":"warning""#) }, "\(lines)")
        try allow(512)
        #expect(status(answer(waiting)) == "200")
    }

    /// Whatever is in a value, a line of the log is one object, and shows no terminal anything but text.
    @Test func aLineOfTheLogIsOneObjectWhateverIsInIt() throws {
        let directory = try TemporaryDirectory()
        let name = "a\n{\"level\":\"error\"}\r\t\u{1B}[2J\u{8}\u{7F}\u{9B}31m\\\"é"
        let data = directory.path + "/" + name
        let server = try ServerProcess.start(
            dataDirectory: data,
            ["--set", "log.format=json"],
            log: directory.path + "/log"
        )
        server.stop(SIGTERM)
        let bytes = try Data(contentsOf: URL(fileURLWithPath: directory.path + "/log"))
        let paths = try bytes.split(separator: 10).map { line in
            let object = try JSONSerialization.jsonObject(with: line) as? [String: String]
            #expect(object?["level"] == "notice", "\(String(decoding: line, as: UTF8.self))")
            return object?["path"]
        }
        #expect(paths.contains(data + "/admin-token"), "\(paths)")
        let controls = String(decoding: bytes, as: UTF8.self).unicodeScalars.filter {
            $0.value < 32 && $0 != "\n" || (127...159).contains($0.value)
        }
        #expect(controls.isEmpty)
    }
}
