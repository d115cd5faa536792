import Coordination
import Foundation
import HTTPServing
import HTTPTypes
import Synchronization
import Tensors
import TestSupport
import Testing

/// What has come of an update goes when the update is not wanted any more, however slowly the rest comes.
@Suite(.timeLimit(.minutes(5)))
struct UploadsEndWithTheirRoundTests {
    /// How an update comes.
    enum Way: String, CaseIterable {
        case whole = "PUT"
        case inParts = "PATCH"
    }

    /// What ends the work while it does.
    enum Ending: CaseIterable {
        /// Others bring as many updates as the round wants.
        case roundCommits
        case runIsCancelled, clientIsRevoked, deadlinePasses
        /// The client says itself that it gives up.
        case clientFails
    }

    static let cases = Way.allCases.flatMap { way in
        Ending.allCases.flatMap { ending in [true, false].map { (way, ending, isPrivate: $0) } }
    }

    @Test(arguments: cases)
    func nothingOfAnUpdateOutlivesItsWork(_ way: Way, _ ending: Ending, isPrivate: Bool) async throws {
        let bench = try await PrivateBench()
        try await begin(bench, isPrivate: isPrivate)
        let work = try await Self.assignment(bench, of: 0)
        let other = try await Self.assignment(bench, of: 1)
        let body = try Self.update(bench, work)
        let slow = SlowBody(body) {
            // The half that has come is in the spool.
            #expect(Self.files(bench, of: work.id).count == 1, "\(Self.files(bench, of: work.id))")
            switch ending {
            case .roundCommits:
                let receipt = try await bench.upload(1, other.document, [1, 0, 0, 0])
                #expect(receipt.status == 200, "\(receipt.json)")
                try await wait(for: "the version") {
                    try await bench.coordinator.rounds(run: bench.run).first?.state == .committed
                }
            case .runIsCancelled: #expect(try await bench.post("/v1/runs/\(bench.run)/cancel").status == 200)
            case .clientIsRevoked: try await bench.coordinator.revokeClient(work.client)
            case .deadlinePasses:
                bench.clock.advance(by: 100_000)
                try await bench.coordinator.tick()
            case .clientFails:
                let path = "/v1/assignments/\(work.id)/failure"
                let answer = try await bench.post(path, token: bench.clients[0], #"{"code": "cancelled"}"#)
                #expect(answer.status == 204)
            }
            // Its other half has not come, and may never come.
            #expect(Self.files(bench, of: work.id).isEmpty, "\(Self.files(bench, of: work.id))")
        }
        let answer = try await Self.send(bench, way, work, slow)
        #expect([401, 409, 410].contains(answer.status), "\(answer)")
        #expect(Self.files(bench, of: work.id).isEmpty, "\(Self.files(bench, of: work.id))")
        #expect(slow.readCount == 2, "the rest was read: \(slow.readCount)")
    }

    /// A client that brings an accepted update once more, having lost the answer, leaves no second copy of it.
    @Test(arguments: [true, false])
    func aRepeatedUpdateIsComparedAndNotKept(isPrivate: Bool) async throws {
        let bench = try await PrivateBench()
        try await begin(bench, isPrivate: isPrivate)
        let work = try await Self.assignment(bench, of: 0)
        let body = try Self.update(bench, work)
        let first = try await Self.send(bench, .whole, work, MemoryBody(body))
        #expect(first.status == 200)
        try await bench.settled()
        let again = SlowBody(body) { #expect(Self.files(bench, of: work.id).isEmpty) }
        #expect(try await Self.send(bench, .whole, work, again).status == 200)
        #expect(Self.files(bench, of: work.id).isEmpty)
        if !isPrivate {
            let others = try Self.update(bench, work, [0, 0, 0, 1])
            #expect(try await Self.send(bench, .whole, work, MemoryBody(others)).status == 409)
        }
    }

    // MARK: -

    private struct Work {
        var id: String
        var client: String
        var document: [String: Any]
    }

    private func begin(_ bench: PrivateBench, isPrivate: Bool) async throws {
        try await bench.begin(
            privacy: isPrivate
                ? #"{"mode": "central", "noise_multiplier": 1, "clipping": {"norm": 1}}"# : #"{"mode": "none"}"#,
            cohort: #"{"goal": 1, "minimum": 1, "over_selection": 3, "report_timeout_s": 1000}"#,
            rounds: 2,
            clients: 3,
            hasBudget: isPrivate
        )
    }

    private static func assignment(_ bench: PrivateBench, of client: Int) async throws -> Work {
        let answer = try await bench.checkIn(client)
        let document = try #require(answer["assignment"] as? [String: Any], "\(answer)")
        let id = try #require(document["id"] as? String)
        let record = try #require(try bench.store.load().assignments.first { $0.id == id })
        return Work(id: id, client: record.clientId, document: document)
    }

    private static func update(
        _ bench: PrivateBench,
        _ work: Work,
        _ values: [Float] = [1, 0, 0, 0]
    ) throws -> [UInt8] {
        let base = try #require((work.document["model"] as? [String: Any])?["sha256"] as? String)
        let vector = ParameterVector(layout: bench.layout, values: values)
        let plain = SafetensorsWriter.encode(vector, metadata: ["base": base])
        return Array(SafetensorsWriter.padded(plain, to: work.document["update_bytes"] as? Int ?? 0))
    }

    /// Files of the spool that hold something of an assignment's update.
    private static func files(_ bench: PrivateBench, of assignment: String) -> [String] {
        bench.coordinator.blobs.spoolNames().filter { $0.hasPrefix(assignment) && !$0.hasSuffix(".update") }
    }

    private static func send(
        _ bench: PrivateBench,
        _ way: Way,
        _ work: Work,
        _ body: any RequestBody
    ) async throws -> (status: Int, text: String) {
        var headers: HTTPFields = [.authorization: "Bearer \(bench.clients[0])"]
        headers[.contentType] = way == .whole ? "application/vnd.safetensors" : "application/partial-upload"
        if way == .inParts {
            headers[try #require(HTTPField.Name("Upload-Offset"))] = "0"
            headers[try #require(HTTPField.Name("Upload-Complete"))] = "?1"
        }
        var request = try ServerRequest(
            method: way.rawValue,
            rawTarget: "/v1/assignments/\(work.id)/update",
            headers: headers,
            body: body,
            requestID: "test"
        )
        request.remoteAddress = "192.0.2.7"
        let response = await bench.router.handle(request)
        guard case .bytes(let bytes) = response.body else { return (response.status, "") }
        return (response.status, String(decoding: bytes, as: UTF8.self))
    }
}

/// A body in three parts, with something in between: after the first one was written, before the second one comes.
private final class SlowBody: RequestBody {
    private let bytes: [UInt8]
    private let meanwhile: @Sendable () async throws -> Void
    private let count = Atomic(0)
    var contentLength: Int? { bytes.count }
    /// How many parts were asked for.
    var readCount: Int { count.load(ordering: .relaxed) }

    init(_ bytes: [UInt8], meanwhile: @escaping @Sendable () async throws -> Void) {
        self.bytes = bytes
        self.meanwhile = meanwhile
    }

    func read() async throws -> [UInt8]? {
        let third = bytes.count / 3
        switch count.add(1, ordering: .relaxed).oldValue {
        case 0: return Array(bytes[..<third])
        case 1:
            try await meanwhile()
            return Array(bytes[third..<2 * third])
        case 2: return Array(bytes[(2 * third)...])
        default: return nil
        }
    }
}
