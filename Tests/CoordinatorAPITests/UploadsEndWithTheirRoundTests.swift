import Coordination
import Foundation
import HTTPServing
import HTTPTypes
import Synchronization
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

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

    static let cases: [(Way, Ending, Bool)] = Way.allCases.flatMap { way in
        Ending.allCases.flatMap { ending in [(way, ending, true), (way, ending, false)] }
    }

    @Test(arguments: cases)
    func nothingOfAnUpdateOutlivesItsWork(_ way: Way, _ ending: Ending, isPrivate: Bool) async throws {
        let scene = try await Scene(isPrivate: isPrivate)
        let work = scene.work(of: 0)
        let other = scene.work(of: 1)
        let slow = SlowBody(work.update) {
            // The third that has come is in the spool.
            #expect(scene.files(of: work.id).count == 1, "\(scene.files(of: work.id))")
            switch ending {
            case .roundCommits:
                let receipt = try await scene.send(.whole, other, MemoryBody(other.update))
                #expect(receipt.status == 200, "\(receipt)")
                try await wait(for: "the version") {
                    try await scene.coordinator.rounds(run: scene.run).first?.state == .committed
                }
            case .runIsCancelled: _ = try await scene.coordinator.cancelRun(scene.run)
            case .clientIsRevoked: try await scene.coordinator.revokeClient(work.client)
            case .deadlinePasses:
                scene.clock.advance(by: 100_000)
                try await scene.coordinator.tick()
            case .clientFails:
                let report = FailureReport(code: .cancelled, detail: nil)
                try await scene.coordinator.reportFailure(assignment: work.id, client: work.client, report)
            }
            // The rest has not come, and may never come.
            #expect(scene.files(of: work.id).isEmpty, "\(scene.files(of: work.id))")
        }
        let answer = try await scene.send(way, work, slow)
        #expect([401, 409, 410].contains(answer.status), "\(answer)")
        #expect(scene.files(of: work.id).isEmpty, "\(scene.files(of: work.id))")
        #expect(slow.readCount == 2, "the rest was read: \(slow.readCount)")
    }

    /// A client that brings an accepted update once more, having lost the answer, leaves no second copy of it.
    @Test(arguments: [true, false])
    func aRepeatedUpdateIsComparedAndNotKept(isPrivate: Bool) async throws {
        let scene = try await Scene(isPrivate: isPrivate)
        let work = scene.work(of: 0)
        #expect(try await scene.send(.whole, work, MemoryBody(work.update)).status == 200)
        try await wait(for: "the version") {
            try await scene.coordinator.rounds(run: scene.run).first?.state == .committed
        }
        let again = SlowBody(work.update) { #expect(scene.files(of: work.id).isEmpty) }
        let receipt = try await scene.send(.whole, work, again)
        #expect(receipt.status == 200, "\(receipt)")
        #expect(scene.files(of: work.id).isEmpty)
        guard !isPrivate else { return }
        var changed = work.update
        changed[changed.count - 1] ^= 1
        #expect(try await scene.send(.whole, work, MemoryBody(changed)).status == 409)
    }
}

/// One client's work, and the update that it will send.
private struct Work: Sendable {
    var id: String
    var client: String
    var token: String
    var update: [UInt8]
}

/// A run of two rounds whose first wants one update and asks three clients for it.
private struct Scene: Sendable {
    let directory: TemporaryDirectory
    let clock: TestClock
    let store: any RunStore
    let coordinator: Coordinator
    let router: Router
    let run: String
    private let works: [Work]

    init(isPrivate: Bool) async throws {
        let bench = try await PrivateBench()
        try await bench.begin(
            privacy: isPrivate
                ? #"{"mode": "central", "noise_multiplier": 1, "clipping": {"norm": 1}}"# : #"{"mode": "none"}"#,
            cohort: #"{"goal": 1, "minimum": 1, "over_selection": 3, "report_timeout_s": 1000}"#,
            rounds: 2,
            clients: 3,
            hasBudget: isPrivate
        )
        (directory, clock, store) = (bench.directory, bench.clock, bench.store)
        (coordinator, router, run) = (bench.coordinator, bench.router, bench.run)
        var works: [Work] = []
        for index in 0..<2 {
            let answer = try await bench.checkIn(index)
            let document = try #require(answer["assignment"] as? [String: Any], "\(answer)")
            let id = try #require(document["id"] as? String)
            let record = try #require(try bench.store.load().assignments.first { $0.id == id })
            let base = try #require((document["model"] as? [String: Any])?["sha256"] as? String)
            let vector = ParameterVector(layout: bench.layout, values: [1, 0, 0, 0])
            let plain = SafetensorsWriter.encode(vector, metadata: ["base": base])
            let update = Array(SafetensorsWriter.padded(plain, to: document["update_bytes"] as? Int ?? 0))
            works.append(Work(id: id, client: record.clientId, token: bench.clients[index], update: update))
        }
        self.works = works
    }

    func work(of client: Int) -> Work { works[client] }

    /// Files of the spool that hold something of an assignment's update, but for the accepted one.
    func files(of assignment: String) -> [String] {
        coordinator.blobs.spoolNames().filter { $0.hasPrefix(assignment) && !$0.hasSuffix(".update") }
            .filter { !$0.hasSuffix(".receipt") }
    }

    func send(
        _ way: UploadsEndWithTheirRoundTests.Way,
        _ work: Work,
        _ body: any RequestBody
    ) async throws -> (status: Int, text: String) {
        var headers: HTTPFields = [.authorization: "Bearer \(work.token)"]
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
        let response = await router.handle(request)
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
