import Foundation
import HTTPServing
import Tensors
import Testing

/// Structured mutations of good requests.
///
/// `MARTLET_FUZZ_CASES` sets how many (20,000 without it); the seed is fixed.
struct ParserFuzzTests {
    static let caseCount = ProcessInfo.processInfo.environment["MARTLET_FUZZ_CASES"].flatMap { Int($0) } ?? 20_000

    private static let lines = [
        "GET / HTTP/1.1", "POST /v1/runs?x=%41 HTTP/1.1", "PUT http://a/b HTTP/1.1", "OPTIONS * HTTP/1.1", "Host: a",
        "Host: [::1]:80", "Content-Length: 5", "Content-Length: 18446744073709551616", "Transfer-Encoding: chunked",
        "Transfer-Encoding : chunked", "Connection: close, x", "Expect: 100-continue", "X-Request-Id: 7", " folded",
        "A:", ":",
        "Range: bytes=0-,5-", "If-None-Match: W/\"a\", \"", "Authorization: Bearer x", "",
    ]
    private static let chunks = [
        "5\r\nhello\r\n", "0\r\n\r\n", "A;x=1\r\n0123456789\r\n", "0\r\nT: x\r\n\r\n", "FFFFFFFFFFFFFF\r\n", "\r\n",
        "5\n", "-1\r\n",
    ]
    private static let fragments = [
        "\r", "\n", "\r\n", "\0", " ", "\t", ":", "%", "%2e", "..", "//", "é", "\u{7F}", ",", ";", "0", "\"",
    ]

    private static func build(_ generator: inout Xoshiro256StarStar) -> (head: [UInt8], body: [UInt8]) {
        var text = ""
        for index in 0...(1 + generator.nextIndex(below: 6)) {
            text += lines[generator.nextIndex(below: index == 0 ? 4 : lines.count)] + "\r\n"
        }
        var head = Array((text + "\r\n").utf8)
        var body: [UInt8] = []
        for _ in 0..<generator.nextIndex(below: 5) {
            body += Array(chunks[generator.nextIndex(below: chunks.count)].utf8)
        }
        for _ in 0..<generator.nextIndex(below: 4) {
            mutate(&head, &generator)
            if !body.isEmpty { mutate(&body, &generator) }
        }
        return (head, body)
    }

    private static func mutate(_ bytes: inout [UInt8], _ generator: inout Xoshiro256StarStar) {
        guard !bytes.isEmpty else { return }
        let place = generator.nextIndex(below: bytes.count)
        switch generator.nextIndex(below: 5) {
        case 0: bytes[place] = UInt8(truncatingIfNeeded: generator.next())
        case 1: bytes.remove(at: place)
        case 2: bytes.insert(contentsOf: Array(fragments[generator.nextIndex(below: fragments.count)].utf8), at: place)
        case 3: bytes.removeLast(generator.nextIndex(below: bytes.count))
        default:
            let end = min(bytes.count, place + 1 + generator.nextIndex(below: 20))
            bytes.insert(contentsOf: Array(bytes[place..<end]), at: place)
        }
    }

    @Test func headsAndBodiesAreReadTheSameHoweverTheyAreSplit() throws {
        var generator = Xoshiro256StarStar(seed: 8)
        var taken = 0
        for index in 0..<Self.caseCount {
            let (head, body) = Self.build(&generator)
            let parsed = Result { () throws(ParseFailure) in try HeadParser.parse(head[...], fieldLimit: 8) }
            if case .success(let result) = parsed {
                taken += 1
                // What is taken has one meaning: one host, one framing, a target without a hidden line.
                #expect(!result.target.utf8.contains { $0 <= 32 || $0 == 127 }, "case \(index)")
                #expect(result.fields.count <= 8)
                if case .length(let length) = result.framing { #expect(length >= 0) }
                if let request = try? ServerRequest(
                    method: result.method,
                    rawTarget: result.target,
                    headers: result.fields,
                    body: MemoryBody([]),
                    requestID: "r"
                ) {
                    #expect(
                        !request.pathSegments.contains { $0 == ".." || $0.contains("/") || $0.isEmpty },
                        "case \(index)"
                    )
                }
                let end = HeadParser.endOfHead(head[...], searchFrom: 0)
                #expect(end == head.count, "case \(index): an empty line inside a head that was taken whole")
            }
            let whole = Self.decode([body])
            let split = generator.nextIndex(below: body.count + 1)
            let parts = Self.decode([Array(body[..<split]), Array(body[split...])])
            #expect(whole == parts, "case \(index): split at \(split)")
            #expect(whole.bytes.count <= body.count)
        }
        #expect(taken > Self.caseCount / 100, "the mutations leave some requests whole: \(taken)")
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
