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

    private func model<Value: Scalar>(
        _ golden: Golden,
        _ type: Value.Type
    ) -> (CIFGLSTM<Value>, CIFGLSTM<Value>.Batch, ParameterLayout) {
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
        let batch = CIFGLSTM<Value>.Batch(
            steps: golden.steps,
            rows: golden.rows,
            inputs: Array(golden.inputs.joined()),
            targets: targets
        )
        return (CIFGLSTM(configuration: configuration, parameters: parameters), batch, configuration.layout)
    }

    @Test func lossAndGradientsMatchTheReference() throws {
        let golden = try golden()
        var (network, batch, layout) = model(golden, Double.self)
        let measure = network.forward(batch, wantsGradient: true)
        #expect(abs(measure.nll / Double(measure.tokens) - golden.loss) < 1e-10)
        network.backward(batch)
        for name in golden.names {
            let expected = try #require(golden.gradient[name])
            let actual = network.gradient[layout.range(of: name) ?? 0..<0]
            #expect(actual.count == expected.count)
            for (left, right) in zip(actual, expected) { #expect(abs(left - right) < 1e-9) }
        }
        var (single, singleBatch, _) = model(golden, Float.self)
        let rough = single.forward(singleBatch, wantsGradient: true)
        #expect(abs(rough.nll / Double(rough.tokens) - golden.loss) < 1e-5)
        single.backward(singleBatch)
        for (left, right) in zip(single.gradient, network.gradient) {
            #expect(abs(Double(left) - right) < 1e-4 * max(abs(right), 1e-2))
        }
    }

    @Test func everyGradientMatchesCentralDifferences() throws {
        var (network, batch, _) = model(try golden(), Double.self)
        _ = network.forward(batch, wantsGradient: true)
        network.backward(batch)
        let gradient = network.gradient
        let step = 1e-6
        for index in gradient.indices {
            let saved = network.parameters[index]
            func loss(_ value: Double) -> Double {
                network.parameters[index] = value
                let measure = network.forward(batch, wantsGradient: false)
                return measure.nll / Double(measure.tokens)
            }
            let slope = (loss(saved + step) - loss(saved - step)) / (2 * step)
            network.parameters[index] = saved
            // Central differences in Double are good to about 1e-9 here; 1e-7 is the specification's bound.
            #expect(abs(slope - gradient[index]) < 1e-7)
        }
    }

    @Test func paddingChangesNothing() throws {
        let golden = try golden()
        var (network, batch, _) = model(golden, Double.self)
        let plain = network.forward(batch, wantsGradient: true)
        network.backward(batch)
        let gradient = network.gradient
        let padded = CIFGLSTM<Double>.Batch(
            steps: batch.steps + 2,
            rows: batch.rows,
            inputs: batch.inputs + [0, 0, 0, 0],
            targets: batch.targets + [-1, -1, -1, -1]
        )
        let measure = network.forward(padded, wantsGradient: true)
        network.backward(padded)
        #expect(abs(measure.nll - plain.nll) < 1e-12)
        for (left, right) in zip(network.gradient, gradient) { #expect(abs(left - right) < 1e-12) }
    }
}

struct CharacterTrainerTests {
    private let tokenizer = CharacterTokenizer(alphabet: CharacterTokenizer.messages)

    @Test func trainingLearnsAndIsReproducible() throws {
        let configuration = CIFGLSTMConfiguration(
            vocabularySize: tokenizer.vocabularySize,
            embeddingDimension: 8,
            hiddenDimension: 16
        )
        let trainer = try CharacterTrainer(
            configuration: configuration,
            tokenizer: tokenizer,
            texts: (0..<4).flatMap { SyntheticMessages.messages(ofClient: $0, seed: 1) }
        )
        let model = configuration.initialParameters(seed: 42)
        let instructions = TrainingInstructions(learningRate: 2, batchSize: 4, epochs: 8, seed: 9)
        let before = try trainer.evaluate(model: model)
        let result = try trainer.train(model: model, instructions: instructions)
        var trained = model
        VectorKernels.axpy(1, result.delta.values, into: &trained.values)
        let after = try trainer.evaluate(model: trained)
        #expect(after.loss < before.loss - 0.5)
        #expect(after.accuracy > before.accuracy)
        #expect(result.exampleCount == trainer.windowCount)
        #expect(try trainer.train(model: model, instructions: instructions).delta == result.delta)
    }

    @Test func tokensRoundTrip() {
        let ids = tokenizer.encode("Hello, World 7!\n\u{1F600}")
        #expect(ids.last == CharacterTokenizer.unknown)
        #expect(tokenizer.decode(ids) == "hello, world 7!\n")
    }

    @Test func foreignModelsAndEmptyDataAreRefused() throws {
        let configuration = CIFGLSTMConfiguration(
            vocabularySize: tokenizer.vocabularySize,
            embeddingDimension: 4,
            hiddenDimension: 4
        )
        let other = CIFGLSTMConfiguration(vocabularySize: 9, embeddingDimension: 4, hiddenDimension: 4)
        #expect(throws: LocalTrainingError.self) {
            try CharacterTrainer(configuration: other, tokenizer: tokenizer, texts: ["a"])
        }
        let empty = try CharacterTrainer(configuration: configuration, tokenizer: tokenizer, texts: [])
        let instructions = TrainingInstructions(learningRate: 1, batchSize: 1, epochs: 1, seed: 0)
        #expect(throws: LocalTrainingError.noData) {
            try empty.train(model: configuration.initialParameters(seed: 1), instructions: instructions)
        }
        #expect(throws: LocalTrainingError.self) {
            try empty.train(model: other.initialParameters(seed: 1), instructions: instructions)
        }
    }

    @Test func syntheticMessagesAreSeededAndDiffer() {
        let first = SyntheticMessages.messages(ofClient: 3, seed: 5)
        #expect(first == SyntheticMessages.messages(ofClient: 3, seed: 5))
        #expect(first != SyntheticMessages.messages(ofClient: 4, seed: 5))
        #expect(tokenizer.encode(first.joined()).allSatisfy { $0 >= 4 })
        #expect((280...400).contains(first.joined().count))
    }

    @Test func playsAreSplitByRole() {
        let text = "A:\nhello\nwait:\nyou\n\nB:\nbye\n\nA:\nagain\n\nGHOST:\n\nB:\nend\n"
        let roles = PlayScript.roles(in: text)
        #expect(roles.map(\.role) == ["A", "B"])
        #expect(roles.first?.lines == ["hello", "wait:", "you", "again"])
    }

    @Test func shakespeareHasTheExpectedRoles() throws {
        let path =
            URL(fileURLWithPath: #filePath).deletingLastPathComponent().path
            + "/../../../shared/data/shakespeare.txt"
        // The text is not part of the repository; where it lies beside the checkout its counts are checked.
        guard let text = try? String(contentsOfFile: path, encoding: .utf8) else { return }
        let roles = PlayScript.roles(in: text)
        #expect(roles.count == 299)
        #expect(roles.reduce(0) { $0 + $1.lines.count } == 25_555)
    }

    @Test func suggestionsAreWordsWithFallingProbability() throws {
        let configuration = CIFGLSTMConfiguration(
            vocabularySize: tokenizer.vocabularySize,
            embeddingDimension: 4,
            hiddenDimension: 8
        )
        var suggester = try TextSuggester(
            configuration: configuration,
            tokenizer: tokenizer,
            model: configuration.initialParameters(seed: 2)
        )
        let suggestions = suggester.suggest(after: "see you ", count: 3)
        #expect(suggestions.count == 3)
        #expect(suggestions.allSatisfy { !$0.word.isEmpty && !$0.word.contains(" ") })
        #expect(zip(suggestions, suggestions.dropFirst()).allSatisfy { $0.probability >= $1.probability })
    }
}
