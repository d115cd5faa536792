import Coordination
import Foundation
import StrictJSON
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

/// Several runs of one population.
@Suite(.timeLimit(.minutes(10)))
struct SharedPopulationTests {
    @Test func twoRunsShareAPopulationAlike() async throws {
        let bench = try await Bench(.memory)
        let (first, clients) = try await bench.startRun(
            try Bench.timedSpecification { $0.cohort += ["goal": 20, "over_selection": 1] },
            clients: 20
        )
        let second = try await bench.coordinator.createRun(
            try Bench.timedSpecification { $0.cohort += ["goal": 20, "over_selection": 1] },
            initialModel: ParameterVector(zeros: Bench.layout)
        ).id
        _ = try await bench.coordinator.startRun(second)
        for client in clients { _ = try await bench.checkIn(client) }
        #expect(try await bench.coordinator.round(run: first, number: 1).assigned == 10)
        #expect(try await bench.coordinator.round(run: second, number: 1).assigned == 10)
        // A paused run hands out nothing; the other one takes all.
        _ = try await bench.coordinator.pauseRun(first)
        for client in try await bench.enroll(6, prefix: "more") { _ = try await bench.checkIn(client) }
        #expect(try await bench.coordinator.round(run: second, number: 1).assigned == 16)
    }
}
