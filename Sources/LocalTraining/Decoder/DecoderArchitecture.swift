import StrictJSON
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
        self = try description.read { Self(reading: $0) }
    }

    private init(reading fields: FieldReader) {
        let tokenizer = TokenizerDocument.read(of: fields)
        configuration = Self.configuration(fields, tokenizer: tokenizer)
        adapters = fields.has("lora") ? fields.object("lora", Self.adapters) : nil
        if configuration.vocabularySize != tokenizer.vocabularySize {
            fields.report(
                "vocab_size",
                "must be \(tokenizer.vocabularySize), as in the tokenizer, not \(configuration.vocabularySize); "
                    + "or give another tokenizer"
            )
        }
        self.tokenizer = tokenizer
        textSettings = TextSettings(fields, tokenizer: tokenizer, lengthLimit: configuration.positionLimit)
        for name in Self.ignored + ["lora"] { _ = fields.value(name) }
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

    package func workingByteCount(batchSize: Int) -> Double {
        let c = configuration
        let steps = Double(textSettings.windowLength)
        let queries = Double(c.headCount) * Double(c.headDimension)
        let keys = Double(c.keyValueHeadCount) * Double(c.headDimension)
        let (hidden, inner) = (Double(c.hiddenSize), Double(c.intermediateSize))
        let reduced = Double(adapters?.rank ?? 0) * Double(adapters?.targets.count ?? 0)
        let ofALayer = 4 * hidden + 2 * queries + 2 * keys + 4 * inner + Double(c.headCount) * steps + reduced
        let ofAPosition = Double(c.layerCount) * ofALayer + 4 * hidden + 2 * queries + 3 * inner
        let fixed = Double(adapters?.fixedLayout(c).parameterCount ?? 0)
        return 4 * (positions(batchSize: batchSize) * ofAPosition + fixed)
    }

    // MARK: -

    /// The family of models that a configuration belongs to.
    private enum Family: String, CaseIterable {
        case decoder, llama, qwen2
    }

    /// The factors of adapters that are trained.
    private enum TrainedFactors: String, CaseIterable {
        case both, b
    }

    private static func configuration(
        _ fields: FieldReader,
        tokenizer: any Tokenizer
    ) -> DecoderConfiguration {
        let presets = ["tiny": (64, 176, 2, 4, 4), "small": (256, 688, 4, 8, 4)]
        let sizes = fields.choice("preset", of: presets.keys.sorted().reversed()).flatMap { presets[$0] }
        let hidden = fields.integer("hidden_size", default: sizes?.0, in: 2...65_536)
        let heads = fields.integer("num_attention_heads", default: sizes?.3, in: 1...1024)
        let keyHeads = fields.integer("num_key_value_heads", default: sizes?.4 ?? heads, in: 1...1024)
        if heads % keyHeads != 0 {
            fields.report("num_key_value_heads", "\(keyHeads) must divide the \(heads) attention heads")
        }
        let headDimension = fields.integer("head_dim", default: max(1, hidden / heads), in: 1...4096)
        if headDimension % 2 != 0 { fields.report("head_dim", "must be even, not \(headDimension)") }
        refuseForeignArithmetic(fields)
        var rotaryBase = fields.number("rope_theta", default: 10_000, in: 1...1e9)
        rotaryBase = fields.object("rope_parameters") { rope in
            _ = rope.choice("rope_type", of: ["default"])
            return rope.number("rope_theta", default: rotaryBase, in: 1...1e9)
        }
        let family = fields.choice("model_type", default: Family.decoder)
        let hasBias = fields.boolean("attention_bias", default: false)
        return DecoderConfiguration(
            vocabularySize: fields.integer("vocab_size", default: tokenizer.vocabularySize, in: 5...1_000_000),
            hiddenSize: hidden,
            intermediateSize: fields.integer("intermediate_size", default: sizes?.1, in: 1...262_144),
            layerCount: fields.integer("num_hidden_layers", default: sizes?.2, in: 1...256),
            headCount: heads,
            keyValueHeadCount: keyHeads,
            headDimension: headDimension,
            positionLimit: fields.integer("max_position_embeddings", default: 2048, in: 1...1_048_576),
            normEpsilon: fields.number("rms_norm_eps", default: 1e-5, in: 1e-12...1),
            rotaryBase: rotaryBase,
            tiesEmbedding: fields.boolean("tie_word_embeddings", default: true),
            attentionBias: family == .qwen2 ? .inputs : hasBias ? .all : .none
        )
    }

    /// Refuses keys with a value that would change the arithmetic.
    private static func refuseForeignArithmetic(_ fields: FieldReader) {
        _ = fields.choice("hidden_act", of: ["silu"])
        if fields.value("rope_scaling") != nil { fields.report("rope_scaling", "is set, and is not built in") }
        let usesWindow = fields.boolean("use_sliding_window", default: fields.has("sliding_window"))
        _ = fields.value("sliding_window")
        if usesWindow { fields.report("sliding_window", "is set, and is not built in") }
        if fields.boolean("mlp_bias", default: false) { fields.report("mlp_bias", "is not built in") }
        for name in ["attention_dropout", "resid_pdrop"] where fields.number(name, default: 0, in: 0...1) != 0 {
            fields.report(name, "must be 0: dropout is not built in")
        }
        _ = fields.integer("pretraining_tp", default: 1, in: 1...1)
    }

    private static func adapters(_ fields: FieldReader) -> LowRankAdapters {
        let targets = fields.stringList("target_modules") ?? ["q_proj", "v_proj"]
        for target in targets where !DecoderConfiguration.projections.contains(target) {
            let known = DecoderConfiguration.projections.joined(separator: ", ")
            fields.report("target_modules", "'\(target)' is not one of \(known)")
        }
        if targets.isEmpty || Set(targets).count < targets.count {
            fields.report("target_modules", "must name each projection once, and at least one")
        }
        let rank = fields.integer("r", in: 1...4096)
        let seed = UInt64(fields.string("seed", default: "42"))
        if seed == nil { fields.report("seed", "must be a 64-bit number as a string") }
        return LowRankAdapters(
            rank: rank,
            alpha: fields.number("lora_alpha", default: Double(2 * rank), in: 1e-6...1e6),
            targets: targets,
            trainsA: fields.choice("train", default: TrainedFactors.both) == .both,
            seed: seed ?? 0
        )
    }
}
