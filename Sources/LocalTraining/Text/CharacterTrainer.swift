public import Tensors

/// Trains the character CIFG-LSTM on one device's texts.
public struct CharacterTrainer: LocalTrainer {
    private let configuration: CIFGLSTMConfiguration
    private let tokenizer: CharacterTokenizer
    /// Token ids, `<bos>` first, cut into windows of at most `windowLength` targets.
    private let windows: [[Int]]
    /// T.
    public static let windowLength = 80

    /// Prepares texts: each is a record of its own, cut into consecutive windows where it is long.
    ///
    /// - Throws: ``LocalTrainingError/modelMismatch(reason:)`` when the alphabet does not fill the vocabulary.
    public init(
        configuration: CIFGLSTMConfiguration,
        tokenizer: CharacterTokenizer,
        texts: [String]
    ) throws {
        guard configuration.vocabularySize == tokenizer.vocabularySize else {
            throw LocalTrainingError.modelMismatch(
                reason:
                    "the model has \(configuration.vocabularySize) symbols and the alphabet \(tokenizer.vocabularySize)"
            )
        }
        self.configuration = configuration
        self.tokenizer = tokenizer
        var windows: [[Int]] = []
        for text in texts {
            let ids = [CharacterTokenizer.begin] + tokenizer.encode(text) + [CharacterTokenizer.end]
            var start = 0
            while start + 1 < ids.count {
                let end = min(ids.count, start + Self.windowLength + 1)
                windows.append(Array(ids[start..<end]))
                start = end - 1
            }
        }
        self.windows = windows
    }

    /// Windows that there are to train on.
    public var windowCount: Int { windows.count }

    /// Trains by SGD over shuffled windows.
    public func train(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingResult {
        try check(model)
        guard !windows.isEmpty else { throw LocalTrainingError.noData }
        var generator = Xoshiro256StarStar(seed: instructions.seed)
        var network = CIFGLSTM<Float>(configuration: configuration, parameters: model.values)
        var metrics = TrainingMetrics()
        var order = Array(windows.indices.prefix(instructions.maxExamples))
        var stepCount = 0
        training: for _ in 0..<instructions.epochs {
            generator.shuffle(&order)
            for start in stride(from: 0, to: order.count, by: instructions.batchSize) {
                guard stepCount < instructions.maxSteps else { break training }
                let rows = order[start..<min(order.count, start + instructions.batchSize)].map { windows[$0] }
                let batch = Self.batch(rows)
                let measure = network.forward(batch, wantsGradient: true)
                guard measure.nll.isFinite else { throw LocalTrainingError.numeric }
                guard measure.tokens > 0 else { continue }
                network.backward(batch)
                let norm = VectorKernels.squaredNorm(network.gradient).squareRoot()
                guard norm.isFinite else { throw LocalTrainingError.numeric }
                let rate = instructions.learningRate * min(1, instructions.gradientClip / max(norm, 1e-30))
                VectorKernels.axpy(-Float(rate), network.gradient, into: &network.parameters)
                metrics += Self.metrics(measure, rows)
                stepCount += 1
            }
        }
        guard network.parameters.allSatisfy(\.isFinite) else { throw LocalTrainingError.numeric }
        let delta = VectorKernels.difference(network.parameters, model.values)
        return TrainingResult(
            delta: ParameterVector(layout: model.layout, values: delta),
            exampleCount: order.count,
            metrics: metrics
        )
    }

    /// Measures a model on the texts.
    public func evaluate(model: ParameterVector) throws -> TrainingMetrics {
        try check(model)
        var network = CIFGLSTM<Float>(configuration: configuration, parameters: model.values)
        var metrics = TrainingMetrics()
        for start in stride(from: 0, to: windows.count, by: 32) {
            let rows = Array(windows[start..<min(windows.count, start + 32)])
            metrics += Self.metrics(network.forward(Self.batch(rows), wantsGradient: false), rows)
        }
        return metrics
    }

    /// How often the most frequent target occurs: what always guessing it would score.
    public var mostFrequentSymbolShare: Double {
        var counts = [Int](repeating: 0, count: configuration.vocabularySize)
        for window in windows { for id in window.dropFirst() { counts[id] += 1 } }
        let total = counts.reduce(0, +)
        return total > 0 ? Double(counts.dropFirst(4).max() ?? 0) / Double(total) : 0
    }

    private func check(_ model: ParameterVector) throws {
        guard model.layout == configuration.layout else {
            throw LocalTrainingError.modelMismatch(reason: "the tensors are not those of the architecture")
        }
    }

    /// Pads windows at their ends; an unknown target is no part of the loss.
    private static func batch(_ windows: [[Int]]) -> CIFGLSTM<Float>.Batch {
        let steps = (windows.map(\.count).max() ?? 1) - 1
        let rows = windows.count
        var inputs = [Int](repeating: CharacterTokenizer.pad, count: steps * rows)
        var targets = [Int](repeating: -1, count: steps * rows)
        for (row, window) in windows.enumerated() {
            for step in 0..<(window.count - 1) {
                inputs[step * rows + row] = window[step]
                if window[step + 1] != CharacterTokenizer.unknown { targets[step * rows + row] = window[step + 1] }
            }
        }
        return .init(steps: steps, rows: rows, inputs: inputs, targets: targets)
    }

    /// Every target counts, also an unknown one, which is always a miss.
    private static func metrics(_ measure: CIFGLSTM<Float>.Measure, _ windows: [[Int]]) -> TrainingMetrics {
        var metrics = TrainingMetrics()
        metrics.nll = measure.nll
        metrics.lossTokens = measure.tokens
        metrics.tokens = windows.reduce(0) { $0 + $1.count - 1 }
        metrics.hit1 = measure.hit1
        metrics.hit3 = measure.hit3
        return metrics
    }
}

/// Trains whatever character model the run has on a device's texts.
public struct TextTrainer: LocalTrainer {
    private let texts: [String]

    /// Keeps the texts, one record each.
    public init(texts: [String]) {
        self.texts = texts
    }

    /// Trains by SGD; sizes come from the model, the alphabet from the instructions.
    public func train(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingResult {
        guard let configuration = CIFGLSTMConfiguration(layout: model.layout) else {
            throw LocalTrainingError.modelMismatch(reason: "the model is not a CIFG-LSTM")
        }
        let tokenizer = CharacterTokenizer(alphabet: instructions.alphabet ?? CharacterTokenizer.messages)
        return try CharacterTrainer(configuration: configuration, tokenizer: tokenizer, texts: texts)
            .train(model: model, instructions: instructions)
    }
}
