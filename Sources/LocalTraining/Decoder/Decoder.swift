import Tensors

/// The decoder's forward and backward pass, with or without low-rank adapters.
///
/// Positions are time-major: position `t * B + b` is step t of sequence b, so every projection is one matrix product over
/// all positions, and a head of one sequence is a matrix with a stride.
package final class Decoder<Value: DecoderScalar>: LanguageNetwork {
    package let configuration: DecoderConfiguration
    package let adapters: LowRankAdapters?
    package var parameters: [Value]
    package var gradient: [Value]
    package var ordinary: Range<Int>
    package var unknown: Int?
    package var vocabularySize: Int { configuration.vocabularySize }
    package var lengthLimit: Int? { configuration.positionLimit }

    /// With adapters, the frozen base model; `fixedA` holds the matrices A if they are not trained.
    let frozen: [Value]
    let fixedA: [Value]
    let layers: [DecoderLayer<Value>]
    let embedding: Int, finalNorm: Int, head: Int
    let final = NormBuffers<Value>()
    let residual = Workspace<Value>(), logits = Workspace<Value>(), scratch = Workspace<Value>()
    let dResidual = Workspace<Value>(), dNormed = Workspace<Value>(), dQueries = Workspace<Value>()
    let dKeys = Workspace<Value>(), dValues = Workspace<Value>(), dMixed = Workspace<Value>()
    let dGate = Workspace<Value>(), dUp = Workspace<Value>(), dActivation = Workspace<Value>()
    let cosines = Workspace<Value>(), sines = Workspace<Value>()
    var rotaryLength = 0

    /// A model of which all parameters are trained.
    package convenience init(configuration: DecoderConfiguration, parameters: [Value]) {
        self.init(configuration: configuration, adapters: nil, parameters: parameters, frozen: [], fixedA: [])
    }

    /// Adapters on a frozen base; `fixedA` in the adapters' layout, empty if A is trained.
    package init(
        configuration: DecoderConfiguration,
        adapters: LowRankAdapters?,
        parameters: [Value],
        frozen: [Value],
        fixedA: [Value]
    ) {
        let base = configuration.layout
        let trained = adapters?.trainedLayout(configuration) ?? base
        let fixed = adapters?.fixedLayout(configuration)
        precondition(parameters.count == trained.parameterCount, "parameters do not fill the layout")
        precondition(frozen.count == (adapters == nil ? 0 : base.parameterCount), "the base does not fill its layout")
        precondition(fixedA.count == (fixed?.parameterCount ?? 0), "A does not fill its layout")
        self.configuration = configuration
        self.adapters = adapters
        self.parameters = parameters
        self.frozen = frozen
        self.fixedA = fixedA
        gradient = [Value](repeating: 0, count: parameters.count)
        ordinary = min(4, configuration.vocabularySize - 1)..<configuration.vocabularySize
        func start(_ name: String) -> Int { base.range(of: name)?.lowerBound ?? 0 }
        embedding = start("model.embed_tokens.weight")
        finalNorm = start("model.norm.weight")
        head = configuration.tiesEmbedding ? embedding : start("lm_head.weight")
        layers = (0..<configuration.layerCount).map { index in
            func projection(_ name: String) -> Projection<Value> {
                let path = DecoderConfiguration.path(name, layer: index)
                let shape = configuration.shape(of: name)
                var adapter: Projection<Value>.Adapter?
                if let adapters, adapters.targets.contains(name) {
                    let a = LowRankAdapters.name(path, "A")
                    adapter = .init(
                        rank: adapters.rank,
                        scale: Value(adapters.scale),
                        a: (adapters.trainsA ? trained : fixed)?.range(of: a)?.lowerBound ?? 0,
                        b: trained.range(of: LowRankAdapters.name(path, "B"))?.lowerBound ?? 0
                    )
                }
                return Projection(
                    input: shape.input,
                    output: shape.output,
                    weight: start(path + ".weight"),
                    bias: base.range(of: path + ".bias")?.lowerBound,
                    adapter: adapter
                )
            }
            return DecoderLayer(
                attentionNorm: start("model.layers.\(index).input_layernorm.weight"),
                feedForwardNorm: start("model.layers.\(index).post_attention_layernorm.weight"),
                queries: projection("q_proj"),
                keys: projection("k_proj"),
                values: projection("v_proj"),
                output: projection("o_proj"),
                gate: projection("gate_proj"),
                up: projection("up_proj"),
                down: projection("down_proj")
            )
        }
    }

    package func measure(_ batch: TokenBatch) -> LossMeasure {
        withTensors(wantsGradient: false) { tensors in
            runForward(batch, tensors)
            return output(batch, tensors).measure(targets: batch.targets, scratch: logits, gradients: nil)
        }
    }

    package func differentiate(_ batch: TokenBatch) -> LossMeasure {
        withTensors(wantsGradient: true) { tensors in
            runForward(batch, tensors)
            let (count, width) = (batch.inputs.count, configuration.hiddenSize)
            let measure = output(batch, tensors).measure(
                targets: batch.targets,
                scratch: logits,
                gradients: .init(
                    hidden: MutableMatrixView(dNormed.reserve(count * width), rows: count, columns: width),
                    weight: tensors.dWeights.map {
                        MutableMatrixView($0 + head, rows: vocabularySize, columns: width)
                    },
                    bias: nil
                )
            )
            runBackward(batch, tensors)
            return measure
        }
    }

    package func scores(_ batch: TokenBatch) -> [Value] {
        withTensors(wantsGradient: false) { tensors in
            runForward(batch, tensors)
            return [Value](unsafeUninitializedCapacity: batch.inputs.count * vocabularySize) { buffer, count in
                guard let base = buffer.baseAddress else { return }
                output(batch, tensors).logits(0..<batch.inputs.count, into: base)
                count = buffer.count
            }
        }
    }

    // MARK: -

    private func output(_ batch: TokenBatch, _ tensors: DecoderTensors<Value>) -> SoftmaxOutput<Value> {
        let width = configuration.hiddenSize
        return SoftmaxOutput(
            hidden: MatrixView(final.normed.base, rows: batch.inputs.count, columns: width),
            weight: MatrixView(tensors.weights + head, rows: vocabularySize, columns: width),
            bias: nil,
            ordinary: ordinary,
            unknown: unknown
        )
    }

    /// Calls `body` with pointers to all tensors, after setting the gradients to zero.
    func withTensors<Result>(wantsGradient: Bool, _ body: (DecoderTensors<Value>) -> Result) -> Result {
        if wantsGradient {
            gradient.withUnsafeMutableBufferPointer { buffer in
                if let base = buffer.baseAddress { Value.clear(base, count: buffer.count) }
            }
        }
        return parameters.withUnsafeBufferPointer { parameters in
            frozen.withUnsafeBufferPointer { frozen in
                fixedA.withUnsafeBufferPointer { fixedA in
                    guard let trained = parameters.baseAddress else { preconditionFailure("a model has parameters") }
                    guard wantsGradient else {
                        return body(DecoderTensors(self, trained, frozen.baseAddress, fixedA.baseAddress, nil))
                    }
                    return gradient.withUnsafeMutableBufferPointer { gradient in
                        body(
                            DecoderTensors(self, trained, frozen.baseAddress, fixedA.baseAddress, gradient.baseAddress)
                        )
                    }
                }
            }
        }
    }
}

