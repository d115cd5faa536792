import DifferentialPrivacy
import StrictJSON
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

@testable import Coordination

/// Looking at a population takes a bounded amount of arithmetic, whatever runs were made in it.
@Suite(.timeLimit(.minutes(10)))
struct BudgetViewCostTests {
    private static func specification(_ privacy: RunFile, cohort: RunFile, rounds: Int) throws -> RunSpecification {
        try RunSpecification.sample {
            $0 += ["rounds": rounds]
            $0.cohort = cohort
            $0.privacy = privacy
            $0.privacy.mode = "central"
        }
    }

    private static let amplified: RunFile = ["amplification": "poisson", "noise_multiplier": 0.8]
    private static let drawn: RunFile = ["goal": 10, "policy": "poisson", "sampling_rate": 0.001]
    /// Cells of one composition, so that a build for tests is done in time.
    private static let cells = 1 << 12

    private func bench(_ runs: Int, epsilon: Double = 2) async throws -> (Bench, [String]) {
        let bench = try await Bench(.memory)
        _ = try await bench.coordinator.createPopulation(
            PopulationRequest(name: "p", budget: BudgetSpecification(epsilon: epsilon, delta: 1e-5))
        )
        var ids: [String] = []
        for _ in 0..<runs {
            let specification = try Self.specification(Self.amplified, cohort: Self.drawn, rounds: 100_000 + ids.count)
            let run = try await ComposedLoss.$cellLimit.withValue(Self.cells) {
                try await bench.coordinator.createRun(specification, initialModel: ParameterVector(zeros: Bench.layout))
            }
            ids.append(run.id)
        }
        return (bench, ids)
    }

    private func view(_ coordinator: Coordinator, standard: Int) async throws -> (status: BudgetStatus, cells: Int) {
        try await coordinator.perform { coordinator in
            try ComposedLoss.$cellLimit.withValue(Self.cells) {
                try LossAllowance.$standard.withValue(standard) {
                    let seen = try LossAllowance.measured { try coordinator.population("p").budget }
                    return (try #require(seen.value), seen.cells)
                }
            }
        }
    }

    @Test(.slow) func runsThatWereOnlyCreatedTakeNoMoreThanOneQuestionMay() async throws {
        let (bench, runs) = try await bench(3)
        let limit = 60_000
        for _ in 0..<2 {
            let (status, cells) = try await view(bench.coordinator, standard: limit)
            #expect(cells <= limit, "\(cells)")
            #expect(Set(status.roundsThatFit.keys) == Set(runs))
        }
        // What does not fit into the allowance is answered by Rényi divergences, which never admit more.
        let (rough, none) = try await view(bench.coordinator, standard: 0)
        #expect(none == 0)
        let (exact, _) = try await view(bench.coordinator, standard: .max / 4)
        for run in runs {
            let (least, most) = (
                try #require(rough.roundsThatFit[run] ?? nil), try #require(exact.roundsThatFit[run] ?? nil)
            )
            #expect(0 < least && least <= most && most < 100_000, "\(least), \(most)")
        }
    }

    /// Whatever the searches came to, a ledger that stands still is soon looked at for nothing.
    @Test(.slow, arguments: [0, 1_000, 60_000, 1_000_000])
    func theSameQuestionCostsNothingInTheEnd(_ standard: Int) async throws {
        let (bench, runs) = try await bench(3)
        for _ in runs { _ = try await view(bench.coordinator, standard: standard) }
        #expect(try await view(bench.coordinator, standard: standard).cells == 0)
    }

    /// A list of populations is one question, however many there are.
    @Test(.slow) func allPopulationsTogetherTakeNoMoreThanOne() async throws {
        let (bench, _) = try await bench(2)
        for name in ["q", "r", "s"] {
            _ = try await bench.coordinator.createPopulation(
                PopulationRequest(name: name, budget: BudgetSpecification(epsilon: 2, delta: 1e-5))
            )
            var specification = try Self.specification(Self.amplified, cohort: Self.drawn, rounds: 100_000)
            specification.population = name
            let wanted = specification
            _ = try await ComposedLoss.$cellLimit.withValue(Self.cells) {
                try await bench.coordinator.createRun(wanted, initialModel: ParameterVector(zeros: Bench.layout))
            }
        }
        let limit = 60_000
        let cells = try await bench.coordinator.perform { coordinator in
            try ComposedLoss.$cellLimit.withValue(Self.cells) {
                try LossAllowance.$standard.withValue(limit) {
                    try LossAllowance.measured { try coordinator.listPopulations(limit: 100) }.cells
                }
            }
        }
        #expect(0 < cells && cells <= limit, "\(cells)")
    }

    /// Rows of another population change nothing of this one.
    @Test(.slow) func anotherPopulationsRowsLeaveTheAnswerAsItWas() async throws {
        let (bench, _) = try await bench(1)
        _ = try await view(bench.coordinator, standard: .max / 4)
        for index in 0..<3 {
            _ = try await bench.coordinator.createPopulation(
                PopulationRequest(name: "q\(index)", budget: BudgetSpecification(epsilon: 1, delta: 1e-5))
            )
            try await bench.coordinator.perform { $0.budgets.plansThatFit = [:] }
            #expect(try await view(bench.coordinator, standard: .max / 4).cells == 0)
        }
        // Whoever changes the budget is answered with the new status.
        let cells = try await bench.coordinator.perform { coordinator in
            try ComposedLoss.$cellLimit.withValue(Self.cells) {
                try LossAllowance.measured { try coordinator.changeBudget(population: "p", .init(epsilon: 1)) }.cells
            }
        }
        #expect(cells > 0)
    }

    /// Each opening of a round asks for as much: what takes more than one question may is refused when the run is made, also where
    /// nothing is sampled.
    @Test(
        arguments: [
            (BudgetViewCostTests.amplified, BudgetViewCostTests.drawn),
            (["mechanism": "laplace", "noise_multiplier": 30], ["goal": 10, "max_participations": 100_000]),
        ] as [(RunFile, RunFile)]
    )
    func aRunThatTakesTooMuchIsNotMade(_ privacy: RunFile, _ cohort: RunFile) async throws {
        let (bench, _) = try await bench(0)
        let specification = try Self.specification(privacy, cohort: cohort, rounds: 100_000)
        func create(_ standard: Int) async throws -> RunView {
            try await ComposedLoss.$cellLimit.withValue(Self.cells) {
                try await LossAllowance.$standard.withValue(standard) {
                    try await bench.coordinator.createRun(
                        specification,
                        initialModel: ParameterVector(zeros: Bench.layout)
                    )
                }
            }
        }
        let refused = await refusal { try await create(1000) }
        #expect(refused?.code == "privacy_too_costly" && refused?.kind == .unprocessable, "\(refused?.code ?? "made")")
        #expect(refused?.message.contains("too much arithmetic") == true, "\(refused?.message ?? "")")
        #expect(try await create(LossAllowance.standard).state == .created)
    }
}
