package import HTTPTypes

#if canImport(Glibc)
import Glibc
#endif

/// Why a request could not be parsed; the connection is closed after the answer.
package struct ParseFailure: Error, Equatable, Sendable {
    package var status: Int
    package var detail: String

    package init(status: Int, detail: String) {
        self.status = status
        self.detail = detail
    }
}

/// The head of a request: method, target and fields.
package struct RequestHead: Sendable, Equatable {
    package var method: String
    package var target: String
    package var fields: HTTPFields
    package var framing: Framing
    package var keepAlive: Bool
    /// HTTP/1.0 knows no chunks: a body of unknown length ends with the connection.
    package var isVersion10: Bool
    package var expectsContinue: Bool

    /// How the body is delimited.
    package enum Framing: Sendable, Equatable {
        case none
        case length(Int)
        case chunked
    }
}

/// Parses one request head strictly by RFC 9112, and refuses whatever two readers could read differently.
package enum HeadParser {
    /// The index after the empty line that ends the head, or `nil` while the head is incomplete.
    package static func endOfHead(_ bytes: ArraySlice<UInt8>, searchFrom start: Int) -> Int? {
        var index = max(bytes.startIndex, start - 3)
        while index + 3 < bytes.endIndex {
            if bytes[index] == 13 && bytes[index + 1] == 10 && bytes[index + 2] == 13 && bytes[index + 3] == 10 {
                return index + 4
            }
            index += 1
        }
        return nil
    }

    /// The end of the head in raw bytes, counted from the first of them.
    static func endOfHead(_ bytes: UnsafeRawBufferPointer, searchFrom start: Int) -> Int? {
        guard let base = bytes.baseAddress else { return nil }
        var index = max(3, start)
        while index < bytes.count, let found = memchr(base + index, 10, bytes.count - index) {
            let end = base.distance(to: UnsafeRawPointer(found))
            if bytes[end - 1] == 13 && bytes[end - 2] == 10 && bytes[end - 3] == 13 { return end + 1 }
            index = end + 1
        }
        return nil
    }

    /// Parses a whole head from raw bytes.
    static func parse(_ head: UnsafeRawBufferPointer, fieldLimit: Int) throws(ParseFailure) -> RequestHead {
        try parse(Array(head)[...], fieldLimit: fieldLimit)
    }

    /// Parses a whole head, its empty line included.
    ///
    /// - Throws: ``ParseFailure`` with the status of the answer.
    package static func parse(_ head: ArraySlice<UInt8>, fieldLimit: Int) throws(ParseFailure) -> RequestHead {
        var lines: [ArraySlice<UInt8>] = []
        var start = head.startIndex
        var index = head.startIndex
        while index < head.endIndex {
            if head[index] == 10 {
                guard index > start, head[index - 1] == 13 else { throw bad("a line ends without CR LF") }
                lines.append(head[start..<(index - 1)])
                start = index + 1
            } else if head[index] == 13, index + 1 >= head.endIndex || head[index + 1] != 10 {
                throw bad("a CR stands alone")
            } else if head[index] == 0 {
                throw bad("the head holds a NUL")
            }
            index += 1
        }
        guard lines.count >= 2, start == head.endIndex, lines.last?.isEmpty == true else {
            throw bad("the head is incomplete")
        }
        let (method, target, minor) = try requestLine(lines[0])
        guard lines.count - 2 <= fieldLimit else {
            throw ParseFailure(status: 431, detail: "more than \(fieldLimit) header fields")
        }
        var fields = HTTPFields()
        var hostCount = 0
        var lengths: [String] = []
        var codings: [String] = []
        for line in lines[1..<(lines.count - 1)] {
            let (name, value) = try field(line)
            switch name.lowercased() {
            case "host":
                hostCount += 1
                guard isHost(value.utf8) else { throw bad("the Host field is malformed") }
            case "content-length": lengths.append(value)
            case "transfer-encoding": codings.append(value)
            default: break
            }
            guard let fieldName = HTTPField.Name(name) else { throw bad("a header field has a bad name") }
            fields.append(HTTPField(name: fieldName, value: value))
        }
        guard hostCount == 1 || (minor == 0 && hostCount == 0) else { throw bad("exactly one Host field is needed") }
        let framing = try framing(lengths: lengths, codings: codings, minor: minor)
        let options = (fields[.connection] ?? "").lowercased().split(separator: ",").map { option in
            option.trimmingPrefix { $0 == " " || $0 == "\t" }.prefix { $0 != " " && $0 != "\t" }
        }
        let keepAlive =
            minor == 1 ? !options.contains("close") : options.contains("keep-alive") && !options.contains("close")
        var expects = false
        if let expectation = fields[.expect] {
            guard expectation.lowercased() == "100-continue" else {
                throw ParseFailure(status: 417, detail: "the only expectation known is 100-continue")
            }
            expects = minor == 1
        }
        return RequestHead(
            method: method,
            target: target,
            fields: fields,
            framing: framing,
            keepAlive: keepAlive,
            isVersion10: minor == 0,
            expectsContinue: expects
        )
    }

    private static func requestLine(_ line: ArraySlice<UInt8>) throws(ParseFailure) -> (String, String, Int) {
        let parts = line.split(separator: 32, omittingEmptySubsequences: false)
        guard parts.count == 3, !parts[0].isEmpty, parts[0].count <= 32, parts[0].allSatisfy(isTokenByte)
        else { throw bad("the request line is malformed") }
        guard !parts[0].elementsEqual("CONNECT".utf8) else {
            throw ParseFailure(status: 501, detail: "this server opens no tunnels")
        }
        guard !parts[1].isEmpty, parts[1].allSatisfy({ $0 > 32 && $0 < 127 }) else {
            throw bad("the request target is malformed")
        }
        let minor: Int
        switch String(decoding: parts[2], as: UTF8.self) {
        case "HTTP/1.1": minor = 1
        case "HTTP/1.0": minor = 0
        default: throw ParseFailure(status: 505, detail: "use HTTP/1.1")
        }
        return (String(decoding: parts[0], as: UTF8.self), String(decoding: parts[1], as: UTF8.self), minor)
    }

    private static func field(_ line: ArraySlice<UInt8>) throws(ParseFailure) -> (String, String) {
        guard let first = line.first, first != 32, first != 9 else { throw bad("a header field is folded") }
        guard let colon = line.firstIndex(of: 58), colon > line.startIndex else {
            throw bad("a header field has no name")
        }
        let name = line[line.startIndex..<colon]
        guard name.allSatisfy(isTokenByte) else { throw bad("a header field has a bad name") }
        var value = line[(colon + 1)...]
        while let byte = value.first, byte == 32 || byte == 9 { value.removeFirst() }
        while let byte = value.last, byte == 32 || byte == 9 { value.removeLast() }
        guard value.allSatisfy({ $0 == 9 || ($0 >= 32 && $0 != 127) }) else {
            throw bad("a header field holds a control character")
        }
        return (String(decoding: name, as: UTF8.self), String(decoding: value, as: UTF8.self))
    }

    private static func framing(
        lengths: [String],
        codings: [String],
        minor: Int
    ) throws(ParseFailure) -> RequestHead.Framing {
        if !codings.isEmpty {
            guard lengths.isEmpty else { throw bad("Transfer-Encoding and Content-Length together") }
            guard minor == 1 else { throw bad("HTTP/1.0 has no Transfer-Encoding; use HTTP/1.1 or Content-Length") }
            guard codings.count == 1, codings[0].lowercased() == "chunked" else {
                throw ParseFailure(status: 501, detail: "the only transfer coding known is chunked")
            }
            return .chunked
        }
        guard let first = lengths.first else { return .none }
        guard lengths.count == 1, first.utf8.allSatisfy({ $0 >= 48 && $0 <= 57 }), first.utf8.count <= 18,
            let length = Int(first)
        else { throw bad("Content-Length is malformed or repeated") }
        return .length(length)
    }

    /// Whether the text can be `uri-host [":" port]`; RFC 9112 allows an empty one.
    static func isHost(_ text: some Collection<UInt8>) -> Bool {
        text.count <= 300
            && text.allSatisfy { byte in
                switch byte {
                case 45, 46, 58, 91, 93, 95, 126, 37: true
                case 48...57, 65...90, 97...122: true
                case 33, 36, 38, 39, 40, 41, 42, 43, 59, 61: true
                default: false
                }
            }
    }

    static func isTokenByte(_ byte: UInt8) -> Bool {
        switch byte {
        case 48...57, 65...90, 97...122: true
        case 33, 35, 36, 37, 38, 39, 42, 43, 45, 46, 94, 95, 96, 124, 126: true
        default: false
        }
    }

    private static func bad(_ detail: String) -> ParseFailure { ParseFailure(status: 400, detail: detail) }
}
