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
        trainer: RehearsalTrainer = RehearsalTrainer()
    ) -> Fleet {
        Fleet(
            server: "http://server",
            enrollmentToken: "enroll",
            stateDirectory: directory.path + "/fleet",
            clientCount: clients,
            width: 1,
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

    @Test func whereAllAreDamagedTheFleetSaysSo() async throws {
        for client in 0..<2 { try write("{", "ledger.json", client: client) }
        let error = await #expect(throws: ClientError.self) {
            try await fleet(RehearsalServer(), clients: 2).run()
        }
        #expect(error?.code == "state_damaged")
    }

    /// A server that is away, whatever the transport throws then, is waited out.
    @Test func aServerThatIsAwayIsWaitedOut() async throws {
        let server = RehearsalServer()
        let (count, notices) = (Counter(), Counter())
        let hanging = HangingServer(server) { _ in
            if count.increase() <= 4 { throw NSError(domain: NSURLErrorDomain, code: -1004) }
        }
        try await run(fleet(hanging, clients: 2, notices: notices, once: false), until: 2, server)
        #expect(count.value > 4 && notices.value >= 2)
    }
}
