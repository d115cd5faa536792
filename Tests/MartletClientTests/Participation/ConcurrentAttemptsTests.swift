import Foundation
import LocalTraining
import Synchronization
import TestSupport
import Testing
import WireFormat

@testable import MartletClient

/// One attempt at a time for each state, whoever starts the second one.
@Suite(.timeLimit(.minutes(10)))
struct ConcurrentAttemptsTests {
    /// Two attempts were handed one assignment, and noised twice under one event.
    @Test(arguments: [true, false])
    func aSecondAttemptIsRefusedWhileOneIsUnderWay(_ runs: Bool) async throws {
        let server = RehearsalServer()
        let (begun, goOn) = (Counter(), Counter())
        let trainer = RehearsalTrainer { _ in
            begun.value = 1
            var patience = Patience("the second attempt")
            while goOn.value == 0 { try patience.pauseThread() }
        }
        let device = try RehearsalDevice()
        let client = try device.client(server, trainer)
        let first = Task { try await client.participateOnce(waitSeconds: 0) }
        try await wait(for: "the training") { begun.value == 1 }
        let error = await #expect(throws: ClientError.self) {
            if runs { try await client.run() } else { _ = try await client.participateOnce(waitSeconds: 0) }
        }
        #expect(error?.code == "already_running")
        goOn.value = 1
        #expect(try await first.value == .accepted(run: "run_1", round: 1))
        #expect(server.state.withLock { $0.sent["asg_1"]?.count } == 1)
        #expect(try device.ledger() == ["asg_1"])
        // Afterwards there is nothing in the way.
        #expect(try await client.participateOnce(waitSeconds: 0) == .accepted(run: "run_1", round: 2))
    }

    /// A trainer that does not look at its cancellation keeps its place, and the owner is told why nothing goes on.
    @Test func aPlaceThatCancelledWorkHoldsIsSaid() async throws {
        let server = RehearsalServer()
        let (begun, goOn) = (Counter(), Counter())
        let trainer = RehearsalTrainer { _ in
            guard begun.increase() == 1 else { return }
            var patience = Patience("the notice")
            while goOn.value == 0 { try patience.pauseThread() }
        }
        let device = try RehearsalDevice()
        let client = try device.client(server, trainer)
        let first = Task { try await client.run() }
        try await wait(for: "the training") { begun.value == 1 }
        first.cancel()
        try await first.value
        let second = Task { try await client.participateOnce(waitSeconds: 0) }
        try await wait(for: "the notice") {
            device.notices.withLock { $0.contains { $0.message.contains("holds its place") } }
        }
        goOn.value = 1
        #expect(try await second.value == .accepted(run: "run_1", round: 1))
        #expect(server.state.withLock { $0.sent["asg_1"]?.count } == 1)
        #expect(try device.ledger() == ["asg_1"])
    }

    /// Two clients that share a state are one device: the second reads again what the first has written.
    @Test func twoClientsOfOneStateTakeTurns() async throws {
        let server = RehearsalServer()
        let device = try RehearsalDevice()
        let state = try ClientState(directory: device.path)
        func client() throws -> FederatedClient {
            FederatedClient(
                server: "http://server",
                enrollmentToken: "enroll",
                state: state,
                trainer: RehearsalTrainer(),
                transport: server,
                models: try ModelCache(directory: device.directory.path + "/models")
            )
        }
        let (first, second) = (try client(), try client())
        for round in 1...4 {
            let client = round % 2 == 0 ? first : second
            #expect(try await client.participateOnce(waitSeconds: 0) == .accepted(run: "run_1", round: round))
        }
        #expect(try device.ledger() == ["asg_1", "asg_2", "asg_3", "asg_4"])
    }
}

/// Cancelling ends a download at once, and one client's trouble with it is nobody else's.
@Suite(.timeLimit(.minutes(10)))
struct SharedDownloadTests {
    private let directory: TemporaryDirectory
    init() throws { directory = try TemporaryDirectory() }

    @Test func aCancelledDownloadEndsAtOnce() async throws {
        let (asked, ended) = (Counter(), Counter())
        let server = HangingServer(RehearsalServer()) { key in
            guard key == "GET model" else { return }
            asked.value = 1
            do { try await RealTime.untilCancelled() } catch {
                ended.value = 1
                throw error
            }
        }
        let client = FederatedClient(
            server: "http://server",
            enrollmentToken: "enroll",
            state: try ClientState(directory: directory.path + "/device"),
            trainer: RehearsalTrainer(),
            transport: server,
            models: try ModelCache(directory: directory.path + "/models")
        )
        let work = Task { try await client.run() }
        try await wait(for: "the download") { asked.value == 1 }
        work.cancel()
        try await work.value
        try await wait(for: "the transfer's end") { ended.value == 1 }
    }

