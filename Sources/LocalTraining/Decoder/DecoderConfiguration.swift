public import Tensors

/// The sizes of a decoder in Llama's layout: pre-norm RMSNorm, rotary positions, grouped-query attention, SwiGLU.
///
/// Source: Touvron et al. 2023, arXiv:2302.13971; tensor names as in Hugging Face's `LlamaForCausalLM`.
public struct DecoderConfiguration: Equatable, Sendable {
    /// Which projections of the attention have a bias.
    public enum AttentionBias: Sendable {
        /// None (Llama).
        case none
        /// Queries, keys and values (Qwen2).
        case inputs
        /// Queries, keys, values and the output (Llama with `attention_bias`).
        case all
    }

    /// V, the number of tokens.
    public var vocabularySize: Int
    /// D, the width of the residual stream.
    public var hiddenSize: Int
    /// F, the width inside the feed-forward part.
    public var intermediateSize: Int
    /// L, the number of layers.
    public var layerCount: Int
    /// The number of query heads.
    public var headCount: Int
    /// The number of key and value heads; divides `headCount`.
    public var keyValueHeadCount: Int
    /// d, the width of a head, even.
    public var headDimension: Int
    /// The length of the longest sequence, in tokens.
    public var positionLimit: Int
    /// RMSNorm's ε, added to the mean square.
    public var normEpsilon: Double
    /// The rotary base.
    public var rotaryBase: Double
    /// Whether the output uses the embedding.
    public var tiesEmbedding: Bool
    /// Biases of the attention.
    public var attentionBias: AttentionBias

    /// Creates a configuration.
    public init(
        vocabularySize: Int,
        hiddenSize: Int,
        intermediateSize: Int,
        layerCount: Int,
        headCount: Int,
        keyValueHeadCount: Int,
        headDimension: Int? = nil,
        positionLimit: Int = 2048,
        normEpsilon: Double = 1e-5,
        rotaryBase: Double = 10_000,
        tiesEmbedding: Bool = true,
        attentionBias: AttentionBias = .none
    ) {
        self.vocabularySize = vocabularySize
        self.hiddenSize = hiddenSize
        self.intermediateSize = intermediateSize
        self.layerCount = layerCount
        self.headCount = headCount
        self.keyValueHeadCount = keyValueHeadCount
        self.headDimension = headDimension ?? hiddenSize / headCount
        self.positionLimit = positionLimit
        self.normEpsilon = normEpsilon
        self.rotaryBase = rotaryBase
        self.tiesEmbedding = tiesEmbedding
        self.attentionBias = attentionBias
    }

    /// Input and output width of a layer's projection, by its short name.
    func shape(of projection: String) -> (input: Int, output: Int) {
        let (queries, keys) = (headCount * headDimension, keyValueHeadCount * headDimension)
        return switch projection {
        case "q_proj": (hiddenSize, queries)
        case "k_proj", "v_proj": (hiddenSize, keys)
        case "o_proj": (queries, hiddenSize)
        case "down_proj": (intermediateSize, hiddenSize)
        default: (hiddenSize, intermediateSize)
        }
    }

    static let attentionProjections = ["q_proj", "k_proj", "v_proj", "o_proj"]
    static let projections = attentionProjections + ["gate_proj", "up_proj", "down_proj"]

    /// The module path of a projection in a layer, without `.weight`.
    static func path(_ projection: String, layer: Int) -> String {
        let part = attentionProjections.contains(projection) ? "self_attn" : "mlp"
        return "model.layers.\(layer).\(part).\(projection)"
    }

    func hasBias(_ projection: String) -> Bool {
        switch attentionBias {
        case .none: false
        case .inputs: ["q_proj", "k_proj", "v_proj"].contains(projection)
        case .all: Self.attentionProjections.contains(projection)
        }
    }

    /// The model's tensors.
    public var layout: ParameterLayout {
        var tensors: [TensorSpecification] = [
            .init(name: "model.embed_tokens.weight", shape: [vocabularySize, hiddenSize]),
            .init(name: "model.norm.weight", shape: [hiddenSize]),
        ]
        if !tiesEmbedding { tensors.append(.init(name: "lm_head.weight", shape: [vocabularySize, hiddenSize])) }
        for layer in 0..<layerCount {
            for norm in ["input_layernorm", "post_attention_layernorm"] {
                tensors.append(.init(name: "model.layers.\(layer).\(norm).weight", shape: [hiddenSize]))
            }
            for projection in Self.projections {
                let (input, output) = shape(of: projection)
                let path = Self.path(projection, layer: layer)
                tensors.append(.init(name: path + ".weight", shape: [output, input]))
                if hasBias(projection) { tensors.append(.init(name: path + ".bias", shape: [output])) }
            }
        }
        return ParameterLayout(tensors)
    }

    /// Fresh parameters: N(0, 0.02), the projections back into the residual stream divided by √(2L), norms 1, biases 0.
    public func initialParameters(seed: UInt64) -> ParameterVector {
        var generator = Xoshiro256StarStar(seed: seed)
        let layout = self.layout
        var vector = ParameterVector(zeros: layout)
        for (index, tensor) in layout.tensors.enumerated() {
            let range = layout.offsets[index]..<layout.offsets[index + 1]
            if tensor.name.hasSuffix("norm.weight") {
                for position in range { vector.values[position] = 1 }
            } else if !tensor.name.hasSuffix(".bias") {
                let intoResidual = tensor.name.hasSuffix("o_proj.weight") || tensor.name.hasSuffix("down_proj.weight")
                let deviation = 0.02 / (intoResidual ? Double(2 * layerCount).squareRoot() : 1)
                for position in range { vector.values[position] = Float(deviation * Self.normal(&generator)) }
            }
        }
        return vector
    }

    /// Marsaglia's polar method.
    private static func normal(_ generator: inout Xoshiro256StarStar) -> Double {
        while true {
            let x = 2 * Double(generator.nextUniform()) - 1
            let y = 2 * Double(generator.nextUniform()) - 1
            let square = x * x + y * y
            if square > 0 && square < 1 { return x * (-2 * Double.logarithm(square) / square).squareRoot() }
        }
    }
}
