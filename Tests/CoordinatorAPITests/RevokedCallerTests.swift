import Coordination
import Foundation
import HTTPServing
import Synchronization
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

/// A token counts in the step that changes something, and not only when the head of the request was read.
@Suite(.timeLimit(.minutes(2)))
struct RevokedCallerTests {
    /// What each endpoint that reads a body takes, by method and template; the other ones act when the head was read.
    static let bodies: [String: [UInt8]] = [
        "POST /v1/tokens": Array(#"{"role": "admin", "name": "another"}"#.utf8),
        "POST /v1/tokens/{token}/rotate": Array("{}".utf8),
        "POST /v1/populations": Array(#"{"name": "q"}"#.utf8),
        "PATCH /v1/populations/{population}/budget": Array(#"{"epsilon": 1}"#.utf8),
        "POST /v1/populations/{population}/enrollment-tokens": Array(#"{"max_uses": 5}"#.utf8),
        "POST /v1/ledger/acknowledgement": Array(#"{"reason": "because"}"#.utf8),
        "POST /v1/clients": Array("{}".utf8),
        "PATCH /v1/clients/{client}": Array(#"{"name": "another"}"#.utf8),
        "POST /v1/runs": Array(
            #"{"population": "p", "rounds": 1, "model": {"architecture": "external"}, "cohort": {"goal": 1}}"#.utf8
        ),
        "PUT /v1/runs/{run}/model": Array(SafetensorsWriter.encode(ParameterVector(zeros: Service.layout))),
        "POST /v1/runs/{run}/models/{version}/metrics": Array(#"{"metrics": {"loss": 1}}"#.utf8),
        "POST /v1/checkins": Array(#"{"capabilities": {"cpu_count": 2}}"#.utf8),
        "POST /v1/assignments/{assignment}/heartbeat": Array(#"{"phase": "training"}"#.utf8),
        "POST /v1/assignments/{assignment}/failure": Array(#"{"code": "no_data"}"#.utf8),
        "PUT /v1/assignments/{assignment}/update": Service.update([1, 2, 3, 4]),
        "PATCH /v1/assignments/{assignment}/update": Service.update([1, 2, 3, 4]),
    ]

    /// The fields of a request with such a body.
    static func fields(_ row: EndpointRow) -> [String: String] {
        guard bodies["\(row.method.rawValue) \(row.template)"]?.first != UInt8(ascii: "{") else { return [:] }
        return switch row.method {
        case .put: ["Content-Type": "application/octet-stream"]
        case .patch:
            ["Upload-Offset": "0", "Upload-Complete": "?1", "Content-Type": "application/partial-upload"]
        default: [:]
        }
    }

    private static let changing = Endpoints.all.filter { ![.get, .head].contains($0.method) }

    /// Every row that changes something, its body held back until the caller's token was revoked.
    @Test(arguments: changing.indices)
    func aBodyThatOutlivesItsTokenChangesNothing(_ index: Int) async throws {
        let row = Self.changing[index]
        let key = "\(row.method.rawValue) \(row.template)"
        let service = try await Service()
        let bench = try await Bench(service)
        let caller = try await bench.caller(for: row.access)
        let afterRevocation = Mutex<String?>(nil)
        let body = RevokingBody(Self.bodies[key] ?? []) {
            try await caller.revoke()
            let state = try service.store.load()
            afterRevocation.withLock { $0 = "\(state)" }
        }
        let path = row.path(row.placeholders.map { bench.named(row)[$0] ?? "" })
        let answer = try await service.call(
            row.method.rawValue,
            path,
            token: caller.token,
            body: body,
            Self.fields(row)
        )
        guard Self.bodies[key] != nil else {
            #expect(!body.wasRead, "\(key) reads a body: say above what it takes")
            return
        }
        #expect(body.wasRead, "\(key): \(answer.status) \(answer.code)")
        #expect(answer.status == 401 && answer.code == "unauthorized", "\(key): \(answer.status) \(answer.code)")
        let state = try service.store.load()
        #expect(afterRevocation.withLock { $0 } == "\(state)", "\(key) has changed what is stored")
        let left = service.coordinator.blobs.spoolNames().filter { !$0.hasSuffix(".partial") }
        #expect(left.isEmpty, "\(key): \(left)")
    }

    /// The same requests, their tokens left alone, are what the server takes: the test above would pass for any body otherwise.
    @Test(arguments: changing.indices)
    func theSameBodyIsTakenFromACallerWhoMay(_ index: Int) async throws {
        let row = Self.changing[index]
        guard let body = Self.bodies["\(row.method.rawValue) \(row.template)"] else { return }
        let service = try await Service()
        let bench = try await Bench(service)
        let caller = try await bench.caller(for: row.access)
        let path = row.path(row.placeholders.map { bench.named(row)[$0] ?? "" })
        let answer = try await service.call(
            row.method.rawValue,
            path,
            token: caller.token,
            body: RevokingBody(body) {},
            Self.fields(row)
        )
        let nothingLost = answer.code == "nothing_to_acknowledge"
        #expect((200...201).contains(answer.status) || answer.status == 204 || nothingLost, "\(row): \(answer.json)")
    }

    /// A long poll that is woken after its client's token was rotated hands out nothing.
    @Test func aPollThatOutlivesItsTokenGetsNoWork() async throws {
        let service = try await Service()
        let (run, first, _) = try await service.assigned()
        let made = try await service.post("/v1/populations/p/enrollment-tokens", #"{"max_uses": 1}"#)
        let enrollment = try #require(made.json["token"] as? String)
        let others = try await service.post("/v1/clients", token: enrollment)
        let token = try #require(others.json["token"] as? String)
        let client = try #require(others.json["client_id"] as? String)
        // There is nothing to do while the run is paused.
        #expect(try await service.post("/v1/runs/\(run)/pause").status == 200)
        async let answer = service.call("POST", "/v1/checkins", token: token, Array("{}".utf8), ["Prefer": "wait=60"])
        try await wait(for: "the poll to wait") { await service.coordinator.waiterCount == 1 }
        _ = try await service.coordinator.rotateToken(presented: token, gracePeriod: 0)
        await service.coordinator.wakeAll()
        #expect(try await answer.status == 401)
        let assignments = try service.store.load().assignments
        #expect(!assignments.contains { $0.clientId == client })
        #expect(try await service.post("/v1/checkins", token: first).status == 201)
    }
}

/// A server with something of each kind that a path can name.
private struct Bench {
    struct Caller {
        var token: String
        var revoke: @Sendable () async throws -> Void
    }

    let service: Service
    let run: String
    let newRun: String
    let worker: String
    let client: String
    let assignment: String
    let otherToken: String

    init(_ service: Service) async throws {
        self.service = service
        let (run, worker, assignment) = try await service.assigned()
        (self.run, self.worker) = (run, worker)
        self.assignment = try #require(assignment["id"] as? String)
        client = try #require(try service.store.load().clients.first?.id)
        let specification =
            #"{"population": "p", "rounds": 1, "model": {"architecture": "external"}, "cohort": {"goal": 1}}"#
        newRun = try #require(try await service.post("/v1/runs", specification).json["id"] as? String)
        let budget = #"{"name": "b", "budget": {"epsilon": 2, "delta": 0.00001}}"#
        #expect(try await service.post("/v1/populations", budget).status == 201)
        let other = try await service.post("/v1/tokens", #"{"role": "viewer", "name": "other"}"#)
        otherToken = try #require(other.json["id"] as? String)
    }

    func named(_ row: EndpointRow) -> [String: String] {
        [
            "run": row.method == .put ? newRun : run, "client": client, "assignment": assignment,
            "population": row.method == .patch ? "b" : "p", "round": "1", "version": "0", "token": otherToken,
        ]
    }

    /// A caller whom a rule lets in.
    func caller(for rule: AccessRule) async throws -> Caller {
        switch rule {
        case .client:
            return Caller(token: worker) { [service, worker] in
                _ = try await service.coordinator.rotateToken(presented: worker, gracePeriod: 0)
            }
        case .enrollment:
            return try await issued("/v1/populations/p/enrollment-tokens", #"{"max_uses": 9}"#)
        case .staff(let role), .clientItself(let role):
            return try await issued("/v1/tokens", #"{"role": "\#(role.rawValue)", "name": "n"}"#)
        case .anybody, .modelReader, .populationReader, .tokenItself:
            return try await issued("/v1/tokens", #"{"role": "admin", "name": "n"}"#)
        }
    }

    private func issued(_ path: String, _ body: String) async throws -> Caller {
        let answer = try await service.post(path, body)
        let id = try #require(answer.json["id"] as? String)
        return Caller(token: try #require(answer.json["token"] as? String)) { [service] in
            try await service.coordinator.revokeToken(id)
        }
    }
}

/// A body of which nothing comes before something else was done.
private final class RevokingBody: RequestBody {
    private let bytes: [UInt8]
    private let meanwhile: @Sendable () async throws -> Void
    private let readCount = Atomic(0)
    var contentLength: Int? { bytes.count }
    var wasRead: Bool { readCount.load(ordering: .relaxed) > 0 }

    init(_ bytes: [UInt8], after meanwhile: @escaping @Sendable () async throws -> Void) {
        self.bytes = bytes
        self.meanwhile = meanwhile
    }

    func read() async throws -> [UInt8]? {
        guard readCount.add(1, ordering: .relaxed).oldValue == 0 else { return nil }
        try await meanwhile()
        return bytes.isEmpty ? nil : bytes
    }
}
