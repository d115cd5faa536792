import Coordination
import Foundation
import StrictJSON
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

/// What one administrator's mistake may cost everybody's check-ins.
@Suite(.timeLimit(.minutes(10)))
struct OpenRunTests {
    @Test func aRunBeyondTheLimitIsRefusedUntilAnotherHasEnded() async throws {
        let bench = try await Bench(.memory)
        let coordinator = try await bench.restarted { $0.openRunLimit = 2 }
        _ = try await coordinator.createPopulation(PopulationRequest(name: "p", budget: nil))
        let specification = try Bench.specification()
        let first = try await coordinator.createRun(specification, initialModel: nil).id
        _ = try await coordinator.createRun(specification, initialModel: nil)
        let error = await #expect(throws: CoordinationError.self) {
            _ = try await coordinator.createRun(specification, initialModel: nil)
        }
        #expect(error?.code == "too_many_runs" && error?.kind == .conflict)
        #expect(error?.message.contains("/cancel") == true)
        _ = try await coordinator.cancelRun(first)
        _ = try await coordinator.createRun(specification, initialModel: nil)
    }
}
