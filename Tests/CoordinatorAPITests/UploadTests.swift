import Coordination
import Crypto
import Foundation
import HTTPServing
import HTTPTypes
import Synchronization
import Tensors
import TestBenches
import TestSupport
import Testing

/// A body that comes in pieces, and may end early as a lost connection does.
private struct PiecedBody: RequestBody {
    private final class Pieces: Sendable {
        let left: Mutex<[[UInt8]]>
        let reads = Mutex(0)
        init(_ pieces: [[UInt8]]) { left = Mutex(pieces) }
    }

    private let pieces: Pieces
    let contentLength: Int?
    private let isCut: Bool

    init(_ pieces: [[UInt8]], contentLength: Int?, isCut: Bool = false) {
        self.pieces = Pieces(pieces)
        self.contentLength = contentLength
        self.isCut = isCut
    }

    /// How often somebody asked for bytes.
    var readCount: Int { pieces.reads.withLock { $0 } }

    func read() async throws -> [UInt8]? {
        pieces.reads.withLock { $0 += 1 }
        let next = pieces.left.withLock { $0.isEmpty ? nil : $0.removeFirst() }
        if next == nil && isCut { throw ConnectionError.closedByPeer }
        return next
    }
}

/// A body whose next piece comes when the test says so.
private struct HeldBody: RequestBody {
    let contentLength: Int?
    let stream: AsyncStream<[UInt8]>
    let continuation: AsyncStream<[UInt8]>.Continuation
    /// Is told when the handler has come to reading.
    let began = AsyncStream<Void>.makeStream()

    init(contentLength: Int) {
        self.contentLength = contentLength
        (stream, continuation) = AsyncStream.makeStream()
    }

    func read() async throws -> [UInt8]? {
        began.continuation.yield()
        for await piece in stream { return piece }
        return nil
    }

    func waitUntilRead() async { for await _ in began.stream { return } }
}

@Suite(.timeLimit(.minutes(10)))
struct UploadTests {
    private static let file = Service.update([1, 2, 3, 4], ["num_examples": "3"])
    private static func digest(_ bytes: [UInt8]) -> String {
        "sha-256=:\(Data(SHA256.hash(data: bytes)).base64EncodedString()):"
    }

    private func spool(_ service: Service) -> [String] {
        service.coordinator.blobs.spoolNames().sorted()
    }

    private func part(_ offset: Int, isLast: Bool, whole: [UInt8]? = nil) -> [String: String] {
        var fields = [
            "Upload-Offset": "\(offset)", "Upload-Complete": isLast ? "?1" : "?0",
            "Content-Type": "application/partial-upload",
        ]
        if let whole { fields["Repr-Digest"] = Self.digest(whole) }
        return fields
    }

