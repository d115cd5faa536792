import Coordination
import Foundation
import StrictJSON
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

/// Optimiser state, robust rules and quarantine, through whole rounds on either store.
@Suite(.timeLimit(.minutes(10)))
struct OptimizerAndRobustnessTests {
    /// Runs one round in which client `i` submits `values[i]`, and waits for its end.
    private func round(
        _ coordinator: Coordinator,
        _ run: String,
        _ clients: [String],
        _ values: [Float]
    ) async throws {
        for (client, value) in zip(clients, values) {
            let assignment = try #require(try await Bench.assignment(coordinator, client))
            _ = try await Bench.submit(coordinator, client, assignment.id, value: value)
        }
        _ = try await Bench.untilSettled(coordinator, run)
    }

    @Test(.slow, arguments: Bench.StoreKind.allCases, ["momentum", "adam", "yogi", "adagrad"])
    func anOptimizerContinuesToTheBitOverARestart(_ kind: Bench.StoreKind, _ name: String) async throws {
        let values: [[Float]] = [[0.1, 0.2, 0.3], [-0.3, 0.1, 0.5], [0.2, 0.2, -0.4]]
        var models: Set<[Float]> = []
        for restarts in [false, true] {
            let bench = try await Bench(kind)
            let (run, clients) = try await bench.startRun(
                try Bench.specification(rounds: 3) { $0.aggregation.optimizer += ["name": name, "learning_rate": 0.1] }
            )
            var coordinator = bench.coordinator
            for round in values {
                try await self.round(coordinator, run, clients, round)
                if restarts { coordinator = try await bench.restarted() }
            }
            let last = try await coordinator.model(run: run, version: "latest")
            #expect(last.version == 3 && last.optimizerSha256 != nil)
            #expect(try await coordinator.model(run: run, version: "0").optimizerSha256 == nil)
            models.insert(try await Bench.model(coordinator, run))
        }
        #expect(models.count == 1)
    }

    @Test(arguments: Bench.StoreKind.allCases)
    func aPoisonedUpdateIsLeftOutItsClientQuarantinedAndTheReasonShown(_ kind: Bench.StoreKind) async throws {
        let bench = try await Bench(kind)
        let (run, clients) = try await bench.startRun(
            try Bench.specification(goal: 4, rounds: 2) {
                $0.aggregation.anomalies += ["action": "quarantine", "norm_ratio": 5]
            },
            clients: 5
        )
        let coordinator = bench.coordinator
        try await round(coordinator, run, clients, [0.1, 0.1, 0.1, 20])
        let shown = try await coordinator.round(run: run, number: 1)
        #expect(shown.state == .committed && shown.excluded == 1 && shown.accepted == 4)
        let model = try await Bench.model(coordinator, run)
        #expect(abs(model[0] - 0.1) < 1e-6)
        let scores = try await coordinator.updateScores(run: run, round: 1)
        #expect(scores.count == 4 && scores[0].client == clients[3] && !scores[0].counted)
        #expect(scores[0].reason?.contains("times the cohort's median") == true)
        #expect(scores.dropFirst().allSatisfy { $0.counted && $0.reason == nil && ($0.cosine ?? 0) > 0.999 })
        #expect(try await coordinator.updateScores(client: clients[3]).count == 1)
        let client = try await coordinator.client(clients[3])
        #expect(client.quarantineReason?.contains("round 1") == true && client.quarantinedAt != nil)

        // It gets no work, also after a restart, until an operator lets it.
        let again = try await bench.restarted()
        let answer = try await again.checkIn(client: clients[3], CheckInRequest(), wait: .zero)
        #expect(answer.assignment == nil && answer.reason == "quarantined")
        try await again.releaseClient(clients[3])
        #expect(try await Bench.assignment(again, clients[3]) != nil)
        #expect(try await again.client(clients[3]).quarantineReason == nil)
    }

    @Test func aRoundThatLosesTooManyIsAbandonedAndTriedAgainWithoutThem() async throws {
        let bench = try await Bench(.sqlite)
        let (run, clients) = try await bench.startRun(
            try Bench.specification(goal: 3) {
                $0.aggregation.anomalies += ["action": "quarantine", "norm_ratio": 5, "min_cosine": 0]
            },
            clients: 5
        )
        let coordinator = bench.coordinator
        try await round(coordinator, run, clients, [0.1, -3, 25])
        let rounds = try await coordinator.rounds(run: run)
        #expect(rounds[0].state == .abandoned && rounds[0].attempt == 1)
        #expect(rounds[0].reason?.contains("stood out") == true, "\(String(describing: rounds[0].reason))")
    }

