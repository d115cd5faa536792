import Foundation
import HTTPServing
import HTTPTypes
import Logging
import Testing

#if canImport(Glibc)
import Glibc
#endif

/// A server on a free port with a few routes, and a raw socket to talk to it.
private struct Probe {
    let server: HTTPServer
    let port: Int

    init(_ change: (inout ServerConfiguration) -> Void = { _ in }) async throws {
        var router = Router(errorHandler: { error, _ in
            let failure = error as? ParseFailure
            return ServerResponse(status: failure?.status ?? 500, body: .bytes(Array((failure?.detail ?? "").utf8)))
        })
        router.add("GET", "/hello/{name}") { request in
            ServerResponse(status: 200, body: .bytes(Array("hello \(request.parameters["name"] ?? "")".utf8)))
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
            try await Task.sleep(for: .seconds(1))
            return ServerResponse(status: 200, body: .bytes(Array("thought".utf8)))
        }
        router.add("POST", "/refuse") { _ in ServerResponse(status: 403) }
        var configuration = ServerConfiguration(host: "127.0.0.1", port: 0)
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

    /// A blocking socket to the server.
    static func connected(_ port: Int) throws -> Int32 {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = UInt16(port).bigEndian
        address.sin_addr.s_addr = inet_addr("127.0.0.1")
        let connected = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        try #require(connected == 0)
        var timeout = timeval(tv_sec: 20, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
        return descriptor
    }

    /// One request and the beginning of its answer.
    static func ask(_ descriptor: Int32) throws {
        let text = Array("GET /hello/x HTTP/1.1\r\nHost: x\r\n\r\n".utf8)
        _ = text.withUnsafeBytes { send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
        var block = [UInt8](repeating: 0, count: 4096)
        try #require(recv(descriptor, &block, block.count, 0) > 0)
    }

    private static func blocking(_ port: Int, _ text: String, _ until: String) throws -> String {
        let descriptor = try connected(port)
        defer { close(descriptor) }
        let bytes = Array(text.utf8)
        var sent = 0
        while sent < bytes.count {
            let count = bytes[sent...].withUnsafeBytes {
                send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
            }
            if count <= 0 { break }
            sent += count
        }
        var received: [UInt8] = []
        var block = [UInt8](repeating: 0, count: 4096)
        while !String(decoding: received, as: UTF8.self).contains(until) {
            let count = recv(descriptor, &block, block.count, 0)
            if count <= 0 { break }
            received += block[0..<count]
        }
        return String(decoding: received, as: UTF8.self)
    }
}

@Suite(.timeLimit(.minutes(1)))
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

    @Test func continueIsSentOnlyWhenTheBodyIsWanted() async throws {
        let probe = try await Probe()
        let head = "Host: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        let wanted = try await probe.exchange("POST /count HTTP/1.1\r\n" + head, until: "\r\n\r\n")
        #expect(wanted.hasPrefix("HTTP/1.1 100 Continue"))
        let refused = try await probe.exchange("POST /refuse HTTP/1.1\r\n" + head, until: "never")
        #expect(refused.hasPrefix("HTTP/1.1 403") && refused.contains("Connection: close"))
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
        await probe.server.shutdown(gracePeriod: .seconds(5))
    }

    @Test func slowAndOversizedHeadsEnd() async throws {
        let probe = try await Probe {
            $0.headTimeout = .milliseconds(300)
            $0.headByteLimit = 1000
        }
        #expect(try await probe.exchange("GET / HTTP/1.1\r\nHo", until: "never").hasPrefix("HTTP/1.1 408"))
        let long = "GET / HTTP/1.1\r\nHost: x\r\nA: " + String(repeating: "a", count: 3000)
        #expect(try await probe.exchange(long, until: "never").hasPrefix("HTTP/1.1 431"))
        await probe.server.shutdown(gracePeriod: .seconds(5))
    }

    @Test func aHandlerMayThinkLongerThanAHeadMayTake() async throws {
        let probe = try await Probe { $0.headTimeout = .milliseconds(300) }
        let answer = try await probe.exchange("GET /think HTTP/1.1\r\nHost: x\r\n\r\n", until: "thought")
        #expect(answer.hasPrefix("HTTP/1.1 200") && answer.hasSuffix("thought"))
        await probe.server.shutdown(gracePeriod: .seconds(5))
    }

    @Test func bodiesThatTrickleOrEndEarlyAreAnswered() async throws {
        let probe = try await Probe {
            $0.transferTimeout = .milliseconds(300)
            $0.leastBytesPerSecond = 1_000_000
        }
        let head = "POST /count HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc"
        #expect(try await probe.exchange(head, until: "never").hasPrefix("HTTP/1.1 408"))
        await probe.server.shutdown(gracePeriod: .seconds(5))
    }

    @Test func silentConnectionsEndBeforeTheirFirstRequest() async throws {
        let probe = try await Probe { $0.firstByteTimeout = .milliseconds(300) }
        #expect(try await probe.exchange("", until: "never").isEmpty)
        await probe.server.shutdown(gracePeriod: .seconds(5))
    }

    @Test func oneAddressHasOnlySoManyConnections() async throws {
        let probe = try await Probe { $0.connectionsPerAddressLimit = 2 }
        let open = try (0..<2).map { _ in try Probe.connected(probe.port) }
        defer { for descriptor in open { close(descriptor) } }
        // Two are open, by what the server knows as soon as it has answered on them.
        for descriptor in open { try Probe.ask(descriptor) }
        let third = try await probe.exchange("GET /hello/x HTTP/1.1\r\nHost: x\r\n\r\n", until: "never")
        #expect(third.isEmpty)
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
