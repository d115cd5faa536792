import DifferentialPrivacy
import Dispatch
import Foundation
import LocalTraining
import StrictJSON
import Synchronization
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

@testable import Coordination

/// What plans cost is computed beside the coordinator, and looked at again when it is used.
@Suite(.timeLimit(.minutes(10)))
struct ArithmeticDeskTests {
    /// Cells of one composition, so that a build for tests is done in time.
    private static let cells = 1 << 12

    /// A run whose cost loss distributions compute.
    private static func drawn() throws -> RunSpecification {
        let text = """
            {"population": "p", "model": {"architecture": "external"}, "rounds": 200,
             "cohort": {"goal": 10, "policy": "poisson", "sampling_rate": 0.01},
             "privacy": {"mode": "central", "amplification": "poisson", "noise_multiplier": 0.8}}
            """
        return try RunSpecification.read(JSONValue.parse(Array(text.utf8)))
    }

    private func bench() async throws -> Bench {
        let bench = try await Bench(.memory)
        _ = try await bench.coordinator.createPopulation(
            PopulationRequest(name: "p", budget: BudgetSpecification(epsilon: 30, delta: 1e-5))
        )
        return bench
    }

    private func basis(_ coordinator: Coordinator) async throws -> PlanBasis {
        try await coordinator.perform { $0.budgets.basis(of: try $0.populations.record("p")) }
    }

    /// Cells are counted in the task that asks and in all that runs within it, such as the coordinator's steps.
    @Test func nothingOfAPlanIsComputedWhereEverybodyWaits() async throws {
        let bench = try await bench()
        let coordinator = bench.coordinator
        defer { withExtendedLifetime(bench) {} }
        let specification = try Self.drawn()
        let basis = try await basis(coordinator)
        try await ComposedLoss.$cellLimit.withValue(Self.cells) {
            let (expected, cells) = try LossAllowance.measured {
                let resolved = try basis.calibrating(specification, parameterCount: nil)
                return try basis.projection(of: resolved, parameterCount: nil)
            }
            #expect(cells > 0)
            let planned = try await LossAllowance.measuredInTask {
                try await coordinator.planRun(specification, initialModel: nil)
            }
            #expect(planned.cells == 0 && planned.value.privacy?.epsilon == expected.epsilon)
            let model = ParameterVector(zeros: Bench.layout)
            let made = try await LossAllowance.measuredInTask {
                try await coordinator.createRun(specification, initialModel: model)
            }
            #expect(made.cells == 0 && made.value.state == .created)
            let asked = try await LossAllowance.measuredInTask {
                try await coordinator.projection(of: specification, parameterCount: nil)
            }
            #expect(asked.cells == 0 && asked.value.epsilon == expected.epsilon)
        }
    }

    @Test func clientsAreAnsweredWhileAPlanWaitsForItsArithmetic() async throws {
        let bench = try await bench()
        let coordinator = bench.coordinator
        let client = try #require(try await bench.enroll(1).first)
        let gate = DispatchSemaphore(value: 0)
        let held = Task { try await coordinator.arithmeticDesk.compute { gate.wait() } }
        let specification = try Self.drawn()
        let planning = Task { try await coordinator.planRun(specification, initialModel: nil) }
        try await wait(for: "the plan") { await coordinator.arithmeticDesk.waitingCount == 2 }
        for _ in 0..<3 {
            #expect(try await coordinator.checkIn(client: client, CheckInRequest(), wait: .zero).reason == "no_run")
        }
        #expect(await coordinator.arithmeticDesk.waitingCount == 2)
        gate.signal()
        try await held.value
        #expect(try await planning.value.privacy != nil)
    }

    private func held(
        _ desk: ArithmeticDesk,
        by caller: String,
        _ work: @escaping @Sendable () -> Void
    ) -> Task<Void, any Error> {
        Task { try await Caller.$key.withValue(caller) { try await desk.compute(work) } }
    }