    /// One large update turns the mean, and honest clients would stand out beside it; it cannot turn the median.
    @Test func underAMeanDirectionsAreJudgedByTheMedian() async throws {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(
            try Bench.specification(goal: 4) {
                $0.aggregation.anomalies += ["action": "exclude", "norm_ratio": 1000, "min_cosine": 0]
            },
            clients: 4
        )
        try await round(bench.coordinator, run, clients, [1, 1, 1, -20])
        let shown = try await bench.coordinator.round(run: run, number: 1)
        #expect(shown.state == .committed && shown.excluded == 1)
        #expect(abs(try await Bench.model(bench.coordinator, run)[0] - 1) < 1e-6)
        let scores = try await bench.coordinator.updateScores(run: run, round: 1)
        #expect(scores.filter { !$0.counted }.map(\.client) == [clients[3]])
        #expect(scores.first { !$0.counted }?.reason?.contains("cohort's median") == true)
    }

    /// The same clients come again and stand out again: each attempt waits twice as long, and says why, until there were enough.
    @Test func aRoundThatIsAlwaysShortOfGoodUpdatesBacksOffSaysWhyAndEnds() async throws {
        let bench = try await Bench(.sqlite)
        let specification = try RunSpecification.sample {
            $0.rounds = 2
            $0.cohort += ["goal": 3, "minimum": 3, "over_selection": 1, "max_attempts": 4]
            $0.aggregation.anomalies += ["action": "exclude", "norm_ratio": 5]
        }
        let (run, clients) = try await bench.startRun(specification, clients: 3)
        var coordinator = bench.coordinator
        for attempt in 1...4 {
            try await round(coordinator, run, clients, [0.1, 0.1, 20])
            let shown = try #require(try await coordinator.rounds(run: run).last)
            #expect(shown.attempt == attempt && shown.state == .abandoned)
            if attempt == 2 { coordinator = try await bench.restarted() }
            let waiting = try await coordinator.run(run).waitingFor
            let seconds = 1 << (attempt - 1)
            #expect(waiting.contains("attempt \(attempt + 1) to open in \(seconds) s"), "\(waiting)")
            #expect(waiting.contains("1 of 3 updates stood out") && waiting.contains("minimum of 3"), "\(waiting)")
            // Nobody gets work meanwhile; a pause is possible, and holds.
            let answer = try await coordinator.checkIn(client: clients[0], CheckInRequest(), wait: .zero)
            #expect(answer.reason == "between_attempts")
            if attempt == 3 {
                #expect(try await coordinator.pauseRun(run).waitingFor == "the run to be resumed")
                bench.clock.advance(by: 1000)
                try await coordinator.tick()
                #expect(try await coordinator.rounds(run: run).count == 3)
                _ = try await coordinator.resumeRun(run)
            } else {
                bench.clock.advance(by: Double(seconds) + 0.01)
                try await coordinator.tick()
            }
        }
        let view = try await coordinator.run(run)
        #expect(view.state == .failed && view.reason?.contains("attempts_exhausted") == true)
        let cause = try #require(try await coordinator.roundHistory(run: run, number: 0).last?.cause)
        #expect(cause.contains("failed in 4 attempts") && cause.contains("stood out"), "\(cause)")
    }

    @Test(arguments: ["median", "geometric_median", "trimmed_mean", "krum", "multi_krum"])
    func aRobustRuleMakesTheModelInAnyOrder(_ rule: String) async throws {
        var models: Set<[Float]> = []
        for order in [[0, 1, 2, 3, 4], [4, 2, 1, 0, 3]] {
            let bench = try await Bench(.memory)
            let specification = try RunSpecification.sample {
                $0.cohort += ["goal": 5, "minimum": 5, "max_participations": 0]
                $0.aggregation += ["rule": rule]
            }
            let (run, clients) = try await bench.startRun(specification, clients: 5)
            let values: [Float] = [0.1, 0.15, 0.2, 0.25, 30]
            try await round(bench.coordinator, run, clients, order.map { values[$0] })
            models.insert(try await Bench.model(bench.coordinator, run))
        }
        #expect(models.count == 1 && models.allSatisfy { abs($0[0] - 0.18) < 0.1 }, "\(models)")
    }

