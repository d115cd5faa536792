import Foundation
import LocalTraining
import MartletClient
import Synchronization
import Tensors
import TestSupport
import Testing
import UpdateCompression
import WireFormat

/// What a device keeps for runs between rounds is bounded, however many runs a server names.
@Suite(.timeLimit(.minutes(10)))
struct KeptFilesTests {
    private static let vectorBytes = 4 * RehearsalServer.layout.parameterCount

    private static func server(_ runs: @escaping @Sendable (Int) -> String, scaffold: Bool = false) -> RehearsalServer {
        RehearsalServer(
            mode: "none",
            change: { work, number in
                work.run = runs(number)
                if scaffold { work.training.algorithm = .scaffold } else { work.training.encoding = .topk }
            }
        )
    }

    private func kept(_ device: RehearsalDevice) throws -> [String] {
        try device.files().filter { $0.hasPrefix("residual-") || $0.hasPrefix("control-") }
    }

    @Test(arguments: [true, false])
    func theOldestRunsMakeRoom(_ scaffold: Bool) async throws {
        let device = try RehearsalDevice()
        let server = Self.server({ "run_\($0)" }, scaffold: scaffold)
        let client = try device.client(server, RehearsalTrainer(), limits: ClientLimits(keptRuns: 3))
        for number in 1...8 {
            #expect(try await client.participateOnce(waitSeconds: 0) == .accepted(run: "run_\(number)", round: number))
            let runs = Set(try kept(device).compactMap { $0.firstMatch(of: /run_\d+/)?.output })
            #expect(runs.count == min(number, 3) && runs.contains("run_\(number)"), "\(runs)")
        }
        #expect(
            Set(try kept(device).compactMap { $0.firstMatch(of: /run_\d+/)?.output }) == ["run_6", "run_7", "run_8"]
        )
        let told = device.notices.withLock { $0.filter { $0.kind == .state }.map(\.message) }
        #expect(told.count == 5 && told.first?.contains("run_1") == true, "\(told)")
        // Nothing but the last three runs' files is left over.
        let others = try device.files().filter { !$0.hasPrefix("residual-") && !$0.hasPrefix("control-") }
        #expect(others.count < 12, "\(others)")
    }

    /// A run's own residual is the last that makes room for it: two runs that take turns keep theirs.
    @Test func theBytesAreTheOwnersLimit() async throws {
        let device = try RehearsalDevice()
        let server = Self.server { "run_\($0 % 2)" }
        let limits = ClientLimits(keptBytes: 2 * Self.vectorBytes)
        let client = try device.client(server, RehearsalTrainer(), limits: limits)
        for _ in 1...4 { _ = try await client.participateOnce(waitSeconds: 0) }
        #expect(try kept(device) == ["residual-run_0.f32", "residual-run_1.f32"])
        #expect(device.notices.withLock { $0.isEmpty })
    }

    /// A run that wants more than all of the room is refused before anything is trained, and the place is free.
    @Test(arguments: [true, false])
    func aRunOverTheLimitIsRefused(_ scaffold: Bool) async throws {
        let device = try RehearsalDevice()
        let (server, trainer) = (Self.server({ _ in "run_1" }, scaffold: scaffold), RehearsalTrainer())
        let limits = ClientLimits(keptBytes: (scaffold ? 2 : 1) * Self.vectorBytes - 1)
        let client = try device.client(server, trainer, limits: limits)
        #expect(try await client.participateOnce(waitSeconds: 0) == .ended(code: "server_invalid"))
        #expect(await client.lastReason?.contains("limit") == true)
        #expect(trainer.counts.withLock { $0.isEmpty } && server.state.withLock { $0.failed.count } == 1)
        #expect(try kept(device).isEmpty)
    }

    /// A run whose file made room begins again as if it were new, and nothing of another run's is taken for its own.
    @Test func aRunThatLostItsFileGoesOn() async throws {
        let device = try RehearsalDevice()
        let server = Self.server { $0 == 2 ? "run_b" : "run_a" }
        let client = try device.client(server, RehearsalTrainer(), limits: ClientLimits(keptRuns: 1))
        for number in 1...3 {
            let run = number == 2 ? "run_b" : "run_a"
            #expect(try await client.participateOnce(waitSeconds: 0) == .accepted(run: run, round: number))
        }
        #expect(try kept(device) == ["residual-run_a.f32"])
    }
}
