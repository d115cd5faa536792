import HTTPServing
import HTTPTypes
import Tensors
import Testing

struct ParserTests {
    private func parse(_ text: String) throws(ParseFailure) -> RequestHead {
        try HeadParser.parse(Array(text.utf8)[...], fieldLimit: 10)
    }

    @Test func anOrdinaryHeadIsRead() throws {
        let head = try parse(
            "PUT /a?b=c HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\nX-A:  b \r\nExpect: 100-continue\r\n\r\n"
        )
        #expect(head.method == "PUT" && head.target == "/a?b=c")
        #expect(head.framing == .length(12) && head.keepAlive && head.expectsContinue)
    }

    @Test(arguments: [
        ("GET / HTTP/1.1\r\n\r\n", 400), ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("GET / HTTP/1.1\nHost: a\r\n\r\n", 400), ("GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400), ("GET /  HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", 400), ("GET / HTTP/1.1\r\nHost: a\0\r\n\r\n", 400),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505), ("g(t / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        ("POST / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n", 417),
        (
            "GET / HTTP/1.1\r\nHost: a\r\n1: b\r\n2: b\r\n3: b\r\n4: b\r\n5: b\r\n6: b\r\n7: b\r\n8: b\r\n9: b\r\na: b\r\n\r\n",
            431
        ),
    ])
    func ambiguousHeadsAreRefused(text: String, status: Int) {
        do {
            _ = try parse(text)
            Issue.record("accepted")
        } catch {
            #expect(error.status == status)
        }
    }

    @Test func chunkedBodiesDecodeAtEverySplit() throws {
        let text = Array("5;ext=1\r\nhello\r\nA\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\nNEXT".utf8)
        for split in 0...text.count {
            var decoder = BodyDecoder(.chunked)
            var buffer: [UInt8] = []
            var body: [UInt8] = []
            for part in [text[..<split], text[split...]] {
                buffer += part
                while true {
                    let bytes = try decoder.take(from: &buffer, limit: 4)
                    if bytes.isEmpty { break }
                    body += bytes
                }
            }
            #expect(decoder.isDone && String(decoding: body, as: UTF8.self) == "hello0123456789")
            #expect(String(decoding: buffer, as: UTF8.self) == "NEXT")
        }
    }

    /// Chunks of one byte are gathered: the handler is woken as often as for one chunk.
    @Test func smallChunksAreGathered() throws {
        var decoder = BodyDecoder(.chunked)
        var buffer = Array((String(repeating: "1\r\na\r\n", count: 5000) + "0\r\n\r\nNEXT").utf8)
        #expect(try decoder.take(from: &buffer, limit: 4000).count == 4000)
        #expect(try decoder.take(from: &buffer, limit: 4000).count == 1000)
        #expect(decoder.isDone && String(decoding: buffer, as: UTF8.self) == "NEXT")
    }

    @Test(arguments: [
        "x\r\n", "-1\r\n", "+5\r\nhello\r\n", "5\r\nhelloX\r\n", "5\nhello", "FFFFFFFFFFFFFFFFF\r\n", "\r\n",
    ])
    func badChunksAreRefused(text: String) {
        #expect(throws: ParseFailure.self) {
            var decoder = BodyDecoder(.chunked)
            var buffer = Array(text.utf8)
            while !(try decoder.take(from: &buffer, limit: 100).isEmpty) {}
        }
    }

    @Test func randomBytesNeverTrap() {
        var generator = Xoshiro256StarStar(seed: 11)
        let seeds = [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        ]
        for _ in 0..<20_000 {
            var bytes = Array(seeds[generator.nextIndex(below: 2)].utf8)
            for _ in 0...generator.nextIndex(below: 4) {
                bytes[generator.nextIndex(below: bytes.count)] = UInt8(truncatingIfNeeded: generator.next())
            }
            _ = try? HeadParser.parse(bytes[...], fieldLimit: 10)
            var decoder = BodyDecoder(.chunked)
            while let taken = try? decoder.take(from: &bytes, limit: 16), !taken.isEmpty {}
        }
    }

    @Test func targetsAreDecodedAndTraversalIsRefused() throws {
        func request(_ target: String) throws(ParseFailure) -> ServerRequest {
            try ServerRequest(method: "GET", rawTarget: target, headers: [:], body: MemoryBody([]), requestID: "r")
        }
        #expect(try request("/v1/a%20b?x=1%262&y").pathSegments == ["v1", "a b"])
        #expect(try request("/v1/a?x=1%262&y").query == ["x": "1&2", "y": ""])
        // Plain paths are read without decoding; a query sends the same path the long way.
        for target in ["/", "/a", "/a/", "/v1/runs/run_0-Z", "/healthz"] {
            #expect(try request(target).pathSegments == request(target + "?").pathSegments)
        }
        for target in [
            "//", "/a//", "/a//b", "/..", "/a/./b", "/../x", "/a/%2e%2e/x", "/a%2fb", "/%zz", "/%ff", "x", "/a%00",
        ] {
            #expect(throws: ParseFailure.self, "\(target)") { try request(target) }
        }
    }
}