    @Test func weightsAndGradientsGiveTheSameModelAsDeltas() async throws {
        var models: [[Float]] = []
        for (submit, sign) in [(Submission.delta, Float(1)), (.weights, 1), (.gradient, -1)] {
            let bench = try await Bench(.memory)
            let (run, clients) = try await bench.startRun(try Bench.specification { $0.training += ["submit": submit] })
            let assignment = try #require(try await Bench.assignment(bench.coordinator, clients[0]))
            #expect(assignment.training.submit == submit)
            let terms = try await bench.coordinator.beginUpdate(assignment: assignment.id, client: clients[0])
            #expect(terms.kind == submit)
            // The base is zero, so that weights are deltas; the fixed coordinate of `submit` keeps its sign.
            try await round(bench.coordinator, run, clients, [0.25, 0.5, 0.75].map { $0 * sign })
            models.append(Array(try await Bench.model(bench.coordinator, run)[1...]))
        }
        #expect(models[0] == models[1])
        #expect(models[0][0] == models[2][0] && models[0][1] == models[2][1])
    }

    @Test func scaffoldAveragesDeltasAndMovesTheControlVariateByItsShareOfClients() async throws {
        let bench = try await Bench(.sqlite)
        let (run, clients) = try await bench.startRun(
            try Bench.specification(goal: 2, rounds: 2) { $0.training.algorithm = "scaffold" },
            clients: 4
        )
        let coordinator = bench.coordinator
        let joint = ControlVariates.jointLayout(Bench.layout)
        for (index, client) in clients.prefix(2).enumerated() {
            let assignment = try #require(try await Bench.assignment(coordinator, client))
            #expect(assignment.updateTensors == joint && assignment.control == nil)
            let update = ControlVariates.join(
                model: ParameterVector(layout: Bench.layout, values: [1, 1, 1, 1]),
                control: [Float](repeating: Float(index + 1), count: 4)
            )
            _ = try await coordinator.finishUpdate(
                assignment: assignment.id,
                client: client,
                Bench.received(coordinator, client, assignment.id, update)
            )
        }
        _ = try await Bench.untilSettled(coordinator, run)
        #expect(try await Bench.model(coordinator, run) == [1, 1, 1, 1])
        let version = try await coordinator.model(run: run, version: "1")
        let control = try SafetensorsFile(
            path: coordinator.blobs.path(sha256: try #require(version.controlSha256))
        ).readAll()
        // 2 of 4 clients reported a mean change of 1.5.
        #expect(control.layout == Bench.layout && control.values == [0.75, 0.75, 0.75, 0.75])
        let next = try #require(try await Bench.assignment(coordinator, clients[2]))
        #expect(next.control?.sha256 == version.controlSha256)
    }

    /// Names that could be taken for control variates would mix up the two halves.
    @Test func scaffoldRefusesModelsWithNamesOfControlVariates() async throws {
        let bench = try await Bench(.memory)
        _ = try await bench.coordinator.createPopulation(PopulationRequest(name: "p", budget: nil))
        let specification = try Bench.specification(goal: 2) { $0.training.algorithm = "scaffold" }
        for names in [["scaffold_control/w"], ["w", "scaffold_control/w"], ["scaffold_control/"]] {
            let layout = ParameterLayout(names.map { .init(name: $0, shape: [2]) })
            let model = SafetensorsWriter.encode(ParameterVector(zeros: layout))
            let run = try await bench.coordinator.createRun(specification, initialModel: nil).id
            let path = bench.directory.path + "/spool/first"
            try model.write(to: URL(fileURLWithPath: path))
            let refusal = await refusal {
                try await bench.coordinator.putInitialModel(
                    run: run,
                    spoolFile: path,
                    sha256: Secrets.sha256(Array(model))
                )
            }
            #expect(refusal?.code == "tensor_mismatch" && refusal?.message.contains("rename it") == true)
            // Nor where the model comes another way.
            let other = try await bench.coordinator.createRun(
                specification,
                initialModel: ParameterVector(zeros: layout)
            ).id
            #expect(
                await TestBenches.refusal { try await bench.coordinator.startRun(other) }?.code
                    == "tensor_mismatch"
            )
        }
    }

