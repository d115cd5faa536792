import Coordination
import Foundation
import StrictJSON
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

/// What a device is asked to do follows from how fast it was before.
@Suite(.timeLimit(.minutes(10)))
struct MeasuredSpeedTests {
    @Test(arguments: Bench.StoreKind.allCases)
    func stepsAndSecondsFollowFromTheMeasuredSpeed(_ kind: Bench.StoreKind) async throws {
        let bench = try await Bench(kind)
        let (run, clients) = try await bench.startRun(
            try Bench.timedSpecification(rounds: 2) {
                $0.cohort += ["goal": 2, "minimum": 2, "over_selection": 1, "target_seconds": 8]
            },
            clients: 2
        )
        var coordinator = bench.coordinator
        for (client, steps) in zip(clients, [400.0, 8.0]) {
            let work = try #require(try await Bench.assignment(coordinator, client))
            // Nothing is known yet: time alone bounds the work.
            #expect(work.training.limits.maxSteps == 1000 && work.training.limits.maxSeconds == 8)
            let terms = try await coordinator.beginUpdate(assignment: work.id, client: client)
            try SafetensorsWriter.encode(ParameterVector(zeros: Bench.layout)).write(
                to: URL(fileURLWithPath: terms.spoolPath)
            )
            _ = try await coordinator.finishUpdate(
                assignment: work.id,
                client: client,
                ReceivedUpdate(
                    path: terms.spoolPath,
                    sha256: "s\(client)",
                    byteCount: 9,
                    exampleCount: 5,
                    metrics: ["steps": steps, "seconds": 4]
                )
            )
        }
        _ = try await Bench.untilSettled(coordinator, run)
        // 100 steps a second, and 2: what each does in eight seconds, also after a restart.
        coordinator = try await bench.restarted()
        let fast = try #require(try await Bench.assignment(coordinator, clients[0]))
        let slow = try #require(try await Bench.assignment(coordinator, clients[1]))
        #expect(fast.training.limits.maxSteps == 800 && slow.training.limits.maxSteps == 16)
        #expect(fast.training.limits.maxSeconds == 16)
    }
}
