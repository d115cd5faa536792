import CoordinatorAPI
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

    /// The files of a model's directory, which `martlet suggest` and others read as they stand.
    static func files(_ model: RunSpecification.Model, weights: String, base: String?) throws -> [ArchiveFile] {
        let whole = ArchiveFile(name: "model.safetensors", content: .file(path: weights))
        guard let description = try description(model) else { return [whole] }
        let documents = try ModelDirectory.documents(description).map {
            ArchiveFile(name: $0.name, content: .bytes($0.content))
        }
        let baseFile = base.map { ArchiveFile.Content.file(path: $0) }
        if let decoder = try ModelArchitectures.make(description) as? DecoderArchitecture,
            let adapters = decoder.adapters
        {
            let trained = try SafetensorsFile(path: weights).readAll()
            let complete = adapters.complete(trained, decoder.configuration)
            let data = SafetensorsWriter.encode(complete, metadata: ["format": "pt"])
            return documents + [ArchiveFile(name: "adapter_model.safetensors", content: .bytes(data))]
                + (baseFile.map { [ArchiveFile(name: "model.safetensors", content: $0)] } ?? [])
        }
        return documents + [whole] + (baseFile.map { [ArchiveFile(name: "statistics.safetensors", content: $0)] } ?? [])
    }
}
