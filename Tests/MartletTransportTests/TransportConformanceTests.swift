import Foundation
import MartletTransport
import MartletURLSession
import Synchronization
import TestSupport
import Testing

/// What every transport must do, over real sockets.
@Suite(.timeLimit(.minutes(10)))
struct TransportConformanceTests {
    private let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory() }

    private func get(_ server: LoopbackListener, _ target: String = "/", timeout: Double = 600) -> TransportRequest {
        TransportRequest(
            method: "GET",
            url: "http://127.0.0.1:\(server.port)\(target)",
            headers: ["Authorization": "Bearer secret"],
            timeoutSeconds: timeout
        )
    }

    private func byteCount(_ name: String) throws -> Int {
        FileManager.default.contents(atPath: directory.path + "/" + name)?.count ?? 0
    }

    private func file(_ count: Int) throws -> (path: String, bytes: [UInt8]) {
        var state: UInt32 = 1
        let bytes = (0..<count).map { _ -> UInt8 in
            state = state &* 1_664_525 &+ 1_013_904_223
            return UInt8(state >> 24)
        }
        let path = directory.path + "/upload"
        try Data(bytes).write(to: URL(fileURLWithPath: path))
        return (path, bytes)
    }

    // MARK: - Requests

    @Test(arguments: TestedTransport.allCases)
    func anAnswerComesAsItWasSentWhateverItsStatus(_ tested: TestedTransport) async throws {
        let server = try LoopbackListener { request, connection in
            let status = Int(request.target.dropFirst()) ?? 500
            return connection.answer(
                status,
                ["X-Mixed-Case": " a: b ", "Content-Type": "application/json"],
                body: [204, 304].contains(status) ? [] : Array("{\"n\": \(status)}".utf8)
            )
        }
        defer { server.stop() }
        let transport = tested.make()
        for status in [200, 201, 204, 400, 401, 404, 409, 413, 429, 500, 503] {
            let response = try await transport.send(get(server, "/\(status)"))
            #expect(response.status == status && response.headers["x-mixed-case"] == "a: b", "\(status)")
            #expect(String(decoding: response.body, as: UTF8.self) == (status == 204 ? "" : "{\"n\": \(status)}"))
        }
        #expect(server.requests.allSatisfy { $0.headers["authorization"] == "Bearer secret" })
        #expect(server.requests.allSatisfy { $0.headers["user-agent"]?.hasPrefix("martlet/") == true })
    }

    @Test(arguments: TestedTransport.allCases)
    func bodiesArriveWithTheirLength(_ tested: TestedTransport) async throws {
        let server = try LoopbackListener { request, connection in
            connection.answer(200, request.method == "HEAD" ? ["Content-Length": "77", "Upload-Offset": "5"] : [:])
        }
        defer { server.stop() }
        let transport = tested.make()
        var request = get(server)
        request.method = "POST"
        for count in [0, 1, 100_000, 3_000_000] {
            request.body = .bytes(Data(repeating: 7, count: count))
            #expect(try await transport.send(request).status == 200)
            #expect(server.requests.last?.body == [UInt8](repeating: 7, count: count), "\(count)")
            #expect(server.requests.last?.method == "POST")
        }
        request.method = "HEAD"
        request.body = .none
        let head = try await transport.send(request)
        #expect(head.status == 200 && head.headers["upload-offset"] == "5" && head.body.isEmpty)
        #expect(server.requests.last?.method == "HEAD")
    }

    @Test(.slow, arguments: TestedTransport.allCases)
    func aFileIsSentFromAnyPlaceOn(_ tested: TestedTransport) async throws {
        let server = try LoopbackListener { _, connection in connection.answer(200) }
        defer { server.stop() }
        let transport = tested.make()
        let (path, bytes) = try file(3_500_001)
        for offset in [0, 1, 1_700_000, 3_400_000, bytes.count - 1, bytes.count] {
            var request = get(server)
            (request.method, request.body) = ("PATCH", .file(path: path, offset: offset))
            let moved = Mutex<[TransferProgress]>([])
            request.onProgress = { progress in moved.withLock { $0.append(progress) } }
            #expect(try await transport.send(request).status == 200)
            let arrived = server.requests.last
            #expect(arrived?.body == Array(bytes[offset...]) && arrived?.method == "PATCH", "from \(offset)")
            #expect(arrived?.headers["content-length"] == String(bytes.count - offset))
            let sent = moved.withLock { $0.map(\.sentByteCount) }
            #expect(sent == sent.sorted() && sent.last ?? 0 == bytes.count - offset, "from \(offset): \(sent)")
        }
        // What was copied to be sent is gone again.
        #expect(try FileManager.default.contentsOfDirectory(atPath: directory.path) == ["upload"])
        var request = get(server)
        request.body = .file(path: path, offset: bytes.count + 1)
        let beyond = await #expect(throws: ClientError.self) { try await transport.send(request) }
        #expect(beyond?.code == "state_damaged")
        request.body = .file(path: directory.path + "/none")
        let missing = await #expect(throws: ClientError.self) { try await transport.send(request) }
        #expect(missing?.code == "storage" && missing?.isTemporary == false)
    }

    // MARK: - Where a token goes

    @Test(arguments: TestedTransport.allCases)
    func noRedirectIsFollowed(_ tested: TestedTransport) async throws {
        let other = try LoopbackListener { _, connection in connection.answer(200) }
        let server = try LoopbackListener { request, connection in
            connection.answer(
                Int(request.target.dropFirst()) ?? 500,
                ["Location": "http://127.0.0.1:\(other.port)/steal", "Content-Type": "text/html"],
                body: Array("<html>".utf8)
            )
        }
        defer {
            server.stop()
            other.stop()
        }
        let transport = tested.make()
        for status in [301, 302, 303, 307, 308] {
            for method in ["GET", "POST", "PATCH", "HEAD"] {
                var request = get(server, "/\(status)")
                request.method = method
                if method == "POST" { request.body = .bytes(Data("secret".utf8)) }
                let response = try await transport.send(request)
                #expect(response.status == status && response.headers["location"]?.hasSuffix("/steal") == true)
            }
            var request = get(server, "/\(status)")
            request.destination = directory.path + "/model"
            #expect(try await transport.send(request).status == status)
        }
        #expect(other.requests.isEmpty && server.requests.count == 25)
        #expect(!FileManager.default.fileExists(atPath: directory.path + "/model"))
    }

    @Test(arguments: TestedTransport.allCases)
    func nothingIsRememberedBetweenRequests(_ tested: TestedTransport) async throws {
        let server = try LoopbackListener { _, connection in
            connection.answer(
                200,
                ["Set-Cookie": "id=7; Max-Age=1000", "Cache-Control": "max-age=1000", "ETag": "\"a\""],
                body: [65]
            )
        }
        defer { server.stop() }
        let transport = tested.make()
        for _ in 0..<3 { _ = try await transport.send(get(server)) }
        #expect(server.requests.count == 3)
        #expect(server.requests.allSatisfy { $0.headers["cookie"] == nil && $0.headers["if-none-match"] == nil })
    }

    @Test(arguments: TestedTransport.allCases)
    func nothingButHTTPIsAskedFor(_ tested: TestedTransport) async throws {
        let transport = tested.make()
        for url in ["file:///etc/passwd", "ftp://127.0.0.1/x", "http:///x", "nonsense", ""] {
            await #expect(throws: ClientError.self, "\(url)") {
                try await transport.send(TransportRequest(method: "GET", url: url))
            }
        }
        let nobody = await #expect(throws: ClientError.self) {
            // Port 1 of the loopback interface has no listener on any ordinary machine; connecting is refused at once.
            try await transport.send(TransportRequest(method: "GET", url: "http://127.0.0.1:1/"))
        }
        #expect(nobody?.code == "network" && nobody?.isTemporary == true)
    }

    // MARK: - Where an answer goes

    @Test(arguments: TestedTransport.allCases)
    func onlyAFileGoesToTheFile(_ tested: TestedTransport) async throws {
        let server = try LoopbackListener { request, connection in
            let body = Array("0123456789".utf8)
            switch request.target {
            case "/file": return connection.answer(200, body: body)
            case "/part":
                return connection.answer(206, ["Content-Range": "bytes 4-9/10"], body: Array(body[4...]))
            case "/page": return connection.answer(200, ["Content-Type": "text/html; charset=utf-8"], body: body)
            default: return connection.answer(404, body: body)
            }
        }
        defer { server.stop() }
        let transport = tested.make()
        let path = directory.path + "/model"
        func content() -> String? {
            FileManager.default.contents(atPath: path).map { String(decoding: $0, as: UTF8.self) }
        }
        var request = get(server, "/none")
        request.destination = path
        #expect(String(decoding: try await transport.send(request).body, as: UTF8.self) == "0123456789")
        #expect(content() == nil)
        request.url = get(server, "/file").url
        #expect(try await transport.send(request).body.isEmpty)
        #expect(content() == "0123456789")
        // A page, or an error, leaves what had come before.
        for target in ["/page", "/none"] {
            request.url = get(server, target).url
            #expect(try await transport.send(request).body.count == 10)
            #expect(content() == "0123456789")
        }
        try Data("abcdef".utf8).write(to: URL(fileURLWithPath: path))
        request.url = get(server, "/part").url
        request.destinationOffset = 4
        request.byteLimit = 10
        #expect(try await transport.send(request).status == 206)
        #expect(content() == "abcd456789")
        // A part of another place is none.
        request.destinationOffset = 3
        let error = await #expect(throws: ClientError.self) { try await transport.send(request) }
        #expect(error?.code == "network" && content() == "abcd456789")
    }

    @Test(arguments: TestedTransport.allCases)
    func nothingButAPlainFileIsWritten(_ tested: TestedTransport) async throws {
        let server = try LoopbackListener { _, connection in
            connection.answer(200, body: [UInt8](repeating: 65, count: 200_000))
        }
        defer { server.stop() }
        let transport = tested.make()
        let (victim, link) = (directory.path + "/victim", directory.path + "/link")
        try Data("mine".utf8).write(to: URL(fileURLWithPath: victim))
        try FileManager.default.createSymbolicLink(atPath: link, withDestinationPath: victim)
        var request = get(server)
        request.destination = link
        let refused = await #expect(throws: ClientError.self) { try await transport.send(request) }
        #expect(refused?.code == "storage")
        #expect(FileManager.default.contents(atPath: victim) == Data("mine".utf8))
        request.destination = "/dev/full"
        let device = await #expect(throws: ClientError.self) { try await transport.send(request) }
        #expect(device?.code == "storage" && device?.isTemporary == false)
    }

    // MARK: - Bounds

    @Test(arguments: TestedTransport.allCases)
    func noMoreBytesAreTakenThanMayCome(_ tested: TestedTransport) async throws {
        let server = try LoopbackListener { request, connection in
            let block = [UInt8](repeating: 65, count: 4096)
            if request.target == "/chunked" {
                connection.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                for _ in 0..<1000 {
                    guard connection.write(Array("1000\r\n".utf8) + block + Array("\r\n".utf8)) else { break }
                }
            } else {
                connection.write("HTTP/1.1 200 OK\r\nContent-Length: 9000000000\r\n\r\n")
                for _ in 0..<1000 { guard connection.write(block) else { break } }
            }
            return false
        }
        defer { server.stop() }
        let transport = tested.make()
        for target in ["/chunked", "/declared"] {
            for destination in [directory.path + "/model", nil] {
                var request = get(server, target)
                (request.destination, request.byteLimit) = (destination, 50_000)
                let error = await #expect(throws: ClientError.self) { try await transport.send(request) }
                // Too much of what says that it is no document is somebody's who answers in the server's place.
                let code = destination == nil ? ClientError.foreignAnswer : "server_invalid"
                #expect(error?.code == code, "\(target)")
            }
            #expect(try byteCount("model") <= 50_000)
        }
    }

    @Test(.slow, arguments: TestedTransport.allCases)
    func progressExtendsTheTimeAndStandingStillDoesNot(_ tested: TestedTransport) async throws {
        let server = try LoopbackListener { request, connection in
            connection.write("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n")
            for index in 0..<12 {
                if request.target == "/still", index == 3 {
                    // Until the client hangs up.
                    _ = connection.isEndedByPeer()
                    return false
                }
                guard connection.write([65]) else { return false }
                RealTime.pass(1, because: "a server is slow")
            }
            return true
        }
        defer { server.stop() }
        let transport = tested.make()
        // Twelve seconds in all, and a time-out of ten: a machine may stand still for nine of them.
        #expect(try await transport.send(get(server, "/drip", timeout: 10)).body.count == 12)
        let still = await #expect(throws: ClientError.self) {
            try await transport.send(get(server, "/still", timeout: 1))
        }
        #expect(still?.code == "network")
        // A limit for the whole counts however much still moves.
        var request = get(server, "/drip")
        request.longestSeconds = 1
        let long = await #expect(throws: ClientError.self) { try await transport.send(request) }
        #expect(long?.code == "network")
    }

    @Test(.slow, arguments: TestedTransport.allCases)
    func anUploadThatMovesIsNotGivenUp(_ tested: TestedTransport) async throws {
        let server = try LoopbackListener(readsBodies: false) { request, connection in
            // Sixteen megabytes in sixteen seconds, of which four at most wait in the system: the time-out is ten.
            var left = Int(request.headers["content-length"] ?? "") ?? 0
            if request.headers["expect"] != nil { connection.write("HTTP/1.1 100 Continue\r\n\r\n") }
            while left > 0 {
                let count = min(left, 1 << 20)
                let came = connection.read { $0.count >= count }.count
                guard came > 0 else { return false }
                left -= came
                RealTime.pass(1, because: "a server reads slowly")
            }
            return connection.answer(200)
        }
        defer { server.stop() }
        let path = directory.path + "/large"
        try Data(count: 16 << 20).write(to: URL(fileURLWithPath: path))
        var request = get(server, timeout: 10)
        (request.method, request.body) = ("PUT", .file(path: path))
        #expect(try await tested.make().send(request).status == 200)
    }

    @Test(arguments: TestedTransport.allCases)
    func aCancelledTaskEndsAtOnce(_ tested: TestedTransport) async throws {
        let server = try LoopbackListener { _, connection in
            _ = connection.isEndedByPeer()
            return false
        }
        defer { server.stop() }
        let transport = tested.make()
        let request = get(server, timeout: 3600)
        let task = Task { try await transport.send(request) }
        try await wait(for: "the request to arrive") { !server.requests.isEmpty }
        // Nothing else would end it: the peer is silent, and its time-out is longer than the test may last.
        task.cancel()
        await #expect(throws: CancellationError.self) { try await task.value }
        let late = Task {
            withUnsafeCurrentTask { $0?.cancel() }
            return try await transport.send(request)
        }
        await #expect(throws: CancellationError.self) { try await late.value }
    }

    // MARK: - Answers that are none

    @Test(
        arguments: TestedTransport.allCases,
        [
            "", "HTTP/1.1 200", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", "\u{0}\u{1}\u{2}\u{3}\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", "SSH-2.0-OpenSSH_9.2\r\n", "220 smtp ready\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nbody", "plain words without a head",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", "HTTP/1.1 99999 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nabc",
        ]
    )
    func whatIsNoAnswerOrWasCutIsNone(_ tested: TestedTransport, _ text: String) async throws {
        let server = try LoopbackListener { _, connection in
            connection.write(text)
            return false
        }
        defer { server.stop() }
        let transport = tested.make()
        for destination in [nil, directory.path + "/model"] {
            var request = get(server)
            request.destination = destination
            let error = await #expect(throws: ClientError.self) { try await transport.send(request) }
            #expect(error.map { ["network", "server_invalid"].contains($0.code) } == true, "\(error?.code ?? "")")
        }
        #expect(try byteCount("model") < 100)
    }

    @Test(arguments: TestedTransport.allCases)
    func noticesBeforeTheAnswerAreNotTheAnswer(_ tested: TestedTransport) async throws {
        let server = try LoopbackListener { _, connection in
            connection.write("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
            return connection.answer(200, ["X-Last": "yes"], body: Array("body".utf8))
        }
        defer { server.stop() }
        let response = try await tested.make().send(get(server))
        #expect(response.status == 200 && response.body == Data("body".utf8) && response.headers["x-last"] == "yes")
    }

    /// Somebody in the server's place asks for a name and a password: that is an answer, and nobody is asked.
    @Test(arguments: TestedTransport.allCases, ["Basic realm=\"x\"", "Digest realm=\"x\", nonce=\"y\"", "Bearer", ""])
    func aChallengeIsAnAnswer(_ tested: TestedTransport, _ challenge: String) async throws {
        let server = try LoopbackListener { _, connection in
            connection.answer(
                401,
                ["WWW-Authenticate": challenge, "Content-Type": "text/html"],
                body: Array("<p>".utf8)
            )
        }
        defer { server.stop() }
        let response = try await tested.make().send(get(server))
        #expect(response.status == 401 && response.body == Data("<p>".utf8))
        #expect(server.requests.count == 1)
    }

    /// A head without an end fills no memory and holds nobody for ever.
    @Test(arguments: TestedTransport.allCases)
    func aHeadWithoutEndIsGivenUp(_ tested: TestedTransport) async throws {
        let server = try LoopbackListener { _, connection in
            connection.write("HTTP/1.1 200 OK\r\n")
            let line = "X-A: " + String(repeating: "a", count: 1000) + "\r\n"
            // Bounded here too: a client that takes all of it fails the test by its answer.
            for _ in 0..<3000 { guard connection.write(line) else { return false } }
            return connection.write("Content-Length: 0\r\n\r\n")
        }
        defer { server.stop() }
        let error = await #expect(throws: ClientError.self) { try await tested.make().send(get(server, timeout: 5)) }
        #expect(error.map { ["network", "server_invalid"].contains($0.code) } == true)
    }

    @Test func whatURLSessionCannotTrustIsRefused() async throws {
        let transport = URLSessionTransport(security: TransportSecurity(pinnedKeys: "sha256//AAAA"))
        let error = await #expect(throws: ClientError.self) {
            try await transport.send(TransportRequest(method: "GET", url: "http://127.0.0.1:1/"))
        }
        #expect(error?.code == "tls_failed" && error?.message.contains("CurlTransport") == true)
    }
}
