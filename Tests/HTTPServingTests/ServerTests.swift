import Foundation
import HTTPServing
import HTTPTypes
import Logging
import Synchronization
import TestSupport
import Testing

/// A server on a free port with a few routes, and a raw socket to talk to it.
private struct Probe {
    /// Holds the loop that has taken `GET /hold` while it is closed; knows how often `GET /now` was answered.
    final class Gate: Sendable {
        let isClosed = Mutex(true)
        let isReached = Mutex(false)
        let nowCount = Mutex(0)
    }

    let server: HTTPServer
    let port: Int
    let gate = Gate()
    /// More than a peer's system takes by itself.
    static let largeByteCount = 64 << 20
    private static let directory = Result { try TemporaryDirectory() }
    private static let largeFile = Result {
        let path = try directory.get().path + "/large"
        try Data(count: largeByteCount).write(to: URL(fileURLWithPath: path))
        return path
    }

    /// Takes whatever comes.
    private final class Sink: BodySink {
        func write(_ bytes: UnsafeRawBufferPointer) {}
    }

    init(_ change: (inout ServerConfiguration) -> Void = { _ in }) async throws {
        var router = Router(errorHandler: { error, _ in
            let failure = error as? ParseFailure
            return ServerResponse(status: failure?.status ?? 500, body: .bytes(Array((failure?.detail ?? "").utf8)))
        })
        router.add("GET", "/hello/{name}") { request in
            ServerResponse(status: 200, body: .bytes(Array("hello \(request.pathSegments[1])".utf8)))
        }
        router.add("POST", "/count") { request in
            var count = 0
            while let block = try await request.body.read() { count += block.count }
            return ServerResponse(status: 200, body: .bytes(Array("\(count)".utf8)))
        }
        router.add("GET", "/stream") { _ in
            ServerResponse(
                status: 200,
                body: .stream { send in for text in ["ab", "", "cde"] { try await send(Array(text.utf8)) } }
            )
        }
        router.add("GET", "/think") { _ in
            try await RealTime.passInTask(1, because: "a handler takes longer than its client's time-outs")
            return ServerResponse(status: 200, body: .bytes(Array("thought".utf8)))
        }
        // A file that is not there, and one that is shorter than the answer says.
        router.add("GET", "/gone") { _ in
            ServerResponse(status: 200, body: .file(path: try Self.directory.get().path + "/none", range: 0..<9))
        }
        router.add("GET", "/cut") { _ in
            ServerResponse(
                status: 200,
                body: .file(path: try Self.largeFile.get(), range: 1..<(Self.largeByteCount + 1))
            )
        }
        router.add("GET", "/large") { _ in
            ServerResponse(status: 200, body: .bytes([UInt8](repeating: 120, count: Self.largeByteCount)))
        }
        router.add("GET", "/wait") { _ in
            // As a long poll: until its peer has gone, or for longer than any test lasts.
            try? await RealTime.untilCancelled()
            return ServerResponse(status: 200, body: .bytes(Array("waited".utf8)))
        }
        router.add("GET", "/file") { _ in
            ServerResponse(status: 200, body: .file(path: try Self.largeFile.get(), range: 0..<Self.largeByteCount))
        }
        router.add("POST", "/sink") { request in
            try await request.body.receive(into: Sink())
            return ServerResponse(status: 204)
        }
        router.add("POST", "/refuse") { _ in ServerResponse(status: 403) }
        router.addImmediate("GET", "/hold") { [gate] _ in
            // Whatever comes meanwhile comes to the loop at once.
            gate.isReached.withLock { $0 = true }
            var patience = Patience("the gate to open")
            while gate.isClosed.withLock({ $0 }) { try patience.pauseThread() }
            return ServerResponse(status: 204)
        }
        router.addImmediate("GET", "/so-far") { [gate] _ in
            ServerResponse(status: 200, body: .bytes(Array("after \(gate.nowCount.withLock { $0 })".utf8)))
        }
        router.addImmediate("GET", "/now") { [gate] _ in
            gate.nowCount.withLock { $0 += 1 }
            return ServerResponse(status: 200, body: .bytes(Array("now".utf8)))
        }
        var configuration = ServerConfiguration(host: "127.0.0.1", port: 0)
        // Nothing ends by a time that its test does not set: how fast the machine is decides over no answer.
        configuration.firstByteTimeout = .seconds(3600)
        configuration.headTimeout = .seconds(3600)
        configuration.transferTimeout = .seconds(3600)
        configuration.idleTimeout = .seconds(3600)
        configuration.lingerTimeout = .seconds(3600)
        change(&configuration)
        server = HTTPServer(configuration: configuration, router: router, logger: Logger(label: "test"))
        port = try await server.start()
    }

