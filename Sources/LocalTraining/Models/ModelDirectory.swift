package import Foundation
import StrictJSON
package import Tensors

/// A model as files: `config.json`, `model.safetensors`, and `vocab.txt` or `tokenizer.json`.
///
/// With adapters, `adapter_config.json` and `adapter_model.safetensors` as PEFT writes them stand beside the base model.
package struct ModelDirectory: Sendable {
    package var description: ModelDescription
    package var model: ParameterVector
    /// The frozen base of adapters, or the statistics of a table; `nil` if none is needed.
    package var base: ParameterVector?

    package init(description: ModelDescription, model: ParameterVector, base: ParameterVector? = nil) {
        self.description = description
        self.model = model
        self.base = base
    }

    /// Reads a directory, and checks that its tensors are those of its configuration.
    ///
    /// - Throws: `LocalTrainingError.modelMismatch(reason:)`, `ModelConfigurationError`, ``TokenizerError`` or
    ///   `SafetensorsError`.
    package init(reading directory: String) throws {
        func contents(_ name: String) -> Data? { FileManager.default.contents(atPath: directory + "/" + name) }
        guard let configData = contents("config.json") else {
            throw LocalTrainingError.modelMismatch(reason: "\(directory) has no config.json")
        }
        var config = try Self.object(configData, "\(directory)/config.json")
        var architecture = config["model_type"]?.stringValue ?? ""
        if ["llama", "qwen2"].contains(architecture) { architecture = DecoderArchitecture.name }
        if let tokenizer = contents("tokenizer.json") {
            config["tokenizer"] = .object([
                "type": .string("bpe"), "tokenizer": .string(String(decoding: tokenizer, as: UTF8.self)),
            ])
        } else if let vocabulary = contents("vocab.txt") {
            let tokens = try VocabularyFile.decode(String(decoding: vocabulary, as: UTF8.self))
            let tokenizer = config["tokenizer"]
            let isCharacters = (tokenizer?.field("type") ?? tokenizer)?.stringValue == "char"
            config["tokenizer"] = .object(
                isCharacters
                    ? ["type": .string("char"), "alphabet": .string(tokens.joined())]
                    : ["type": .string("word"), "vocabulary": .array(tokens.map { .string($0) })]
            )
        }
        let hasAdapters = FileManager.default.fileExists(atPath: directory + "/adapter_model.safetensors")
        if hasAdapters {
            guard let data = contents("adapter_config.json"),
                case let peft = try Self.object(data, "\(directory)/adapter_config.json"),
                peft["peft_type"]?.stringValue == "LORA"
            else {
                throw LocalTrainingError.modelMismatch(reason: "\(directory)/adapter_config.json is not one of LoRA")
            }
            var lora: [String: JSONValue] = ["train": .string("both")]
            for name in ["r", "lora_alpha", "target_modules"] { lora[name] = peft[name] }
            config["lora"] = .object(lora)
        }
        description = ModelDescription(architecture: architecture, config: JSONValue.object(config).prettyText)
        if hasAdapters {
            base = try WeightsFile.read(directory + "/model.safetensors")
            model = try WeightsFile.read(directory + "/adapter_model.safetensors")
        } else {
            model = try WeightsFile.read(directory + "/model.safetensors")
            let statistics = directory + "/statistics.safetensors"
            base = FileManager.default.fileExists(atPath: statistics) ? try WeightsFile.read(statistics) : nil
        }
        try ModelArchitectures.make(description).check(model, base: base)
    }

    /// The files without weights, by name: configuration and vocabulary.
    package static func documents(_ description: ModelDescription) throws -> [(name: String, content: Data)] {
        let architecture = try ModelArchitectures.make(description)
        var config = try object(Data(description.config.utf8), "the configuration")
        config["model_type"] = .string(description.architecture)
        for name in ["alphabet", "tokenizer", "lora"] { config[name] = nil }
        var files: [(name: String, content: Data)] = []
        if let language = architecture as? any LanguageArchitecture {
            config["vocab_size"] = .integer(language.tokenizer.vocabularySize)
            switch language.tokenizer {
            case let tokenizer as CharacterTokenizer:
                config["tokenizer"] = .string("char")
                let characters = tokenizer.alphabet.unicodeScalars.map { String($0) }
                files.append(("vocab.txt", Data(VocabularyFile.encode(characters).utf8)))
            case let tokenizer as WordTokenizer:
                config["tokenizer"] = .string("word")
                files.append(("vocab.txt", Data(VocabularyFile.encode(tokenizer.vocabulary).utf8)))
            case let tokenizer as ByteLevelBPE: files.append(("tokenizer.json", tokenizer.huggingFaceJSON()))
            default: break
            }
        }
        if let histogram = architecture as? CandidateHistogram {
            files.append(("vocab.txt", Data(VocabularyFile.encode(histogram.candidates).utf8)))
        }
        if let decoder = architecture as? DecoderArchitecture {
            config.merge(decoder.huggingFaceConfig) { _, new in new }
            if let adapters = decoder.adapters {
                files.append(("adapter_config.json", Data(JSONValue.object(adapters.peftConfig).prettyText.utf8)))
            }
        }
        files.append(("config.json", Data((JSONValue.object(config).prettyText + "\n").utf8)))
        return files.sorted { $0.name < $1.name }
    }

    /// Writes the directory; with `int8` the weights have eight bits each.
    package func write(to directory: String, int8: Bool = false) throws {
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        for file in try Self.documents(description) {
            try file.content.write(to: URL(fileURLWithPath: directory + "/" + file.name), options: .atomic)
        }
        let architecture = try ModelArchitectures.make(description)
        func put(_ vector: ParameterVector, _ name: String) throws {
            let data =
                int8 ? QuantizedWeights.encode(vector) : SafetensorsWriter.encode(vector, metadata: ["format": "pt"])
            try data.write(to: URL(fileURLWithPath: directory + "/" + name), options: .atomic)
        }
        let names = Self.weightNames(of: architecture)
        if names.hasAdapters && base == nil {
            throw LocalTrainingError.modelMismatch(reason: "adapters need their base model")
        }
        try put(Self.completed(model, of: architecture) ?? model, names.model)
        if let base { try put(base, names.base) }
    }

    /// The file names of a model's own tensors and of the model that it builds on: adapters beside their base, as PEFT names them, or a
    /// table's model beside its statistics.
    package static func weightNames(
        of architecture: any ModelArchitecture
    ) -> (model: String, base: String, hasAdapters: Bool) {
        (architecture as? DecoderArchitecture)?.adapters != nil
            ? ("adapter_model.safetensors", "model.safetensors", true)
            : ("model.safetensors", "statistics.safetensors", false)
    }

    /// The tensors that other programs expect.
    ///
    /// They are more than those that are sent if only B of adapters is trained.
    package static func completed(
        _ model: ParameterVector,
        of architecture: any ModelArchitecture
    ) -> ParameterVector? {
        guard let decoder = architecture as? DecoderArchitecture else { return nil }
        return decoder.adapters?.complete(model, decoder.configuration)
    }

    /// The full model: adapters added to their base.
    ///
    /// - Throws: `LocalTrainingError.modelMismatch(reason:)` for a model without adapters.
    package func merged() throws -> ModelDirectory {
        guard let decoder = try ModelArchitectures.make(description) as? DecoderArchitecture,
            let adapters = decoder.adapters, let base
        else { throw LocalTrainingError.modelMismatch(reason: "the model has no adapters to merge") }
        var config = try Self.object(Data(description.config.utf8), "the configuration")
        config["lora"] = nil
        return ModelDirectory(
            description: ModelDescription(
                architecture: description.architecture,
                config: JSONValue.object(config).prettyText
            ),
            model: adapters.merged(model, into: base, decoder.configuration)
        )
    }

    private static func object(_ data: Data, _ name: String) throws -> [String: JSONValue] {
        do {
            if let fields = try JSONValue(parsing: Array(data)).objectValue { return fields }
        } catch {
            throw LocalTrainingError.modelMismatch(reason: "\(name) is not valid JSON: \(error)")
        }
        throw LocalTrainingError.modelMismatch(reason: "\(name) is not a JSON object")
    }
}

