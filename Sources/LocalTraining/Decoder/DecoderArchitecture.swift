package import Tensors

/// `decoder`: a small Llama, trained whole or by low-rank adapters on a frozen base.
package struct DecoderArchitecture: LanguageArchitecture {
    package static let name = "decoder"
    package let configuration: DecoderConfiguration
    package let adapters: LowRankAdapters?
    package let tokenizer: any Tokenizer
    package let textSettings: TextSettings

    /// Keys of Hugging Face configurations that change no arithmetic here.
    private static let ignored = [
        "architectures", "bos_token_id", "eos_token_id", "pad_token_id", "torch_dtype", "dtype", "use_cache",
        "transformers_version", "initializer_range", "model_type", "_name_or_path", "max_window_layers",
    ]

    package init(_ description: ModelDescription) throws {
        let fields = try ConfigurationReader(description.config)
        let tokenizer = try TokenizerDocument.read(of: fields)
        configuration = try Self.configuration(fields, tokenizer: tokenizer)
        adapters = try fields.object("lora").map(Self.adapters)
        guard configuration.vocabularySize == tokenizer.vocabularySize else {
            throw fields.error(
                "vocab_size",
                "must be \(tokenizer.vocabularySize), what the tokenizer has, not \(configuration.vocabularySize); "
                    + "or give another tokenizer"
            )
        }
        self.tokenizer = tokenizer
        textSettings = try TextSettings(fields, tokenizer: tokenizer, lengthLimit: configuration.positionLimit)
        for name in Self.ignored { _ = fields.value(name) }
        try fields.finish()
    }

    package var layout: ParameterLayout { adapters?.trainedLayout(configuration) ?? configuration.layout }

    package var baseLayout: ParameterLayout? { adapters == nil ? nil : configuration.layout }

    package func initialParameters(seed: UInt64) -> ParameterVector {
        adapters?.initialParameters(configuration, seed: seed) ?? configuration.initialParameters(seed: seed)
    }

    package func makeNetwork(model: ParameterVector, base: ParameterVector?) throws -> any LanguageNetwork<Float> {
        prepared(
            Decoder<Float>(
                configuration: configuration,
                adapters: adapters,
                parameters: model.values,
                frozen: adapters == nil ? [] : base?.values ?? [],
                fixedA: adapters?.fixedParameters(configuration).values ?? []
            )
        )
    }

    // MARK: -

    private static func configuration(
        _ fields: ConfigurationReader,
        tokenizer: any Tokenizer
    ) throws -> DecoderConfiguration {
        let preset = try fields.choice("preset", of: ["tiny", "small"], default: "")
        let sizes = ["tiny": (64, 176, 2, 4, 4), "small": (256, 688, 4, 8, 4)][preset]
        let hidden = try fields.integer("hidden_size", default: sizes?.0, in: 2...65_536)
        let heads = try fields.integer("num_attention_heads", default: sizes?.3, in: 1...1024)
        let keyHeads = try fields.integer("num_key_value_heads", default: sizes?.4 ?? heads, in: 1...1024)
        guard heads % keyHeads == 0 else {
            throw fields.error("num_key_value_heads", "\(keyHeads) must divide the \(heads) attention heads")
        }
        let headDimension = try fields.integer("head_dim", default: max(1, hidden / heads), in: 1...4096)
        guard headDimension % 2 == 0 else { throw fields.error("head_dim", "must be even, not \(headDimension)") }
        try refuseForeignArithmetic(fields)
        var rotaryBase = try fields.number("rope_theta", default: 10_000, in: 1...1e9)
        if let rope = try fields.object("rope_parameters") {
            rotaryBase = try rope.number("rope_theta", default: rotaryBase, in: 1...1e9)
            _ = try rope.choice("rope_type", of: ["default"], default: "default")
            try rope.finish()
        }
        let type = try fields.choice("model_type", of: ["decoder", "llama", "qwen2"], default: "decoder")
        let hasBias = try fields.boolean("attention_bias", default: false)
        return DecoderConfiguration(
            vocabularySize: try fields.integer("vocab_size", default: tokenizer.vocabularySize, in: 5...1_000_000),
            hiddenSize: hidden,
            intermediateSize: try fields.integer("intermediate_size", default: sizes?.1, in: 1...262_144),
            layerCount: try fields.integer("num_hidden_layers", default: sizes?.2, in: 1...256),
            headCount: heads,
            keyValueHeadCount: keyHeads,
            headDimension: headDimension,
            positionLimit: try fields.integer("max_position_embeddings", default: 2048, in: 1...1_048_576),
            normEpsilon: try fields.number("rms_norm_eps", default: 1e-5, in: 1e-12...1),
            rotaryBase: rotaryBase,
            tiesEmbedding: try fields.boolean("tie_word_embeddings", default: true),
            attentionBias: type == "qwen2" ? .inputs : hasBias ? .all : .none
        )
    }

    /// Keys that would change the arithmetic must have the value that leaves it alone.
    private static func refuseForeignArithmetic(_ fields: ConfigurationReader) throws {
        _ = try fields.choice("hidden_act", of: ["silu"], default: "silu")
        if fields.has("rope_scaling") { throw fields.error("rope_scaling", "is in use, which is not built in") }
        let usesWindow = try fields.boolean("use_sliding_window", default: fields.has("sliding_window"))
        _ = fields.value("sliding_window")
        if usesWindow { throw fields.error("sliding_window", "is in use, which is not built in") }
        if try fields.boolean("mlp_bias", default: false) { throw fields.error("mlp_bias", "is not built in") }
        for name in ["attention_dropout", "resid_pdrop"] where try fields.number(name, default: 0, in: 0...1) != 0 {
            throw fields.error(name, "must be 0: dropout is not built in")
        }
        _ = try fields.integer("pretraining_tp", default: 1, in: 1...1)
    }

    private static func adapters(_ fields: ConfigurationReader) throws -> LowRankAdapters {
        let targets = try fields.strings("target_modules") ?? ["q_proj", "v_proj"]
        for target in targets where !DecoderConfiguration.projections.contains(target) {
            let known = DecoderConfiguration.projections.joined(separator: ", ")
            throw fields.error("target_modules", "'\(target)' is not one of \(known)")
        }
        guard !targets.isEmpty, Set(targets).count == targets.count else {
            throw fields.error("target_modules", "must name each projection once, and at least one")
        }
        let rank = try fields.integer("r", in: 1...4096)
        let seed = try fields.string("seed") ?? "42"
        guard let seed = UInt64(seed) else { throw fields.error("seed", "must be a 64-bit number as a string") }
        let adapters = LowRankAdapters(
            rank: rank,
            alpha: try fields.number("lora_alpha", default: Double(2 * rank), in: 1e-6...1e6),
            targets: targets,
            trainsA: try fields.choice("train", of: ["both", "b"], default: "both") == "both",
            seed: seed
        )
        try fields.finish()
        return adapters
    }
}
