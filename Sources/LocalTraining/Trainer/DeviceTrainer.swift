public import Tensors

/// Trains whatever built-in model a run has on a device's data.
///
/// Data are cleaned as the run's rules say before anything is learned from them.
public struct DeviceTrainer: LocalTrainer {
    private let training: @Sendable () throws -> LocalData
    private let heldOut: (@Sendable () throws -> LocalData)?
    private let report: (@Sendable (DataReport) -> Void)?

    /// Keeps data.
    ///
    /// - Parameters:
    ///   - data: What is trained on.
    ///   - heldOut: What models are judged on; where it is missing, the training data.
    ///   - report: Receives what cleaning found each time; it stays on the device.
    public init(data: LocalData, heldOut: LocalData? = nil, report: (@Sendable (DataReport) -> Void)? = nil) {
        self.init(reading: { data }, heldOut: heldOut.map { data in { @Sendable in data } }, report: report)
    }

    /// Reads data each time: what cannot be read then is what data are that gave nothing.
    ///
    /// - Parameters:
    ///   - data: Gives what is trained on.
    ///   - heldOut: Gives what models are judged on; where it is missing, the training data.
    ///   - report: Receives what cleaning found each time; it stays on the device.
    public init(
        reading data: @escaping @Sendable () throws -> LocalData,
        heldOut: (@Sendable () throws -> LocalData)? = nil,
        report: (@Sendable (DataReport) -> Void)? = nil
    ) {
        training = data
        self.heldOut = heldOut
        self.report = report
    }

    /// Keeps texts, one record each.
    public init(texts: [String]) {
        self.init(data: .texts(texts))
    }

    /// Trains.
    public func train(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingResult {
        try trainer(training(), model, instructions).train(model: model, instructions: instructions)
    }

    /// The gradient over all data.
    public func gradient(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingResult {
        try trainer(training(), model, instructions).gradient(model: model, instructions: instructions)
    }

    /// Judges a model.
    public func evaluate(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingMetrics {
        let trainer = try trainer((heldOut ?? training)(), model, instructions)
        guard trainer.exampleCount > 0 else { throw LocalTrainingError.noData }
        return try trainer.evaluate(model: model, base: instructions.base)
    }

    /// Refuses a model that is not its architecture's, and a task that the architecture does not have.
    public func check(_ task: TrainingTask, model: ParameterVector, instructions: TrainingInstructions) throws {
        let architecture = try Self.architecture(model, instructions)
        guard architecture.supports(task) else {
            throw LocalTrainingError.unsupported(operation: "\(task) of \(type(of: architecture).name)")
        }
        try architecture.check(model, base: instructions.base)
    }

    /// Yes.
    public var canRehearse: Bool { true }

    /// Works on made-up records of the kind that the architecture learns from.
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
        do {
            return try instructions.model.map(ModelArchitectures.make) ?? guess(model.layout)
        } catch let error as ModelConfigurationError {
            throw LocalTrainingError.modelMismatch(reason: error.description)
        }
    }

    private func trainer(
        _ data: LocalData,
        _ model: ParameterVector,
        _ instructions: TrainingInstructions
    ) throws -> any ArchitectureTrainer {
        let architecture = try Self.architecture(model, instructions)
        var (prepared, found) = try instructions.data.apply(to: data)
        // Also where no trainer comes of it: the report is for the one who must find out why.
        defer { report?(found) }
        let trainer = try architecture.makeTrainer(data: prepared, instructions: instructions)
        if trainer.leftOut != LeftOutRows() { found.leftOut = trainer.leftOut }
        return trainer
    }

    /// A character model with the messages' alphabet can be read off its tensors.
    private static func guess(_ layout: ParameterLayout) throws -> any ModelArchitecture {
        guard let configuration = CIFGLSTMConfiguration(layout: layout) else {
            throw LocalTrainingError.modelMismatch(reason: "nothing says what the model is, and it is not a CIFG-LSTM")
        }
        return try CIFGLSTMArchitecture(configuration: configuration)
    }
}
