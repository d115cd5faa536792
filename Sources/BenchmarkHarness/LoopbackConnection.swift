package import Foundation

#if canImport(Glibc)
import Glibc
#endif

/// A kept connection to a server on this machine that costs the machine as little as it can: files go out by `sendfile`,
/// and the kernel throws answers away, so that what is measured is the server.
package final class LoopbackConnection {
    private let descriptor: Int32
    private var buffer = [UInt8](repeating: 0, count: 1 << 16)

    package init(port: Int) throws {
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = UInt16(port).bigEndian
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        let status = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        guard status == 0 else { throw BenchmarkError("nobody listens on port \(port)") }
        var on: Int32 = 1
        setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &on, socklen_t(MemoryLayout<Int32>.size))
    }

    deinit { close(descriptor) }

    /// Sends a file as a request's body and waits for the answer.
    package func put(_ file: String, to path: String, headers: [String: String] = [:]) throws {
        let source = open(file, O_RDONLY | O_CLOEXEC)
        defer { close(source) }
        let count = Int(lseek(source, 0, SEEK_END))
        guard source >= 0, count >= 0 else { throw BenchmarkError("cannot read \(file)") }
        try send("PUT \(path) HTTP/1.1\r\nContent-Length: \(count)\r\n", headers)
        var offset = off_t(0)
        while Int(offset) < count {
            let sent = sendfile(descriptor, source, &offset, count - Int(offset))
            guard sent > 0 else { throw BenchmarkError("the server hung up on \(path)") }
        }
        let (status, length) = try head()
        guard (200..<300).contains(status) else { throw BenchmarkError("PUT \(path) was answered \(status)") }
        try discard(length)
    }

    /// Fetches a resource and throws it away.
    ///
    /// - Returns: Its size in bytes.
    package func get(_ path: String, headers: [String: String] = [:]) throws -> Int {
        try send("GET \(path) HTTP/1.1\r\n", headers)
        let (status, length) = try head()
        guard status == 200 else { throw BenchmarkError("GET \(path) was answered \(status)") }
        try discard(length)
        return length
    }

    /// Sends a request's head, and its body where that is in memory.
    package func send(_ start: String, _ headers: [String: String], body: Data = Data()) throws {
        let fields = headers.map { "\($0): \($1)\r\n" }.joined()
        let bytes = Array((start + "Host: 127.0.0.1\r\n" + fields + "\r\n").utf8) + body
        var sent = 0
        while sent < bytes.count {
            let count = bytes[sent...].withUnsafeBytes {
                Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
            }
            guard count > 0 else { throw BenchmarkError("the server hung up") }
            sent += count
        }
    }

    /// Reads the head of an answer and not a byte more.
    package func head() throws -> (status: Int, length: Int) {
        while true {
            let count = recv(descriptor, &buffer, buffer.count, Int32(MSG_PEEK))
            guard count > 0 else { throw BenchmarkError("the server hung up before its answer") }
            let text = String(decoding: buffer[..<count], as: UTF8.self)
            guard let end = text.range(of: "\r\n\r\n") else { continue }
            let lines = text[..<end.lowerBound].split(separator: "\r\n")
            try discard(text[..<end.upperBound].utf8.count)
            let status = lines[0].split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0
            let field = lines.first { $0.lowercased().hasPrefix("content-length:") }
            let length = field.flatMap { Int($0.dropFirst(15).trimmingCharacters(in: .whitespaces)) } ?? 0
            return (status, length)
        }
    }

    /// Reads so many bytes of an answer.
    package func read(_ count: Int) throws -> Data {
        var result = Data(capacity: count)
        while result.count < count {
            let received = recv(descriptor, &buffer, min(buffer.count, count - result.count), 0)
            guard received > 0 else { throw BenchmarkError("the server hung up in its answer") }
            result.append(contentsOf: buffer[..<received])
        }
        return result
    }

    // MARK: -

    private func discard(_ count: Int) throws {
        var left = count
        while left > 0 {
            // On TCP the kernel drops the bytes without copying them.
            let dropped = recv(descriptor, nil, min(left, 4 << 20), Int32(MSG_TRUNC))
            guard dropped > 0 else { throw BenchmarkError("the server hung up in its answer") }
            left -= dropped
        }
    }
}

/// Several connections at the same time, each on a thread of its own.
package enum Connections {
    /// Runs the body once for each connection.
    ///
    /// - Returns: Seconds from the first beginning to the last end.
    package static func together(
        _ count: Int,
        port: Int,
        _ body: @escaping @Sendable (_ index: Int, _ connection: LoopbackConnection) throws -> Void
    ) throws -> Double {
        let failure = NSLock()
        nonisolated(unsafe) var problem: (any Error)?
        let connections = try (0..<count).map { _ in try LoopbackConnection(port: port) }
        nonisolated(unsafe) let kept = connections
        let seconds = Stopwatch.seconds {
            let group = DispatchGroup()
            for index in 0..<count {
                group.enter()
                Thread {
                    do { try body(index, kept[index]) } catch { failure.withLock { problem = error } }
                    group.leave()
                }.start()
            }
            group.wait()
        }
        if let problem = failure.withLock({ problem }) { throw problem }
        return seconds
    }
}
