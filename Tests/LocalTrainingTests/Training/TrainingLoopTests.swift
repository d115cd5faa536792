import Foundation
import LocalTraining
import Tensors
import Testing

struct TrainingLoopTests {
    /// `loss = |w - 3|² / 2` of one number per example; the gradient is known.
    private final class Parabola: TrainableModel {
        var parameters: [Float] = [0, 10]
        var gradient: [Float] = [0, 0]
        var exampleCount = 4
        var isBroken = false

        func differentiate(_ examples: ArraySlice<Int>) -> TrainingMetrics {
            gradient = parameters.map { $0 - 3 }
            var metrics = TrainingMetrics()
            metrics.nll = isBroken ? .nan : 1
            metrics.lossTokens = examples.count
            return metrics
        }
    }

    private let layout = ParameterLayout([.init(name: "w", shape: [2])])

    private func instructions(_ optimizer: LocalOptimizerSettings, epochs: Int = 1) -> TrainingInstructions {
        TrainingInstructions(optimizer: optimizer, batchSize: 4, epochs: epochs, gradientClip: 1e9, seed: 1)
    }

    @Test func plainStepsGoDownTheGradient() throws {
        let result = try TrainingLoop(instructions(.init(learningRate: 0.5), epochs: 2)).run(Parabola(), layout: layout)
        // w - 3 halves twice: -3 -> -0.75, 7 -> 1.75.
        #expect(result.delta.values == [2.25, -5.25])
        #expect(result.stepCount == 2)
        #expect(!result.isPartial)
    }

    @Test func momentumRemembers() throws {
        let optimizer = LocalOptimizerSettings(rule: .momentum, learningRate: 0.1, momentum: 0.5)
        let result = try TrainingLoop(instructions(optimizer, epochs: 2)).run(Parabola(), layout: layout)
        // Step 1: v = -3, w = 0.3. Step 2: v = -1.5 - 2.7 = -4.2, w = 0.72.
        #expect(abs(result.delta.values[0] - 0.72) < 1e-6)
    }

    @Test(arguments: [LocalOptimizerSettings.Rule.adam, .adamw])
    func adamFollowsItsFormula(rule: LocalOptimizerSettings.Rule) throws {
        let optimizer = LocalOptimizerSettings(rule: rule, learningRate: 0.1, weightDecay: 0.1)
        let result = try TrainingLoop(instructions(optimizer, epochs: 3)).run(Parabola(), layout: layout)
        var (w, m, v) = (10.0, 0.0, 0.0)
        for step in 1...3 {
            let gradient = w - 3 + (rule == .adam ? 0.1 * w : 0)
            if rule == .adamw { w -= 0.1 * 0.1 * w }
            m = 0.9 * m + 0.1 * gradient
            v = 0.999 * v + 0.001 * gradient * gradient
            let (first, second) = (m / (1 - pow(0.9, Double(step))), v / (1 - pow(0.999, Double(step))))
            w -= 0.1 * first / (second.squareRoot() + 1e-8)
        }
        #expect(abs(10 + Double(result.delta.values[1]) - w) < 1e-5)
    }

    @Test func gradientsAreClippedToTheirNorm() throws {
        var clipped = instructions(.init(learningRate: 1))
        clipped.gradientClip = 0.5
        let delta = try TrainingLoop(clipped).run(Parabola(), layout: layout).delta.values
        #expect(abs(Double(VectorKernels.squaredNorm(delta)).squareRoot() - 0.5) < 1e-6)
    }

    @Test func theProximalTermPullsBack() throws {
        var pulled = instructions(.init(learningRate: 0.5), epochs: 2)
        pulled.proximalMu = 1
        let delta = try TrainingLoop(pulled).run(Parabola(), layout: layout).delta.values
        // Step 1: w = 1.5. Step 2: gradient -1.5 + 1 * 1.5 = 0.
        #expect(abs(delta[0] - 1.5) < 1e-6)
    }

    @Test func aCorrectionIsAddedToEveryStep() throws {
        var corrected = instructions(.init(learningRate: 0.5))
        corrected.gradientCorrection = [3, -7]
        #expect(try TrainingLoop(corrected).run(Parabola(), layout: layout).delta.values == [0, 0])
    }

