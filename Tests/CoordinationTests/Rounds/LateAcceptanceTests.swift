import Coordination
import Foundation
import Logging
import Synchronization
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

/// Whatever refuses an update after its file was moved gives the file back.
@Suite(.timeLimit(.minutes(10)))
struct LateAcceptanceTests {
    /// A clock that jumps past every deadline when it has been asked so often.
    private final class JumpingClock: Sendable {
        private let state = Mutex((left: Int.max, ahead: 0.0))
        let clock: TestClock

        init(_ clock: TestClock) { self.clock = clock }

        func jump(after count: Int) { state.withLock { $0.left = count } }

        var now: Date {
            let ahead = state.withLock { state in
                if state.left == 0 { state.ahead = 1000 }
                if state.left != Int.max { state.left -= 1 }
                return state.ahead
            }
            return clock.now.addingTimeInterval(ahead)
        }
    }

    /// The deadline may pass at any step: while the file is synced, before the transaction or after it.
    @Test(arguments: [true, false])
    func aDeadlineThatPassesMeanwhileLeavesNothingBehind(_ isPrivate: Bool) async throws {
        var outcomes: Set<String> = []
        for count in 0..<12 {
            let bench = try await Bench(.memory)
            let clock = JumpingClock(bench.clock)
            let coordinator = try await bench.restarted { $0.now = { clock.now } }
            _ = try await coordinator.createPopulation(
                PopulationRequest(name: "p", budget: isPrivate ? .init(epsilon: 8, delta: 1e-5) : nil)
            )
            let run = try await coordinator.createRun(
                Bench.specification(goal: 2) {
                    if isPrivate { $0.privacy += ["mode": "central", "noise_multiplier": 8] }
                },
                initialModel: .init(zeros: Bench.layout)
            ).id
            let token = try await coordinator.createEnrollmentToken(population: "p", .init(maxUses: 1))
            guard case .enrollment(_, let hash) = await coordinator.principal(token: token) else { continue }
            let client = try await coordinator.register(
                enrollmentTokenHash: hash,
                RegistrationRequest(name: nil),
                idempotencyKey: "k"
            ).clientId
            _ = try await coordinator.startRun(run)
            let id = try #require(try await Bench.assignment(coordinator, client)).id
            let update = try await Bench.received(
                coordinator,
                client,
                id,
                .init(layout: Bench.layout, values: [1, -1, 2, 0.5])
            )
            clock.jump(after: count)
            let code = await refusal {
                try await coordinator.finishUpdate(assignment: id, client: client, update)
            }?.code
            outcomes.insert(code ?? "accepted")
            let names = coordinator.blobs.spoolNames()
            let kept = names.filter { $0.hasSuffix(".update") || $0.hasSuffix(".receipt") }
            // An accepted one may belong to an attempt that has ended since.
            guard code != nil else { continue }
            #expect(kept.isEmpty, "\(count): \(names)")
            #expect(FileManager.default.fileExists(atPath: update.path), "\(count): \(names)")
        }
        #expect(outcomes.isSuperset(of: ["accepted"]) && outcomes.count > 1, "\(outcomes)")
    }
}