    /// Sends text and reads until `until` appears or the peer closes.
    func exchange(_ text: String, until: String) async throws -> String {
        let port = port
        return try await withCheckedThrowingContinuation { continuation in
            // A blocking socket on a thread of its own, so that no cooperative thread waits.
            Thread { continuation.resume(with: Result { try Self.blocking(port, text, until) }) }.start()
        }
    }

    /// One request and the beginning of its answer.
    static func ask(_ socket: LoopbackSocket) async throws {
        socket.write(Array("GET /hello/x HTTP/1.1\r\nHost: x\r\n\r\n".utf8))
        try #require(await !read(socket) { !$0.isEmpty }.isEmpty)
    }

    /// Reads on a thread of its own, so that no cooperative thread waits: the server's handlers need them.
    static func read(_ socket: LoopbackSocket, until isEnough: @escaping @Sendable ([UInt8]) -> Bool) async -> String {
        await withCheckedContinuation { continuation in
            Thread {
                continuation.resume(returning: String(decoding: socket.read(until: isEnough), as: UTF8.self))
            }.start()
        }
    }

    /// Whether the server ends the connection by itself.
    static func isEnded(_ socket: LoopbackSocket) async -> Bool {
        await withCheckedContinuation { continuation in
            Thread { continuation.resume(returning: socket.isEndedByPeer()) }.start()
        }
    }

    /// How many bytes, one every 20 ms and ``trickleLimit`` at most, go out before the server ends the connection.
    static func trickle(_ socket: LoopbackSocket) async -> Int {
        await withCheckedContinuation { continuation in
            Thread {
                var count = 0
                while count < trickleLimit, socket.write([120]) {
                    count += 1
                    RealTime.pass(0.02, because: "a peer trickles")
                }
                continuation.resume(returning: count)
            }.start()
        }
    }

    /// Ten minutes of trickling: no server is that late.
    static let trickleLimit = 30_000

    /// Sends the same bytes again and again on a thread of its own, until the peer goes or `isEnough` says so.
    static func flood(_ socket: LoopbackSocket, _ bytes: [UInt8], until isEnough: @escaping @Sendable (Int) -> Bool) {
        Thread {
            var count = 0
            while !isEnough(count), socket.write(bytes) { count += 1 }
            socket.endWriting()
        }.start()
    }

    private static func blocking(_ port: Int, _ text: String, _ until: String) throws -> String {
        let socket = try LoopbackSocket(port: port)
        socket.write(Array(text.utf8))
        let received = socket.read { String(decoding: $0, as: UTF8.self).contains(until) }
        return String(decoding: received, as: UTF8.self)
    }
}

@Suite(.timeLimit(.minutes(10)))
struct ServerTests {
    @Test func pipelinedRequestsAreAnsweredInOrder() async throws {
        let probe = try await Probe()
        let text =
            "GET /hello/a HTTP/1.1\r\nHost: x\r\n\r\nPOST /count HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
            + "GET /hello/b HTTP/1.1\r\nHost: x\r\nX-Request-Id: mine-7\r\nConnection: close\r\n\r\n"
        let answer = try await probe.exchange(text, until: "hello b")
        let a = try #require(answer.range(of: "hello a"))
        let b = try #require(answer.range(of: "hello b"))
        let count = try #require(answer.range(of: "\r\n\r\n3HTTP"))
        #expect(a.upperBound < count.lowerBound && count.upperBound < b.lowerBound)
        #expect(answer.contains("mine-7"))
        await probe.server.shutdown(gracePeriod: .seconds(5))
    }