    private func offset(_ answer: Service.Answer) throws -> Int? {
        answer.headers[try #require(HTTPField.Name("Upload-Offset"))].flatMap { Int($0) }
    }

    private func isComplete(_ answer: Service.Answer) throws -> Bool {
        answer.headers[try #require(HTTPField.Name("Upload-Complete"))] == "?1"
    }

    // MARK: - Cuts

    @Test(arguments: [[0], [1], [7], [8], [100], [file.count - 1], [file.count], [3, 9, 64, 65]])
    func anUploadCutAtAnyByteGoesOn(_ cuts: [Int]) async throws {
        try await upload(cutAt: cuts)
    }

    @Test(.slow) func anUploadCutAtRandomBytesGoesOn() async throws {
        var generator = Xoshiro256StarStar(seed: 11)
        for _ in 0..<40 {
            let count = Int.random(in: 1...5, using: &generator)
            try await upload(
                cutAt: (0..<count).map { _ in Int.random(in: 0...Self.file.count, using: &generator) }.sorted()
            )
        }
    }

    private func upload(cutAt cuts: [Int]) async throws {
        var service = try await Service()
        let (run, token, assignment) = try await service.assigned()
        let url = try #require(assignment["update_url"] as? String)
        var sent = 0
        for (index, cut) in cuts.enumerated() {
            // Announced to the end, and lost on the way; in pieces, as a network makes them.
            let middle = sent + (cut - sent) / 2
            let body = PiecedBody(
                [Array(Self.file[sent..<middle]), Array(Self.file[middle..<cut])],
                contentLength: Self.file.count - sent,
                isCut: true
            )
            let lost = try await service.call("PATCH", url, token: token, body: body, part(sent, isLast: true))
            #expect(lost.status == 400 && lost.code == "connection_lost")
            // Every other time the server is another one, with the same data.
            if index % 2 == 1 { service = try await service.restarted() }
            let state = try await service.call("HEAD", url, token: token)
            #expect(state.status == 204 && state.headers[.cacheControl] == "no-store")
            #expect(try offset(state) == cut && !isComplete(state))
            sent = cut
        }
        let fields = part(sent, isLast: true, whole: Self.file)
        let done = try await service.call("PATCH", url, token: token, Array(Self.file[sent...]), fields)
        #expect(done.status == 200 && done.json["bytes"] as? Int == Self.file.count, "\(cuts): \(done.json)")
        #expect(spool(service) == [try #require(assignment["id"] as? String) + ".update"])
        let kept = try Data(
            contentsOf: URL(fileURLWithPath: service.directory.path + "/spool/\(spool(service)[0])")
        )
        #expect(Array(kept) == Self.file)
        let round = try await service.call("GET", "/v1/runs/\(run)/rounds/1", token: service.admin).json
        #expect(round["accepted"] as? Int == 1)
        let state = try await service.call("HEAD", url, token: token)
        #expect(try isComplete(state) && offset(state) == Self.file.count)
        #expect(state.headers[try #require(HTTPField.Name("Repr-Digest"))] == Self.digest(Self.file))
        // The answer to the last part was lost: the same again.
        #expect(try await service.call("PATCH", url, token: token, Array(Self.file[sent...]), fields).status == 200)
        let other = try await service.call("PATCH", url, token: token, [0], part(0, isLast: true, whole: [0]))
        #expect(other.status == 409 && other.code == "update_differs")
    }

    /// A file that cannot be looked at is not one that is not there: the client would begin anew, over what was acknowledged.
    @Test func anUploadWhoseSizeCannotBeReadIsNotAtZero() async throws {
        let service = try await Service()
        let (_, token, assignment) = try await service.assigned()
        let url = try #require(assignment["update_url"] as? String)
        let id = try #require(assignment["id"] as? String)
        let path = service.directory.path + "/spool/\(id).partial"
        try FileManager.default.createSymbolicLink(atPath: path, withDestinationPath: path)
        let state = try await service.call("HEAD", url, token: token)
        #expect(state.status == 503)
        let part = try await service.call(
            "PATCH",
            url,
            token: token,
            Array(Self.file),
            part(0, isLast: true, whole: Self.file)
        )
        #expect(part.status == 503 && part.code == "storage_failed", "\(part.json)")
        try FileManager.default.removeItem(atPath: path)
        #expect(try await service.call("HEAD", url, token: token).status == 204)
    }

    @Test func aStopWhileACompleteUploadIsJudgedLosesNothing() async throws {
        let service = try await Service()
        let (_, token, assignment) = try await service.assigned()
        let url = try #require(assignment["update_url"] as? String)
        let id = try #require(assignment["id"] as? String)
        // What a kill between the last byte and the receipt leaves.
        try Data(Self.file).write(to: URL(fileURLWithPath: service.directory.path + "/spool/\(id).judged"))
        try Data([1]).write(to: URL(fileURLWithPath: service.directory.path + "/spool/asg_gone.judged"))
        try Data([1]).write(to: URL(fileURLWithPath: service.directory.path + "/spool/asg_gone.partial"))
        let restarted = try await service.restarted()
        #expect(try spool(restarted) == ["\(id).partial"])
        let fields = part(Self.file.count, isLast: true, whole: Self.file)
        #expect(try await restarted.call("PATCH", url, token: token, [], fields).status == 200)
    }

    // MARK: - What is refused

    @Test func partsThatDoNotFitAreRefusedByCode() async throws {
        let service = try await Service()
        let (_, token, assignment) = try await service.assigned()
        let url = try #require(assignment["update_url"] as? String)
        let id = try #require(assignment["id"] as? String)
        let path = service.directory.path + "/spool/\(id).partial"
        func send(_ bytes: [UInt8], _ fields: [String: String]) async throws -> Service.Answer {
            try await service.call("PATCH", url, token: token, bytes, fields)
        }
        let first = try await send(Array(Self.file[..<50]), part(0, isLast: false))
        #expect(try first.status == 204 && offset(first) == 50 && !isComplete(first))
        for wrong in [0, 49, 51, 5_000] {
            let answer = try await send([1], part(wrong, isLast: false))
            #expect(try answer.status == 409 && answer.code == "offset_mismatch" && offset(answer) == 50)
        }
        for (name, value) in [
            ("Upload-Offset", "-1"), ("Upload-Offset", "x"), ("Upload-Offset", "+50"),
            ("Upload-Complete", "yes"), ("Repr-Digest", "sha-256=abc"),
        ] {
            let answer = try await send([1], part(50, isLast: false).merging([name: value]) { $1 })
            #expect(answer.status == 400, "\(name): \(value): \(answer.status)")
        }
        #expect(try await send([1], ["Upload-Complete": "?0"]).status == 400)
        #expect(
            try await send([1], part(50, isLast: false).merging(["Content-Type": "text/plain"]) { $1 }).status == 415
        )
        // A part with a wrong digest is forgotten; what came before it stays.
        let damaged = part(50, isLast: false).merging(["Content-Digest": Self.digest([9])]) { $1 }
        let refused = try await send(Array(Self.file[50..<80]), damaged)
        #expect(refused.status == 422 && refused.code == "digest_mismatch")
        #expect(try Data(contentsOf: URL(fileURLWithPath: path)) == Data(Self.file[..<50]))
        let right = part(50, isLast: false).merging(["Content-Digest": Self.digest(Array(Self.file[50..<80]))]) { $1 }
        #expect(try await offset(send(Array(Self.file[50..<80]), right)) == 80)
        // Nobody else sees or touches it.
        let enrollment = try #require(
            try await service.post("/v1/populations/p/enrollment-tokens", #"{"max_uses": 5}"#).json["token"] as? String
        )
        let stranger = try #require(try await service.post("/v1/clients", token: enrollment).json["token"] as? String)
        for method in ["HEAD", "PATCH", "PUT"] {
            let answer = try await service.call(method, url, token: stranger, Self.file, part(80, isLast: true))
            #expect(answer.status == 404)
            #expect(try await service.call(method, url, token: nil, Self.file, part(80, isLast: true)).status == 401)
        }
        #expect(try await offset(service.call("HEAD", url, token: token)) == 80)
        // A wrong digest of the whole begins anew, and the right bytes still count.
        let wrong = try await send(Array(Self.file[80...]), part(80, isLast: true, whole: [1]))
        #expect(wrong.status == 422 && wrong.code == "digest_mismatch")
        #expect(spool(service).isEmpty)
        #expect(try await offset(service.call("HEAD", url, token: token)) == 0)
        #expect(try await send(Self.file, part(0, isLast: true, whole: Self.file)).status == 200)
    }

    @Test func anUploadThatGrowsTooLargeIsRefusedAndForgotten() async throws {
        let service = try await Service()
        let (_, token, assignment) = try await service.assigned()
        let url = try #require(assignment["update_url"] as? String)
        let limit = try #require(HTTPField.Name("Upload-Limit"))
        let text = try await service.call("HEAD", url, token: token).headers[limit]
        let byteLimit = try #require(text.flatMap { Int($0.dropFirst("max-size=".count)) })
        // Announced: refused before the body.
        let announced = PiecedBody([[1]], contentLength: byteLimit + 1)
        for (method, fields) in [("PUT", [:]), ("PATCH", part(0, isLast: true))] {
            let answer = try await service.call(method, url, token: token, body: announced, fields)
            #expect(answer.status == 413 && answer.code == "too_large")
        }
        #expect(announced.readCount == 0)
        #expect(try await service.call("PATCH", url, token: token, [], part(byteLimit + 1, isLast: true)).status == 413)
        // Not announced: refused at the byte after the last one allowed.
        let block = [UInt8](repeating: 7, count: 1 << 20)
        let pieces = Array(repeating: block, count: byteLimit / block.count + 1)
        for (method, fields) in [("PUT", [:]), ("PATCH", part(0, isLast: true))] {
            let body = PiecedBody(pieces, contentLength: nil)
            let answer = try await service.call(method, url, token: token, body: body, fields)
            #expect(answer.status == 413 && answer.code == "too_large", "\(method): \(answer.status) \(answer.code)")
            #expect(spool(service).isEmpty)
        }
        #expect(try await service.call("PUT", url, token: token, Self.file).status == 200)
    }

    @Test func aTruncatedBodyLeavesNothingOfAPut() async throws {
        let service = try await Service()
        let (run, token, assignment) = try await service.assigned()
        let url = try #require(assignment["update_url"] as? String)
        for cut in [0, 1, 50, Self.file.count - 1] {
            let body = PiecedBody([Array(Self.file[..<cut])], contentLength: Self.file.count, isCut: true)
            #expect(try await service.call("PUT", url, token: token, body: body).code == "connection_lost")
            #expect(spool(service).isEmpty)
        }
        let round = try await service.call("GET", "/v1/runs/\(run)/rounds/1", token: service.admin).json
        #expect(round["accepted"] as? Int == 0 && round["rejected"] as? Int == 0)
        #expect(try await service.call("PUT", url, token: token, Self.file).status == 200)
    }

    @Test func completeUploadsInPartsAreJudgedLikeOthers() async throws {
        let service = try await Service()
        let (_, token, assignment) = try await service.assigned()
        let url = try #require(assignment["update_url"] as? String)
        let bad = Service.update([1, 2, 3, .nan])
        _ = try await service.call("PATCH", url, token: token, Array(bad[..<60]), part(0, isLast: false))
        let answer = try await service.call("PATCH", url, token: token, Array(bad[60...]), part(60, isLast: true))
        #expect(answer.status == 422 && answer.code == "not_finite")
        #expect(spool(service).isEmpty)
        // The refusal has ended the assignment.
        #expect(try await service.call("HEAD", url, token: token).status == 409)
        let again = try await service.call("PATCH", url, token: token, Self.file, part(0, isLast: true))
        #expect(again.status == 409 && again.code == "assignment_ended")
    }

    @Test func abandonedPartsGoWithTheirAssignment() async throws {
        let service = try await Service()
        let (_, token, assignment) = try await service.assigned()
        let url = try #require(assignment["update_url"] as? String)
        _ = try await service.call("PATCH", url, token: token, Array(Self.file[..<60]), part(0, isLast: false))
        try await service.coordinator.tick()
        service.clock.advance(by: 61)
        try await service.coordinator.tick()
        #expect(spool(service).count == 1)
        service.clock.advance(by: 4_000)
        try await service.coordinator.tick()
        service.clock.advance(by: 61)
        try await service.coordinator.tick()
        #expect(spool(service).isEmpty)
        let late = try await service.call("PATCH", url, token: token, Array(Self.file[60...]), part(60, isLast: true))
        #expect(late.status == 410)
        #expect(spool(service).isEmpty)
    }

    // MARK: - Several requests

    @Test func aNewRequestTakesTheUploadOverFromAnOldOne() async throws {
        let service = try await Service()
        let (_, token, assignment) = try await service.assigned()
        let url = try #require(assignment["update_url"] as? String)
        let held = HeldBody(contentLength: Self.file.count)
        let old = Task { [part = part(0, isLast: true)] in
            try await service.call("PATCH", url, token: token, body: held, part)
        }
        await held.waitUntilRead()
        held.continuation.yield(Array(Self.file[..<40]))
        // It asks for more: what came before has been written.
        await held.waitUntilRead()
        #expect(try await offset(service.call("HEAD", url, token: token)) == 40)
        // The connection was not dead after all: its bytes come too late.
        held.continuation.yield(Array(Self.file[40..<90]))
        held.continuation.finish()
        let late = try await old.value
        #expect(late.status == 409 && late.code == "upload_taken_over")
        #expect(try await offset(service.call("HEAD", url, token: token)) == 40)
        let fields = part(40, isLast: true, whole: Self.file)
        #expect(try await service.call("PATCH", url, token: token, Array(Self.file[40...]), fields).status == 200)
    }

    @Test(arguments: ["PUT", "PATCH"])
    func bytesOnTheirWayAreBounded(_ method: String) async throws {
        let service = try await Service { $0.uploadByteLimit = Self.file.count + 10 }
        let (_, token, assignment) = try await service.assigned()
        let url = try #require(assignment["update_url"] as? String)
        let enrollment = try #require(
            try await service.post("/v1/populations/p/enrollment-tokens", #"{"max_uses": 5}"#).json["token"] as? String
        )
        let second = try #require(try await service.post("/v1/clients", token: enrollment).json["token"] as? String)
        let work = try await service.post("/v1/checkins", token: second).json["assignment"] as? [String: Any]
        let secondURL = try #require(work?["update_url"] as? String)
        let held = HeldBody(contentLength: Self.file.count)
        let fields = method == "PATCH" ? part(0, isLast: true) : [:]
        let first = Task { try await service.call(method, url, token: token, body: held, fields) }
        await held.waitUntilRead()
        let metrics = service.coordinator.metrics
        #expect(metrics.value("martlet_uploads_in_flight_bytes") == Double(Self.file.count))
        let unread = PiecedBody([Self.file], contentLength: Self.file.count)
        let refused = try await service.call(method, secondURL, token: second, body: unread, fields)
        #expect(refused.status == 503 && refused.code == "uploads_full" && unread.readCount == 0)
        #expect((1...60).contains(refused.headers[.retryAfter].flatMap { Int($0) } ?? 0))
        #expect(metrics.value("martlet_uploads_refused_total") == 1)
        // A small one still fits.
        #expect(try await service.call(method, secondURL, token: second, [1, 2, 3], fields).code == "tensor_mismatch")
        held.continuation.yield(Self.file)
        held.continuation.finish()
        #expect(try await first.value.status == 200)
        #expect(metrics.value("martlet_uploads_in_flight_bytes") == 0)
    }

    /// One client cannot take all of the room by uploads that it begins again and again: the newest has its place.
    @Test(arguments: ["PUT", "PATCH"])
    func anAssignmentHasRoomForOneUpload(_ method: String) async throws {
        let service = try await Service { $0.uploadByteLimit = 2 * Self.file.count }
        let (_, token, assignment) = try await service.assigned()
        let url = try #require(assignment["update_url"] as? String)
        let fields = method == "PATCH" ? part(0, isLast: true) : [:]
        let metrics = service.coordinator.metrics
        var earlier: [(body: HeldBody, answer: Task<Service.Answer, any Error>)] = []
        for _ in 0..<5 {
            let body = HeldBody(contentLength: Self.file.count)
            earlier.append((body, Task { try await service.call(method, url, token: token, body: body, fields) }))
            await body.waitUntilRead()
            #expect(metrics.value("martlet_uploads_in_flight_bytes") == Double(Self.file.count))
        }
        for (body, answer) in earlier.dropLast() {
            body.continuation.yield(Self.file)
            body.continuation.finish()
            let late = try await answer.value
            #expect(late.status == 409 && late.code == "upload_taken_over", "\(late)")
        }
        #expect(metrics.value("martlet_uploads_in_flight_bytes") == Double(Self.file.count))
        let (body, answer) = try #require(earlier.last)
        body.continuation.yield(Self.file)
        body.continuation.finish()
        #expect(try await answer.value.status == 200)
        #expect(metrics.value("martlet_uploads_in_flight_bytes") == 0)
        #expect(metrics.value("martlet_uploads_refused_total") ?? 0 == 0)
    }

    /// Who sends as slowly as is allowed loses its room when nobody wants the update any more.
    @Test(arguments: ["PUT", "PATCH"])
    func anUploadThatOutlivesItsRoundGivesItsRoomBack(_ method: String) async throws {
        let service = try await Service()
        let (_, token, assignment) = try await service.assigned()
        let url = try #require(assignment["update_url"] as? String)
        let held = HeldBody(contentLength: Self.file.count)
        let fields = method == "PATCH" ? part(0, isLast: true) : [:]
        let answer = Task { try await service.call(method, url, token: token, body: held, fields) }
        await held.waitUntilRead()
        held.continuation.yield(Array(Self.file[..<40]))
        await held.waitUntilRead()
        service.clock.advance(by: 86_400)
        held.continuation.yield(Array(Self.file[40..<41]))
        let late = try await answer.value
        held.continuation.finish()
        #expect(late.status == 410 && late.code == "round_closed", "\(late)")
        #expect(service.coordinator.metrics.value("martlet_uploads_in_flight_bytes") == 0)
    }

    /// 22 members of a cohort begin uploads and send a byte now and then: as long as others wait, the slowest give way.
    ///
    /// What they sent stays, and each of them may go on and be counted.
    @Test func drippingClientsDoNotLockOthersOut() async throws {
        let size = Self.file.count
        let service = try await Service { $0.uploadByteLimit = 21 * size + size / 2 }
        let clients = try await cohort(service, 24)
        let fields = part(0, isLast: true)
        var drips: [(body: HeldBody, answer: Task<Service.Answer, any Error>)] = []
        for client in clients.prefix(21) {
            let body = HeldBody(contentLength: size)
            let answer = Task { try await service.call("PATCH", client.url, token: client.token, body: body, fields) }
            drips.append((body, answer))
            // It asks for more: what came before has been written.
            await body.waitUntilRead()
            body.continuation.yield([Self.file[0]])
            await body.waitUntilRead()
        }
        // The next one has no room, drips it or not.
        let last = PiecedBody([Self.file], contentLength: size)
        let refused = try await service.call("PATCH", clients[21].url, token: clients[21].token, body: last, fields)
        #expect(refused.code == "uploads_full" && last.readCount == 0)
        let honest = clients[22]
        let early = try await service.call("PUT", honest.url, token: honest.token, Self.file)
        #expect(early.status == 503 && early.code == "uploads_full")
        service.clock.advance(by: 31)
        for honest in clients.suffix(2) {
            #expect(try await service.call("PUT", honest.url, token: honest.token, Self.file).status == 200)
        }
        let metrics = service.coordinator.metrics
        let ended = try #require(metrics.value("martlet_uploads_given_way_total"))
        #expect(ended > 0 && ended < 6)
        // Who lost its room hears so with its next byte, keeps what it sent, and goes on from there.
        var lost: [Int] = []
        for index in 0..<21 {
            drips[index].body.continuation.yield([Self.file[1]])
            drips[index].body.continuation.finish()
            let answer = try await drips[index].answer.value
            if answer.code == "uploads_full" { lost.append(index) }
        }
        #expect(Double(lost.count) == ended)
        for index in lost {
            let client = clients[index]
            #expect(try await offset(service.call("HEAD", client.url, token: client.token)) == 1)
            let fields = part(1, isLast: true, whole: Self.file)
            let answer = try await service.call(
                "PATCH",
                client.url,
                token: client.token,
                Array(Self.file[1...]),
                fields
            )
            #expect(answer.status == 200, "\(answer)")
        }
        #expect(metrics.value("martlet_uploads_in_flight_bytes") == 0)
    }

    /// Clients with an assignment each, of one round that waits for all of them.
    private func cohort(_ service: Service, _ count: Int) async throws -> [(token: String, url: String)] {
        _ = try await service.post("/v1/populations", #"{"name": "p"}"#)
        let specification = RunFile.sample {
            $0.cohort += ["goal": count, "minimum": 1, "over_selection": 1, "report_timeout_s": 86400]
        }.text
        let run = try #require(try await service.post("/v1/runs", specification).json["id"] as? String)
        let model = Array(SafetensorsWriter.encode(ParameterVector(zeros: Service.layout)))
        #expect(try await service.call("PUT", "/v1/runs/\(run)/model", token: service.admin, model).status == 201)
        #expect(try await service.post("/v1/runs/\(run)/start").status == 200)
        let made = try await service.post("/v1/populations/p/enrollment-tokens", "{\"max_uses\": \(count)}")
        let enrollment = try #require(made.json["token"] as? String)
        var clients: [(token: String, url: String)] = []
        for _ in 0..<count {
            let token = try #require(try await service.post("/v1/clients", token: enrollment).json["token"] as? String)
            let work = try await service.post("/v1/checkins", token: token).json["assignment"] as? [String: Any]
            clients.append((token, try #require(work?["update_url"] as? String)))
        }
        return clients
    }

    @Test func aloneAnUploadIsLetInWhateverItsSize() async throws {
        let service = try await Service { $0.uploadByteLimit = 1 }
        let (_, token, assignment) = try await service.assigned()
        let url = try #require(assignment["update_url"] as? String)
        #expect(try await service.call("PUT", url, token: token, Self.file).status == 200)
    }

    /// Updates and models are nobody's but the server's, whoever else has an account on its machine.
    @Test func whatIsStoredCanBeReadByItsOwnerOnly() async throws {
        let service = try await Service()
        let (_, token, assignment) = try await service.assigned()
        let url = try #require(assignment["update_url"] as? String)
        let fields = ["Content-Type": "application/partial-upload", "Upload-Offset": "0", "Upload-Complete": "?0"]
        #expect(try await service.call("PATCH", url, token: token, [1, 2, 3], fields).status == 204)
        for directory in ["spool", "blobs"] {
            let path = service.directory.path + "/" + directory
            let files = try FileManager.default.subpathsOfDirectory(atPath: path).map { path + "/" + $0 }.filter {
                try FileManager.default.attributesOfItem(atPath: $0)[.type] as? FileAttributeType == .typeRegular
            }
            #expect(!files.isEmpty, "\(directory)")
            for file in files {
                let mode = try FileManager.default.attributesOfItem(atPath: file)[.posixPermissions] as? Int
                #expect(mode == 0o600, "\(file)")
            }
        }
    }
}
