public import Tensors

/// Trains whatever built-in model a run has on a device's data.
///
/// Data are cleaned as the run's rules say before anything is learned from them.
public struct DeviceTrainer: LocalTrainer {
    private let training: LocalData
    private let heldOut: LocalData?
    private let report: (@Sendable (DataReport) -> Void)?

    /// Keeps data.
    ///
    /// - Parameters:
    ///   - data: What is trained on.
    ///   - heldOut: What models are judged on; where it is missing, the training data.
    ///   - report: Receives what cleaning found each time; it stays on the device.
    public init(data: LocalData, heldOut: LocalData? = nil, report: (@Sendable (DataReport) -> Void)? = nil) {
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
        try trainer(training, model, instructions).train(model: model, instructions: instructions)
    }

    /// The gradient over all data.
    public func gradient(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingResult {
        try trainer(training, model, instructions).gradient(model: model, instructions: instructions)
    }

    /// Judges a model.
    public func evaluate(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingMetrics {
        let trainer = try trainer(heldOut ?? training, model, instructions)
        guard trainer.exampleCount > 0 else { throw LocalTrainingError.noData }
        return try trainer.evaluate(model: model, base: instructions.base)
    }

    private func trainer(
        _ data: LocalData,
        _ model: ParameterVector,
        _ instructions: TrainingInstructions
    ) throws -> any ArchitectureTrainer {
        let architecture: any ModelArchitecture
        do {
            architecture = try instructions.model.map(ModelArchitectures.make) ?? Self.guess(model.layout)
        } catch let error as ModelConfigurationError {
            throw LocalTrainingError.modelMismatch(reason: error.description)
        }
        let (prepared, found) = try instructions.data.apply(to: data)
        report?(found)
        return try architecture.makeTrainer(data: prepared, instructions: instructions)
    }

    /// A character model with the messages' alphabet can be read off its tensors.
    private static func guess(_ layout: ParameterLayout) throws -> any ModelArchitecture {
        guard let configuration = CIFGLSTMConfiguration(layout: layout) else {
            throw LocalTrainingError.modelMismatch(reason: "nothing says what the model is, and it is not a CIFG-LSTM")
        }
        return try CIFGLSTMArchitecture(configuration: configuration)
    }
}
