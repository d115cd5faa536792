import StrictJSON
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

    /// A character model with a given alphabet, for tests and demonstrations.
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
        textSettings = TextSettings(tokenizer: tokenizer)
    }

    package init(_ description: ModelDescription) throws {
        self = try description.read { Self(reading: $0) }
    }

    private init(reading fields: FieldReader) {
        let tokenizer = TokenizerDocument.read(of: fields)
        let sizes = fields.choice("preset", of: Self.presets.keys.sorted()).flatMap { Self.presets[$0] }
        configuration = CIFGLSTMConfiguration(
            vocabularySize: fields.integer(
                "vocab_size",
                default: tokenizer.vocabularySize,
                in: 5...1_000_000
            ),
            embeddingDimension: fields.integer("embedding_dim", default: sizes?.1, in: 1...4096),
            hiddenDimension: fields.integer("hidden_dim", default: sizes?.2, in: 1...8192)
        )
        for name in ["recurrent_projection", "tie_embedding"] {
            if !fields.boolean(name, default: true) {
                fields.report(name, "must be true: models without are not built in")
            }
        }
        if configuration.vocabularySize != tokenizer.vocabularySize {
            fields.report(
                "vocab_size",
                "must be \(tokenizer.vocabularySize), as in the tokenizer with its 4 special tokens, "
                    + "not \(configuration.vocabularySize); or give another tokenizer"
            )
        }
        self.tokenizer = tokenizer
        textSettings = TextSettings(fields, tokenizer: tokenizer, lengthLimit: nil)
    }

    package var layout: ParameterLayout { configuration.layout }

    package func initialParameters(seed: UInt64) -> ParameterVector { configuration.initialParameters(seed: seed) }

    package func workingByteCount(batchSize: Int) -> Double {
        let (d, h) = (Double(configuration.embeddingDimension), Double(configuration.hiddenDimension))
        return 4 * positions(batchSize: batchSize) * (4 * d + 9 * h)
    }

    package func makeNetwork(
        model: ParameterVector,
        base: ParameterVector?
    ) throws -> any LanguageNetwork<Float> {
        prepared(CIFGLSTM<Float>(configuration: configuration, parameters: model.values))
    }
}
