import Foundation
import MartletClient

/// A transport of the app's own: HTTP/1.1 over a socket to an address like `http://127.0.0.1:8080`, one connection a request.
///
/// It shows what `Transport` asks for, and no more: no TLS, no names, no time-outs in the middle of a transfer. Take
/// `URLSessionTransport` or `CurlTransport` for anything else.
struct SocketTransport: Transport {
    func send(_ request: TransportRequest) async throws -> TransportResponse {
        try Task.checkCancellation()
        guard let url = URLComponents(string: request.url), url.scheme == "http", let host = url.host,
            let port = url.port
        else {
            throw ClientError(code: "server_url", message: "this transport needs an address like http://127.0.0.1:8080")
        }
        var body = Data()
        switch request.body {
        case .none: break
        case .bytes(let data): body = data
        case .file(let path, let offset):
            guard let file = FileManager.default.contents(atPath: path), offset <= file.count else {
                throw ClientError(code: "storage", message: "cannot read \(path)")
            }
            body = Data(file.dropFirst(offset))
        }
        let target = url.percentEncodedPath + (url.percentEncodedQuery.map { "?" + $0 } ?? "")
        var head = "\(request.method) \(target) HTTP/1.1\r\nHost: \(host):\(port)\r\nConnection: close\r\n"
        head += "Content-Length: \(body.count)\r\n"
        for (name, value) in request.headers { head += "\(name): \(value)\r\n" }
        let (message, limit) = (Data((head + "\r\n").utf8) + body, request.byteLimit)
        let answer = try await Task.detached { try Self.exchange(message, host, port, limit: limit) }.value
        let response = try Self.read(answer, of: request)
        guard let destination = request.destination, [200, 206].contains(response.status),
            request.fileSHA256.map({ response.names(sha256: $0) }) ?? true
        else { return response }
        try Self.write(response, to: destination, of: request)
        return TransportResponse(status: response.status, headers: response.headers)
    }

    /// Puts a file, or the part that was asked for, where the client wants it.
    private static func write(
        _ response: TransportResponse,
        to destination: String,
        of request: TransportRequest
    ) throws {
        guard response.status == 206 else {
            guard FileManager.default.createFile(atPath: destination, contents: response.body) else {
                throw ClientError(code: "storage", message: "cannot write \(destination)")
            }
            return
        }
        guard response.headers["content-range"]?.hasPrefix("bytes \(request.destinationOffset)-") == true,
            let file = FileHandle(forWritingAtPath: destination)
        else { throw ClientError(code: "network", message: "another part of \(request.url) came than was asked for") }
        defer { try? file.close() }
        try file.truncate(atOffset: UInt64(request.destinationOffset))
        try file.write(contentsOf: response.body)
    }

    /// Sends all and reads until the server closes.
    private static func exchange(_ message: Data, _ host: String, _ port: Int, limit: Int) throws -> Data {
        let lost = ClientError(code: "network", message: "no answer from \(host):\(port)")
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(descriptor) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = UInt16(port).bigEndian
        address.sin_addr.s_addr = inet_addr(host)
        let connected = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
            }
        }
        guard connected else { throw lost }
        var wait = timeval(tv_sec: 120, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &wait, socklen_t(MemoryLayout<timeval>.size))
        var rest = message[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes {
                Foundation.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
            }
            guard count > 0 else { throw lost }
            rest = rest.dropFirst(count)
        }
        var answer = Data()
        var block = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = recv(descriptor, &block, block.count, 0)
            guard count >= 0 else { throw lost }
            guard count > 0 else { return answer }
            answer.append(contentsOf: block[..<count])
            guard answer.count - (256 << 10) <= limit else {
                throw ClientError(code: "server_invalid", message: "the answer is longer than it may be")
            }
        }
    }

    /// Reads an answer with a length; one that was cut is none.
    private static func read(_ answer: Data, of request: TransportRequest) throws -> TransportResponse {
        let cut = ClientError(code: "network", message: "the answer of \(request.url) was cut")
        guard let end = answer.range(of: Data("\r\n\r\n".utf8)) else { throw cut }
        let lines = String(decoding: answer[..<end.lowerBound], as: UTF8.self).components(separatedBy: "\r\n")
        let words = lines[0].split(separator: " ")
        guard words.count >= 2, words[0].hasPrefix("HTTP/1."), let status = Int(words[1]) else { throw cut }
        var headers: [String: String] = [:]
        for line in lines.dropFirst() {
            guard let colon = line.firstIndex(of: ":") else { throw cut }
            headers[line[..<colon].lowercased()] = line[line.index(after: colon)...].trimmingCharacters(
                in: .whitespaces
            )
        }
        let body = answer[end.upperBound...]
        let length = headers["content-length"].flatMap { Int($0) } ?? 0
        guard request.method == "HEAD" || status == 204 || body.count == length, length <= request.byteLimit else {
            throw cut
        }
        return TransportResponse(status: status, headers: headers, body: Data(body))
    }
}
