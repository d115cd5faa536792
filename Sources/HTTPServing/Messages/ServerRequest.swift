package import HTTPTypes
import Synchronization

/// A request as a handler sees it.
package struct ServerRequest: Sendable {
    package var method: String
    package var rawTarget: String
    /// Percent-decoded.
    package var pathSegments: [String]
    package var query: [String: String]
    package var headers: HTTPFields
    package var body: any RequestBody
    package var requestID: String
    /// The network address the request came from, without the port; empty without a socket.
    package var remoteAddress = ""
    /// The hash of the public key of the peer's client certificate, `sha256//BASE64`.
    package var peerKey: String?
    /// The template of the route that handles the request.
    package var route = ""
    /// The largest body, in bytes, that a handler reads into memory.
    package var documentByteLimit = 1 << 20
    /// Whether ``Router/admit`` has admitted it.
    package var isAdmitted = false

    package init(
        method: String,
        rawTarget: String,
        headers: HTTPFields,
        body: any RequestBody,
        requestID: String
    ) throws(ParseFailure) {
        self.method = method
        self.rawTarget = rawTarget
        self.headers = headers
        self.body = body
        self.requestID = requestID
        query = [:]
        if let segments = Self.plainSegments(rawTarget) {
            pathSegments = segments
            return
        }
        let target = try Self.originForm(rawTarget)
        let parts = target.split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
        // Readers disagree about empty segments, and a proxy that checks paths must see the same path as this server.
        guard !parts[0].contains("//") else { throw ParseFailure(status: 400, detail: "the path has an empty segment") }
        pathSegments = []
        for segment in parts[0].split(separator: "/") {
            guard let decoded = Self.percentDecoded(segment), !decoded.contains("/"), decoded != "..", decoded != ".",
                !decoded.unicodeScalars.contains(where: { $0.value < 32 || (127...159).contains($0.value) })
            else { throw ParseFailure(status: 400, detail: "the path is malformed") }
            pathSegments.append(decoded)
        }
        if parts.count == 2 {
            for pair in parts[1].split(separator: "&") {
                let sides = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
                guard let name = Self.percentDecoded(sides[0]),
                    let value = sides.count == 2 ? Self.percentDecoded(sides[1]) : ""
                else { throw ParseFailure(status: 400, detail: "the query is malformed") }
                guard query.updateValue(value, forKey: name) == nil else {
                    throw ParseFailure(status: 400, detail: "a query parameter is given twice")
                }
            }
        }
    }

    /// Fast path: the segments of a path of letters, digits, `-` and `_`, in which nothing needs decoding or checking.
    ///
    /// - Returns: `nil` for any other target, which is then parsed in full.
    private static func plainSegments(_ target: String) -> [String]? {
        let segments = target.utf8.withContiguousStorageIfAvailable { bytes -> [String]? in
            guard bytes.first == 47 else { return nil }
            var segments: [String] = []
            var start = 1
            for index in 1...bytes.count {
                if index < bytes.count && bytes[index] != 47 {
                    let byte = bytes[index]
                    let isLetter = (97...122).contains(byte | 32)
                    guard isLetter || (48...57).contains(byte) || byte == 45 || byte == 95 else { return nil }
                    continue
                }
                // A slash at the end makes no segment. Any other empty segment is refused by the full parser.
                guard index > start || index == bytes.count else { return nil }
                if index > start {
                    segments.append(
                        String(decoding: UnsafeBufferPointer(rebasing: bytes[start..<index]), as: UTF8.self)
                    )
                }
                start = index + 1
            }
            return segments
        }
        return segments ?? nil
    }

    /// Path and query of a target in origin or absolute form (RFC 9112 section 3.2), or `*`.
    private static func originForm(_ target: String) throws(ParseFailure) -> Substring {
        guard !target.contains("#") else { throw ParseFailure(status: 400, detail: "the target has a fragment") }
        if target == "*" || target.hasPrefix("/") { return Substring(target) }
        for scheme in ["http://", "https://"] where target.lowercased().hasPrefix(scheme) {
            let rest = target.dropFirst(scheme.count)
            let end = rest.firstIndex { $0 == "/" || $0 == "?" } ?? rest.endIndex
            guard HeadParser.isHost(rest[..<end].utf8), end != rest.startIndex else { break }
            return rest[end...].hasPrefix("/") ? rest[end...] : "/" + rest[end...]
        }
        throw ParseFailure(status: 400, detail: "the request target must begin with /")
    }

    /// The path without the query.
    package var path: String { "/" + pathSegments.joined(separator: "/") }

    static func percentDecoded(_ text: Substring) -> String? {
        var bytes: [UInt8] = []
        var iterator = text.utf8.makeIterator()
        while let byte = iterator.next() {
            guard byte == 37 else {
                bytes.append(byte)
                continue
            }
            guard let high = iterator.next().flatMap(hexadecimalValue),
                let low = iterator.next().flatMap(hexadecimalValue)
            else { return nil }
            bytes.append(high << 4 | low)
        }
        return String(validating: bytes, as: UTF8.self)
    }

    private static func hexadecimalValue(_ byte: UInt8) -> UInt8? {
        switch byte {
        case 48...57: byte - 48
        case 65...70: byte - 55
        case 97...102: byte - 87
        default: nil
        }
    }
}

/// A request's body, read block by block.
///
/// Nothing is read from the network before it is asked for here.
package protocol RequestBody: Sendable {
    /// The length that the head declares.
    var contentLength: Int? { get }
    /// The whole body if it came with the head; looking at it consumes nothing.
    var available: [UInt8]? { get }
    /// The next bytes, or `nil` at the end.
    func read() async throws -> [UInt8]?
    /// Reads the rest of the body into a sink, which is called from any thread.
    func receive(into sink: any BodySink) async throws
}

/// Receives a body block by block: calls come from any thread, one after the other.
package protocol BodySink: AnyObject, Sendable {
    /// Receives the next bytes, which are valid during the call only; it may wait for a disk.
    func write(_ bytes: UnsafeRawBufferPointer) throws
}

extension RequestBody {
    package var available: [UInt8]? { nil }

    /// Receives the body by calls of ``read()``.
    package func receiveBlocks(into sink: any BodySink) async throws {
        while let block = try await read() { try block.withUnsafeBytes { try sink.write($0) } }
    }

    package func receive(into sink: any BodySink) async throws { try await receiveBlocks(into: sink) }

    /// The whole body of at most `limit` bytes.
    ///
    /// - Throws: ``ParseFailure`` with status 413 if it is longer.
    package func collect(limit: Int) async throws -> [UInt8] {
        let tooLarge = ParseFailure(status: 413, detail: "the body may have at most \(limit) bytes")
        if let contentLength, contentLength > limit { throw tooLarge }
        var result: [UInt8] = []
        while let block = try await read() {
            guard result.count + block.count <= limit else { throw tooLarge }
            result += block
        }
        return result
    }
}

/// A body in memory: one that came with its head, or one of a test.
package final class MemoryBody: RequestBody {
    private let bytes: [UInt8]
    private let isTaken = Atomic(false)
    package var contentLength: Int? { bytes.count }
    package var available: [UInt8]? { bytes }

    package init(_ bytes: [UInt8]) { self.bytes = bytes }

    package func read() async throws -> [UInt8]? {
        bytes.isEmpty || isTaken.exchange(true, ordering: .relaxed) ? nil : bytes
    }
}
