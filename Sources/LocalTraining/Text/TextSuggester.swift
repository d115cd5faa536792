public import Tensors

/// Suggests how a text goes on, word by word, from a character model.
public struct TextSuggester {
    private let configuration: CIFGLSTMConfiguration
    private let tokenizer: CharacterTokenizer
    private var network: CIFGLSTM<Float>
    private static let beamWidth = 8
    private static let lengthLimit = 12

    /// Takes a model.
    ///
    /// - Throws: ``LocalTrainingError/modelMismatch(reason:)``.
    public init(configuration: CIFGLSTMConfiguration, tokenizer: CharacterTokenizer, model: ParameterVector) throws {
        guard model.layout == configuration.layout, tokenizer.vocabularySize == configuration.vocabularySize else {
            throw LocalTrainingError.modelMismatch(reason: "the tensors are not those of the architecture")
        }
        self.configuration = configuration
        self.tokenizer = tokenizer
        network = CIFGLSTM(configuration: configuration, parameters: model.values)
    }

    /// The likeliest next words by beam search, likeliest first.
    ///
    /// - Returns: At most `count` words with the probabilities that the model gives them.
    public mutating func suggest(after text: String, count: Int) -> [(word: String, probability: Double)] {
        let context = [CharacterTokenizer.begin] + tokenizer.encode(text).suffix(120)
        var beams: [(ids: [Int], logProbability: Double)] = [([], 0)]
        var words: [String: Double] = [:]
        for _ in 0..<Self.lengthLimit {
            var grown: [(ids: [Int], logProbability: Double)] = []
            for beam in beams {
                let scores = logProbabilities(after: context + beam.ids)
                for id in 3..<configuration.vocabularySize {
                    let total = beam.logProbability + scores[id]
                    let character = tokenizer.decode([id])
                    if character.first?.isLetter == true || (character == "'" && !beam.ids.isEmpty) {
                        grown.append((beam.ids + [id], total))
                    } else if !beam.ids.isEmpty {
                        words[tokenizer.decode(beam.ids), default: 0] += Double.exponential(total)
                    }
                }
            }
            beams = Array(grown.sorted { $0.logProbability > $1.logProbability }.prefix(Self.beamWidth))
            if beams.isEmpty { break }
        }
        return words.sorted { ($1.value, $0.key) < ($0.value, $1.key) }.prefix(count).map { ($0.key, $0.value) }
    }

    private mutating func logProbabilities(after ids: [Int]) -> [Double] {
        let targets = [Int](repeating: -1, count: ids.count)
        _ = network.forward(.init(steps: ids.count, rows: 1, inputs: ids, targets: targets), wantsGradient: false)
        let row = network.logits(at: ids.count - 1).map(Double.init)
        let largest = row.max() ?? 0
        let logSum = largest + Double.logarithm(row.reduce(0) { $0 + Double.exponential($1 - largest) })
        return row.map { $0 - logSum }
    }
}
