import Foundation
import LocalTraining
import Tensors
import WireFormat

/// Joins run specifications with the architectures of `LocalTraining`; the server's own modules link no trainer.
enum BuiltInModels {
    /// The first version of a built-in architecture; `nil` where the weights will be uploaded.
    ///
    /// - Throws: ``DocumentError`` pointing into `/model/config`.
    static func initialModel(_ model: RunSpecification.Model) throws -> ParameterVector? {
        guard let description = try description(model) else { return nil }
        do {
            let architecture = try ModelArchitectures.make(description)
            guard (architecture.baseLayout == nil) == (model.base == nil) else {
                throw DocumentError(
                    "/model/base",
                    model.base == nil
                        ? "is required: the run and version whose model this one builds on"
                        : "is not used by this configuration"
                )
            }
            return architecture.initialParameters(seed: UInt64(model.initialization?.seed ?? "42") ?? 42)
        } catch let error as ModelConfigurationError {
            throw DocumentError("/model/config" + error.pointer, error.reason)
        }
    }

    /// A specification's model as the registry takes it.
    static func description(_ model: RunSpecification.Model) throws -> ModelDescription? {
        guard model.architecture != "external", let config = model.config else { return nil }
        return ModelDescription(
            architecture: model.architecture,
            config: String(decoding: try WireCoding.encode(config), as: UTF8.self)
        )
    }

    /// `config.json` and the tokeniser's file of a run's model.
    static func documents(_ model: RunSpecification.Model) throws -> [(name: String, content: Data)] {
        guard let description = try description(model) else { return [] }
        return try ModelDirectory.documents(description)
    }
}
