public import Tensors

/// An architecture with fixed sizes: its tensors, their first values, and how a device trains them.
///
/// To add a built-in architecture, conform to this protocol and add the type to ``ModelArchitectures``.
public protocol ModelArchitecture: Sendable {
    /// The name in `model.architecture`.
    static var name: String { get }

    /// Reads the configuration.
    ///
    /// - Throws: `ModelConfigurationError`.
    init(_ description: ModelDescription) throws

    /// The tensors that travel between server and clients.
    var layout: ParameterLayout { get }

    /// The tensors of the other model that is needed as well: a frozen base, or a table's statistics; `nil` for none.
    var baseLayout: ParameterLayout? { get }

    /// Fresh parameters, the same for the same seed.
    func initialParameters(seed: UInt64) -> ParameterVector

    /// A trainer of this architecture over a device's data.
    ///
    /// - Throws: `LocalTrainingError` if the architecture cannot learn from the data.
    func makeTrainer(data: LocalData, instructions: TrainingInstructions) throws -> any ArchitectureTrainer

    /// Whether its trainers can do a task.
    func supports(_ task: TrainingTask) -> Bool

    /// Bytes of memory that a batch's arithmetic takes at least, beside the model: what is kept of the way forward for the way back.
    ///
    /// A server chooses all sizes, so this is computed without making anything, and cannot overflow.
    func workingByteCount(batchSize: Int) -> Double

    /// Made-up records of the kind that it learns from, about as many as a device has, for rehearsals.
    var madeUpData: LocalData { get }
}

extension ModelArchitecture {
    /// `nil`: no other model is needed.
    public var baseLayout: ParameterLayout? { nil }

    /// 0: counting takes no batches.
    public func workingByteCount(batchSize: Int) -> Double { 0 }

    /// True for every task.
    public func supports(_ task: TrainingTask) -> Bool { true }

    /// Short invented messages.
    public var madeUpData: LocalData {
        .texts((0..<16).flatMap { SyntheticMessages.messages(ofClient: $0, seed: 1) })
    }

    /// Checks tensors against the layout, naming the first that is missing, surplus or of another shape.
    ///
    /// - Throws: `LocalTrainingError.modelMismatch(reason:)`.
    func check(_ model: ParameterVector, base: ParameterVector?) throws {
        try check(model.layout, against: layout, "the model")
        guard let baseLayout else { return }
        guard let base else {
            throw LocalTrainingError.modelMismatch(reason: "the tensors of the base model are missing (model.base)")
        }
        try check(base.layout, against: baseLayout, "the base model")
    }

    private func check(_ actual: ParameterLayout, against wanted: ParameterLayout, _ what: String) throws {
        guard let reason = wanted.mismatch(of: actual, what) else { return }
        throw LocalTrainingError.modelMismatch(reason: "\(reason) (\(Self.name))")
    }
}

/// Trains and evaluates one architecture on data that were prepared for it.
public protocol ArchitectureTrainer {
    /// The number of examples: windows, or rows.
    var exampleCount: Int { get }
    /// Rows of a table that are left out of the examples.
    var leftOut: LeftOutRows { get }
    /// Trains from `model`.
    ///
    /// - Throws: `LocalTrainingError`.
    func train(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingResult
    /// The gradient of the mean loss over all data at `model`, as `delta`.
    ///
    /// - Throws: `LocalTrainingError`.
    func gradient(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingResult
    /// Evaluates `model` on the same data.
    ///
    /// - Throws: `LocalTrainingError`.
    func evaluate(model: ParameterVector, base: ParameterVector?) throws -> TrainingMetrics
}

extension ArchitectureTrainer {
    /// No rows are left out.
    public var leftOut: LeftOutRows { LeftOutRows() }
}

/// The built-in architectures by name.
public enum ModelArchitectures {
    static let all: [any ModelArchitecture.Type] = [
        CIFGLSTMArchitecture.self, DecoderArchitecture.self, TabularArchitecture.self, TabularStatistics.self,
        CandidateHistogram.self, TrieVoting.self,
    ]

    /// Their names, sorted.
    public static var names: [String] { all.map { $0.name }.sorted() }

    /// Whether there is an architecture of this name.
    public static func isBuiltIn(_ name: String) -> Bool { type(named: name) != nil }

    private static func type(named name: String) -> (any ModelArchitecture.Type)? {
        let name = name == TrieVoting.earlierName ? TrieVoting.name : name
        return all.first { $0.name == name }
    }

    /// The architecture that a description names.
    ///
    /// - Throws: `ModelConfigurationError`, with an empty pointer for an unknown name.
    public static func make(_ description: ModelDescription) throws -> any ModelArchitecture {
        guard let type = type(named: description.architecture) else {
            throw ModelConfigurationError(
                "",
                "'\(description.architecture)' is not a built-in architecture: \(names.joined(separator: ", "))"
            )
        }
        return try type.init(description)
    }
}

/// A device's data.
public enum LocalData: Sendable {
    /// Texts, one record each.
    case texts([String])
    /// A table's header and cells; empty cells are missing values.
    case table(Table)
}
