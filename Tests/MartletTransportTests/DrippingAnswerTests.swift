import Foundation
import MartletTransport
import Synchronization
import TestSupport
import Testing

#if canImport(Glibc)
import Glibc
#endif

/// An answer of which a byte comes now and then, for ever, ends by the clock; whatever is still being sent does not.
@Suite(.timeLimit(.minutes(10)))
struct DrippingAnswerTests {
    /// A clock that the peer turns.
    private final class Clock: Sendable {
        private let start = ContinuousClock.now
        private let seconds = Mutex(0.0)
        func advance(_ count: Double) { seconds.withLock { $0 += count } }
        @Sendable func now() -> ContinuousClock.Instant { start + .seconds(seconds.withLock { $0 }) }
    }

    /// Listens at a free port and serves one connection on a thread of its own.
    private final class Peer: Sendable {
        let port: Int
        private let listener: Int32

        init(_ serve: @escaping @Sendable (Int32) -> Void) throws {
            listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
            var address = sockaddr_in()
            address.sin_family = sa_family_t(AF_INET)
            address.sin_addr.s_addr = inet_addr("127.0.0.1")
            var size = socklen_t(MemoryLayout<sockaddr_in>.size)
            let listener = listener
            let isListening = withUnsafeMutablePointer(to: &address) { pointer in
                pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    bind(listener, $0, size) == 0 && listen(listener, 1) == 0 && getsockname(listener, $0, &size) == 0
                }
            }
            guard isListening else { throw POSIXError(.EADDRNOTAVAIL) }
            port = Int(UInt16(bigEndian: address.sin_port))
            Thread {
                let link = accept(listener, nil, nil)
                guard link >= 0 else { return }
                serve(link)
                close(link)
            }
            .start()
        }

        deinit { close(listener) }

        var url: String { "http://127.0.0.1:\(port)/x" }
    }

    @discardableResult private static func put(_ link: Int32, _ text: String) -> Bool {
        let bytes = Array(text.utf8)
        return send(link, bytes, bytes.count, Int32(MSG_NOSIGNAL)) == bytes.count
    }

    /// Reads a request's head and, of its body, what `body` says.
    private static func takeRequest(_ link: Int32, body: Int = 0, _ piece: (Int) -> Void = { _ in }) {
        var (count, block) = (0, [UInt8](repeating: 0, count: 256 << 10))
        var head: [UInt8] = []
        while !String(decoding: head, as: UTF8.self).contains("\r\n\r\n") {
            let moved = recv(link, &block, 1, 0)
            guard moved > 0 else { return }
            head += block[..<moved]
        }
        while count < body {
            let moved = recv(link, &block, min(block.count, body - count), 0)
            guard moved > 0 else { return }
            count += moved
            piece(moved)
        }
    }

    /// Each of these is followed by as many of the last part as anybody takes.
    private static let drips: [(String, String)] = [
        ("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n{", " "),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\n \r\n"),
        ("HTTP/1.1 200 OK\r\nX-Long: ", "a"), ("", "HTTP/1.1 100 Continue\r\n\r\n"),
    ]

    private func outcome(_ request: TransportRequest, _ clock: Clock) async -> ClientError? {
        do {
            let answer = try await CurlTransport(now: clock.now).send(request)
            Issue.record("answered \(answer.status)")
            return nil
        } catch { return error as? ClientError }
    }

    @Test(.slow, arguments: drips.indices, [true, false])
    func anAnswerThatDripsForEverEnds(_ index: Int, _ sendsFile: Bool) async throws {
        let clock = Clock()
        let (head, drop) = Self.drips[index]
        let file = try TemporaryDirectory()
        try Data("update".utf8).write(to: URL(fileURLWithPath: file.path + "/update"))
        let peer = try Peer { link in
            Self.takeRequest(link, body: sendsFile ? 6 : 0)
            guard Self.put(link, head) else { return }
            // More of them than the head of an answer may have bytes would end the answer for its size.
            // After 200 of them the clock has said it twice: a client that is slow to notice has ten minutes.
            for count in 0..<2000 {
                guard Self.put(link, drop) else { return }
                clock.advance(10)
                RealTime.pass(count < 200 ? 0.005 : 0.33, because: "a peer drips")
            }
        }
        var request = TransportRequest(method: sendsFile ? "PUT" : "GET", url: peer.url)
        if sendsFile { request.body = .file(path: file.path + "/update") }
        let error = await outcome(request, clock)
        #expect(
            error?.code == "network" && error?.message.contains("did not end within 900") == true,
            "\(error as Any)"
        )
        #expect(error?.isTemporary == true)
    }

    /// Parts of an upload that take ten seconds each are progress, and no answer that drips.
    @Test func aSlowUploadIsNotEnded() async throws {
        let clock = Clock()
        let count = 32 << 20
        let directory = try TemporaryDirectory()
        let path = directory.path + "/update"
        try Data(count: count).write(to: URL(fileURLWithPath: path))
        let taken = Mutex(0)
        let peer = try Peer { link in
            Self.takeRequest(link, body: count) { bytes in
                // By what arrived, and not by time or by how it was cut: 1,280 s in all.
                clock.advance(10 * Double(bytes) / Double(256 << 10))
                taken.withLock { $0 += bytes }
            }
            Self.put(link, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        }
        var request = TransportRequest(method: "PUT", url: peer.url, body: .file(path: path))
        request.headers["Expect"] = ""
        let answer = try await CurlTransport(now: clock.now).send(request)
        #expect(answer.status == 200 && answer.body == Data("{}".utf8))
        #expect(taken.withLock { $0 } == count)
    }

    /// A file's own bound is its caller's: here half a second.
    @Test func aFileThatDripsForEverEnds() async throws {
        let peer = try Peer { link in
            Self.takeRequest(link)
            guard Self.put(link, "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n") else { return }
            while Self.put(link, "a") { RealTime.pass(0.02, because: "a peer drips") }
        }
        let directory = try TemporaryDirectory()
        var request = TransportRequest(method: "GET", url: peer.url, destination: directory.path + "/model")
        request.longestSeconds = 0.5
        let error = await outcome(request, Clock())
        #expect(error?.code == "network", "\(error as Any)")
    }
}
