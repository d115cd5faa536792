import BenchmarkHarness
import Foundation
import Glibc
import WireFormat

/// Many clients on one thread, each with a connection of its own: they ask for work with long polls, and deliver an update at
/// once where there is some.
final class PollingSwarm: @unchecked Sendable {
    // SAFETY: after `start()` the connections belong to its thread; what others read is behind the lock.

    /// One assignment that a client got, or one update that was taken.
    struct Event {
        var round: Int
        var isDelivery: Bool
        var time: ContinuousClock.Instant
        /// The same moment as the server tells time.
        var date = Date()
    }

    private struct Connection {
        var descriptor: Int32
        var token: String
        var input: [UInt8] = []
        /// The round of the update on its way; `nil` while it asks for work.
        var delivers: Int?
    }

    private let port: UInt16
    private let update: [UInt8]
    private var connections: [Connection] = []
    private let lock = NSLock()
    private var events: [Event] = []
    private var isStopping = false
    private var failure: String?
    private var thread: Thread?
    private let ended = DispatchSemaphore(value: 0)

    /// Connects and asks; `tokens` are the clients', `update` is what each of them delivers.
    init(port: Int, tokens: [String], update: [UInt8]) throws {
        self.port = UInt16(port)
        self.update = update
        connections = try tokens.map { Connection(descriptor: try Self.connect(self.port), token: $0) }
    }

    func start() {
        let thread = Thread { [self] in
            run()
            ended.signal()
        }
        thread.stackSize = 1 << 20
        self.thread = thread
        thread.start()
    }

    /// Hangs up everything and waits for the thread.
    ///
    /// - Returns: What happened since the start.
    func stop() throws -> [Event] {
        lock.withLock { isStopping = true }
        ended.wait()
        for connection in connections { close(connection.descriptor) }
        if let failure { throw BenchmarkError(failure) }
        return events
    }

    // MARK: -

    static func connect(_ port: UInt16) throws -> Int32 {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        let status = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                Glibc.connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        guard descriptor >= 0, status == 0 else {
            throw BenchmarkError("cannot connect: \(String(cString: strerror(errno)))")
        }
        var one: Int32 = 1
        setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &one, socklen_t(MemoryLayout<Int32>.size))
        return descriptor
    }

    static func checkIn(token: String, waitSeconds: Int, runs: String? = nil) -> [UInt8] {
        let body = runs.map { "{\"runs\": \($0)}" } ?? "{}"
        let text =
            "POST \(Endpoints.checkIn().path) HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer \(token)\r\n"
            + "Content-Type: application/json\r\nPrefer: wait=\(waitSeconds)\r\n"
            + "Content-Length: \(body.utf8.count)\r\n\r\n\(body)"
        return Array(text.utf8)
    }

    static func sendAll(_ descriptor: Int32, _ bytes: [UInt8]) -> Bool {
        var offset = 0
        while offset < bytes.count {
            let count = bytes[offset...].withUnsafeBytes {
                send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
            }
            guard count > 0 else { return false }
            offset += count
        }
        return true
    }

    /// The status and body of a whole answer at the beginning of the bytes, which it is taken off; `nil` while more must come.
    static func takeAnswer(_ bytes: inout [UInt8]) -> (status: Int, body: [UInt8])? {
        guard let head = bytes.firstRange(of: Array("\r\n\r\n".utf8)) else { return nil }
        let text = String(decoding: bytes[..<head.lowerBound], as: UTF8.self).lowercased()
        let status = text.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0
        let length =
            text.split(separator: "\r\n").first { $0.hasPrefix("content-length:") }
            .flatMap { Int($0.dropFirst(15).trimmingCharacters(in: .whitespaces)) } ?? 0
        guard bytes.count >= head.upperBound + length else { return nil }
        let body = Array(bytes[head.upperBound..<head.upperBound + length])
        bytes.removeFirst(head.upperBound + length)
        return (status, body)
    }

    private func run() {
        // Spread over the time that one poll waits, as clients that came at different times are.
        for index in connections.indices {
            ask(index, waitSeconds: 5 + index % 26)
        }
        var polls = connections.map { pollfd(fd: $0.descriptor, events: Int16(POLLIN), revents: 0) }
        var block = [UInt8](repeating: 0, count: 64 << 10)
        while !lock.withLock({ isStopping }) && failure == nil {
            guard poll(&polls, nfds_t(polls.count), 100) > 0 else { continue }
            for index in polls.indices where polls[index].revents != 0 {
                let count = recv(polls[index].fd, &block, block.count, 0)
                guard count > 0 else {
                    failure = "the server hung up on a client that waits"
                    break
                }
                connections[index].input += block[0..<count]
                while let answer = Self.takeAnswer(&connections[index].input) { take(answer, of: index) }
            }
        }
    }

    private func ask(_ index: Int, waitSeconds: Int = 30) {
        connections[index].delivers = nil
        if !Self.sendAll(
            connections[index].descriptor,
            Self.checkIn(token: connections[index].token, waitSeconds: waitSeconds)
        ) {
            failure = "a check-in could not be sent"
        }
    }

    private func take(_ answer: (status: Int, body: [UInt8]), of index: Int) {
        if let round = connections[index].delivers {
            // 410: the round is full; whoever was too many asks again.
            if answer.status == 200 { note(round, isDelivery: true) }
            return ask(index)
        }
        guard answer.status == 200 || answer.status == 201 else {
            failure = "a check-in was answered \(answer.status): \(String(decoding: answer.body, as: UTF8.self))"
            return
        }
        guard let json = (try? JSONSerialization.jsonObject(with: Data(answer.body))) as? [String: Any],
            let assignment = json["assignment"] as? [String: Any], let url = assignment["update_url"] as? String
        else { return ask(index) }
        let round = assignment["round"] as? Int ?? 0
        note(round, isDelivery: false)
        connections[index].delivers = round
        let head =
            "PUT \(url) HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer \(connections[index].token)\r\n"
            + "Content-Type: application/vnd.safetensors\r\nContent-Length: \(update.count)\r\n\r\n"
        if !Self.sendAll(connections[index].descriptor, Array(head.utf8) + update) {
            failure = "an update could not be sent"
        }
    }

    private func note(_ round: Int, isDelivery: Bool) {
        lock.withLock { events.append(Event(round: round, isDelivery: isDelivery, time: .now)) }
    }
}