/// Pointers to the tensors during a pass.
struct DecoderTensors<Value: DecoderScalar> {
    /// The base model's layout.
    let weights: UnsafePointer<Value>
    /// `nil` if the weights are frozen or no gradient is wanted.
    let dWeights: UnsafeMutablePointer<Value>?
    let a: UnsafePointer<Value>?
    let b: UnsafePointer<Value>?
    let dA: UnsafeMutablePointer<Value>?
    let dB: UnsafeMutablePointer<Value>?

    init(
        _ decoder: Decoder<Value>,
        _ trained: UnsafePointer<Value>,
        _ frozen: UnsafePointer<Value>?,
        _ fixedA: UnsafePointer<Value>?,
        _ gradient: UnsafeMutablePointer<Value>?
    ) {
        guard let adapters = decoder.adapters, let frozen else {
            weights = trained
            dWeights = gradient
            (a, b, dA, dB) = (nil, nil, nil, nil)
            return
        }
        weights = frozen
        dWeights = nil
        a = adapters.trainsA ? trained : fixedA
        b = trained
        dA = adapters.trainsA ? gradient : nil
        dB = gradient
    }
}

/// One layer: the offsets of its tensors, and the buffers that the forward pass fills for the backward pass.
final class DecoderLayer<Value: DecoderScalar> {
    let attentionNorm: Int, feedForwardNorm: Int
    let queries: Projection<Value>, keys: Projection<Value>, values: Projection<Value>, output: Projection<Value>
    let gate: Projection<Value>, up: Projection<Value>, down: Projection<Value>
    let first = NormBuffers<Value>(), second = NormBuffers<Value>()
    let q = Workspace<Value>(), k = Workspace<Value>(), v = Workspace<Value>()
    let attention = Workspace<Value>(), mixed = Workspace<Value>()
    let gates = Workspace<Value>(), ups = Workspace<Value>(), sigmoids = Workspace<Value>()
    let activations = Workspace<Value>()

    init(
        attentionNorm: Int,
        feedForwardNorm: Int,
        queries: Projection<Value>,
        keys: Projection<Value>,
        values: Projection<Value>,
        output: Projection<Value>,
        gate: Projection<Value>,
        up: Projection<Value>,
        down: Projection<Value>
    ) {
        self.attentionNorm = attentionNorm
        self.feedForwardNorm = feedForwardNorm
        self.queries = queries
        self.keys = keys
        self.values = values
        self.output = output
        self.gate = gate
        self.up = up
        self.down = down
    }
}
