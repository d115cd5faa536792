import Coordination
import CoordinatorAPI
import Crypto
import Foundation
import HTTPServing
import HTTPTypes
import Logging
package import Tensors
import TestSupport

/// Resumable uploads against a model of them: a list of bytes, and whether the update has been accepted.
///
/// Each case is one request: right and wrong offsets, lengths, digests, media types, fields that are no numbers, parts of
/// good and of spoiled updates, whole ones, and bodies that end early. After each the server must say the model's offset.
package struct UploadTarget: FuzzTarget {
    package static let name = "uploads"
    package static let testCaseCount = 400
    private static let layout = ParameterLayout([.init(name: "w", shape: [2, 2])])

    private let directory: TemporaryDirectory
    private let router: Router
    private let enrollment: String
    private var client = ""
    private var url = ""
    private var file: [UInt8] = []
    private var arrived: [UInt8] = []
    private var isAccepted = false
    private var isOver = true
    private var steps = 0

    package init() async throws {
        directory = try TemporaryDirectory()
        let coordinator = try await Coordinator(
            configuration: CoordinatorConfiguration(dataDirectory: directory.path),
            store: InMemoryRunStore(),
            logger: Logger(label: "fuzz") { _ in SwiftLogNoOpLogHandler() }
        )
        let admin = try await coordinator.makeFirstAdminToken() ?? ""
        router = CoordinatorAPI(coordinator: coordinator, isOpen: false, makeInitialModel: { _ in nil }).router()
        _ = try await Self.json(router, "POST", "/v1/populations", admin, #"{"name":"p"}"#)
        let run =
            try await Self.json(
                router,
                "POST",
                "/v1/runs",
                admin,
                #"{"population":"p","rounds":1,"cohort":{"goal":1000000,"minimum":1,"selection_timeout_s":86400,"report_timeout_s":86400},"model":{"architecture":"external"}}"#
            )["id"] as? String ?? ""
        let model = Array(SafetensorsWriter.encode(ParameterVector(zeros: Self.layout)))
        _ = try await Self.call(router, "PUT", "/v1/runs/\(run)/model", admin, MemoryBody(model), [:])
        _ = try await Self.json(router, "POST", "/v1/runs/\(run)/start", admin, "{}")
        let issued = try await Self.json(
            router,
            "POST",
            "/v1/populations/p/enrollment-tokens",
            admin,
            #"{"max_uses":100000000}"#
        )
        enrollment = issued["token"] as? String ?? ""
    }

    package mutating func run(_ generator: inout Xoshiro256StarStar) async throws -> Bool {
        // Cases share a client for a while; any of them may be the first.
        if isOver || steps > 30 { try await begin(&generator) }
        steps += 1
        let before = arrived
        let isTaken: Bool
        switch generator.nextIndex(below: 12) {
        case 0: isTaken = try await put(&generator)
        case 1: isTaken = false
        default: isTaken = try await patch(&generator)
        }
        guard !isOver else { return isTaken }
        let state = try await Self.call(router, "HEAD", url, client, MemoryBody([]), [:])
        let offset = HTTPField.Name("Upload-Offset").flatMap { state.headers[$0] }
        let isComplete = HTTPField.Name("Upload-Complete").flatMap { state.headers[$0] } == "?1"
        try expect(state.status == 204 && isComplete == isAccepted, "HEAD says \(state.status) \(isComplete)", arrived)
        let expected = isAccepted ? file.count : arrived.count
        try expect(
            offset == String(expected),
            "the offset is \(offset ?? "-"), not \(expected); before this request it was \(before.count)",
            arrived
        )
        return isTaken
    }

    private mutating func begin(_ generator: inout Xoshiro256StarStar) async throws {
        client = try await Self.json(router, "POST", "/v1/clients", enrollment, "{}")["token"] as? String ?? ""
        let answer = try await Self.json(router, "POST", "/v1/checkins", client, "{}")
        url = (answer["assignment"] as? [String: Any])?["update_url"] as? String ?? ""
        try expect(!url.isEmpty, "no assignment: \(answer)", [])
        file = Array(
            SafetensorsWriter.encode(
                ParameterVector(layout: Self.layout, values: [1, 2, 3, generator.nextUniform()]),
                metadata: [
                    "num_examples": "3",
                    "base": Secrets.sha256(SafetensorsWriter.encode(ParameterVector(zeros: Self.layout))),
                ]
            )
        )
        if generator.oneIn(3) { file[generator.nextIndex(below: file.count)] ^= 0x80 }
        (arrived, isAccepted, isOver, steps) = ([], false, false, 0)
    }

    private mutating func put(_ generator: inout Xoshiro256StarStar) async throws -> Bool {
        var body = file
        if generator.oneIn(2) { body.removeLast(generator.nextIndex(below: body.count)) }
        var fields = ["Content-Type": "application/vnd.safetensors"]
        let isDigestWrong = generator.oneIn(4)
        fields["Content-Digest"] = Self.digest(isDigestWrong ? body + [0] : body)
        let answer = try await Self.call(router, "PUT", url, client, MemoryBody(body), fields)
        return try conclude(answer, body, isDigestWrong: isDigestWrong)
    }

    private mutating func patch(_ generator: inout Xoshiro256StarStar) async throws -> Bool {
        let start = generator.oneIn(5) ? generator.nextIndex(below: file.count + 40) : arrived.count
        let end = min(file.count, start + generator.nextIndex(below: file.count + 1))
        var part = start < end ? Array(file[start..<end]) : []
        if generator.oneIn(15) { part += [UInt8](repeating: 7, count: generator.nextIndex(below: 200_000)) }
        let reachesEnd = start + part.count >= file.count
        let isLast = reachesEnd != generator.oneIn(10)
        var fields = ["Content-Type": "application/partial-upload", "Upload-Complete": isLast ? "?1" : "?0"]
        fields["Upload-Offset"] = String(start)
        // Fields that are wrong in themselves change nothing.
        let isOdd = generator.oneIn(10)
        if isOdd {
            let (name, value) = generator.pick([
                ("Upload-Offset", "-1"), ("Upload-Offset", "+1"), ("Upload-Offset", "0x10"),
                ("Upload-Offset", "9223372036854775808"), ("Upload-Complete", "1"), ("Upload-Complete", "?2"),
                ("Content-Digest", "sha-256=x"), ("Content-Type", "text/plain"), ("Repr-Digest", "sha-256=:AA==:"),
            ])
            fields[name] = value
        }
        let isDigestWrong = !isOdd && generator.oneIn(8)
        if !isOdd && (isDigestWrong || generator.oneIn(2)) {
            fields["Content-Digest"] = Self.digest(isDigestWrong ? part + [1] : part)
        }
        let whole = Array(arrived.prefix(start)) + part
        if !isOdd && isLast { fields["Repr-Digest"] = Self.digest(whole) }
        let isCut = !isOdd && generator.oneIn(6)
        let sent = isCut ? part.count / 2 : part.count
        let body: any RequestBody =
            isCut ? CutBody(Array(part[..<sent]), contentLength: part.count) : MemoryBody(part)
        let answer = try await Self.call(router, "PATCH", url, client, body, fields)
        let input = Array("\(fields) start \(start) part \(part.count) cut \(isCut)".utf8)
        try expect(answer.status < 500, "answers \(answer.status)", input)
        guard !isOdd else {
            try expect(
                !(200...299).contains(answer.status) || isAccepted,
                "an odd field is taken: \(answer.status)",
                input
            )
            return false
        }
        guard !isAccepted else { return try conclude(answer, isLast ? whole : [], isDigestWrong: false) }
        guard start == arrived.count else {
            try expect((400...499).contains(answer.status), "a wrong offset is answered \(answer.status)", input)
            return false
        }
        if answer.status == 413 {
            // Declared too long: nothing was read. Found too long: it cannot become an update any more.
            if isCut || start + part.count > file.count { arrived = try await self.offset() == 0 ? [] : arrived }
            return false
        }
        if isCut {
            try expect(answer.status == 400, "a cut body is answered \(answer.status)", input)
            arrived += part[..<sent]
            return false
        }
        if isDigestWrong {
            try expect(
                answer.status == 400 || answer.status == 422,
                "a wrong digest is answered \(answer.status)",
                input
            )
            return false
        }
        if isLast { return try conclude(answer, whole, isDigestWrong: false) }
        try expect(answer.status == 204, "a part is answered \(answer.status)", input)
        arrived = whole
        return true
    }

    /// What follows from the answer to a complete body.
    private mutating func conclude(_ answer: ServerResponse, _ body: [UInt8], isDigestWrong: Bool) throws -> Bool {
        try expect(answer.status < 500, "answers \(answer.status)", body)
        if isAccepted {
            try expect((answer.status == 200) == (body == file && !isDigestWrong), "again: \(answer.status)", body)
            return answer.status == 200
        }
        if answer.status == 200 {
            try expect(body == file && !isDigestWrong, "another body than the file is accepted", body)
            isAccepted = true
            return true
        }
        // A refused update ends its assignment, unless only its digest was wrong.
        if answer.status == 422 && !isDigestWrong { isOver = true } else if answer.status == 410 { isOver = true }
        return false
    }

    private func offset() async throws -> Int? {
        let state = try await Self.call(router, "HEAD", url, client, MemoryBody([]), [:])
        return HTTPField.Name("Upload-Offset").flatMap { state.headers[$0] }.flatMap { Int($0) }
    }

    // MARK: - Calls

    private static func digest(_ bytes: [UInt8]) -> String {
        "sha-256=:\(Data(SHA256.hash(data: bytes)).base64EncodedString()):"
    }

    private static func call(
        _ router: Router,
        _ method: String,
        _ target: String,
        _ token: String,
        _ body: any RequestBody,
        _ fields: [String: String]
    ) async throws -> ServerResponse {
        var headers: HTTPFields = [.authorization: "Bearer \(token)"]
        for (name, value) in fields {
            guard let name = HTTPField.Name(name) else { continue }
            headers[name] = value
        }
        return await router.handle(
            try ServerRequest(method: method, rawTarget: target, headers: headers, body: body, requestID: "fuzz")
        )
    }

    private static func json(
        _ router: Router,
        _ method: String,
        _ target: String,
        _ token: String,
        _ body: String
    ) async throws -> [String: Any] {
        let answer = try await call(router, method, target, token, MemoryBody(Array(body.utf8)), [:])
        guard case .bytes(let bytes) = answer.body else { return [:] }
        return try JSONSerialization.jsonObject(with: Data(bytes)) as? [String: Any] ?? [:]
    }
}

/// A body that ends before its announced length, as a lost connection ends it.
private struct CutBody: RequestBody {
    private actor Remaining {
        var bytes: [UInt8]?
        init(_ bytes: [UInt8]) { self.bytes = bytes }
        func take() throws -> [UInt8] {
            guard let result = bytes, !result.isEmpty else { throw ConnectionError.closedByPeer }
            bytes = nil
            return result
        }
    }

    private let remaining: Remaining
    let contentLength: Int?

    init(_ bytes: [UInt8], contentLength: Int) {
        remaining = Remaining(bytes)
        self.contentLength = contentLength
    }

    func read() async throws -> [UInt8]? { try await remaining.take() }
}
