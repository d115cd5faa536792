import CoordinatorAPI
import Foundation
import LocalTraining
import StrictJSON
import Tensors
import WireFormat

/// Joins run specifications with the architectures of `LocalTraining`; the server's own modules link no trainer.
enum BuiltInModels {
    /// What a run file may name: all architectures but those that an analytics run makes, and that of uploaded weights.
    static var trained: [String] {
        ModelArchitectures.names.filter { AnalyticsMethod(rawValue: $0) == nil } + [RunSpecification.Model.external]
    }

    /// The first version of a built-in architecture; `nil` where the weights will be uploaded.
    ///
    /// - Throws: ``DocumentError`` pointing into `/model`.
    static func initialModel(_ model: RunSpecification.Model) throws -> ParameterVector? {
        guard model.isExternal || ModelArchitectures.isBuiltIn(model.architecture) else {
            let names = trained.joined(separator: ", ")
            throw DocumentError("/model/architecture", "'\(model.architecture)' is not one of \(names)")
        }
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

    /// The tensors of the frozen base or the statistics that a built-in architecture needs; `nil` where it needs none.
    static func baseLayout(_ model: RunSpecification.Model) throws -> ParameterLayout? {
        guard model.base != nil, let description = try description(model) else { return nil }
        return try ModelArchitectures.make(description).baseLayout
    }

    /// A specification's model as the registry takes it.
    static func description(_ model: RunSpecification.Model) throws -> ModelDescription? {
        guard !model.isExternal, let config = model.config else { return nil }
        return ModelDescription(
            architecture: model.architecture,
            config: String(decoding: try WireCoding.encode(config), as: UTF8.self)
        )
    }

    /// The files of a model's directory, which `martlet suggest` and others read as they stand.
    static func files(_ model: RunSpecification.Model, weights: String, base: String?) throws -> [ArchiveFile] {
        guard let description = try description(model) else {
            return [ArchiveFile(name: "model.safetensors", content: .file(path: weights))]
        }
        let documents = try ModelDirectory.documents(description).map {
            ArchiveFile(name: $0.name, content: .bytes($0.content))
        }
        let architecture = try ModelArchitectures.make(description)
        let names = ModelDirectory.weightNames(of: architecture)
        var content = ArchiveFile.Content.file(path: weights)
        if names.hasAdapters,
            let whole = ModelDirectory.completed(try SafetensorsFile(path: weights).readAll(), of: architecture)
        {
            content = .bytes(SafetensorsWriter.encode(whole, metadata: ["format": "pt"]))
        }
        return documents + [ArchiveFile(name: names.model, content: content)]
            + (base.map { [ArchiveFile(name: names.base, content: .file(path: $0))] } ?? [])
    }
}
