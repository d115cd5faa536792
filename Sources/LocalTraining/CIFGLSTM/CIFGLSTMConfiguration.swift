public import Tensors

/// The sizes of a CIFG-LSTM language model with recurrent projection and tied embedding.
///
/// Source: Hard et al. 2018, arXiv:1811.03604, section 3; CIFG: Greff et al. 2017.
public struct CIFGLSTMConfiguration: Equatable, Sendable {
    /// V, the number of tokens with the four specials.
    public var vocabularySize: Int
    /// D, the width of an embedding and of the projected output.
    public var embeddingDimension: Int
    /// H, the width of the cell.
    public var hiddenDimension: Int

    /// Creates a configuration; every size is 1 or more.
    public init(vocabularySize: Int, embeddingDimension: Int, hiddenDimension: Int) {
        self.vocabularySize = vocabularySize
        self.embeddingDimension = embeddingDimension
        self.hiddenDimension = hiddenDimension
    }

    /// Reads the sizes from a model's tensors; `nil` if they are not those of a CIFG-LSTM.
    public init?(layout: ParameterLayout) {
        let shapes = Dictionary(uniqueKeysWithValues: layout.tensors.map { ($0.name, $0.shape) })
        guard let embedding = shapes["embedding.weight"], embedding.count == 2, let projection = shapes["proj.weight"],
            projection.count == 2
        else { return nil }
        self.init(vocabularySize: embedding[0], embeddingDimension: embedding[1], hiddenDimension: projection[1])
        guard self.layout == layout else { return nil }
    }

    /// The model's tensors.
    public var layout: ParameterLayout {
        let (v, d, h) = (vocabularySize, embeddingDimension, hiddenDimension)
        return ParameterLayout([
            .init(name: "embedding.weight", shape: [v, d]), .init(name: "cell.weight_ih", shape: [3 * h, d]),
            .init(name: "cell.weight_hh", shape: [3 * h, d]), .init(name: "cell.bias", shape: [3 * h]),
            .init(name: "proj.weight", shape: [d, h]), .init(name: "output.bias", shape: [v]),
        ])
    }

    /// Fresh parameters: uniform weights, forget bias 1, the rest 0.
    public func initialParameters(seed: UInt64) -> ParameterVector {
        var generator = Xoshiro256StarStar(seed: seed)
        var vector = ParameterVector(zeros: layout)
        let spread = (6 / Double(embeddingDimension + hiddenDimension)).squareRoot()
        let bounds = [
            ("embedding.weight", 0.87 / Double(embeddingDimension).squareRoot()), ("cell.weight_ih", spread),
            ("cell.weight_hh", spread), ("proj.weight", spread),
        ]
        for (name, bound) in bounds {
            for index in layout.range(of: name) ?? 0..<0 {
                vector.values[index] = Float(bound) * (2 * generator.nextUniform() - 1)
            }
        }
        if let bias = layout.range(of: "cell.bias") {
            for index in bias.prefix(hiddenDimension) { vector.values[index] = 1 }
        }
        return vector
    }
}