    @Test func limitsEndTrainingEarlyAndSayIt() throws {
        var limited = instructions(.init(learningRate: 0.5), epochs: 5)
        limited.maxSteps = 2
        let bySteps = try TrainingLoop(limited).run(Parabola(), layout: layout)
        #expect(bySteps.stepCount == 2 && bySteps.isPartial)
        limited.maxSteps = .max
        limited.maxSeconds = 3
        var clock = 0.0
        let bySeconds = try TrainingLoop(
            limited,
            elapsed: {
                clock += 1
                return clock
            }
        ).run(Parabola(), layout: layout)
        #expect(bySeconds.stepCount == 2 && bySeconds.isPartial)
        limited.maxSeconds = .infinity
        limited.maxExamples = 3
        #expect(try TrainingLoop(limited).run(Parabola(), layout: layout).exampleCount == 3)
    }

    /// Partial work weighs by what it did, and there is always some.
    @Test func partialWorkCountsTheExamplesThatItSaw() throws {
        var limited = instructions(.init(learningRate: 0.5), epochs: 2)
        limited.batchSize = 1
        limited.maxSteps = 3
        let partial = try TrainingLoop(limited).run(Parabola(), layout: layout)
        #expect(partial.exampleCount == 3 && partial.isPartial)
        // Into the second epoch: no example counts twice.
        limited.maxSteps = 6
        #expect(try TrainingLoop(limited).run(Parabola(), layout: layout).exampleCount == 4)
        limited.maxSeconds = 0
        let least = try TrainingLoop(limited).run(Parabola(), layout: layout)
        #expect(least.exampleCount == 1 && least.stepCount == 1 && least.isPartial)
    }

    @Test func aTrainingThatNobodyWaitsForEnds() throws {
        var unwanted = instructions(.init(learningRate: 0.5), epochs: 2)
        unwanted.cancellation = TrainingCancellation()
        _ = try TrainingLoop(unwanted).run(Parabola(), layout: layout)
        unwanted.cancellation?.cancel()
        #expect(throws: LocalTrainingError.cancelled) { try TrainingLoop(unwanted).run(Parabola(), layout: layout) }
        #expect(throws: LocalTrainingError.cancelled) {
            try TrainingLoop(unwanted).gradient(Parabola(), layout: layout)
        }
    }

    @Test func lossesThatAreNotFiniteAreReported() {
        let model = Parabola()
        model.isBroken = true
        #expect(throws: LocalTrainingError.numeric) {
            try TrainingLoop(instructions(.init(learningRate: 1))).run(model, layout: layout)
        }
        let diverging = Parabola()
        #expect(throws: LocalTrainingError.numeric) {
            try TrainingLoop(instructions(.init(learningRate: 1e30), epochs: 3)).run(diverging, layout: layout)
        }
    }

    @Test func theWholeGradientKeepsItsSign() throws {
        let result = try TrainingLoop(instructions(.init(learningRate: 1))).gradient(Parabola(), layout: layout)
        #expect(result.delta.values == [-3, 7])
        #expect(result.exampleCount == 4)
    }

    /// The gradient of one example is its number.
    private final class Numbers: TrainableModel {
        var parameters: [Float] = [0]
        var gradient: [Float] = [0]
        var exampleCount = 1000

        func differentiate(_ examples: ArraySlice<Int>) -> TrainingMetrics {
            gradient = [examples.reduce(Float(0)) { $0 + Float($1) } / Float(examples.count)]
            var metrics = TrainingMetrics()
            metrics.lossTokens = examples.count
            return metrics
        }
    }

    /// The mean of 100 of the numbers 0 to 999, drawn without replacement, has a standard deviation of 27 about 499.5.
    @Test func aLimitedGradientIsOfExamplesChosenAtRandom() throws {
        let layout = ParameterLayout([.init(name: "w", shape: [1])])
        var limited = instructions(.init(learningRate: 1))
        limited.maxExamples = 100
        var seen: Set<Float> = []
        for seed in 0..<5 {
            limited.seed = UInt64(seed)
            let result = try TrainingLoop(limited).gradient(Numbers(), layout: layout)
            #expect(result.exampleCount == 100)
            // Seven standard deviations; the first hundred would give 49.5.
            #expect(abs(result.delta.values[0] - 499.5) < 190, "\(result.delta.values[0])")
            #expect(try TrainingLoop(limited).gradient(Numbers(), layout: layout).delta == result.delta)
            seen.insert(result.delta.values[0])
        }
        #expect(seen.count == 5, "another seed chooses others")
        limited.maxExamples = 1000
        #expect(try TrainingLoop(limited).gradient(Numbers(), layout: layout).delta.values == [499.5])
    }
}

