import Foundation
import LocalTraining
import Tensors
import Testing

struct DecoderTests {
    struct Golden: Decodable {
        struct Adapters: Decodable {
            var loss: Double
            var gradientA: [String: [Double]]
            var gradientB: [String: [Double]]

            enum CodingKeys: String, CodingKey {
                case loss
                case gradientA = "gradient_A"
                case gradientB = "gradient_B"
            }
        }
        var names: [String]
        var inputIds: [[Int]]
        var targets: [[Int]]
        var loss: Double
        var logitsFirstSequenceLastPosition: [Double]
        var logitsSecondSequenceFirstPosition: [Double]
        var gradientL2: [String: Double]
        var gradientSum: [String: Double]
        var gradientQProjLayer0: [Double]
        var gradientKProjLayer1: [Double]
        var globalGradientL2: Double
        var lora: Adapters

        enum CodingKeys: String, CodingKey {
            case names, targets, loss, lora
            case inputIds = "input_ids"
            case logitsFirstSequenceLastPosition = "logits_first_sequence_last_position"
            case logitsSecondSequenceFirstPosition = "logits_second_sequence_first_position"
            case gradientL2 = "gradient_l2"
            case gradientSum = "gradient_sum"
            case gradientQProjLayer0 = "gradient_q_proj_layer0"
            case gradientKProjLayer1 = "gradient_k_proj_layer1"
            case globalGradientL2 = "global_gradient_l2"
        }
    }

    static let configuration = DecoderConfiguration(
        vocabularySize: 11,
        hiddenSize: 8,
        intermediateSize: 12,
        layerCount: 2,
        headCount: 2,
        keyValueHeadCount: 1,
        positionLimit: 64
    )
    private static let adapters = LowRankAdapters(rank: 2, alpha: 4, trainsA: true)

