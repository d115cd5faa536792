public import Tensors

/// Low-rank adapters on a frozen decoder: `W' = W + (alpha / r) B A`.
///
/// Source: Hu et al. 2021, arXiv:2106.09685; tensor names as in PEFT. The mean of products is not the product of means. With
/// `trainsA` the server averages A and B separately, which is biased. Without it all clients have the same A, made from a seed: the
/// update is half as large, its mean is exact, and it is linear in the noise (Sun et al. 2024, arXiv:2403.12313).
public struct LowRankAdapters: Equatable, Sendable {
    /// r, the rank.
    public var rank: Int
    /// α; the adapter is scaled by α / r.
    public var alpha: Double
    /// Short names of the projections adapted, such as `q_proj`.
    public var targets: [String]
    /// Whether A is trained beside B.
    public var trainsA: Bool
    /// The seed of A if A is not trained.
    public var seed: UInt64

    /// Creates a description.
    public init(rank: Int, alpha: Double, targets: [String] = ["q_proj", "v_proj"], trainsA: Bool, seed: UInt64 = 42) {
        self.rank = rank
        self.alpha = alpha
        self.targets = targets
        self.trainsA = trainsA
        self.seed = seed
    }

    /// α / r.
    public var scale: Double { alpha / Double(rank) }

    static func name(_ path: String, _ matrix: String) -> String { "base_model.model.\(path).lora_\(matrix).weight" }

    /// A and B of every adapted projection.
    public func layout(_ configuration: DecoderConfiguration) -> ParameterLayout {
        ParameterLayout(tensors(configuration, "A") + tensors(configuration, "B"))
    }

    /// The tensors that are trained and sent.
    public func trainedLayout(_ configuration: DecoderConfiguration) -> ParameterLayout {
        trainsA ? layout(configuration) : ParameterLayout(tensors(configuration, "B"))
    }

    /// The tensors that are not trained: A, or none.
    func fixedLayout(_ configuration: DecoderConfiguration) -> ParameterLayout {
        ParameterLayout(trainsA ? [] : tensors(configuration, "A"))
    }

    /// Fresh adapters: A from U(-1/√in, 1/√in), B zero, so that the model is the base one.
    public func initialParameters(_ configuration: DecoderConfiguration, seed: UInt64) -> ParameterVector {
        fill(ParameterVector(zeros: trainedLayout(configuration)), seed: seed)
    }

    /// A, the same for all clients.
    package func fixedParameters(_ configuration: DecoderConfiguration) -> ParameterVector {
        fill(ParameterVector(zeros: fixedLayout(configuration)), seed: seed)
    }

    /// A and B together, as in an adapter file.
    public func complete(_ trained: ParameterVector, _ configuration: DecoderConfiguration) -> ParameterVector {
        guard !trainsA else { return trained }
        var whole = ParameterVector(zeros: layout(configuration))
        for part in [trained, fixedParameters(configuration)] {
            for (index, tensor) in part.layout.tensors.enumerated() {
                guard let range = whole.layout.range(of: tensor.name) else { continue }
                let offset = part.layout.offsets[index]
                for position in 0..<range.count {
                    whole.values[range.lowerBound + position] = part.values[offset + position]
                }
            }
        }
        return whole
    }

    /// The base model with the adapters' products added, as a full model.
    public func merged(
        _ trained: ParameterVector,
        into base: ParameterVector,
        _ configuration: DecoderConfiguration
    ) -> ParameterVector {
        let adapters = complete(trained, configuration)
        var merged = base
        for layer in 0..<configuration.layerCount {
            for target in targets {
                let path = DecoderConfiguration.path(target, layer: layer)
                let (input, output) = configuration.shape(of: target)
                guard let weight = merged.layout.range(of: path + ".weight"),
                    let a = adapters.layout.range(of: Self.name(path, "A")),
                    let b = adapters.layout.range(of: Self.name(path, "B"))
                else { continue }
                for row in 0..<output {
                    for column in 0..<input {
                        var sum = 0.0
                        for index in 0..<rank {
                            sum +=
                                Double(adapters.values[b.lowerBound + row * rank + index])
                                * Double(adapters.values[a.lowerBound + index * input + column])
                        }
                        merged.values[weight.lowerBound + row * input + column] += Float(scale * sum)
                    }
                }
            }
        }
        return merged
    }

    // MARK: -

    private func tensors(_ configuration: DecoderConfiguration, _ matrix: String) -> [TensorSpecification] {
        (0..<configuration.layerCount).flatMap { layer in
            targets.map { target in
                let (input, output) = configuration.shape(of: target)
                return .init(
                    name: Self.name(DecoderConfiguration.path(target, layer: layer), matrix),
                    shape: matrix == "A" ? [rank, input] : [output, rank]
                )
            }
        }
    }

    private func fill(_ zeros: ParameterVector, seed: UInt64) -> ParameterVector {
        var vector = zeros
        var generator = Xoshiro256StarStar(seed: seed)
        for (index, tensor) in vector.layout.tensors.enumerated() where tensor.name.hasSuffix("lora_A.weight") {
            let bound = Float(1 / Double(tensor.shape[1]).squareRoot())
            for position in vector.layout.offsets[index]..<vector.layout.offsets[index + 1] {
                vector.values[position] = bound * (2 * generator.nextUniform() - 1)
            }
        }
        return vector
    }
}