struct DeviceTrainerTests {
    private let configuration = CIFGLSTMConfiguration(vocabularySize: 52, embeddingDimension: 8, hiddenDimension: 16)

    @Test func trainingLearnsAndIsReproducible() throws {
        let trainer = DeviceTrainer(texts: (0..<4).flatMap { SyntheticMessages.messages(ofClient: $0, seed: 1) })
        let model = configuration.initialParameters(seed: 42)
        let instructions = TrainingInstructions(learningRate: 2, batchSize: 4, epochs: 8, seed: 9)
        let before = try trainer.evaluate(model: model, instructions: instructions)
        let result = try trainer.train(model: model, instructions: instructions)
        var trained = model
        VectorKernels.axpy(1, result.delta.values, into: &trained.values)
        let after = try trainer.evaluate(model: trained, instructions: instructions)
        #expect(after.loss < before.loss - 0.5)
        #expect(after.accuracy > before.accuracy)
        #expect(after.inVocabulary == after.tokens && after.bitsPerByte > 0)
        #expect(try trainer.train(model: model, instructions: instructions).delta == result.delta)
    }

    @Test func foreignModelsAndEmptyDataAreRefused() throws {
        let model = configuration.initialParameters(seed: 1)
        let instructions = TrainingInstructions(learningRate: 1, batchSize: 1, epochs: 1, seed: 0)
        for texts in [[], [""]] {
            #expect(throws: LocalTrainingError.noData) {
                try DeviceTrainer(texts: texts).train(model: model, instructions: instructions)
            }
        }
        let other = CIFGLSTMConfiguration(vocabularySize: 9, embeddingDimension: 4, hiddenDimension: 4)
        #expect(throws: LocalTrainingError.self) {
            try DeviceTrainer(texts: ["a"]).train(model: other.initialParameters(seed: 1), instructions: instructions)
        }
        // One line of one character trains: two targets.
        let result = try DeviceTrainer(texts: ["a"]).train(model: model, instructions: instructions)
        #expect(result.metrics.tokens == 2)
    }

    @Test func missingSurplusAndMisshapenTensorsAreNamed() throws {
        let description = ModelDescription(
            architecture: "cifg-lstm",
            config: #"{"embedding_dim": 8, "hidden_dim": 16}"#
        )
        func problem(_ change: (inout [TensorSpecification]) -> Void) -> String {
            var tensors = configuration.layout.tensors
            change(&tensors)
            var instructions = TrainingInstructions(learningRate: 1, batchSize: 1, epochs: 1, seed: 0)
            instructions.model = description
            do {
                let model = ParameterVector(zeros: ParameterLayout(tensors))
                _ = try DeviceTrainer(texts: ["a"]).train(model: model, instructions: instructions)
                return ""
            } catch LocalTrainingError.modelMismatch(let reason) {
                return reason
            } catch { return "\(error)" }
        }
        #expect(problem { $0.removeAll { $0.name == "cell.bias" } }.contains("lacks tensor 'cell.bias'"))
        #expect(problem { $0.append(.init(name: "extra", shape: [1])) }.contains("'extra'"))
        #expect(problem { $0[0].shape = [3] }.contains("has shape [3], not [48]"))
    }

    @Test func maskedUnknownTargetsGiveNoGradient() throws {
        // The alphabet lacks the capital letter, so its target is masked: same update with and without it at the end.
        let model = configuration.initialParameters(seed: 4)
        let instructions = TrainingInstructions(learningRate: 1, batchSize: 1, epochs: 1, seed: 0)
        let unknown = try DeviceTrainer(texts: ["\u{1F600}"]).train(model: model, instructions: instructions)
        #expect(unknown.metrics.tokens == 2)
        #expect(unknown.metrics.lossTokens == 1)
        #expect(unknown.metrics.inVocabulary == 1)
        var trains = instructions
        trains.model = .init(
            architecture: "cifg-lstm",
            config: #"{"embedding_dim": 8, "hidden_dim": 16, "unk_target": "train"}"#
        )
        let trained = try DeviceTrainer(texts: ["\u{1F600}"]).train(model: model, instructions: trains)
        #expect(trained.metrics.lossTokens == 2)
        #expect(trained.delta != unknown.delta)
    }
}
