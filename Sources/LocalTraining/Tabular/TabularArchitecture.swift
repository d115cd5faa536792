import StrictJSON
package import Tensors

/// `tabular`: softmax regression (`hidden: []`) or a perceptron over the columns that a schema names.
package struct TabularArchitecture: ModelArchitecture {
    package static let name = "tabular"

    package enum Scaling: String, CaseIterable { case none, local, federated }

    package let schema: TableSchema
    package let hidden: [Int]
    package let l2: Double
    package let scaling: Scaling

    package init(_ description: ModelDescription) throws {
        self = try description.read { Self(reading: $0) }
    }

    private init(reading fields: FieldReader) {
        schema = TableSchema(in: fields)
        hidden = fields.has("hidden") ? fields.integers("hidden", countLimit: .max, in: 1...65_536) : []
        _ = fields.value("hidden")
        l2 = fields.number("l2", default: 0, in: 0...1e6)
        scaling = fields.choice("standardization", default: .none)
        if hidden.count > 16 { fields.report("hidden", "must have 16 layers at most") }
    }

    package var widths: [Int] { [schema.width] + hidden + [schema.outputCount] }
    package var layout: ParameterLayout { TabularNetwork<Float>.layout(widths) }

    package func workingByteCount(batchSize: Int) -> Double {
        let columns = widths.reduce(0) { $0 + Double($1) } + 2 * Double(widths.max() ?? 0)
        return 4 * Double(batchSize) * columns
    }

    package var baseLayout: ParameterLayout? { scaling == .federated ? TabularStatistics.layout(schema) : nil }
    package var madeUpData: LocalData { .table(schema.madeUpTable()) }

    /// Zeros for a regression; U(-√(6/in), √(6/in)) for weights before a ReLU, U(-√(1/in), √(1/in)) for the last ones.
    package func initialParameters(seed: UInt64) -> ParameterVector {
        var vector = ParameterVector(zeros: layout)
        guard !hidden.isEmpty else { return vector }
        var generator = Xoshiro256StarStar(seed: seed)
        for layer in 0..<(widths.count - 1) {
            let spread = (layer + 2 < widths.count ? 6 : 1) / Double(widths[layer])
            let bound = Float(spread.squareRoot())
            for index in vector.layout.range(of: "layers.\(layer).weight") ?? 0..<0 {
                vector.values[index] = bound * (2 * generator.nextUniform() - 1)
            }
        }
        return vector
    }

    package func makeTrainer(data: LocalData, instructions: TrainingInstructions) throws -> any ArchitectureTrainer {
        guard case .table(let table) = data else {
            throw LocalTrainingError.unsuitable("tabular learns from a table (CSV), and the data are text")
        }
        return TabularTrainer(architecture: self, examples: try TableExamples(table: table, schema: schema))
    }

    /// The standardisation of a device's rows.
    func standardization(_ examples: TableExamples, base: ParameterVector?) throws -> Standardization {
        switch scaling {
        case .none: return try Standardization(unchanged: examples)
        case .local: return Standardization(rows: examples)
        case .federated:
            guard let base else {
                throw LocalTrainingError.modelMismatch(
                    reason: "federated standardization needs the statistics (model.base)"
                )
            }
            return TabularStatistics.standardization(base, schema: schema)
        }
    }
}

/// `tabular-statistics`: the sums of which federated standardisation is made, as a run of one round.
///
/// The model is the sums themselves, which begin with zeros. A client's update is its own count, sum and sum of squares of every
/// column, and the server adds the mean of the updates times its learning rate. With uniform weights and the number of clients as
/// learning rate the model is the sums over all clients, and privacy modes apply as to every run. Weighted by examples it is the
/// means, which differ only by n in place of n - 1.
package struct TabularStatistics: ModelArchitecture {
    package static let name = "tabular-statistics"
    package let schema: TableSchema

    package init(_ description: ModelDescription) throws {
        self = try description.read { Self(reading: $0) }
    }

    private init(reading fields: FieldReader) {
        schema = TableSchema(in: fields)
        if schema.standardizedWidth == 0 { fields.report("schema", "has no column to standardise") }
    }

    package static func layout(_ schema: TableSchema) -> ParameterLayout {
        ParameterLayout(["count", "square", "sum"].map { .init(name: $0, shape: [max(1, schema.standardizedWidth)]) })
    }

    package var layout: ParameterLayout { Self.layout(schema) }

    package func initialParameters(seed: UInt64) -> ParameterVector { ParameterVector(zeros: layout) }

    package func supports(_ task: TrainingTask) -> Bool { task == .train }

    package var madeUpData: LocalData { .table(schema.madeUpTable()) }

    package func makeTrainer(data: LocalData, instructions: TrainingInstructions) throws -> any ArchitectureTrainer {
        guard case .table(let table) = data else {
            throw LocalTrainingError.unsuitable("statistics are of a table (CSV), and the data are text")
        }
        return StatisticsTrainer(examples: try TableExamples(table: table, schema: schema), layout: layout)
    }

    static func standardization(_ sums: ParameterVector, schema: TableSchema) -> Standardization {
        let width = schema.standardizedWidth
        let values = sums.values.map(Double.init)
        return Standardization(
            sums: (0..<width).map { (values[$0], values[2 * width + $0], values[width + $0]) },
            schema: schema
        )
    }
}

private struct StatisticsTrainer: ArchitectureTrainer {
    let examples: TableExamples
    let layout: ParameterLayout

    var exampleCount: Int { examples.rows.count }
    var leftOut: LeftOutRows { examples.leftOut }

    func train(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingResult {
        guard model.layout == layout else {
            throw LocalTrainingError.modelMismatch(reason: "the model is not the statistics of this schema")
        }
        guard exampleCount > 0 else { throw LocalTrainingError.noData }
        return TrainingResult(
            delta: ParameterVector(layout: layout, values: TableSums(examples).flat),
            exampleCount: exampleCount,
            stepCount: 1
        )
    }

    func gradient(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingResult {
        throw LocalTrainingError.unsupported(operation: "gradient")
    }

    func evaluate(model: ParameterVector, base: ParameterVector?) throws -> TrainingMetrics {
        throw LocalTrainingError.unsupported(operation: "evaluate")
    }
}
