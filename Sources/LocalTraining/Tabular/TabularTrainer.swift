package import Tensors

/// Trains and evaluates a tabular model on a device's rows.
package struct TabularTrainer: ArchitectureTrainer {
    let architecture: TabularArchitecture
    let examples: TableExamples

    package var exampleCount: Int { examples.rows.count }
    package var leftOut: LeftOutRows { examples.leftOut }

    package func train(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingResult {
        try TrainingLoop(instructions).run(trainable(model, instructions.base), layout: model.layout)
    }

    package func gradient(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingResult {
        try TrainingLoop(instructions).gradient(trainable(model, instructions.base), layout: model.layout)
    }

    package func evaluate(model: ParameterVector, base: ParameterVector?) throws -> TrainingMetrics {
        try judge(model: model, base: base).metrics
    }

    /// The metrics, and for two classes the probability and the true class of each row.
    package func judge(
        model: ParameterVector,
        base: ParameterVector?
    ) throws -> (metrics: TrainingMetrics, scores: [(probability: Double, isPositive: Bool)]) {
        let trainable = try trainable(model, base)
        var metrics = TrainingMetrics()
        var scores: [(probability: Double, isPositive: Bool)] = []
        for start in stride(from: 0, to: exampleCount, by: 64) {
            let range = start..<min(exampleCount, start + 64)
            let targets = range.map { examples.rows[$0].target }
            let pass = trainable.network.pass(trainable.inputs(range), targets: targets, wantsGradient: false)
            metrics += TrainableTable.metrics(pass.loss, pass.hits, rows: range.count)
            scores += zip(pass.scores, targets).map { ($0, $1 == 1) }
        }
        return (metrics, scores)
    }

    private func trainable(_ model: ParameterVector, _ base: ParameterVector?) throws -> TrainableTable {
        try architecture.check(model, base: base)
        return TrainableTable(
            network: TabularNetwork(widths: architecture.widths, l2: architecture.l2, parameters: model.values),
            examples: examples,
            standardization: try architecture.standardization(examples, base: base)
        )
    }
}

/// Rows and a network for the training loop.
final class TrainableTable: TrainableModel {
    let network: TabularNetwork<Float>
    private let examples: TableExamples
    private let standardization: Standardization

    init(network: TabularNetwork<Float>, examples: TableExamples, standardization: Standardization) {
        self.network = network
        self.examples = examples
        self.standardization = standardization
    }

    var parameters: [Float] {
        get { network.parameters }
        _modify { yield &network.parameters }
    }
    var gradient: [Float] {
        get { network.gradient }
        _modify { yield &network.gradient }
    }
    var exampleCount: Int { examples.rows.count }

    func differentiate(_ range: ArraySlice<Int>) -> TrainingMetrics {
        let targets = range.map { examples.rows[$0].target }
        let pass = network.pass(inputs(range), targets: targets, wantsGradient: true)
        return Self.metrics(pass.loss, pass.hits, rows: targets.count)
    }

    /// Standardised rows, `[n, width]`.
    func inputs(_ range: some Collection<Int>) -> [Float] {
        let width = examples.schema.width
        let zero = (0..<width).map { Float(standardization.standardized(0, input: $0)) }
        var inputs: [Float] = []
        inputs.reserveCapacity(range.count * width)
        for example in range {
            let start = inputs.count
            inputs += zero
            for (index, value) in examples.rows[example].inputs {
                inputs[start + index] = Float(standardization.standardized(value, input: index))
            }
        }
        return inputs
    }

    static func metrics(_ loss: Double, _ hits: Int, rows: Int) -> TrainingMetrics {
        var metrics = TrainingMetrics()
        metrics.nll = loss
        metrics.lossTokens = rows
        metrics.tokens = rows
        metrics.inVocabulary = rows
        metrics.hit1 = hits
        return metrics
    }
}