    /// The head is a promise: the file is opened, and its size looked at, before it goes.
    @Test(arguments: ["/gone", "/cut"])
    func aFileThatCannotBeReadIsNoAnswerOf200(_ path: String) async throws {
        let probe = try await Probe()
        let answer = try await probe.exchange(
            "GET \(path) HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            until: "storage_failed"
        )
        #expect(answer.hasPrefix("HTTP/1.1 503 ") && answer.lowercased().contains("retry-after"), "\(answer)")
        #expect(answer.contains("storage_failed"))
        await probe.server.shutdown(gracePeriod: .seconds(5))
    }

    /// A simple client sends all of a large body before it reads: the refusal is not lost to a reset.
    @Test func aClientThatSendsAllOfARefusedBodyBeforeItReadsFindsTheAnswer() async throws {
        let probe = try await Probe()
        let length = 24 << 20
        for field in ["Content-Length: \(length)", "Transfer-Encoding: chunked"] {
            let socket = try LoopbackSocket(port: probe.port)
            socket.write(Array("PUT /nowhere HTTP/1.1\r\nHost: x\r\n\(field)\r\n\r\n".utf8))
            let isChunked = field.hasPrefix("T")
            if isChunked { socket.write(Array(String(length, radix: 16).utf8) + [13, 10]) }
            let block = [UInt8](repeating: 120, count: 1 << 20)
            for index in 0..<length / block.count {
                try #require(socket.write(block), "\(field): the connection was reset after \(index) MiB")
            }
            let answer = await Probe.read(socket) { _ in false }
            #expect(answer.hasPrefix("HTTP/1.1 404 ") && answer.lowercased().contains("connection: close"), "\(answer)")
        }
        await probe.server.shutdown(gracePeriod: .seconds(5))
    }

    /// What is read for nothing ends, however long the client goes on.
    @Test func whatFollowsARefusalIsReadForAWhileOnly() async throws {
        let probe = try await Probe { $0.lingerTimeout = .milliseconds(200) }
        let socket = try LoopbackSocket(port: probe.port)
        socket.write(Array("PUT /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000000\r\n\r\n".utf8))
        let block = [UInt8](repeating: 120, count: 1 << 16)
        var count = 0
        while count < 1 << 20, socket.write(block) { count += 1 }
        #expect(count < 1 << 20, "64 GiB were taken")
        await probe.server.shutdown(gracePeriod: .seconds(5))
    }

    private static let manyAtOnce = Array(String(repeating: "GET /now HTTP/1.1\r\nHost: x\r\n\r\n", count: 1000).utf8)

    /// Each was answered inside the answer of the one before: 1,300 of them ended the stack, and with it the process.
    @Test func requestsInALongRowThatAreAnsweredAtOnceEndNothing() async throws {
        let probe = try await Probe { $0.loopCount = 1 }
        let socket = try LoopbackSocket(port: probe.port)
        Probe.flood(socket, Self.manyAtOnce) { $0 == 8 }
        let answers = await Probe.read(socket) { _ in false }
        #expect(answers.components(separatedBy: "HTTP/1.1 200 OK").count == 8001)
        await probe.server.shutdown(gracePeriod: .seconds(5))
    }

    /// A connection to whose loop nothing comes until the gate is opened.
    private func hold(_ probe: Probe) async throws -> LoopbackSocket {
        let holder = try LoopbackSocket(port: probe.port)
        try await Probe.ask(holder)
        holder.write(Array("GET /hold HTTP/1.1\r\nHost: x\r\n\r\n".utf8))
        try await wait(for: "the loop to be held") { probe.gate.isReached.withLock { $0 } }
        return holder
    }

    /// Who sends a thousand requests at once has no thousand turns before somebody else has one.
    @Test func aConnectionThatAsksForMuchLeavesOthersTheirTurn() async throws {
        let probe = try await Probe { $0.loopCount = 1 }
        let (greedy, other) = (try LoopbackSocket(port: probe.port), try LoopbackSocket(port: probe.port))
        for socket in [greedy, other] { try await Probe.ask(socket) }
        let holder = try await hold(probe)
        // 37,000 bytes: the system takes them, whoever reads.
        greedy.write(Self.manyAtOnce)
        other.write(Array("GET /so-far HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".utf8))
        probe.gate.isClosed.withLock { $0 = false }
        let answer = await Probe.read(other) { _ in false }
        let count = try #require(answer.firstMatch(of: /after ([0-9]+)/).flatMap { Int($0.1) }, "\(answer)")
        #expect(count <= 100)
        greedy.endWriting()
        #expect(await Probe.read(greedy) { _ in false }.components(separatedBy: "HTTP/1.1 200 OK").count == 1001)
        withExtendedLifetime(holder) {}
        await probe.server.shutdown(gracePeriod: .seconds(5))
    }

