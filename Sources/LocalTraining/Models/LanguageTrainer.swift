package import Tensors

/// An architecture that predicts the next token.
package protocol LanguageArchitecture: ModelArchitecture {
    /// How text becomes ids.
    var tokenizer: any Tokenizer { get }
    /// How ids become windows.
    var textSettings: TextSettings { get }
    /// The network with these parameters.
    func makeNetwork(model: ParameterVector, base: ParameterVector?) throws -> any LanguageNetwork<Float>
}

extension LanguageArchitecture {
    /// A trainer over texts.
    public func makeTrainer(data: LocalData, instructions: TrainingInstructions) throws -> any ArchitectureTrainer {
        guard case .texts(let texts) = data else {
            throw LocalTrainingError.unsuitable("\(Self.name) learns from text, and the data are a table")
        }
        return LanguageTrainer(architecture: self, texts: texts)
    }

    /// Positions of the largest batch, in training and in evaluations.
    func positions(batchSize: Int) -> Double {
        let window = Double(textSettings.windowLength)
        let evaluated =
            textSettings.carriesState
            ? Double(LanguageTrainer.evaluationRowCount) * window
            : max(window, Double(LanguageTrainer.evaluationPositionLimit))
        return max(Double(batchSize) * window, evaluated)
    }

    /// Sets the tokeniser's specials in a network.
    func prepared(_ network: some LanguageNetwork<Float>) -> any LanguageNetwork<Float> {
        network.ordinary = tokenizer.specials.ordinary
        network.unknown = tokenizer.specials.unknown
        return network
    }
}

/// Trains and evaluates a language model on texts.
package struct LanguageTrainer: ArchitectureTrainer {
    private let architecture: any LanguageArchitecture
    private let examples: TextExamples
    /// The most positions of one forward pass in an evaluation.
    static let evaluationPositionLimit = 4096
    /// Rows of one forward pass in an evaluation that carries state.
    static let evaluationRowCount = 8

    package init(architecture: any LanguageArchitecture, texts: [String]) {
        self.architecture = architecture
        examples = TextExamples(
            texts: texts,
            tokenizer: architecture.tokenizer,
            settings: architecture.textSettings
        )
    }

    package var exampleCount: Int { examples.windows.count }

    /// The recall of always guessing the most frequent token.
    package var mostFrequentTokenShare: Double { examples.mostFrequentShare }

    package func train(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingResult {
        try TrainingLoop(instructions).run(trainable(model, instructions.base), layout: model.layout)
    }

    package func gradient(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingResult {
        try TrainingLoop(instructions).gradient(trainable(model, instructions.base), layout: model.layout)
    }

    package func evaluate(model: ParameterVector, base: ParameterVector? = nil) throws -> TrainingMetrics {
        try architecture.check(model, base: base)
        let network = try architecture.makeNetwork(model: model, base: base)
        var metrics = TrainingMetrics()
        if examples.settings.carriesState {
            var generator = Xoshiro256StarStar(seed: 0)
            let all = Array(0..<exampleCount)
            for batch in carriedBatches(examples, rows: Self.evaluationRowCount, from: all, using: &generator) {
                let measure = network.measure(examples.batch(batch.examples, continues: batch.continues))
                metrics += examples.metrics(measure, batch.examples)
            }
            return metrics
        }
        let rows = max(1, Self.evaluationPositionLimit / examples.settings.windowLength)
        for start in stride(from: 0, to: exampleCount, by: rows) {
            let range = start..<min(exampleCount, start + rows)
            metrics += examples.metrics(network.measure(examples.batch(range)), range)
        }
        return metrics
    }

    private func trainable(_ model: ParameterVector, _ base: ParameterVector?) throws -> TrainableText {
        try architecture.check(model, base: base)
        return TrainableText(network: try architecture.makeNetwork(model: model, base: base), examples: examples)
    }
}

/// Texts and a network for the training loop.
private final class TrainableText: TrainableModel {
    private let network: any LanguageNetwork<Float>
    private let examples: TextExamples
    /// For each batch, by its first example: which of its rows continue.
    private var continues: [Int: [Bool]] = [:]

    init(network: any LanguageNetwork<Float>, examples: TextExamples) {
        self.network = network
        self.examples = examples
    }

    var parameters: [Float] {
        get { network.parameters }
        _modify { yield &network.parameters }
    }
    var gradient: [Float] {
        get { network.gradient }
        _modify { yield &network.gradient }
    }
    var exampleCount: Int { examples.windows.count }

    func differentiate(_ range: ArraySlice<Int>) -> TrainingMetrics {
        let batch = examples.batch(range, continues: continues[range.first ?? 0] ?? [])
        return examples.metrics(network.differentiate(batch), range)
    }

    func batches(
        ofSize size: Int,
        from chosen: [Int],
        using generator: inout Xoshiro256StarStar
    ) -> [ArraySlice<Int>] {
        guard examples.settings.carriesState else {
            var order = chosen
            generator.shuffle(&order)
            return stride(from: 0, to: order.count, by: size).map { order[$0..<min(order.count, $0 + size)] }
        }
        continues = [:]
        return carriedBatches(examples, rows: size, from: chosen, using: &generator).map { batch in
            continues[batch.examples[0]] = batch.continues
            return batch.examples[...]
        }
    }
}

/// Batches in which each row reads whole documents in order.
///
/// Documents are shuffled, their windows are not.
///
/// Source: truncated back-propagation through time, with the state carried over the border and no gradient.
private func carriedBatches(
    _ examples: TextExamples,
    rows: Int,
    from chosen: [Int],
    using generator: inout Xoshiro256StarStar
) -> [(examples: [Int], continues: [Bool])] {
    var documents: [[Int]] = []
    for example in chosen.sorted() {
        if examples.windows[example].goesOn, documents.last?.last == example - 1 {
            documents[documents.count - 1].append(example)
        } else {
            documents.append([example])
        }
    }
    generator.shuffle(&documents)
    var lanes = [[(example: Int, goesOn: Bool)]](repeating: [], count: max(1, min(rows, documents.count)))
    for document in documents {
        guard let shortest = lanes.indices.min(by: { lanes[$0].count < lanes[$1].count }) else { continue }
        lanes[shortest] += document.enumerated().map { ($1, $0 > 0) }
    }
    // The longest lane comes first, so that rows that end early are the last ones and the others keep their places.
    lanes.sort { $0.count > $1.count }
    return (0..<(lanes.first?.count ?? 0)).map { step in
        let row = lanes.filter { $0.count > step }.map { $0[step] }
        return (row.map(\.example), row.map(\.goesOn))
    }
}
