/// What a model is, in words: an architecture's name and its configuration.
///
/// The same text is a run's `model.config` and, with `model_type` for the name, a model directory's `config.json`.
public struct ModelDescription: Equatable, Sendable {
    /// Such as `cifg-lstm`; see `ModelArchitectures` of `LocalTraining`.
    public var architecture: String
    /// A JSON object.
    public var config: String

    /// Creates a description.
    public init(architecture: String, config: String) {
        self.architecture = architecture
        self.config = config
    }
}

/// A field of a model's configuration that cannot be used.
public struct ModelConfigurationError: Error, Equatable, Sendable, CustomStringConvertible {
    /// A JSON pointer into the configuration, such as `/tokenizer/type`.
    public var pointer: String
    /// What is wrong, and what would be right.
    public var reason: String

    /// Creates an error.
    public init(_ pointer: String, _ reason: String) {
        self.pointer = pointer
        self.reason = reason
    }

    /// One sentence for people.
    public var description: String { "model configuration \(pointer): \(reason)" }
}