    /// A client of mode `local` that does not clip counts for as much as an honest one with its noise at most.
    @Test(arguments: ["gaussian", "laplace"])
    func anUpdateThatIsNotClippedIsHeldToPublicTermsInModeLocal(_ mechanism: String) async throws {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(
            try Bench.specification(goal: 2) {
                $0.privacy += ["mode": "local", "mechanism": mechanism, "noise_multiplier": 1]
                $0.privacy.clipping.norm = 0.01
            },
            budget: BudgetSpecification(epsilon: 100, delta: 1e-5),
            clients: 2
        )
        for (client, value) in zip(clients, [Float(30), 0.01]) {
            let id = try #require(try await Bench.assignment(bench.coordinator, client)).id
            _ = try await Bench.submit(bench.coordinator, client, id, value: value)
        }
        #expect(try await Bench.untilSettled(bench.coordinator, run).state == .completed)
        let model = try await Bench.model(bench.coordinator, run)
        // C + 2Cz(√4 + 7), and for Laplace noise C + 2Cz(2√4 + 64); half of it is the mean's.
        let bound: Float = mechanism == "laplace" ? 0.01 + 0.02 * 68 : 0.01 + 0.02 * 9
        let norm = model.reduce(Float(0)) { $0 + $1 * $1 }.squareRoot()
        #expect(norm < bound / 2 + 0.3 && norm > bound / 4, "\(norm)")
    }

    /// A device asks what became of an accepted update: open, abandoned, or a model version; also after a restart.
    @Test func aClientIsToldWhatBecameOfItsAcceptedUpdate() async throws {
        let bench = try await Bench(.sqlite)
        let (run, clients) = try await bench.startRun(try Bench.specification(goal: 2), clients: 2)
        let coordinator = bench.coordinator
        let lost = try #require(try await Bench.assignment(coordinator, clients[0])).id
        #expect(try await coordinator.assignment(lost, client: clients[0]).roundCommitted == nil)
        _ = try await Bench.submit(coordinator, clients[0], lost, value: 1)
        #expect(try await coordinator.assignment(lost, client: clients[0]).roundCommitted == nil)
        // Nobody else comes: the attempt is abandoned.
        bench.clock.advance(by: 200)
        try await coordinator.tick()
        #expect(try await coordinator.assignment(lost, client: clients[0]).roundCommitted == false)
        bench.clock.advance(by: 200)
        try await coordinator.tick()
        var ids: [String] = []
        for client in clients {
            let id = try #require(try await Bench.assignment(coordinator, client)).id
            _ = try await Bench.submit(coordinator, client, id, value: 1)
            ids.append(id)
        }
        _ = try await Bench.untilSettled(coordinator, run)
        for server in [coordinator, try await bench.restarted()] {
            #expect(try await server.assignment(ids[0], client: clients[0]).roundCommitted == true)
            #expect(try await server.assignment(lost, client: clients[0]).roundCommitted == false)
        }
    }

    /// A base of other tensors is refused when the run is created, by the first that is wrong, and with a dry run too.
    @Test func aBaseOfOtherTensorsIsRefusedByTheFirstThatIsWrong() async throws {
        let bench = try await Bench(.memory)
        let (run, _) = try await bench.startRun(try Bench.specification())
        var specification = try Bench.specification()
        specification.model.base = try WireCoding.decode(
            RunSpecification.Model.Base.self,
            from: Data(#"{"run": "\#(run)"}"#.utf8)
        )
        func problem(_ tensors: [TensorSpecification]) async throws -> String {
            do {
                try await bench.coordinator.checkBase(of: specification, against: ParameterLayout(tensors))
                return ""
            } catch let error as DocumentError { return error.problems.map { "\($0.pointer) \($0.detail)" }.joined() }
        }
        let (w, b) = (TensorSpecification(name: "w", shape: [3]), TensorSpecification(name: "b", shape: []))
        #expect(try await problem([w, b]) == "")
        #expect(try await problem([w]).contains("/model/base version 0 of run \(run) has tensor 'b'"))
        #expect(try await problem([w, b, .init(name: "c", shape: [1])]).contains("lacks tensor 'c'"))
        #expect(try await problem([.init(name: "w", shape: [4]), b]).contains("tensor 'w' has shape [3], not [4]"))
    }
}
