import Crypto
import Foundation
import MartletClient
import StrictJSON
import Tensors

/// A server that begins with an honest one's answers and changes some of them.
///
/// Stands where libcurl would: what the client asks for, with which fields and to which file, is noted and judged.
final class HostileAnswers: Transport, @unchecked Sendable {
    // SAFETY: everything that changes is behind the lock.
    private let lock = NSLock()
    private var generator: Xoshiro256StarStar
    private let honest: HonestServer
    private let state: String
    /// Answers that are changed, by the number of the request.
    private let changed: Set<Int>
    /// Whether bodies that are too long are cut off, as libcurl's callbacks do: an app's own transport may not.
    private let enforcesLimit: Bool
    private(set) var requestCount = 0
    private(set) var changedAnything = false
    /// What must not be, said once.
    private(set) var finding: String?
    private(set) var taken = 0
    static let origin = "http://server.test:8080"

    init(_ honest: HonestServer, state: String, _ generator: inout Xoshiro256StarStar) {
        self.honest = honest
        self.state = state
        enforcesLimit = !generator.oneIn(4)
        // The first requests of a participation: registration, check-in, files, upload.
        changed = Set((0..<(1 + generator.nextIndex(below: 2))).map { _ in generator.nextIndex(below: 7) })
        self.generator = Xoshiro256StarStar(seed: generator.next())
    }

    func send(_ request: TransportRequest) async throws -> TransportResponse {
        try answer(request)
    }

    private func answer(_ request: TransportRequest) throws -> TransportResponse {
        lock.lock()
        defer { lock.unlock() }
        judge(request)
        let number = requestCount
        requestCount += 1
        guard requestCount < 300 else {
            finding = finding ?? "the client does not stop asking"
            throw ClientError(code: "not_registered", message: "enough")
        }
        var (status, headers, body) = honestAnswer(request)
        // A file's name; what is changed afterwards claims to be that file.
        if request.fileSHA256 != nil, status == 200 {
            headers["etag"] = "\"\(SHA256.hash(data: body).map { String(format: "%02x", $0) }.joined())\""
        }
        if changed.contains(number) {
            changedAnything = true
            try change(&status, &headers, &body)
        }
        guard let destination = request.destination, status == 200 || status == 206 else {
            if enforcesLimit && body.count > request.byteLimit { throw tooLong(request) }
            return TransportResponse(status: status, headers: headers, body: Data(body))
        }
        let isTooLong = enforcesLimit && body.count > request.byteLimit
        try Data(isTooLong ? body.prefix(request.byteLimit) : body[...]).write(to: URL(fileURLWithPath: destination))
        if isTooLong { throw tooLong(request) }
        return TransportResponse(status: status, headers: headers)
    }

    private func tooLong(_ request: TransportRequest) -> ClientError {
        ClientError(code: "server_invalid", message: "the answer of \(request.url) is longer than it may be")
    }

    // MARK: - What the client may ask for

