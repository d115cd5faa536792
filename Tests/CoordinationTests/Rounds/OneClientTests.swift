import Foundation
import StrictJSON
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

@testable import Coordination

/// One client that says what it likes is not the model, and neither ends nor steers a run.
@Suite(.timeLimit(.minutes(10)))
struct OneClientTests {
    private struct Sent {
        var values: [Float]
        var examples = 10
        var metrics: [String: Double] = [:]
    }

    /// A round of these updates in the given order of arrival, with one restart before the last where asked.
    private func round(
        _ sent: [Sent],
        _ aggregation: RunFile = [:],
        order: [Int]? = nil,
        restarts: Bool = false
    ) async throws -> (model: [Float], round: RoundView, measured: [String: Double]?) {
        let bench = try await Bench(.sqlite)
        let specification = try Bench.exactSpecification(rounds: 2) {
            $0.cohort += ["goal": sent.count]
            $0.aggregation = aggregation
        }
        let (run, clients) = try await bench.startRun(specification, clients: sent.count)
        var coordinator = bench.coordinator
        var ids: [String] = []
        for client in clients { ids.append(try #require(try await Bench.assignment(coordinator, client)).id) }
        for (place, index) in (order ?? Array(sent.indices)).enumerated() {
            if restarts && place == sent.count - 1 { coordinator = try await bench.restarted() }
            let terms = try await coordinator.beginUpdate(assignment: ids[index], client: clients[index])
            let vector = ParameterVector(layout: Bench.layout, values: sent[index].values)
            var update = try Bench.written(
                SafetensorsWriter.encode(vector),
                by: terms,
                examples: sent[index].examples,
                metrics: sent[index].metrics
            )
            update.squaredNorm = sent[index].values.reduce(0.0) { $0 + Double($1) * Double($1) }
            _ = try await coordinator.finishUpdate(assignment: ids[index], client: clients[index], update)
        }
        _ = try await Bench.untilSettled(coordinator, run)
        let view = try await coordinator.round(run: run, number: 1)
        try #require(view.state == .committed, "\(view)")
        return (try await Bench.model(coordinator, run), view, view.metrics?["training"])
    }

    private let honest = (0..<9).map { _ in Sent(values: [0.01, 0.01, 0.01, 0.01]) }

    /// F-1 of the attack: with a count of 10^9 and values of 1 beside nine of 0.01 the model was 0.9999.
    @Test func aHugeCountAndALongUpdateAreCutAtTenMedians() async throws {
        let attack = honest + [Sent(values: [1, 1, 1, 1], examples: 1_000_000_000)]
        let held = try await round(attack)
        // Ten times the median weight of 10 and ten times the median norm: (9·10·0.01 + 100·0.1) / 190.
        for value in held.model { #expect(abs(value - 10.9 / 190) < 1e-6, "\(held.model)") }
        #expect(held.round.cappedWeights == 1 && held.round.weightCap == 100)
        #expect(held.round.cappedNorms == 1 && abs((held.round.normBound ?? 0) - 0.2) < 1e-6)
        // For those who trust their clients.
        let off: RunFile = ["example_cap": "none", "norm_bound": "none"]
        let trusting = try await round(attack, off)
        #expect(trusting.model.allSatisfy { $0 > 0.9999 })
        #expect(trusting.round.cappedWeights == nil && trusting.round.cappedNorms == nil)
        // A number instead.
        let numbers = try await round(attack, ["example_cap": 20, "norm_bound": 0.02])
        for value in numbers.model { #expect(abs(value - 0.01) < 1e-6) }
        #expect(numbers.round.cappedWeights == 1 && numbers.round.weightCap == 20 && numbers.round.normBound == 0.02)
        // What nobody exceeds changes nothing, to the bit.
        let within = honest + [Sent(values: [0.02, -0.03, 0.01, 0.05], examples: 90)]
        let (kept, free) = (try await round(within), try await round(within, off))
        #expect(kept.model == free.model && kept.round.cappedWeights == 0 && kept.round.cappedNorms == 0)
    }

    @Test func heldModelsAreTheSameToTheBitInAnyOrderAndAfterARestart() async throws {
        var generator = Xoshiro256StarStar(seed: 8)
        let sent = (0..<6).map { index in
            Sent(
                values: (0..<4).map { _ in (index == 2 ? 30 : 0.3) * (2 * generator.nextUniform() - 1) },
                examples: index == 4 ? 1_000_000_000_000 : 1 + generator.nextIndex(below: 500)
            )
        }
        let plain = try await round(sent)
        #expect(plain.round.cappedNorms == 1 && plain.round.cappedWeights == 1)
        for (order, restarts) in [([5, 4, 3, 2, 1, 0], false), ([2, 0, 4, 1, 5, 3], true)] {
            let other = try await round(sent, order: order, restarts: restarts)
            #expect(other.model == plain.model && other.round.modelSha256 == plain.round.modelSha256)
            #expect(other.round.cappedNorms == 1 && other.round.cappedWeights == 1)
        }
    }

    @Test(arguments: ["median", "geometric_median"] as [RunFile])
    func otherRulesScaleLongUpdatesDownToo(_ rule: RunFile) async throws {
        let attack = honest + [Sent(values: [1, 1, 1, 1])]
        let held = try await round(attack, ["rule": rule])
        #expect(held.round.cappedNorms == 1 && held.round.cappedWeights == nil)
        #expect(held.model.allSatisfy { abs($0 - 0.01) < 0.01 }, "\(held.model)")
    }

    /// F-2 of the attack, for metrics of training: a loss of -3.2e10, or one that drowns the others.
    @Test func oneClientsMeasurementsAreHeldLikeItsWeight() async throws {
        var sent = honest
        for index in sent.indices { sent[index].metrics = ["nll": 20, "loss_tokens": 10, "tokens": 10, "hit1": 2] }
        let lies = ["nll": 1e12, "loss_tokens": 10, "tokens": 1e12, "hit1": 1e12]
        sent.append(Sent(values: [0, 0, 0, 0], metrics: lies))
        let held = try #require(try await round(sent).measured)
        // Its loss counts as ten times the median of 2, its weight in top1 as ten times the median of 10.
        #expect(abs((held["loss"] ?? 0) - (9 * 20 + 10 * 20) / 100) < 1e-9, "\(held)")
        #expect(abs((held["top1"] ?? 0) - (9 * 2 + 100) / 190) < 1e-9, "\(held)")
        let trusting = try await round(sent, ["example_cap": "none"]).measured
        #expect((trusting?["top1"] ?? 0) > 0.99)
    }

    /// Whatever one of ten says, in sums that are taken, moves a mean no further than its weight and the medians let it: over every name
    /// that a run takes, alone and in pairs, at values large and small.
    @Test(.slow, arguments: [CohortBound.timesMedian(10), .value(1_000_000), .off])
    func noNameOfASumLetsOneClientSteerAMean(_ cap: CohortBound) {
        let honest: [String: Double] = [
            "tokens": 10, "loss_tokens": 10, "hit1": 2, "hit3": 4, "nll": 20, "accuracy": 2, "mae": 5, "steps": 3,
            "seconds": 9,
        ]
        let plain = honest.filter { $0.key != "hit1" && $0.key != "hit3" && $0.key != "nll" }
            .merging(["top1": 2, "top3": 4, "loss": 20]) { $1 }
        let names = MetricSums.builtIn.union(["mae", "recall", "val_loss"]).sorted()
        let values = [0, -1, 1e-9, 9, 10, 11, 1e6, 1e9, 0x1p40, -0x1p40]
        var taken = 0
        for others in [honest, plain] {
            for (place, first) in names.enumerated() {
                for second in names[place...] {
                    for value in values {
                        for examples in [1, 10, 1_000_000_000_000] {
                            let said = Dictionary([first, second].map { ($0, value) }) { $1 }
                            for sums in [others.merging(said) { $1 }, said] {
                                guard MetricSums.implausible(sums, exampleCount: examples) == nil else { continue }
                                taken += 1
                                let clients = (0..<9).map { _ in (sums: others, exampleCount: 10) }
                                let rates = CohortMeans(
                                    of: clients + [(MetricSums.counted(sums), examples)],
                                    cap: cap
                                ).rates
                                for (name, rate) in rates where MetricSums.shares.contains(name) {
                                    #expect((0...1).contains(rate), "\(sums): \(name) is \(rate)")
                                }
                                guard case .timesMedian = cap else { continue }
                                // Ten times the weight, and all or nothing of it: (9·10·0.2 + 100)/190.
                                if others["hit1"] != nil || sums["hit1"] != nil || sums["top1"] != nil {
                                    #expect((rates["top1"] ?? 0) <= 0.63, "\(sums): \(rates)")
                                }
                                #expect((rates["accuracy"] ?? 0) <= 0.63, "\(sums): \(rates)")
                                // Ten times the median value of 2 with ten times the weight.
                                #expect((0...12).contains(rates["loss"] ?? 0), "\(sums): \(rates)")
                            }
                        }
                    }
                }
            }
        }
        #expect(taken > 1000)
    }

    @Test func aRateBesideItsSumIsRefused() {
        for (part, rate) in [("hit1", "top1"), ("hit3", "top3"), ("nll", "loss")] {
            #expect(MetricSums.implausible([part: 1, rate: 1], exampleCount: 10)?.contains("beside") == true)
            // Of stored sums the counted one is the rate, whatever the order.
            #expect(MetricSums.fractions([part: 1, rate: 9], exampleCount: 10).count == 1)
        }
        #expect(MetricSums.implausible(["top1": 1e9], exampleCount: 1) == "top1 is more than num_examples")
        #expect(MetricSums.implausible(["accuracy": 11], exampleCount: 10) == "accuracy is more than num_examples")
        #expect(MetricSums.implausible(["accuracy": 10, "top1": 0], exampleCount: 10) == nil)
    }

    @Test func meansOfClientsThatNeedNoCutAreThoseOfAllExamples() {
        var generator = Xoshiro256StarStar(seed: 31)
        for _ in 0..<50 {
            let clients = (0..<(1 + generator.nextIndex(below: 9))).map { _ in
                let tokens = 50 + generator.nextIndex(below: 50)
                let hits = generator.nextIndex(below: tokens)
                let sums: [String: Double] = [
                    "tokens": Double(tokens), "hit1": Double(hits), "nll": Double(tokens) * 1.5, "mae": 2,
                ]
                return (sums: sums, exampleCount: 20 + generator.nextIndex(below: 20))
            }
            var plain = MetricSums()
            for client in clients { plain.add(client.sums, exampleCount: client.exampleCount) }
            let means = CohortMeans(of: clients, cap: .timesMedian(1e6))
            #expect(means.rates == plain.rates && means.cappedCount == 0)
            var shuffled = clients
            generator.shuffle(&shuffled)
            let held = CohortMeans(of: clients, cap: .timesMedian(1.2))
            #expect(CohortMeans(of: shuffled, cap: .timesMedian(1.2)).rates == held.rates)
            #expect(CohortMeans(of: clients, cap: .off).rates == plain.rates)
        }
        #expect(CohortMeans(of: [], cap: .off).rates.isEmpty)
        // Whatever admission lets through: no trap, and finite.
        let extreme = CohortMeans(
            of: [(["nll": 0x1p40, "x": -0x1p40], 1), (["nll": 0x1p40, "x": 0x1p-1074], 1_000_000_000_000)],
            cap: .value(1)
        )
        #expect(extreme.rates.values.allSatisfy { $0.isFinite })
    }
}
