import Foundation
import LocalTraining
import Tensors
import Testing

struct CIFGLSTMTests {
    private struct Golden: Decodable {
        var vocabularySize: Int
        var embeddingDimension: Int
        var hiddenDimension: Int
        var steps: Int
        var rows: Int
        var names: [String]
        var inputs: [[Int]]
        var targets: [[Int]]
        var mask: [[Double]]
        var loss: Double
        var gradient: [String: [Double]]

        enum CodingKeys: String, CodingKey {
            case vocabularySize = "V"
            case embeddingDimension = "D"
            case hiddenDimension = "H"
            case steps = "T"
            case rows = "B"
            case names
            case inputs = "x_time_major"
            case targets = "y_time_major"
            case mask = "mask_time_major"
            case loss = "loss_value"
            case gradient
        }
    }

    private func golden() throws -> Golden {
        let url = try #require(
            Bundle.module.url(forResource: "golden-cifg", withExtension: "json", subdirectory: "Fixtures")
        )
        return try JSONDecoder().decode(Golden.self, from: Data(contentsOf: url))
    }

    private func model<Value: RecurrentScalar>(
        _ golden: Golden,
        _ type: Value.Type
    ) -> (CIFGLSTM<Value>, TokenBatch, ParameterLayout) {
        let configuration = CIFGLSTMConfiguration(
            vocabularySize: golden.vocabularySize,
            embeddingDimension: golden.embeddingDimension,
            hiddenDimension: golden.hiddenDimension
        )
        var parameters = [Value](repeating: 0, count: configuration.layout.parameterCount)
        for (position, name) in golden.names.enumerated() {
            let range = configuration.layout.range(of: name) ?? 0..<0
            for (index, target) in range.enumerated() {
                parameters[target] = Value(0.3 * sin(1.7 * Double(index) + 0.5 * Double(position) + 0.1))
            }
        }
        let targets = zip(golden.targets.joined(), golden.mask.joined()).map { $1 == 1 ? $0 : -1 }
        let batch = TokenBatch(
            steps: golden.steps,
            rows: golden.rows,
            inputs: Array(golden.inputs.joined()),
            targets: targets
        )
        return (CIFGLSTM(configuration: configuration, parameters: parameters), batch, configuration.layout)
    }

    @Test func lossAndGradientsMatchTheReference() throws {
        let golden = try golden()
        let (network, batch, layout) = model(golden, Double.self)
        let measure = network.differentiate(batch)
        #expect(abs(measure.nll / Double(measure.tokens) - golden.loss) < 1e-10)
        for name in golden.names {
            let expected = try #require(golden.gradient[name])
            let actual = network.gradient[layout.range(of: name) ?? 0..<0]
            #expect(actual.count == expected.count)
            for (left, right) in zip(actual, expected) { #expect(abs(left - right) < 1e-9) }
        }
        let (single, singleBatch, _) = model(golden, Float.self)
        let rough = single.differentiate(singleBatch)
        #expect(abs(rough.nll / Double(rough.tokens) - golden.loss) < 1e-5)
        for (left, right) in zip(single.gradient, network.gradient) {
            #expect(abs(Double(left) - right) < 1e-4 * max(abs(right), 1e-2))
        }
    }

    @Test func everyGradientMatchesCentralDifferences() throws {
        let (network, batch, _) = model(try golden(), Double.self)
        expectCentralDifferences(of: network, on: batch)
    }

    @Test func paddingChangesNothing() throws {
        let golden = try golden()
        let (network, batch, _) = model(golden, Double.self)
        let plain = network.differentiate(batch)
        let gradient = network.gradient
        let padded = TokenBatch(
            steps: batch.steps + 2,
            rows: batch.rows,
            inputs: batch.inputs + [0, 0, 0, 0],
            targets: batch.targets + [-1, -1, -1, -1]
        )
        let measure = network.differentiate(padded)
        #expect(abs(measure.nll - plain.nll) < 1e-12)
        for (left, right) in zip(network.gradient, gradient) { #expect(abs(left - right) < 1e-12) }
    }

    @Test func stateCarriedOverABorderIsTheStateOfOneLongWindow() throws {
        let golden = try golden()
        let (network, batch, _) = model(golden, Double.self)
        let whole = network.scores(batch)
        func part(_ steps: Range<Int>, _ continues: [Bool]) -> TokenBatch {
            let range = (steps.lowerBound * batch.rows)..<(steps.upperBound * batch.rows)
            return TokenBatch(
                steps: steps.count,
                rows: batch.rows,
                inputs: Array(batch.inputs[range]),
                targets: Array(batch.targets[range]),
                continues: continues
            )
        }
        _ = network.measure(part(0..<2, [false, false]))
        let rest = network.scores(part(2..<batch.steps, [true, true]))
        for (left, right) in zip(rest, whole[(2 * batch.rows * golden.vocabularySize)...]) {
            #expect(abs(left - right) < 1e-12)
        }
        _ = network.measure(part(0..<2, [false, false]))
        let fresh = network.scores(part(2..<batch.steps, [false, false]))
        #expect(fresh != rest)
    }

    @Test func tokenByTokenIsTheSameAsAtOnce() throws {
        let (network, batch, _) = model(try golden(), Double.self)
        let single = TokenBatch(steps: 4, rows: 1, inputs: [1, 3, 5, 2], targets: [-1, -1, -1, -1])
        let whole = network.scores(single)
        var context = network.emptyContext()
        for (step, id) in single.inputs.enumerated() {
            let scores = network.advance(&context, by: id)
            for (left, right) in zip(scores, whole[(step * 7)...]) { #expect(abs(left - right) < 1e-12) }
        }
        _ = batch
    }

    @Test func batchesAddUp() throws {
        let (network, batch, _) = model(try golden(), Double.self)
        let both = network.differentiate(batch)
        let gradient = network.gradient
        var sum = [Double](repeating: 0, count: gradient.count)
        var nll = 0.0
        for row in 0..<batch.rows {
            let positions = stride(from: row, to: batch.inputs.count, by: batch.rows)
            let single = TokenBatch(
                steps: batch.steps,
                rows: 1,
                inputs: positions.map { batch.inputs[$0] },
                targets: positions.map { batch.targets[$0] }
            )
            let measure = network.differentiate(single)
            nll += measure.nll
            for index in sum.indices { sum[index] += network.gradient[index] * Double(measure.tokens) }
        }
        #expect(abs(nll - both.nll) < 1e-12)
        for (left, right) in zip(sum, gradient) { #expect(abs(left / Double(both.tokens) - right) < 1e-12) }
    }
}
