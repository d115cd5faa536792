import HTTPServing
import HTTPTypes
import Testing

/// Requests that two readers could understand differently, by RFC 9112; each has one answer.
struct SmugglingTests {
    struct Case: Sendable, CustomTestStringConvertible {
        var name: String
        var head: String
        /// The refusal's status, or `nil` where the request is taken.
        var status: Int?
        var testDescription: String { name }
        init(_ name: String, _ head: String, _ status: Int?) {
            self.name = name
            self.head = head
            self.status = status
        }
    }

    private static func post(_ fields: String) -> String { "POST /x HTTP/1.1\r\nHost: a\r\n\(fields)\r\n" }

    static let cases: [Case] = [
        .init("two equal lengths", post("Content-Length: 3\r\nContent-Length: 3\r\n"), 400),
        .init("two different lengths", post("Content-Length: 3\r\nContent-Length: 4\r\n"), 400),
        .init("a list of lengths", post("Content-Length: 3, 3\r\n"), 400),
        .init("a signed length", post("Content-Length: +3\r\n"), 400),
        .init("a negative length", post("Content-Length: -3\r\n"), 400),
        .init("a hexadecimal length", post("Content-Length: 0x3\r\n"), 400),
        .init("an empty length", post("Content-Length: \r\n"), 400),
        .init("a length with a space inside", post("Content-Length: 1 2\r\n"), 400),
        .init("a length beyond 64 bits", post("Content-Length: 18446744073709551617\r\n"), 400),
        .init("a length in other digits", post("Content-Length: ３\r\n"), 400),
        .init("a length of 0", post("Content-Length: 0\r\n"), nil),
        .init("length and chunks", post("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"), 400),
        .init("chunks and length", post("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n"), 400),
        .init("chunks twice", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), 501),
        .init("chunks in a list", post("Transfer-Encoding: chunked, chunked\r\n"), 501),
        .init("chunked not last", post("Transfer-Encoding: chunked, identity\r\n"), 501),
        .init("an unknown coding", post("Transfer-Encoding: xchunked\r\n"), 501),
        .init("a coding behind a vertical tab", post("Transfer-Encoding: \u{B}chunked\r\n"), 400),
        .init("a space before the colon", post("Transfer-Encoding : chunked\r\n"), 400),
        .init("a tab before the colon", post("Content-Length\t: 3\r\n"), 400),
        .init("a folded field", post("X: a\r\n b\r\n"), 400),
        .init("a folded first field", "POST /x HTTP/1.1\r\n Host: a\r\n\r\n", 400),
        .init("a bare LF after the request line", "GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
        .init("a bare LF after a field", "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400),
        .init("a bare CR in a value", post("X: a\rContent-Length: 3\r\n"), 400),
        .init("a NUL in a value", post("X: a\0b\r\n"), 400),
        .init("a field without a name", post(": a\r\n"), 400),
        .init("a field without a colon", post("Content-Length 3\r\n"), 400),
        .init("a name with a slash", post("Content/Length: 3\r\n"), 400),
        .init("no host", "GET / HTTP/1.1\r\n\r\n", 400),
        .init("two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        .init("a host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        .init("a host with a user", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
        .init("a list of hosts", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
        .init("an IPv6 host with a port", "GET / HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n", nil),
        .init("no version", "GET /\r\nHost: a\r\n\r\n", 400),
        .init("two spaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        .init("a tab instead of a space", "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        .init("a space at the end", "GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
        .init("version 1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
        .init("version 2", "PRI * HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        .init("a version in small letters", "GET / http/1.1\r\nHost: a\r\n\r\n", 505),
        .init("an unknown method, which no route takes", "BREW / HTTP/1.1\r\nHost: a\r\n\r\n", nil),
        .init("a method in small letters, which no route takes", "get / HTTP/1.1\r\nHost: a\r\n\r\n", nil),
        .init("a method with a slash", "GE/T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        .init("a tunnel", "CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        .init("a trace, which no route takes", "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", nil),
        .init("chunks in HTTP/1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        .init("an 8-bit target", "GET /ä HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ]

    @Test(arguments: cases)
    func everyAmbiguityHasOneAnswer(_ item: Case) {
        do throws(ParseFailure) {
            _ = try HeadParser.parse(Array(item.head.utf8)[...], fieldLimit: 100)
            #expect(item.status == nil, "\(item.name) was taken")
        } catch {
            #expect(error.status == item.status, "\(item.name): \(error.status)")
        }
    }

    @Test(arguments: [
        ("chunk size beyond 64 bits", "10000000000000005\r\nhello\r\n"),
        ("a small size in 17 digits", "00000000000000005\r\nhello\r\n"),
        ("negative size", "-5\r\nhello\r\n"),
        ("prefixed size", "0x5\r\nhello\r\n"), ("space before the size", " 5\r\nhello\r\n"),
        ("space after the size", "5 \r\nhello\r\n"), ("underscore", "1_0\r\n"), ("bare LF", "5\nhello\r\n"),
        ("CR inside an extension", "5;a\rb\r\nhello\r\n"), ("too much data", "5\r\nhelloo\r\n"),
        ("two other bytes after data", "5\r\nhelloXX0\r\n\r\n"), ("LF CR after data", "5\r\nhello\n\r0\r\n\r\n"),
        ("bare LF after an extension", "5;x\nhello\r\n0\r\n\r\n"), ("bare LF after a trailer", "0\r\nA: bc\n\r\n"),
        ("no CR LF after data", "5\r\nhello5\r\n"), ("endless extension", "5;" + String(repeating: "a", count: 2000)),
        ("trailer without a colon", "0\r\nGET / HTTP/1.1\r\n\r\n"), ("folded trailer", "0\r\nA: b\r\n c\r\n\r\n"),
        ("CR inside a trailer", "0\r\nA: b\rc\r\n\r\n"),
        ("endless trailers", "0\r\n" + String(repeating: "A: b\r\n", count: 3000)),
    ])
    func badChunksAreRefused(name: String, text: String) {
        #expect(throws: ParseFailure.self, "\(name)") {
            var decoder = BodyDecoder(.chunked)
            var buffer = Array(text.utf8)
            while !(try decoder.take(from: &buffer, limit: 100).isEmpty) {}
        }
    }

    /// The answer names what is wrong, and not what stands beside it.
    @Test(arguments: [
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.0 has no Transfer-Encoding"),
        (post("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"), "Transfer-Encoding and Content-Length together"),
    ])
    func refusedFramingsSayWhy(head: String, detail: String) {
        let error = #expect(throws: ParseFailure.self) {
            try HeadParser.parse(Array(head.utf8)[...], fieldLimit: 100)
        }
        #expect(error?.detail.hasPrefix(detail) == true, "\(error?.detail ?? "")")
    }

    @Test(arguments: [
        ("5\nhello\r\n", "a chunk line does not end with CR LF"),
        ("5;" + String(repeating: "a", count: 2000), "a chunk line is over 1024 bytes"),
        ("0\r\nA: bc\n\r\n", "a trailer line does not end with CR LF"),
        ("0\r\nA: " + String(repeating: "b", count: 2000), "a trailer line is over 1024 bytes"),
        ("0\r\nGET / HTTP/1.1\r\n\r\n", "a trailer line is malformed"),
        ("0\r\n" + String(repeating: "A: b\r\n", count: 3000), "the trailers are over 8192 bytes"),
    ])
    func refusedBodiesSayWhichLineIsWrong(text: String, detail: String) {
        let error = #expect(throws: ParseFailure.self) {
            var decoder = BodyDecoder(.chunked)
            var buffer = Array(text.utf8)
            while !(try decoder.take(from: &buffer, limit: 100).isEmpty) {}
        }
        #expect(error?.detail == detail)
    }

    @Test func targetsInAllFormsAreRead() throws {
        func path(_ target: String) throws(ParseFailure) -> String {
            try ServerRequest(method: "GET", rawTarget: target, headers: [:], body: MemoryBody([]), requestID: "r").path
        }
        for (target, expected) in [
            ("/v1/runs", "/v1/runs"), ("http://a/v1/runs", "/v1/runs"), ("HTTPS://a:1/v1?x=1", "/v1"),
            ("http://a", "/"),
            ("http://a?x=1", "/"), ("/v1/runs/", "/v1/runs"), ("/a%2Eb", "/a.b"), ("/%E2%82%AC", "/€"),
        ] {
            #expect(try path(target) == expected, "\(target)")
        }
        for target in [
            "v1", "http:///v1", "http://u@a/v1", "ftp://a/v1", "/v1//runs", "//v1", "/v1/../etc", "/v1/%2e%2e/etc",
            "/v1/%2E/x", "/v1/a%2fb", "/v1/%00", "/v1/%c0%af", "/v1/%e0%80%af", "/%", "/%4", "/%zz", "/v1#x",
            "/?a=1&a=2",
            "/?a=%ff", "/v1/a%0d%0ab", "/v1/a%7f", "/v1/a%c2%9b2J",
        ] {
            #expect(throws: ParseFailure.self, "\(target)") { try path(target) }
        }
    }

    @Test func connectionOptionsAreWholeWords() throws {
        func keepAlive(_ version: String, _ option: String) throws -> Bool {
            let head = "GET / HTTP/\(version)\r\nHost: a\r\nConnection: \(option)\r\n\r\n"
            return try HeadParser.parse(Array(head.utf8)[...], fieldLimit: 10).keepAlive
        }
        #expect(try keepAlive("1.1", "x-closed") && !keepAlive("1.1", "foo, Close"))
        #expect(try keepAlive("1.0", "Keep-Alive") && !keepAlive("1.0", "not-keep-alive"))
    }
}
