package import Tensors

/// `cifg-lstm`: the keyboard's next-word model, over words, characters or byte pairs.
package struct CIFGLSTMArchitecture: LanguageArchitecture {
    package static let name = "cifg-lstm"
    package let configuration: CIFGLSTMConfiguration
    package let tokenizer: any Tokenizer
    package let textSettings: TextSettings

    private static let presets = [
        "keyboard": (10_000, 96, 670), "word-small": (2000, 64, 192), "char-small": (69, 32, 128),
        "char": (69, 64, 256),
    ]

    /// Streams or records of characters with a given alphabet, for tests and demonstrations.
    package init(configuration: CIFGLSTMConfiguration, alphabet: String = CharacterTokenizer.messages) throws {
        let tokenizer = CharacterTokenizer(alphabet: alphabet)
        guard configuration.vocabularySize == tokenizer.vocabularySize else {
            throw LocalTrainingError.modelMismatch(
                reason:
                    "the model has \(configuration.vocabularySize) symbols, the alphabet \(tokenizer.vocabularySize)"
            )
        }
        self.configuration = configuration
        self.tokenizer = tokenizer
        textSettings = try TextSettings(ConfigurationReader([:], pointer: ""), tokenizer: tokenizer, lengthLimit: nil)
    }

    package init(_ description: ModelDescription) throws {
        let fields = try ConfigurationReader(description.config)
        _ = fields.value("model_type")
        let tokenizer = try TokenizerDocument.read(of: fields)
        let preset = try fields.choice("preset", of: Self.presets.keys.sorted(), default: "")
        let sizes = Self.presets[preset]
        configuration = CIFGLSTMConfiguration(
            vocabularySize: try fields.integer(
                "vocab_size",
                default: tokenizer.vocabularySize,
                in: 5...1_000_000
            ),
            embeddingDimension: try fields.integer("embedding_dim", default: sizes?.1, in: 1...4096),
            hiddenDimension: try fields.integer("hidden_dim", default: sizes?.2, in: 1...8192)
        )
        for name in ["recurrent_projection", "tie_embedding"] {
            guard try fields.boolean(name, default: true) else {
                throw fields.error(name, "must be true: models without are not built in")
            }
        }
        guard configuration.vocabularySize == tokenizer.vocabularySize else {
            throw fields.error(
                "vocab_size",
                "must be \(tokenizer.vocabularySize), what the tokenizer has with its 4 specials, "
                    + "not \(configuration.vocabularySize); or give another tokenizer"
            )
        }
        self.tokenizer = tokenizer
        textSettings = try TextSettings(fields, tokenizer: tokenizer, lengthLimit: nil)
        try fields.finish()
    }

    package var layout: ParameterLayout { configuration.layout }

    package func initialParameters(seed: UInt64) -> ParameterVector { configuration.initialParameters(seed: seed) }

    package func makeNetwork(
        model: ParameterVector,
        base: ParameterVector?
    ) throws -> any LanguageNetwork<Float> {
        prepared(CIFGLSTM<Float>(configuration: configuration, parameters: model.values))
    }
}
