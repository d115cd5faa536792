import Coordination
import StrictJSON
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

/// In which order a client is given the work of several runs tells nothing of a draw that is secret.
@Suite(.timeLimit(.minutes(10)))
struct SecretDrawOrderTests {
    private static func specification(_ name: String, isSecret: Bool) throws -> RunSpecification {
        try RunSpecification.sample {
            $0.rounds = 3
            $0 += ["name": name]
            $0.cohort += ["goal": 4, "report_timeout_s": 100]
            $0.privacy += ["mode": "central", "noise_multiplier": 8]
            if isSecret {
                $0.cohort += ["policy": "poisson", "sampling_rate": 0.999999999]
                $0.privacy.amplification = "poisson"
            } else {
                $0.cohort += ["minimum": 1, "over_selection": 1, "max_participations": 9]
            }
        }
    }

    /// Which of the runs the last client is given first and then, when so many others are at work for the secret one.
    private func order(atWork count: Int) async throws -> [String] {
        let bench = try await Bench(.memory)
        let coordinator = bench.coordinator
        _ = try await coordinator.createPopulation(
            PopulationRequest(name: "p", budget: BudgetSpecification(epsilon: 500, delta: 1e-5))
        )
        var clients = try await bench.enroll(6)
        var runs: [String: String] = [:]
        for (name, isSecret) in [("secret", true), ("one", false), ("other", false)] {
            let run = try await coordinator.createRun(
                Self.specification(name, isSecret: isSecret),
                initialModel: ParameterVector(zeros: Bench.layout)
            ).id
            _ = try await coordinator.startRun(run)
            runs[name] = run
        }
        func give(_ client: String, _ names: [String]) async throws -> AssignmentBody? {
            let wanted = names.compactMap { runs[$0] }
            return try await coordinator.checkIn(client: client, CheckInRequest(runs: wanted), wait: .zero).assignment
        }
        let last = clients.removeLast()
        // A public run has its share of work.
        #expect(try await give(clients.removeLast(), ["one"]) != nil)
        for client in clients.prefix(count) { #expect(try await give(client, ["secret"]) != nil) }
        var order: [String] = []
        for _ in 0..<3 {
            guard let work = try await give(last, ["secret", "one", "other"]) else { break }
            order.append(try #require(runs.first { $0.value == work.run }?.key))
            _ = try await Bench.submit(coordinator, last, work.id, value: 0)
        }
        return order
    }

    @Test(.slow) func theOrderIsTheSameHoweverManyWereDrawn() async throws {
        let expected = try await order(atWork: 0)
        #expect(Set(expected) == ["secret", "one", "other"])
        for count in 1...4 { #expect(try await order(atWork: count) == expected, "\(count) at work") }
    }

    /// Whose turn it is among other runs counts the work that was handed out.
    @Test(.slow) func theTurnOfOtherRunsIsNotMovedByASecretDraw() async throws {
        var found: [[String]] = []
        for count in 0...3 {
            let bench = try await Bench(.memory)
            let coordinator = bench.coordinator
            _ = try await coordinator.createPopulation(
                PopulationRequest(name: "p", budget: BudgetSpecification(epsilon: 500, delta: 1e-5))
            )
            let clients = try await bench.enroll(6)
            var runs: [String] = []
            for (name, isSecret) in [("secret", true), ("one", false), ("other", false)] {
                let specification = try Self.specification(name, isSecret: isSecret)
                runs.append(
                    try await coordinator.createRun(specification, initialModel: ParameterVector(zeros: Bench.layout))
                        .id
                )
                _ = try await coordinator.startRun(runs[runs.count - 1])
            }
            for client in clients.prefix(count) {
                let request = CheckInRequest(runs: [runs[0]])
                #expect(try await coordinator.checkIn(client: client, request, wait: .zero).assignment != nil)
            }
            let request = CheckInRequest(runs: Array(runs.dropFirst()))
            let work = try await coordinator.checkIn(client: clients[5], request, wait: .zero).assignment
            found.append([try #require(work?.run) == runs[1] ? "one" : "other"])
        }
        #expect(Set(found).count == 1, "\(found)")
    }
}
