import Foundation
import LocalTraining
import MartletClient
import Synchronization
import Tensors
import TestSupport
import Testing
import WireFormat

/// A fleet goes on whatever happens to one of its clients, and waits out what will pass.
@Suite(.timeLimit(.minutes(10)))
struct FleetTroubleTests {
    private let directory: TemporaryDirectory
    init() throws { directory = try TemporaryDirectory() }

    private func fleet(
        _ transport: any Transport,
        clients: Int,
        notices: Counter = Counter(),
        once: Bool = true,
        width: Int = 1,
        trainer: RehearsalTrainer = RehearsalTrainer()
    ) -> Fleet {
        Fleet(
            server: "http://server",
            enrollmentToken: "enroll",
            stateDirectory: directory.path + "/fleet",
            clientCount: clients,
            width: width,
            transport: transport,
            options: .init(stopsWithoutWork: once),
            notify: { _ in _ = notices.increase() },
            makeTrainer: { _ in trainer }
        )
    }

    private func write(_ text: String, _ name: String, client: Int) throws {
        let path = directory.path + "/fleet/client-\(client)"
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        try Data(text.utf8).write(to: URL(fileURLWithPath: path + "/" + name))
    }

    /// Runs a fleet until so many updates were accepted.
    private func run(_ fleet: Fleet, until count: Int, _ server: RehearsalServer) async throws {
        let work = Task { try await fleet.run() }
        try await wait(for: "\(count) updates") { server.state.withLock { $0.accepted.count } >= count }
        work.cancel()
        do { try await work.value } catch is CancellationError {}
    }

    @Test(arguments: ["ledger.json", "credential.json"])
    func oneDamagedClientDoesNotEndTheOthers(_ name: String) async throws {
        let server = RehearsalServer()
        try write("{", name, client: 0)
        let notices = Counter()
        try await run(fleet(server, clients: 2, notices: notices), until: 3, server)
        #expect(notices.value >= 1)
    }

    /// Cancelled work that goes on in this process holds its client's directory: the client waits for its end, and nobody is told to act.
    @Test(.slow) func aClientWhoseWorkHasNotEndedYetIsNotLeftOut() async throws {
        let server = RehearsalServer()
        let path = directory.path + "/fleet/client-0"
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        var held: ClientState? = try ClientState(directory: path)
        let (notices, turns) = (Counter(), Counter())
        let fleet = Fleet(
            server: "http://server",
            enrollmentToken: "enroll",
            stateDirectory: directory.path + "/fleet",
            clientCount: 1,
            width: 1,
            transport: server,
            notify: { _ in _ = notices.increase() },
            makeTrainer: { _ in
                _ = turns.increase()
                return RehearsalTrainer()
            }
        )
        let work = Task { try await fleet.run() }
        try await wait(for: "a second turn") { turns.value >= 2 }
        withExtendedLifetime(held) {}
        held = nil
        try await wait(for: "its update") { server.state.withLock { !$0.accepted.isEmpty } }
        work.cancel()
        do { try await work.value } catch is CancellationError {}
        #expect(notices.value == 0)
    }

    /// Registers one client only.
    private struct ScarceServer: Transport {
        let server: RehearsalServer
        var code = "enrollment_exhausted"
        let registrations = Counter()

        func send(_ request: TransportRequest) async throws -> TransportResponse {
            if request.method == "POST", request.url.hasSuffix("/v1/clients"), registrations.increase() > 1 {
                return RehearsalServer.refusal(403, code)
            }
            return try await server.send(request)
        }
    }

    @Test func aTokenThatIsUsedUpLeavesTheOthersOutAndSaysSoOnce() async throws {
        let server = RehearsalServer()
        let notices = Counter()
        try await run(fleet(ScarceServer(server: server), clients: 4, notices: notices), until: 3, server)
        #expect(notices.value == 1)
    }

    /// The one that has registered would go on for ever.
    @Test func whatRefusesEveryClientEndsTheFleetAtOnce() async throws {
        let transport = ScarceServer(server: RehearsalServer(), code: "unauthorized")
        let error = await #expect(throws: ClientError.self) {
            try await fleet(transport, clients: 4, once: false, width: 2).run()
        }
        #expect(error?.code == "unauthorized")
    }

    @Test func whereAllAreDamagedTheFleetSaysSo() async throws {
        for client in 0..<2 { try write("{", "ledger.json", client: client) }
        let error = await #expect(throws: ClientError.self) {
            try await fleet(RehearsalServer(), clients: 2).run()
        }
        #expect(error?.code == "state_damaged")
    }

    /// A server that is away, whatever the transport throws then, is waited out.
    @Test(.slow) func aServerThatIsAwayIsWaitedOut() async throws {
        let server = RehearsalServer()
        let (count, notices) = (Counter(), Counter())
        let hanging = HangingServer(server) { _ in
            if count.increase() <= 4 { throw NSError(domain: NSURLErrorDomain, code: -1004) }
        }
        try await run(fleet(hanging, clients: 2, notices: notices, once: false), until: 2, server)
        #expect(count.value > 4 && notices.value >= 2)
    }
}