    private func judge(_ request: TransportRequest) {
        func claim(_ isTrue: Bool, _ what: String) { if !isTrue { finding = finding ?? what } }
        let path = request.url.dropFirst(Self.origin.count)
        claim(request.url.hasPrefix(Self.origin + "/"), "a request goes to \(request.url)")
        claim(
            !path.hasPrefix("//") && !path.contains("/../") && !path.lowercased().contains("%2e%2e"),
            "climbs: \(path)"
        )
        claim(request.url.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7F && $0 != UInt8(ascii: "#") }, "odd URL: \(path)")
        for (name, value) in request.headers {
            claim((name + value).utf8.allSatisfy { $0 >= 0x20 && $0 != 0x7F }, "field \(name) can end a head")
        }
        claim(request.timeoutSeconds <= 600, "waits \(request.timeoutSeconds) s for an answer")
        if let destination = request.destination {
            claim(destination.hasPrefix(state + "/models/") && !destination.contains("/../"), "writes \(destination)")
            claim(request.byteLimit <= HostileServerTarget.modelByteLimit, "takes \(request.byteLimit) bytes")
        } else {
            claim(request.byteLimit <= 4 << 20, "takes \(request.byteLimit) bytes into memory")
        }
    }

    // MARK: - Honest answers

    private func honestAnswer(_ request: TransportRequest) -> (Int, [String: String], [UInt8]) {
        let path = String(request.url.dropFirst(Self.origin.count))
        switch (request.method, path) {
        case ("POST", "/v1/clients"): return (201, [:], HonestServer.registration.compactText)
        case ("POST", "/v1/checkins"):
            taken += 1
            return taken == 1 ? (201, [:], honest.checkIn.compactText) : (200, [:], HonestServer.away.compactText)
        case ("GET", _) where honest.files[path] != nil: return (200, [:], honest.files[path] ?? [])
        case ("GET", _) where path.hasPrefix("/v1/assignments/"): return (200, [:], honest.assignment.compactText)
        case ("POST", _) where path.hasSuffix("/heartbeat"): return (200, [:], HonestServer.heartbeat.compactText)
        case ("POST", _) where path.hasSuffix("/failure"): return (204, [:], [])
        case ("PUT", _):
            guard case .file(let path, _) = request.body, let file = FileManager.default.contents(atPath: path) else {
                return (422, [:], HonestServer.problem.compactText)
            }
            let receipt = JSONValue.object([
                "assignment": .string("asg_1"), "state": .string("accepted"),
                "sha256": .string(HonestServer.hash(Array(file))), "bytes": .integer(file.count),
            ])
            return (200, [:], receipt.compactText)
        default: return (404, [:], HonestServer.problem.compactText)
        }
    }

    // MARK: - Hostile ones

    private func change(_ status: inout Int, _ headers: inout [String: String], _ body: inout [UInt8]) throws {
        switch generator.nextIndex(below: 16) {
        case 0:
            status = generator.pick([
                100, 204, 206, 301, 302, 307, 401, 403, 404, 408, 409, 410, 413, 416, 422, 429, 500, 503,
            ])
        case 1: body = (generator.oneIn(2) ? HonestServer.problem : HonestServer.away).compactText
        case 2: body = []
        case 3: body += [UInt8](repeating: UInt8(ascii: " "), count: generator.pick([1, 1000, 100_000, 5 << 20]))
        case 4: throw ClientError(code: "network", message: "no answer")
        case 5, 6:
            for _ in 0...generator.nextIndex(below: 4) { generator.damage(&body, with: Self.fragments) }
        default:
            guard var document = try? JSONValue(parsing: body) else {
                // A file of tensors.
                generator.damage(&body, with: Self.fragments)
                break
            }
            for _ in 0...generator.nextIndex(below: 3) { Self.change(&document, &generator) }
            body = document.compactText
        }
        for _ in 0..<generator.nextIndex(below: 3) {
            headers[generator.pick(Self.fieldNames)] = generator.pick(Self.fieldValues)
        }
    }

    private static let fieldNames = [
        "retry-after", "content-digest", "repr-digest", "content-range", "upload-offset", "upload-complete", "location",
        "content-type", "content-length", "etag", "content-encoding",
    ]
    private static let fieldValues = [
        "", "1e300", "-1", "nan", "inf", "18446744073709551616", "99999999999999999", "bytes 0-1/2", "bytes */0",
        "bytes */-9",
        "sha-256=:AAAA:", "sha-256=:\(String(repeating: "A", count: 43))=:", "http://evil.test/x", "//evil.test/x",
        "Wed, 21 Oct 2026 07:28:00 GMT", "\u{1B}[2J", "gzip", "0", "7",
    ]
    private static let fragments: [[UInt8]] = [
        "\"", "{", "}", "[", "]", ",", ":", "null", "1e999", "-0", "\\u0000", "\u{1B}[2J", "../", "%2e%2e/", "\u{202E}",
        "\"sha256\":\"../../x\",", "\0",
    ].map { Array($0.utf8) }

    /// What a hostile server might put anywhere.
    private static let hostile: [JSONValue] = [
        .null, .boolean(true), .integer(0), .integer(1), .integer(-1), .integer(65_536), .integer(2_147_483_648),
        .integer(9_007_199_254_740_991), .number(1e300), .number(-1e300), .number(0x1p62), .number(0.5),
        .number(1e-300),
        .number(5e-324), .string(""), .string("../../canary"), .string("../state/models/x"), .string("/etc/passwd"),
        .string("../../../../../../../../tmp/martlet-fuzz-escape"), .string("..%2f..%2fcanary"), .string("a\u{0}b"),
        .string("@127.0.0.1:1/steal"), .string("//evil.test/x"), .string(".evil.test/x"), .string("http://evil.test/"),
        .string("/a/../../b"), .string("/a\r\nX: y"), .string("x/../../../evil?a=b#"),
        .string("\u{1B}]0;PWNED\u{07}\u{1B}[2J"),
        .string("\u{202E}\u{9B}31m"), .string("f16"), .string("int8"), .string("f32"), .string("topk"),
        .string("local"),
        .string("central"), .string("none"), .string("adaptive"), .string("evaluate"), .string("train"),
        .string("analyze"),
        .string("scaffold"), .string("gradient"), .string("triehh"), .string("decoder"), .string("tabular"),
        .string("external"), .string("bpe"), .string("word"), .string("participation_limit"),
        .string(String(repeating: "0", count: 64)), .string(String(repeating: "a", count: 70_000)), .array([]),
        .object([:]),
        .array([.number(0x1p62), .integer(4)]), .array([.integer(3_037_000_500), .integer(3_037_000_500)]),
        .object(["url": .string("//evil.test/"), "sha256": .string("../x")]),
        .array(Array(repeating: .object(["name": .string("w"), "shape": .array([.integer(1)])]), count: 3)),
        .object(["min_s": .number(1e300), "max_s": .number(1e300)]),
    ]

    /// Changes one place of a tree.
    private static func change(_ value: inout JSONValue, _ generator: inout Xoshiro256StarStar) {
        switch value {
        case .object(var fields) where !fields.isEmpty && !generator.oneIn(12):
            let name = generator.pick(fields.keys.sorted())
            switch generator.nextIndex(below: 12) {
            case 0: fields[name] = nil
            case 1:
                fields[generator.pick(["encoding", "base", "control", "release", "future", "stream"])] = generator.pick(
                    hostile
                )
            case 2:
                let other = generator.pick(fields.keys.sorted())
                (fields[name], fields[other]) = (fields[other], fields[name])
            default:
                if var item = fields[name] {
                    change(&item, &generator)
                    fields[name] = item
                }
            }
            value = .object(fields)
        case .array(var items) where !items.isEmpty && !generator.oneIn(4):
            let place = generator.nextIndex(below: items.count)
            switch generator.nextIndex(below: 6) {
            case 0: items.remove(at: place)
            case 1: items.append(items[place])
            default: change(&items[place], &generator)
            }
            value = .array(items)
        case .integer(let number) where generator.oneIn(3):
            value = .integer(generator.oneIn(2) ? number &+ 1 : number &* 1000)
        case .number(let number) where generator.oneIn(3): value = .number(number * 1e6)
        case .string(let text) where generator.oneIn(3):
            value = .string(
                generator.oneIn(2) ? text + generator.pick(["x", "/../x", "\u{0}", "%2e%2e", "#"]) : text.uppercased()
            )
        default: value = generator.pick(hostile)
        }
    }
}
