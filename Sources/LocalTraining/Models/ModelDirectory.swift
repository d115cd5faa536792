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
        guard let configData = contents("config.json"),
            var config = try? JSONSerialization.jsonObject(with: configData) as? [String: Any]
        else { throw LocalTrainingError.modelMismatch(reason: "\(directory) has no config.json that is a JSON object") }
        var architecture = config["model_type"] as? String ?? ""
        if ["llama", "qwen2"].contains(architecture) { architecture = DecoderArchitecture.name }
        if let tokenizer = contents("tokenizer.json") {
            config["tokenizer"] = ["type": "bpe", "tokenizer": String(decoding: tokenizer, as: UTF8.self)]
        } else if let vocabulary = contents("vocab.txt") {
            let tokens = try VocabularyFile.decode(String(decoding: vocabulary, as: UTF8.self))
            let isCharacters =
                ((config["tokenizer"] as? [String: Any])?["type"] ?? config["tokenizer"]) as? String == "char"
            config["tokenizer"] =
                isCharacters
                ? ["type": "char", "alphabet": tokens.joined()] as [String: Any]
                : ["type": "word", "vocabulary": tokens]
        }
        let hasAdapters = FileManager.default.fileExists(atPath: directory + "/adapter_model.safetensors")
        if hasAdapters {
            guard let data = contents("adapter_config.json"),
                let peft = try? JSONSerialization.jsonObject(with: data) as? [String: Any],
                peft["peft_type"] as? String == "LORA"
            else {
                throw LocalTrainingError.modelMismatch(reason: "\(directory)/adapter_config.json is not one of LoRA")
            }
            var lora: [String: Any] = ["train": "both"]
            for name in ["r", "lora_alpha", "target_modules"] { lora[name] = peft[name] }
            config["lora"] = lora
        }
        description = ModelDescription(architecture: architecture, config: try Self.text(config))
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
        guard
            var config = try JSONSerialization.jsonObject(with: Data(description.config.utf8)) as? [String: Any]
        else { throw ModelConfigurationError("", "must be a JSON object") }
        config["model_type"] = description.architecture
        for name in ["alphabet", "tokenizer", "lora"] { config[name] = nil }
        var files: [(name: String, content: Data)] = []
        if let language = architecture as? any LanguageArchitecture {
            config["vocab_size"] = language.tokenizer.vocabularySize
            switch language.tokenizer {
            case let tokenizer as CharacterTokenizer:
                config["tokenizer"] = "char"
                let characters = tokenizer.alphabet.unicodeScalars.map { String($0) }
                files.append(("vocab.txt", Data(VocabularyFile.encode(characters).utf8)))
            case let tokenizer as WordTokenizer:
                config["tokenizer"] = "word"
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
                files.append(("adapter_config.json", Data((try text(adapters.peftConfig)).utf8)))
            }
        }
        files.append(("config.json", Data((try text(config) + "\n").utf8)))
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
            let adapters = decoder.adapters, let base,
            var config = try JSONSerialization.jsonObject(with: Data(description.config.utf8)) as? [String: Any]
        else { throw LocalTrainingError.modelMismatch(reason: "the model has no adapters to merge") }
        config["lora"] = nil
        return ModelDirectory(
            description: ModelDescription(architecture: description.architecture, config: try Self.text(config)),
            model: adapters.merged(model, into: base, decoder.configuration)
        )
    }

    private static func text(_ object: [String: Any]) throws -> String {
        guard let tree = JSONValue(foundation: object) else {
            throw LocalTrainingError.modelMismatch(reason: "the configuration holds a value that JSON cannot express")
        }
        return tree.prettyText
    }
}

extension DecoderArchitecture {
    /// The sizes under the names of `LlamaConfig`.
    var huggingFaceConfig: [String: Any] {
        [
            "vocab_size": configuration.vocabularySize, "hidden_size": configuration.hiddenSize,
            "intermediate_size": configuration.intermediateSize, "num_hidden_layers": configuration.layerCount,
            "num_attention_heads": configuration.headCount, "num_key_value_heads": configuration.keyValueHeadCount,
            "head_dim": configuration.headDimension, "max_position_embeddings": configuration.positionLimit,
            "rms_norm_eps": configuration.normEpsilon, "rope_theta": configuration.rotaryBase,
            "tie_word_embeddings": configuration.tiesEmbedding, "hidden_act": "silu",
            "attention_bias": configuration.attentionBias == .all,
            "model_type": configuration.attentionBias == .inputs ? "qwen2" : "llama",
            "architectures": [configuration.attentionBias == .inputs ? "Qwen2ForCausalLM" : "LlamaForCausalLM"],
            "bos_token_id": tokenizer.specials.begin, "eos_token_id": tokenizer.specials.end,
            "pad_token_id": tokenizer.specials.pad,
        ]
    }
}

extension LowRankAdapters {
    /// `adapter_config.json`.
    var peftConfig: [String: Any] {
        [
            "peft_type": "LORA", "r": rank, "lora_alpha": alpha, "target_modules": targets, "bias": "none",
            "base_model_name_or_path": ".", "lora_dropout": 0, "task_type": "CAUSAL_LM", "inference_mode": true,
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