    /// Where a request and the end behind it are told of together, the end is not forgotten until the connection is idle for long.
    @Test func aPeerThatAsksAndClosesAtOnceIsAnsweredAndLetGo() async throws {
        let probe = try await Probe { $0.loopCount = 1 }
        let socket = try LoopbackSocket(port: probe.port)
        try await Probe.ask(socket)
        let holder = try await hold(probe)
        socket.write(Array("GET /now HTTP/1.1\r\nHost: x\r\n\r\n".utf8))
        socket.endWriting()
        probe.gate.isClosed.withLock { $0 = false }
        #expect(await Probe.read(socket) { String(decoding: $0, as: UTF8.self).hasSuffix("now") }.hasSuffix("now"))
        #expect(await Probe.isEnded(socket))
        withExtendedLifetime(holder) {}
        await probe.server.shutdown(gracePeriod: .seconds(5))
    }

    /// The first one learns of the close as it comes; those after it begin when it is long known.
    @Test func requestsOfAPeerThatSendsNoMoreDoNotWait() async throws {
        let probe = try await Probe()
        let socket = try LoopbackSocket(port: probe.port)
        socket.write(Array(String(repeating: "GET /wait HTTP/1.1\r\nHost: x\r\n\r\n", count: 3).utf8))
        socket.endWriting()
        let answers = await Probe.read(socket) { _ in false }
        #expect(answers.split(separator: "waited", omittingEmptySubsequences: false).count == 4, "\(answers)")
        await probe.server.shutdown(gracePeriod: .seconds(5))
    }

    @Test func continueIsSentOnlyWhenTheBodyIsWanted() async throws {
        let probe = try await Probe()
        let head = "Host: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        let wanted = try await probe.exchange("POST /count HTTP/1.1\r\n" + head, until: "\r\n\r\n")
        #expect(wanted.hasPrefix("HTTP/1.1 100 Continue"))
        let refused = try await probe.exchange("POST /refuse HTTP/1.1\r\n" + head, until: "never")
        #expect(refused.hasPrefix("HTTP/1.1 403") && refused.contains("Connection: close"))
        // An older peer would take the interim answer for the last one.
        let old = try await probe.exchange("POST /count HTTP/1.0\r\n" + head + "abc", until: "never")
        #expect(old.hasPrefix("HTTP/1.1 200") && old.hasSuffix("\r\n\r\n3"), "\(old)")
        await probe.server.shutdown(gracePeriod: .seconds(5))
    }