    @Test func aLoadGoesOnForThoseWhoStillWait() async throws {
        let cache = try ModelCache(directory: directory.path)
        let file = try Assignment.ModelFile.rehearsed
        let (asked, goOn) = (Counter(), Counter())
        let slow: @Sendable (String) async throws -> Void = { path in
            _ = asked.increase()
            try await wait(for: "the others") { goOn.value == 1 }
            try RehearsalServer.model.write(to: URL(fileURLWithPath: path))
        }
        let first = Task { try await cache.model(file, layout: nil, fetch: slow) }
        try await wait(for: "the download") { asked.value == 1 }
        let second = Task { try await cache.model(file, layout: nil, fetch: slow) }
        try await wait(for: "the second one") { await cache.waitingCount == 2 }
        first.cancel()
        await #expect(throws: CancellationError.self) { try await first.value }
        goOn.value = 1
        #expect(try await second.value.layout == RehearsalServer.layout)
        #expect(asked.value == 1)
    }

    /// A file that is not what its assignment needs makes no room for itself, and another assignment may need just that file.
    @Test func aModelIsWhatEachWhoAsksExpects() async throws {
        let cache = try ModelCache(directory: directory.path)
        let file = try Assignment.ModelFile.rehearsed
        let other = ParameterLayout([.init(name: "v", shape: [4])])
        let fetch: @Sendable (String) async throws -> Void = { path in
            try RehearsalServer.model.write(to: URL(fileURLWithPath: path))
        }
        for (layout, limit) in [(other, Int.max), (RehearsalServer.layout, 3)] {
            let error = await #expect(throws: ClientError.self) {
                try await cache.model(file, layout: layout, parameterLimit: limit, fetch: fetch)
            }
            #expect(["model_mismatch", "server_invalid"].contains(error?.code))
            #expect(try FileManager.default.contentsOfDirectory(atPath: directory.path).isEmpty)
        }
        // One who joins the other's load is held to what itself expects.
        let (asked, goOn) = (Counter(), Counter())
        let first = Task {
            try await cache.model(file, layout: nil) { path in
                asked.value = 1
                try await wait(for: "the other") { goOn.value == 1 }
                try await fetch(path)
            }
        }
        try await wait(for: "the download") { asked.value == 1 }
        let second = Task { try await cache.model(file, layout: other, fetch: fetch) }
        try await wait(for: "the second one") { await cache.waitingCount == 2 }
        goOn.value = 1
        #expect(try await first.value.layout == RehearsalServer.layout)
        let error = await #expect(throws: ClientError.self) { try await second.value }
        #expect(error?.code == "model_mismatch")
    }

    /// Its token may be refused, and its deadline over: the others ask for themselves.
    @Test func aFailureIsTheOneWhoAsked() async throws {
        let cache = try ModelCache(directory: directory.path)
        let file = try Assignment.ModelFile.rehearsed
        let (asked, goOn) = (Counter(), Counter())
        let first = Task {
            try await cache.model(file, layout: nil) { _ in
                asked.value = 1
                try await wait(for: "the other") { goOn.value == 1 }
                throw ClientError(code: "client_revoked", message: "the first one's", status: 401)
            }
        }
        try await wait(for: "the download") { asked.value == 1 }
        let second = Task {
            try await cache.model(file, layout: nil) {
                try RehearsalServer.model.write(to: URL(fileURLWithPath: $0))
            }
        }
        try await wait(for: "the second one") { await cache.waitingCount == 2 }
        goOn.value = 1
        let error = await #expect(throws: ClientError.self) { try await first.value }
        #expect(error?.code == "client_revoked")
        #expect(try await second.value.layout == RehearsalServer.layout)
    }
}

/// A transport in front of another, which may hang or fail.
struct HangingServer: Transport {
    let server: RehearsalServer
    let before: @Sendable (_ key: String) async throws -> Void

    init(_ server: RehearsalServer, _ before: @escaping @Sendable (_ key: String) async throws -> Void) {
        (self.server, self.before) = (server, before)
    }

    func send(_ request: TransportRequest) async throws -> TransportResponse {
        try await before("\(request.method) \(request.url.split(separator: "/").last ?? "")")
        return try await server.send(request)
    }
}