    private func golden() throws -> Golden {
        let url = try #require(
            Bundle.module.url(forResource: "golden-transformer", withExtension: "json", subdirectory: "Fixtures")
        )
        return try JSONDecoder().decode(Golden.self, from: Data(contentsOf: url))
    }

    private func parameters<Value: Scalar>(_ golden: Golden, _ type: Value.Type) -> [Value] {
        let layout = Self.configuration.layout
        var values = [Value](repeating: 0, count: layout.parameterCount)
        for (position, name) in golden.names.enumerated() {
            for (index, target) in (layout.range(of: name) ?? 0..<0).enumerated() {
                let wave = sin(1.7 * Double(index) + 0.5 * Double(position) + 0.1)
                values[target] = Value(name.hasSuffix("norm.weight") ? 1 + 0.1 * wave : 0.3 * wave)
            }
        }
        return values
    }

    private func adapterParameters() -> [Double] {
        let layout = Self.adapters.layout(Self.configuration)
        var values = [Double](repeating: 0, count: layout.parameterCount)
        var counter = 0
        for layer in 0..<2 {
            for target in ["q_proj", "v_proj"] {
                for matrix in ["A", "B"] {
                    let name = "base_model.model.model.layers.\(layer).self_attn.\(target).lora_\(matrix).weight"
                    for (index, position) in (layout.range(of: name) ?? 0..<0).enumerated() {
                        values[position] = 0.3 * sin(1.7 * Double(index) + 0.5 * Double(counter) + 0.1)
                    }
                    counter += 1
                }
            }
        }
        return values
    }

    private func batch(_ golden: Golden) -> TokenBatch {
        let (steps, rows) = (golden.inputIds[0].count, golden.inputIds.count)
        func timeMajor(_ ids: [[Int]]) -> [Int] { (0..<steps).flatMap { step in (0..<rows).map { ids[$0][step] } } }
        return TokenBatch(
            steps: steps,
            rows: rows,
            inputs: timeMajor(golden.inputIds),
            targets: timeMajor(golden.targets)
        )
    }

    private func network(_ golden: Golden) -> Decoder<Double> {
        Decoder(configuration: Self.configuration, parameters: parameters(golden, Double.self))
    }

    @Test func lossLogitsAndGradientsMatchTheReference() throws {
        let golden = try golden()
        let (network, batch) = (network(golden), batch(golden))
        let scores = network.scores(batch)
        let last = (batch.inputs.count - 2) * 11
        for (left, right) in zip(scores[last...], golden.logitsFirstSequenceLastPosition) {
            #expect(abs(left - right) < 1e-10)
        }
        for (left, right) in zip(scores[11...], golden.logitsSecondSequenceFirstPosition) {
            #expect(abs(left - right) < 1e-10)
        }
        let measure = network.differentiate(batch)
        #expect(abs(measure.nll / Double(measure.tokens) - golden.loss) < 1e-10)
        let layout = Self.configuration.layout
        for name in golden.names {
            let gradient = network.gradient[try #require(layout.range(of: name))]
            let norm = gradient.reduce(0) { $0 + $1 * $1 }.squareRoot()
            #expect(abs(norm - (golden.gradientL2[name] ?? 0)) < 1e-9, "\(name)")
            #expect(abs(gradient.reduce(0, +) - (golden.gradientSum[name] ?? 0)) < 1e-9, "\(name)")
        }
        let queries = network.gradient[try #require(layout.range(of: golden.names[2]))]
        for (left, right) in zip(queries, golden.gradientQProjLayer0) { #expect(abs(left - right) < 1e-9) }
        let keys = network.gradient[try #require(layout.range(of: "model.layers.1.self_attn.k_proj.weight"))]
        for (left, right) in zip(keys, golden.gradientKProjLayer1) { #expect(abs(left - right) < 1e-9) }
    }

    @Test func singlePrecisionIsClose() throws {
        let golden = try golden()
        let network = Decoder(configuration: Self.configuration, parameters: parameters(golden, Float.self))
        let measure = network.differentiate(batch(golden))
        #expect(abs(measure.nll / Double(measure.tokens) - golden.loss) < 1e-5)
        let norm = VectorKernels.squaredNorm(network.gradient).squareRoot()
        #expect(abs(norm - golden.globalGradientL2) < 1e-4 * golden.globalGradientL2)
    }

    @Test func adaptersMatchTheReference() throws {
        let golden = try golden()
        let network = Decoder(
            configuration: Self.configuration,
            adapters: Self.adapters,
            parameters: adapterParameters(),
            frozen: parameters(golden, Double.self),
            fixedA: []
        )
        let measure = network.differentiate(batch(golden))
        #expect(abs(measure.nll / Double(measure.tokens) - golden.lora.loss) < 1e-10)
        let layout = Self.adapters.layout(Self.configuration)
        for (matrix, gradients) in [("A", golden.lora.gradientA), ("B", golden.lora.gradientB)] {
            for (path, expected) in gradients {
                let range = try #require(layout.range(of: "base_model.model.\(path).lora_\(matrix).weight"))
                #expect(range.count == expected.count)
                for (left, right) in zip(network.gradient[range], expected) { #expect(abs(left - right) < 1e-9) }
            }
        }
    }

    @Test(arguments: [true, false])
    func everyGradientMatchesCentralDifferences(tied: Bool) throws {
        var configuration = DecoderConfiguration(
            vocabularySize: 7,
            hiddenSize: 4,
            intermediateSize: 5,
            layerCount: 1,
            headCount: 2,
            keyValueHeadCount: 1,
            attentionBias: tied ? .none : .all
        )
        configuration.tiesEmbedding = tied
        var values = configuration.initialParameters(seed: 3).values.map { Double($0) * 5 }
        for index in values.indices { values[index] += 0.05 * sin(Double(index)) }
        let network = Decoder(configuration: configuration, parameters: values)
        let batch = TokenBatch(
            steps: 4,
            rows: 2,
            inputs: [1, 2, 3, 4, 5, 6, 0, 1],
            targets: [3, 4, 5, -1, 0, 1, 2, 3]
        )
        expectCentralDifferences(of: network, on: batch)
    }

    @Test(arguments: [true, false])
    func adapterGradientsMatchCentralDifferences(trainsA: Bool) throws {
        let golden = try golden()
        let adapters = LowRankAdapters(
            rank: 2,
            alpha: 4,
            targets: ["q_proj", "down_proj"],
            trainsA: trainsA,
            seed: 5
        )
        let trained = adapters.trainedLayout(Self.configuration)
        let network = Decoder(
            configuration: Self.configuration,
            adapters: adapters,
            parameters: (0..<trained.parameterCount).map { 0.2 * sin(Double($0)) },
            frozen: parameters(golden, Double.self),
            fixedA: trainsA ? [] : adapters.fixedParameters(Self.configuration).values.map(Double.init)
        )
        expectCentralDifferences(of: network, on: batch(golden))
    }

    @Test func freshAdaptersAreTheBaseModel() throws {
        let golden = try golden()
        let base = parameters(golden, Double.self)
        let fresh = Self.adapters.initialParameters(Self.configuration, seed: 1).values.map(Double.init)
        let adapted = Decoder(
            configuration: Self.configuration,
            adapters: Self.adapters,
            parameters: fresh,
            frozen: base,
            fixedA: []
        )
        let batch = batch(golden)
        #expect(adapted.scores(batch) == network(golden).scores(batch))
    }

    @Test func mergedAdaptersGiveTheSameScores() throws {
        let golden = try golden()
        let layout = Self.configuration.layout
        let base = ParameterVector(layout: layout, values: parameters(golden, Float.self))
        let trained = ParameterVector(
            layout: Self.adapters.layout(Self.configuration),
            values: adapterParameters().map { Float($0) }
        )
        let adapted = Decoder(
            configuration: Self.configuration,
            adapters: Self.adapters,
            parameters: trained.values,
            frozen: base.values,
            fixedA: []
        )
        let merged = Decoder(
            configuration: Self.configuration,
            parameters: Self.adapters.merged(trained, into: base, Self.configuration).values
        )
        let batch = batch(golden)
        for (left, right) in zip(adapted.scores(batch), merged.scores(batch)) { #expect(abs(left - right) < 1e-5) }
    }

    @Test func paddingAndOrderOfSequencesChangeNothing() throws {
        let golden = try golden()
        let (network, batch) = (network(golden), batch(golden))
        let plain = network.differentiate(batch)
        let gradient = network.gradient
        let swapped = TokenBatch(
            steps: batch.steps + 1,
            rows: 2,
            inputs: stride(from: 0, to: 12, by: 2).flatMap { [batch.inputs[$0 + 1], batch.inputs[$0]] } + [0, 0],
            targets: stride(from: 0, to: 12, by: 2).flatMap { [batch.targets[$0 + 1], batch.targets[$0]] } + [-1, -1]
        )
        #expect(abs(network.differentiate(swapped).nll - plain.nll) < 1e-12)
        for (left, right) in zip(network.gradient, gradient) { #expect(abs(left - right) < 1e-12) }
    }

    @Test func tokenByTokenIsTheSameAsAtOnce() throws {
        let golden = try golden()
        let network = network(golden)
        let ids = golden.inputIds[1]
        let whole = network.scores(
            TokenBatch(steps: ids.count, rows: 1, inputs: ids, targets: ids.map { _ in -1 })
        )
        var context = network.emptyContext()
        for (step, id) in ids.enumerated() {
            let scores = network.advance(&context, by: id)
            for (left, right) in zip(scores, whole[(step * 11)...]) { #expect(abs(left - right) < 1e-12) }
        }
    }

    @Test func presetsHaveTheSizesOfTheSpecification() throws {
        let tiny = DecoderConfiguration(
            vocabularySize: 260,
            hiddenSize: 64,
            intermediateSize: 176,
            layerCount: 2,
            headCount: 4,
            keyValueHeadCount: 4
        )
        #expect(tiny.layout.parameterCount == 117_312)
        let small = DecoderConfiguration(
            vocabularySize: 8192,
            hiddenSize: 256,
            intermediateSize: 688,
            layerCount: 4,
            headCount: 8,
            keyValueHeadCount: 4
        )
        #expect(small.layout.parameterCount == 4_999_424)
        #expect(LowRankAdapters(rank: 8, alpha: 16, trainsA: true).trainedLayout(small).parameterCount == 28_672)
        #expect(LowRankAdapters(rank: 8, alpha: 16, trainsA: false).trainedLayout(small).parameterCount == 12_288)
    }

    @Test(arguments: [
        ("rope_scaling", #"{"type": "linear", "factor": 2}"#), ("hidden_act", #""gelu""#), ("sliding_window", "128"),
        ("mlp_bias", "true"), ("attention_dropout", "0.1"), ("num_key_value_heads", "3"), ("vocab_size", "99"),
        ("partial_rotary_factor", "0.5"), ("head_dim", "3"), ("rope_parameters", #"{"rope_type": "yarn"}"#),
    ])
    func foreignArithmeticIsRefusedByName(field: String, value: String) throws {
        let config = #"{"preset": "tiny", "alphabet": "abc", "\#(field)": \#(value)}"#
        let error = #expect(throws: ModelConfigurationError.self) {
            try ModelArchitectures.make(.init(architecture: "decoder", config: config))
        }
        #expect(error?.pointer.hasPrefix("/" + field) == true)
    }

    @Test func huggingFaceConfigurationsAreRead() throws {
        let config = """
            {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 56, "hidden_size": 16,
             "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
             "max_position_embeddings": 128, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": false,
             "hidden_act": "silu", "torch_dtype": "float32", "use_cache": true, "attention_bias": false,
             "rope_scaling": null, "bos_token_id": 2, "eos_token_id": 3, "initializer_range": 0.02,
             "alphabet": "\\n !'(),-.0123456789:;?abcdefghijklmnopqrstuvwxyz&$%@"}
            """
        let architecture = try ModelArchitectures.make(.init(architecture: "decoder", config: config))
        #expect(architecture.layout.range(of: "lm_head.weight") != nil)
    }
}