    /// Ids go into logs and documents: what is no short token is not taken over.
    @Test func requestIDsAreShortTokensOrTheServersOwn() async throws {
        let probe = try await Probe()
        func id(_ sent: String) async throws -> String {
            let text = "GET /hello/x HTTP/1.1\r\nHost: x\r\nX-Request-Id: \(sent)\r\n\r\n"
            let answer = try await probe.exchange(text, until: "hello x")
            return String(try #require(answer.firstMatch(of: /X-Request-Id: ([^\r]*)/)?.1))
        }
        for good in ["7", "a-b_c.d", String(repeating: "a", count: 64)] { #expect(try await id(good) == good) }
        for bad in ["", "a b", "a\"b", "a,b", "{}", "\u{E9}", String(repeating: "a", count: 65)] {
            let own = try await id(bad)
            #expect(own != bad && !own.isEmpty, "\(bad)")
        }
        await probe.server.shutdown(gracePeriod: .seconds(5))
    }

    /// What is left of a body is no request: it is read to its end, or the connection ends.
    @Test func anUnreadBodyIsReadToItsEndOrEndsTheConnection() async throws {
        let probe = try await Probe()
        for length in [3, 65_536, 65_537, 1 << 30] {
            let head = "POST /refuse HTTP/1.1\r\nHost: x\r\nContent-Length: \(length)\r\n\r\n"
            let answer = try await probe.exchange(head, until: "\r\n\r\n")
            #expect(answer.hasPrefix("HTTP/1.1 403"))
            #expect(answer.contains("Connection: close") == (length > 65_536), "\(length): \(answer)")
        }
        let next = "GET /hello/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        let body = next + String(repeating: " ", count: 1000)
        let head = "POST /refuse HTTP/1.1\r\nHost: x\r\nContent-Length: \(body.utf8.count)\r\n\r\n"
        let both = try await probe.exchange(head + body + next, until: "never")
        #expect(both.components(separatedBy: "HTTP/1.1 ").count == 3 && both.hasSuffix("hello x"), "\(both)")
        await probe.server.shutdown(gracePeriod: .seconds(5))
    }

    @Test func wrongMethodsAndPathsAndHeadRequests() async throws {
        let probe = try await Probe()
        let tail = " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        #expect(try await probe.exchange("DELETE /count" + tail, until: "never").contains("Allow: OPTIONS, POST"))
        #expect(try await probe.exchange("GET /nothing" + tail, until: "never").hasPrefix("HTTP/1.1 404"))
        let head = try await probe.exchange("HEAD /hello/abc" + tail, until: "never")
        #expect(head.contains("Content-Length: 9") && head.hasSuffix("\r\n\r\n"))
        #expect(try await probe.exchange("GARBAGE\r\n\r\n", until: "never").hasPrefix("HTTP/1.1 400"))
        // What a path takes can be asked, and what the server knows as a whole.
        for (start, status, allow) in [
            ("DELETE /hello/x", "405", "GET, HEAD, OPTIONS"), ("OPTIONS /hello/x", "204", "GET, HEAD, OPTIONS"),
            ("OPTIONS /refuse", "204", "OPTIONS, POST"),
            ("OPTIONS *", "204", "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"),
        ] {
            let answer = try await probe.exchange(start + tail, until: "never")
            #expect(answer.hasPrefix("HTTP/1.1 \(status)") && answer.contains("\r\nAllow: \(allow)\r\n"), "\(answer)")
        }
        #expect(try await probe.exchange("GET *" + tail, until: "never").hasPrefix("HTTP/1.1 400"))
        #expect(try await probe.exchange("OPTIONS /nothing" + tail, until: "never").hasPrefix("HTTP/1.1 404"))
        await probe.server.shutdown(gracePeriod: .seconds(5))
    }

    @Test func slowAndOversizedHeadsEnd() async throws {
        let probe = try await Probe {
            $0.headTimeout = .milliseconds(300)
            $0.headByteLimit = 1000
        }
        #expect(try await probe.exchange("GET / HTTP/1.1\r\nHo", until: "never").hasPrefix("HTTP/1.1 408"))
        let long = "GET / HTTP/1.1\r\nHost: x\r\nA: " + String(repeating: "a", count: 3000)
        // Both where its end is still to come and where the whole of it is there.
        #expect(try await probe.exchange(long, until: "never").hasPrefix("HTTP/1.1 431"))
        #expect(try await probe.exchange(long + "\r\n\r\n", until: "never").hasPrefix("HTTP/1.1 431"))
        await probe.server.shutdown(gracePeriod: .seconds(5))
    }

    /// Slowloris: a byte now and then earns no more time for a head.
    @Test(.slow) func aHeadThatTricklesEnds() async throws {
        let probe = try await Probe {
            $0.headTimeout = .milliseconds(300)
            $0.lingerTimeout = .milliseconds(300)
        }
        let socket = try LoopbackSocket(port: probe.port)
        socket.write(Array("GET / HTTP/1.1\r\nA: ".utf8))
        #expect(await Probe.trickle(socket) < Probe.trickleLimit)
        await probe.server.shutdown(gracePeriod: .seconds(5))
    }

    /// Whoever was refused is not listened to without end.
    @Test func aRefusedPeerThatTricklesOnLosesTheConnection() async throws {
        let probe = try await Probe { $0.lingerTimeout = .milliseconds(300) }
        let socket = try LoopbackSocket(port: probe.port)
        socket.write(Array("GARBAGE\r\n\r\n".utf8))
        #expect(await Probe.trickle(socket) < Probe.trickleLimit)
        await probe.server.shutdown(gracePeriod: .seconds(5))
    }

    @Test(.slow) func aHandlerMayThinkLongerThanAHeadMayTake() async throws {
        let probe = try await Probe { $0.headTimeout = .milliseconds(300) }
        let answer = try await probe.exchange("GET /think HTTP/1.1\r\nHost: x\r\n\r\n", until: "thought")
        #expect(answer.hasPrefix("HTTP/1.1 200") && answer.hasSuffix("thought"))
        await probe.server.shutdown(gracePeriod: .seconds(5))
    }

    @Test(.slow) func bodiesThatTrickleOrEndEarlyAreAnswered() async throws {
        let probe = try await Probe {
            $0.transferTimeout = .milliseconds(300)
            $0.lingerTimeout = .milliseconds(300)
            $0.leastBytesPerSecond = 1_000_000
        }
        let head = "POST /count HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc"
        #expect(try await probe.exchange(head, until: "slowly").hasPrefix("HTTP/1.1 408"))
        // A byte now and then is no better than none, whether the handler reads blocks or has all of it go to a file.
        for path in ["/count", "/sink"] {
            let socket = try LoopbackSocket(port: probe.port)
            socket.write(Array(head.replacing("/count", with: path).utf8))
            #expect(await Probe.trickle(socket) < Probe.trickleLimit, "\(path)")
        }
        await probe.server.shutdown(gracePeriod: .seconds(5))
    }

    /// An answer that was given before the body came does not make the connection wait for the body without end.
    @Test(.slow, arguments: ["POST /refuse", "POST /count", "DELETE /count", "POST /nothing"])
    func whoOwesTheRestOfABodyLosesTheConnection(_ start: String) async throws {
        let waits = Mutex<[String]>([])
        let probe = try await Probe {
            $0.transferTimeout = .milliseconds(300)
            $0.events.timedOut = { wait, _ in waits.withLock { $0.append(wait) } }
        }
        let socket = try LoopbackSocket(port: probe.port)
        socket.write(Array("\(start) HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc".utf8))
        #expect(await Probe.isEnded(socket))
        #expect(waits.withLock { $0 }.allSatisfy { $0 == "body" })
        await probe.server.shutdown(gracePeriod: .seconds(5))
    }

    /// A reader who takes a little now and then does not hold an answer for as long as it likes.
    @Test(.slow, arguments: ["/large", "/file"])
    func aSlowReaderOfAnAnswerLosesTheConnection(_ path: String) async throws {
        let probe = try await Probe {
            $0.transferTimeout = .seconds(1)
            $0.leastBytesPerSecond = 1_000_000_000
        }
        let socket = try LoopbackSocket(port: probe.port)
        socket.write(Array("GET \(path) HTTP/1.1\r\nHost: x\r\n\r\n".utf8))
        let received = await withCheckedContinuation { continuation in
            Thread {
                var count = 0
                while case let block = socket.read(until: { $0.count > 1 << 16 }), !block.isEmpty {
                    count += block.count
                    // Some 13 megabytes a second: the server is never kept waiting for a second.
                    RealTime.pass(0.005, because: "a peer reads slowly")
                }
                continuation.resume(returning: count)
            }.start()
        }
        #expect(received < Probe.largeByteCount)
        await probe.server.shutdown(gracePeriod: .seconds(5))
    }

    /// However patient the server is with each, all who do not read hold no more than its limit; who reads gets the whole answer.
    @Test(.slow) func readersTogetherHoldNoMoreThanTheLimit() async throws {
        let waits = Mutex<[String]>([])
        let probe = try await Probe {
            $0.loopCount = 1
            $0.heldByteLimit = 2 * Probe.largeByteCount
            $0.events.timedOut = { wait, _ in waits.withLock { $0.append(wait) } }
        }
        let request = Array("GET /large HTTP/1.1\r\nHost: x\r\n\r\n".utf8)
        let silent = try (0..<6).map { _ in try LoopbackSocket(port: probe.port) }
        for socket in silent { socket.write(request) }
        // A socket's buffers take some of it: two answers fit at least, three at most where half of each is the system's.
        var patience = Patience("those who do not read")
        while waits.withLock({ $0.count }) < 2 { try await patience.pause() }
        let reader = try LoopbackSocket(port: probe.port)
        reader.write(request)
        let answer = await Probe.read(reader) { $0.count > Probe.largeByteCount }
        #expect(answer.utf8.count > Probe.largeByteCount && answer.hasPrefix("HTTP/1.1 200"))
        let ended = waits.withLock { $0 }
        #expect(ended.allSatisfy { $0 == "answer" } && ended.count < 6, "\(ended)")
        // What an ended connection had is free again: nobody else is ended for it.
        _ = try await probe.exchange("GET /now HTTP/1.1\r\nHost: x\r\n\r\n", until: "now")
        #expect(waits.withLock { $0.count } == ended.count)
        await probe.server.shutdown(gracePeriod: .zero)
        _ = silent
    }

    @Test func silentConnectionsEndBeforeTheirFirstRequest() async throws {
        let probe = try await Probe { $0.firstByteTimeout = .milliseconds(300) }
        #expect(await Probe.isEnded(try LoopbackSocket(port: probe.port)))
        await probe.server.shutdown(gracePeriod: .seconds(5))
    }

    @Test func connectionsEndThatAreIdleAfterARequest() async throws {
        let probe = try await Probe { $0.idleTimeout = .milliseconds(300) }
        let socket = try LoopbackSocket(port: probe.port)
        try await Probe.ask(socket)
        #expect(await Probe.isEnded(socket))
        await probe.server.shutdown(gracePeriod: .seconds(5))
    }

    @Test func oneAddressHasOnlySoManyConnections() async throws {
        let probe = try await Probe { $0.connectionsPerAddressLimit = 2 }
        let open = try (0..<2).map { _ in try LoopbackSocket(port: probe.port) }
        // Two are open, by what the server knows as soon as it has answered on them.
        for socket in open { try await Probe.ask(socket) }
        let third = try await probe.exchange("GET /hello/x HTTP/1.1\r\nHost: x\r\n\r\n", until: "never")
        #expect(third.isEmpty)
        withExtendedLifetime(open) {}
        await probe.server.shutdown(gracePeriod: .seconds(5))
    }

    @Test func aFullServerTakesOneBackFromWhoeverHoldsTheMost() async throws {
        let refusals = Mutex<[String]>([])
        let probe = try await Probe {
            $0.connectionLimit = 3
            $0.events.refused = { reason, _ in refusals.withLock { $0.append(reason) } }
        }
        // One after the other, so that the server knows them in this order.
        var greedy: [LoopbackSocket] = []
        for _ in 0..<3 {
            greedy.append(try LoopbackSocket(port: probe.port))
            try await Probe.ask(greedy[greedy.count - 1])
        }
        // The greedy one gets no more.
        let more = try LoopbackSocket(port: probe.port)
        more.write(Array("GET /hello/x HTTP/1.1\r\nHost: x\r\n\r\n".utf8))
        #expect(await Probe.read(more) { !$0.isEmpty }.isEmpty)
        // Somebody else does, and the greedy one's oldest connection ends.
        let other = try LoopbackSocket(port: probe.port, from: "127.0.0.2")
        try await Probe.ask(other)
        #expect(await Probe.read(greedy[0]) { _ in false }.isEmpty)
        try await Probe.ask(greedy[1])
        #expect(refusals.withLock { $0 } == ["limit", "shed"])
        await probe.server.shutdown(gracePeriod: .seconds(5))
    }

    @Test func answersOfUnknownLengthAreChunkedAndOlderPeersGetThemPlain() async throws {
        let probe = try await Probe()
        let chunked = try await probe.exchange(
            "GET /stream HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            until: "never"
        )
        #expect(chunked.contains("Transfer-Encoding: chunked"))
        #expect(chunked.hasSuffix("\r\n\r\n2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n"))
        let plain = try await probe.exchange("GET /stream HTTP/1.0\r\n\r\n", until: "never")
        #expect(plain.hasSuffix("\r\n\r\nabcde") && !plain.contains("chunked"))
        await probe.server.shutdown(gracePeriod: .seconds(5))
    }

    @Test func chunkedUploadsAreStreamed() async throws {
        let probe = try await Probe()
        let chunk = "10000\r\n" + String(repeating: "z", count: 65_536) + "\r\n"
        let text =
            "POST /count HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
            + String(repeating: chunk, count: 40) + "0\r\n\r\n"
        #expect(try await probe.exchange(text, until: "2621440").contains("2621440"))
        await probe.server.shutdown(gracePeriod: .seconds(5))
    }
}
