import Aggregation
import Foundation
import Tensors
import Testing

struct ServerOptimizerTests {
    private struct Fixture: Decodable {
        struct Parameters: Decodable {
            var initial: [Float]
            var aggregates: [[Double]]
        }
        struct Case: Decodable {
            var name: String
            var learningRate: Double
            var momentum: Double?
            var beta1: Double?
            var beta2: Double?
            var epsilon: Double?
            var expected: [[Float]]

            var optimizer: any ServerOptimizer {
                switch name {
                case "momentum": FedAvgM(learningRate: learningRate, momentum: momentum ?? 0)
                case "adagrad": FedAdagrad(learningRate: learningRate, beta1: beta1 ?? 0, epsilon: epsilon ?? 0)
                case "adam":
                    FedAdam(learningRate: learningRate, beta1: beta1 ?? 0, beta2: beta2 ?? 0, epsilon: epsilon ?? 0)
                case "yogi":
                    FedYogi(learningRate: learningRate, beta1: beta1 ?? 0, beta2: beta2 ?? 0, epsilon: epsilon ?? 0)
                default: FedAvg(learningRate: learningRate)
                }
            }
        }
        var parameters: Parameters
        var cases: [Case]

        static func load() throws -> Fixture {
            let url = try #require(
                Bundle.module.url(forResource: "Fixtures/server-optimizers", withExtension: "json")
            )
            let decoder = JSONDecoder()
            decoder.keyDecodingStrategy = .convertFromSnakeCase
            return try decoder.decode(Fixture.self, from: Data(contentsOf: url))
        }
    }

    @Test(arguments: ["sgd", "momentum", "adagrad", "adam", "yogi"])
    func stepsAreThoseOfTheReference(name: String) throws {
        let fixture = try Fixture.load()
        let reference = try #require(fixture.cases.first { $0.name == name })
        var parameters = fixture.parameters.initial
        var state = OptimizerState(initialFor: reference.optimizer, parameterCount: parameters.count)
        for (aggregate, expected) in zip(fixture.parameters.aggregates, reference.expected) {
            reference.optimizer.step(&parameters, aggregate: aggregate, state: &state)
            for (value, right) in zip(parameters, expected) {
                // Both round to Float once a step; two ulps allow for a different order inside one expression.
                #expect(abs(value - right) <= 2 * right.ulp, "\(name)")
            }
        }
    }

    @Test(arguments: ["momentum", "adagrad", "adam", "yogi"])
    func aStateThatWentThroughAFileContinuesToTheBit(name: String) throws {
        let fixture = try Fixture.load()
        let optimizer = try #require(fixture.cases.first { $0.name == name }).optimizer
        let layout = ParameterLayout([.init(name: "b", shape: [2]), .init(name: "a", shape: [2, 2])])
        var (straight, broken) = (fixture.parameters.initial, fixture.parameters.initial)
        var state = OptimizerState(initialFor: optimizer, parameterCount: 6)
        var kept = state
        let path = NSTemporaryDirectory() + "optimizer-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: path) }
        for aggregate in fixture.parameters.aggregates {
            optimizer.step(&straight, aggregate: aggregate, state: &state)
            optimizer.step(&broken, aggregate: aggregate, state: &kept)
            try SafetensorsWriter.encode(kept.vector(layout: layout)).write(to: URL(fileURLWithPath: path))
            kept = try OptimizerState(SafetensorsFile(path: path).readAll(), optimizer: optimizer, layout: layout)
            #expect(kept == state && straight == broken)
        }
        let other = name == "momentum" ? FedAdam() as any ServerOptimizer : FedAvgM()
        #expect(throws: AggregationError.self) {
            try OptimizerState(SafetensorsFile(path: path).readAll(), optimizer: other, layout: layout)
        }
    }

    @Test func serverStepAddsTheScaledMean() {
        var parameters: [Float] = [1, 2]
        let optimizer = FedAvg(learningRate: 0.5)
        var state = OptimizerState(initialFor: optimizer, parameterCount: 2)
        optimizer.step(&parameters, aggregate: [2, -4], state: &state)
        #expect(parameters == [2, 0] && state.moments.isEmpty)
    }

    @Test func serverStepRoundsTheProductFirst() {
        // 3 fl(1/3) is 1 after its rounding and less before it: an instruction that rounds once would leave 2⁻⁵⁴.
        let third = 1.0 / 3
        #expect((-3.0).addingProduct(third, 9) != 0 && third * 3 == 1)
        for count in [1, 7, 8, 100, 1001] {
            var parameters = [Float](repeating: 1, count: count)
            let optimizer = FedAvg(learningRate: third)
            var state = OptimizerState(initialFor: optimizer, parameterCount: count)
            optimizer.step(&parameters, aggregate: [Double](repeating: -3, count: count), state: &state)
            #expect(parameters == [Float](repeating: 0, count: count), "\(count) parameters")
        }
    }

    @Test func epsilonDecidesTheFirstStep() {
        // With m = (1 − β₁)Δ and v = β₂ε² + (1 − β₂)Δ², by hand for Δ = 1.
        for epsilon in [1e-3, 1e-1, 1] {
            var parameters: [Float] = [0]
            let optimizer = FedAdam(learningRate: 1, epsilon: epsilon)
            var state = OptimizerState(initialFor: optimizer, parameterCount: 1)
            optimizer.step(&parameters, aggregate: [1], state: &state)
            let expected = 0.1 / ((0.99 * epsilon * epsilon + 0.01).squareRoot() + epsilon)
            #expect(abs(Double(parameters[0]) - expected) < 1e-6)
        }
    }
}
