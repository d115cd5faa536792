import HTTPServing
import HTTPTypes
package import Tensors

/// Heads, targets, chunked bodies, entity tags and forwarded addresses.
package struct HTTPTarget: FuzzTarget {
    package static let name = "http"
    package static let testCaseCount = 20_000

    private static let lines = [
        "GET / HTTP/1.1", "POST /v1/runs?x=%41&y HTTP/1.1", "PUT http://a/b HTTP/1.1", "OPTIONS * HTTP/1.1", "Host: a",
        "Host: [::1]:80", "Content-Length: 5", "Content-Length: 18446744073709551616", "Transfer-Encoding: chunked",
        "Transfer-Encoding : chunked", "Connection: close, x", "Expect: 100-continue", "X-Request-Id: 7", " folded",
        "A:", ":", "Range: bytes=0-,5-", "If-None-Match: W/\"a\", \"", "Authorization: Bearer x", "",
        "Forwarded: for=\"[2001:db8::1]:80\";proto=https, for=10.0.0.1", "X-Forwarded-For: 1.2.3.4, ::1, unknown",
    ]
    private static let chunks = [
        "5\r\nhello\r\n", "0\r\n\r\n", "A;x=1\r\n0123456789\r\n", "0\r\nT: x\r\n\r\n", "FFFFFFFFFFFFFF\r\n", "\r\n",
        "5\n", "-1\r\n",
    ].map { Array($0.utf8) }
    private static let fragments = [
        "\r", "\n", "\r\n", "\0", " ", "\t", ":", "%", "%2e", "..", "//", "é", "\u{7F}", ",", ";", "0", "\"", "%00",
        "%c0%ae",
    ].map { Array($0.utf8) }
    private let proxies = NetworkList(["10.0.0.0/8", "::1"])

    package init() {}

    package mutating func run(_ generator: inout Xoshiro256StarStar) throws -> Bool {
        var text = ""
        for index in 0...(1 + generator.nextIndex(below: 6)) {
            text += Self.lines[generator.nextIndex(below: index == 0 ? 4 : Self.lines.count)] + "\r\n"
        }
        var head = Array((text + "\r\n").utf8)
        var body: [UInt8] = []
        for _ in 0..<generator.nextIndex(below: 5) { body += generator.pick(Self.chunks) }
        for _ in 0..<generator.nextIndex(below: 4) {
            generator.damage(&head, with: Self.fragments)
            generator.damage(&body, with: Self.fragments)
        }
        let isTaken = try readHead(head)
        let whole = Self.decode([body])
        let split = generator.nextIndex(below: body.count + 1)
        let parts = Self.decode([Array(body[..<split]), Array(body[split...])])
        try expect(whole == parts, "a body means something else when it is split at \(split)", body)
        try expect(whole.bytes.count <= body.count, "a body has grown", body)
        return isTaken
    }

    private func readHead(_ head: [UInt8]) throws -> Bool {
        guard let result = try? HeadParser.parse(head[...], fieldLimit: 8) else { return false }
        // What is taken has one meaning: one host, one framing, a target without a hidden line.
        try expect(!result.target.utf8.contains { $0 <= 32 || $0 == 127 }, "a target with a control character", head)
        try expect(result.fields.count <= 8, "too many fields", head)
        if case .length(let length) = result.framing { try expect(length >= 0, "a negative length", head) }
        try expect(
            HeadParser.endOfHead(head[...], searchFrom: 0) == head.count,
            "an empty line inside a head that was taken whole",
            head
        )
        for field in result.fields {
            try expect(!field.value.utf8.contains { $0 == 13 || $0 == 10 || $0 == 0 }, "a line break in a field", head)
        }
        _ = EntityTag.list(result.fields[.ifNoneMatch] ?? "", contains: "\"a\"")
        if let proxies {
            let address = ForwardedAddress.client(
                peer: "10.0.0.9",
                forwarded: HTTPField.Name("Forwarded").flatMap { result.fields[$0] },
                legacy: HTTPField.Name("X-Forwarded-For").flatMap { result.fields[$0] },
                proxies: proxies
            )
            try expect(NetworkAddress(address) != nil, "'\(address)' is no address", head)
        }
        guard
            let request = try? ServerRequest(
                method: result.method,
                rawTarget: result.target,
                headers: result.fields,
                body: MemoryBody([]),
                requestID: "r"
            )
        else { return false }
        for segment in request.pathSegments {
            try expect(
                segment != ".." && segment != "." && !segment.isEmpty
                    && !segment.utf8.contains { $0 < 32 || $0 == 47 },
                "the path segment \(segment.debugDescription)",
                head
            )
        }
        return true
    }

    private struct Decoded: Equatable {
        var bytes: [UInt8] = []
        var isDone = false
        var isRefused = false
    }

    private static func decode(_ parts: [[UInt8]]) -> Decoded {
        var decoder = BodyDecoder(.chunked)
        var result = Decoded()
        var buffer: [UInt8] = []
        for part in parts where !result.isRefused {
            buffer += part
            do throws(ParseFailure) {
                while true {
                    let bytes = try decoder.take(from: &buffer, limit: 7)
                    if bytes.isEmpty { break }
                    result.bytes += bytes
                }
            } catch { result.isRefused = true }
        }
        result.isDone = decoder.isDone
        return result
    }
}