extension DecoderArchitecture {
    /// The sizes under the names of `LlamaConfig`.
    var huggingFaceConfig: [String: JSONValue] {
        let isQwen = configuration.attentionBias == .inputs
        return [
            "vocab_size": .integer(configuration.vocabularySize), "hidden_size": .integer(configuration.hiddenSize),
            "intermediate_size": .integer(configuration.intermediateSize),
            "num_hidden_layers": .integer(configuration.layerCount),
            "num_attention_heads": .integer(configuration.headCount),
            "num_key_value_heads": .integer(configuration.keyValueHeadCount),
            "head_dim": .integer(configuration.headDimension),
            "max_position_embeddings": .integer(configuration.positionLimit),
            "rms_norm_eps": JSONValue(configuration.normEpsilon), "rope_theta": JSONValue(configuration.rotaryBase),
            "tie_word_embeddings": .boolean(configuration.tiesEmbedding), "hidden_act": .string("silu"),
            "attention_bias": .boolean(configuration.attentionBias == .all),
            "model_type": .string(isQwen ? "qwen2" : "llama"),
            "architectures": .array([.string(isQwen ? "Qwen2ForCausalLM" : "LlamaForCausalLM")]),
            "bos_token_id": .integer(tokenizer.specials.begin), "eos_token_id": .integer(tokenizer.specials.end),
            "pad_token_id": .integer(tokenizer.specials.pad),
        ]
    }
}

extension LowRankAdapters {
    /// `adapter_config.json`.
    var peftConfig: [String: JSONValue] {
        [
            "peft_type": .string("LORA"), "r": .integer(rank), "lora_alpha": JSONValue(alpha),
            "target_modules": .array(targets.map { .string($0) }), "bias": .string("none"),
            "base_model_name_or_path": .string("."), "lora_dropout": .integer(0), "task_type": .string("CAUSAL_LM"),
            "inference_mode": .boolean(true),
        ]
    }
}

/// A weights file of either kind: float tensors, or tensors of eight bits with scales.
package enum WeightsFile {
    /// Reads all tensors as floats.
    package static func read(_ path: String) throws -> ParameterVector {
        if let vector = try QuantizedWeights.read(path) { return vector }
        return try SafetensorsFile(path: path).readAll()
    }
}