    @Test("A caller who has all its places is told to come again, and another one has places still.")
    func placesAreEachCallersOwn() async throws {
        let desk = ArithmeticDesk()
        let gate = DispatchSemaphore(value: 0)
        let waiting = (0..<ArithmeticDesk.placesPerCaller).map { _ in held(desk, by: "one") { gate.wait() } }
        try await wait(for: "the plans") { await desk.waitingCount == ArithmeticDesk.placesPerCaller }
        let refused = await #expect(throws: CoordinationError.self) { try await held(desk, by: "one") {}.value }
        #expect(refused?.code == "claims_busy" && refused?.kind == .unavailable)
        let other = held(desk, by: "other") {}
        try await wait(for: "the other's plan") { await desk.waitingCount == ArithmeticDesk.placesPerCaller + 1 }
        for _ in waiting { gate.signal() }
        for task in waiting { try await task.value }
        try await other.value
        #expect(await desk.waitingCount == 0)
        try await held(desk, by: "one") {}.value
    }

    @Test("Callers take turns: who asks once is served after one piece of each other caller, however many wait there.")
    func callersTakeTurns() async throws {
        let desk = ArithmeticDesk()
        let gate = DispatchSemaphore(value: 0)
        let served = Mutex<[String]>([])
        var tasks = [held(desk, by: "held") { gate.wait() }]
        try await wait(for: "the first") { await desk.waitingCount == 1 }
        for caller in ["a", "a", "a", "b", "a", "c"] {
            let before = await desk.waitingCount
            tasks.append(held(desk, by: caller) { served.withLock { $0.append(caller) } })
            try await wait(for: "a place") { await desk.waitingCount == before + 1 }
        }
        gate.signal()
        for task in tasks { try await task.value }
        #expect(served.withLock { $0 } == ["a", "b", "c", "a", "a", "a"])
    }

    @Test("No more callers than the desk admits have places, and a piece that fails gives its place back.")
    func callersAreBounded() async throws {
        let desk = ArithmeticDesk()
        let gate = DispatchSemaphore(value: 0)
        let waiting = (0..<ArithmeticDesk.callerLimit).map { number in
            held(desk, by: "caller \(number)") { gate.wait() }
        }
        try await wait(for: "the plans") { await desk.waitingCount == ArithmeticDesk.callerLimit }
        let refused = await #expect(throws: CoordinationError.self) { try await held(desk, by: "last") {}.value }
        #expect(refused?.code == "claims_busy")
        for _ in waiting { gate.signal() }
        for task in waiting { try await task.value }
        await #expect(throws: CancellationError.self) {
            try await Caller.$key.withValue("last") { try await desk.inTurn { throw CancellationError() } }
        }
        #expect(await desk.waitingCount == 0)
    }

    /// What votes may fail with depends on what was charged before: a charge in between changes the threshold.
    @Test func noiseIsComputedAgainWhenOthersWereChargedMeanwhile() async throws {
        let bench = try await bench()
        let coordinator = bench.coordinator
        let text = """
            {"population": "p", "kind": "analytics", "rounds": 8, "privacy": {"noise_multiplier": 2},
             "cohort": {"goal": 45, "minimum": 45, "over_selection": 1}, "analytics": {"method": "votes"}}
            """
        let specification = try RunSpecification.read(JSONValue.parse(Array(text.utf8)))
        let config = String(decoding: try WireCoding.encode(try #require(specification.model.config)), as: UTF8.self)
        let description = ModelDescription(architecture: specification.model.architecture, config: config)
        let model = try ModelArchitectures.make(description).initialParameters(seed: 0)
        let first = try await coordinator.createRun(specification, initialModel: model)
        _ = try await bench.enroll(45)
        let stale = try await basis(coordinator).calibrating(specification, parameterCount: nil)
        // What the start asks for was computed beside the coordinator, and is used once.
        try await coordinator.prepareStart(run: first.id)
        #expect(try await coordinator.perform { $0.budgets.startProjections[first.id] != nil })
        let gate = DispatchSemaphore(value: 0)
        let held = Task { try await coordinator.arithmeticDesk.compute { gate.wait() } }
        try await wait(for: "the desk") { await coordinator.arithmeticDesk.waitingCount == 1 }
        let making = Task { try await coordinator.createRun(specification, initialModel: model) }
        try await wait(for: "the run") { await coordinator.arithmeticDesk.waitingCount == 2 }
        #expect(try await coordinator.startRun(first.id).state == .running)
        #expect(try await coordinator.perform { $0.budgets.startProjections.isEmpty })
        gate.signal()
        try await held.value
        let made = try await making.value
        let fresh = try await basis(coordinator).calibrating(specification, parameterCount: nil)
        #expect(made.specification.privacy.threshold == fresh.privacy.threshold)
        #expect(made.specification.privacy.threshold != stale.privacy.threshold)
    }
}
