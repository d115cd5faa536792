public import Tensors

/// Trains the built-in model of a run on a device's data.
///
/// Data are cleaned by the run's rules before anything is learned from them.
public struct DeviceTrainer: LocalTrainer {
    private let training: @Sendable () throws -> LocalData
    private let heldOut: (@Sendable () throws -> LocalData)?
    private let report: (@Sendable (DataReport) -> Void)?

    /// Creates a trainer with data in memory.
    ///
    /// - Parameters:
    ///   - data: The training data.
    ///   - heldOut: The data for evaluations; without them the training data.
    ///   - report: Receives a report of the data each time; it stays on the device.
    public init(data: LocalData, heldOut: LocalData? = nil, report: (@Sendable (DataReport) -> Void)? = nil) {
        self.init(reading: { data }, heldOut: heldOut.map { data in { @Sendable in data } }, report: report)
    }

    /// Creates a trainer that reads the data for each task.
    ///
    /// An error of `data` ends the task as unusable data do. In a private run a server cannot tell the two from an update.
    ///
    /// - Parameters:
    ///   - data: Returns the training data.
    ///   - heldOut: Returns the data for evaluations; without it the training data.
    ///   - report: Receives a report of the data each time; it stays on the device.
    public init(
        reading data: @escaping @Sendable () throws -> LocalData,
        heldOut: (@Sendable () throws -> LocalData)? = nil,
        report: (@Sendable (DataReport) -> Void)? = nil
    ) {
        training = data
        self.heldOut = heldOut
        self.report = report
    }

    /// Creates a trainer with texts, one record each.
    public init(texts: [String]) {
        self.init(data: .texts(texts))
    }

    /// Trains from `model` on the device's data.
    ///
    /// - Throws: `LocalTrainingError`.
    public func train(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingResult {
        try trainer(training(), model, instructions).train(model: model, instructions: instructions)
    }

    /// The gradient of the mean loss over all data at `model`.
    ///
    /// - Throws: `LocalTrainingError`.
    public func gradient(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingResult {
        try trainer(training(), model, instructions).gradient(model: model, instructions: instructions)
    }

    /// Evaluates `model` on the held-out data.
    ///
    /// - Throws: `LocalTrainingError`.
    public func evaluate(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingMetrics {
        let trainer = try trainer((heldOut ?? training)(), model, instructions)
        guard trainer.exampleCount > 0 else { throw LocalTrainingError.noData }
        return try trainer.evaluate(model: model, base: instructions.base)
    }

    /// Refuses a model whose tensors are not its architecture's, and a task that the architecture does not support.
    ///
    /// - Throws: `LocalTrainingError`.
    public func check(_ task: TrainingTask, model: ParameterVector, instructions: TrainingInstructions) throws {
        let architecture = try Self.architecture(model, instructions)
        guard architecture.supports(task) else {
            throw LocalTrainingError.unsupported(operation: "\(task) of \(type(of: architecture).name)")
        }
        try architecture.check(model, base: instructions.base)
    }

    /// True: every built-in architecture has made-up data.
    public var canRehearse: Bool { true }

    /// Does the task on made-up records of the kind that the architecture learns from, and drops the result.
    ///
    /// - Throws: `LocalTrainingError`.
    public func rehearse(_ task: TrainingTask, model: ParameterVector, instructions: TrainingInstructions) throws {
        let architecture = try Self.architecture(model, instructions)
        let trainer = try architecture.makeTrainer(data: architecture.madeUpData, instructions: instructions)
        switch task {
        case .train: _ = try trainer.train(model: model, instructions: instructions)
        case .gradient: _ = try trainer.gradient(model: model, instructions: instructions)
        case .evaluate: _ = try trainer.evaluate(model: model, base: instructions.base)
        }
    }

    private static func architecture(
        _ model: ParameterVector,
        _ instructions: TrainingInstructions
    ) throws -> any ModelArchitecture {
        let architecture: any ModelArchitecture
        do {
            architecture = try instructions.model.map(ModelArchitectures.make) ?? guess(model.layout)
        } catch let error as ModelConfigurationError {
            throw LocalTrainingError.modelMismatch(reason: error.description)
        }
        // Parameters, gradient and two moments of an optimiser, and what the batches take.
        let needed =
            16 * Double(model.layout.parameterCount) + 4 * Double(instructions.base?.layout.parameterCount ?? 0)
            + architecture.workingByteCount(batchSize: instructions.batchSize)
        guard needed <= Double(instructions.memoryLimit) else {
            throw LocalTrainingError.tooLarge(byteCount: needed, limit: instructions.memoryLimit)
        }
        return architecture
    }

    private func trainer(
        _ data: LocalData,
        _ model: ParameterVector,
        _ instructions: TrainingInstructions
    ) throws -> any ArchitectureTrainer {
        let architecture = try Self.architecture(model, instructions)
        var (prepared, found) = try instructions.data.apply(to: data)
        // Also if making the trainer fails: the owner needs the report to find out why.
        defer { report?(found) }
        let trainer = try architecture.makeTrainer(data: prepared, instructions: instructions)
        if trainer.leftOut != LeftOutRows() { found.leftOut = trainer.leftOut }
        return trainer
    }

    /// Recognises a character model with the alphabet of messages by its tensors.
    private static func guess(_ layout: ParameterLayout) throws -> any ModelArchitecture {
        guard let configuration = CIFGLSTMConfiguration(layout: layout) else {
            throw LocalTrainingError.modelMismatch(reason: "no architecture is named, and this is no CIFG-LSTM")
        }
        return try CIFGLSTMArchitecture(configuration: configuration)
    }
}
