import Foundation
import Synchronization

#if canImport(Glibc)
import Glibc
#endif

/// A server on 127.0.0.1 that answers what a test says, byte by byte: for what no HTTP library would send.
package final class LoopbackListener: Sendable {
    /// One request as it came.
    package struct Request: Sendable {
        package var method = ""
        package var target = ""
        /// Names in lower case.
        package var headers: [String: String] = [:]
        package var body: [UInt8] = []
    }

    /// Answers one request on its connection, which is closed unless it returns true.
    package typealias Handler = @Sendable (Request, LoopbackSocket) -> Bool

    /// Where it listens; chosen by the system.
    package let port: Int
    private let descriptor: Int32
    private let seen = Mutex<[Request]>([])
    private let isOpen = Atomic<Bool>(true)

    /// Listens.
    ///
    /// - Parameters:
    ///   - readsBodies: Whether a body is read before the handler is asked.
    ///   - handler: Answers, on a thread of the connection's own.
    /// - Throws: `POSIXError`.
    package init(readsBodies: Bool = true, _ handler: @escaping Handler) throws {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        self.descriptor = descriptor
        // Little waits in the system for a test to read it: a sender sees how fast that is.
        var roomBytes: Int32 = 64 << 10
        setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &roomBytes, socklen_t(MemoryLayout<Int32>.size))
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = inet_addr("127.0.0.1")
        var size = socklen_t(MemoryLayout<sockaddr_in>.size)
        let bound = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { generic in
                bind(descriptor, generic, size) == 0 && listen(descriptor, 64) == 0
                    && getsockname(descriptor, generic, &size) == 0
            }
        }
        guard bound else {
            let code = POSIXErrorCode(rawValue: errno) ?? .EADDRINUSE
            close(descriptor)
            throw POSIXError(code)
        }
        port = Int(UInt16(bigEndian: address.sin_port))
        Thread.detachNewThread { [self] in
            while true {
                let accepted = accept(descriptor, nil, nil)
                guard accepted >= 0, isOpen.load(ordering: .relaxed) else {
                    if accepted >= 0 { close(accepted) }
                    if errno == EINTR { continue }
                    break
                }
                Thread.detachNewThread { self.serve(LoopbackSocket(accepted: accepted), readsBodies, handler) }
            }
            close(descriptor)
        }
    }

    /// Takes no more connections.
    package func stop() {
        guard isOpen.exchange(false, ordering: .relaxed) else { return }
        shutdown(descriptor, Int32(SHUT_RDWR))
    }

    /// What was asked, in order.
    package var requests: [Request] { seen.withLock { $0 } }

    private func serve(_ connection: LoopbackSocket, _ readsBodies: Bool, _ handler: Handler) {
        var rest: [UInt8] = []
        while true {
            let end = Array("\r\n\r\n".utf8)
            func place(_ bytes: [UInt8]) -> Int? { bytes.indices.first { bytes[$0...].starts(with: end) } }
            if place(rest) == nil { rest += connection.read { place($0) != nil } }
            guard let head = place(rest) else { return }
            var request = Self.request(String(decoding: rest[..<head], as: UTF8.self))
            rest = Array(rest[(head + 4)...])
            if readsBodies {
                if request.headers["expect"] != nil { connection.write(Array("HTTP/1.1 100 Continue\r\n\r\n".utf8)) }
                let count = request.headers["content-length"].flatMap { Int($0) } ?? 0
                if rest.count < count {
                    let missing = count - rest.count
                    rest += connection.read { $0.count >= missing }
                }
                guard rest.count >= count else { return }
                request.body = Array(rest[..<count])
                rest = Array(rest[count...])
            }
            seen.withLock { $0.append(request) }
            guard handler(request, connection) else { return }
        }
    }

    private static func request(_ head: String) -> Request {
        let lines = head.components(separatedBy: "\r\n")
        let words = (lines.first ?? "").split(separator: " ").map(String.init)
        var request = Request()
        (request.method, request.target) = (words.first ?? "", words.count > 1 ? words[1] : "")
        for line in lines.dropFirst() {
            guard let colon = line.firstIndex(of: ":") else { continue }
            let value = line[line.index(after: colon)...].trimmingCharacters(in: .whitespaces)
            request.headers[line[..<colon].lowercased()] = value
        }
        return request
    }
}

extension LoopbackSocket {
    /// Sends an answer with a body of known length.
    @discardableResult package func answer(_ status: Int, _ fields: [String: String] = [:], body: [UInt8] = []) -> Bool
    {
        var head = "HTTP/1.1 \(status) Words\r\n"
        if fields["Content-Length"] == nil { head += "Content-Length: \(body.count)\r\n" }
        for (name, value) in fields.sorted(by: { $0.key < $1.key }) { head += "\(name): \(value)\r\n" }
        return write(Array((head + "\r\n").utf8) + body)
    }

    /// Sends characters as they are.
    @discardableResult package func write(_ text: String) -> Bool { write(Array(text.utf8)) }
}
