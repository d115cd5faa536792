import StrictJSON
package import Tensors

/// `votes`: words that many clients hold, found letter by letter, as a run of kind `analytics`.
///
/// The model is a `PrefixTrie`. In round `j` a client votes for one prefix of `j` scalars. It chooses one of its words whose first
/// `j - 1` scalars are in the trie, at random in proportion to how often it uses them, and names the next scalar or the word's
/// end. A client without such a word sends an empty vote.
///
/// Source of the trie: Zhu, Kairouz, McMahan, Sun, Li 2020, arXiv:1902.08534, Algorithm 1. Unlike there, a client chooses only among
/// words by which the trie can still grow. That finds more words and leaves the proof valid: a vote is a function of one client's
/// data and of published results. The server decides how votes are counted.
package struct TrieVoting: ModelArchitecture {
    package static let name = "votes"
    /// The name in models of earlier versions.
    static let earlierName = "triehh"
    package let levelCount: Int
    package let nodeLimit: Int
    private let unit: ClientWords.Unit

    package init(_ description: ModelDescription) throws {
        self = try description.read { Self(reading: $0) }
    }

    private init(reading fields: FieldReader) {
        levelCount = fields.integer("levels", in: 1...1000)
        nodeLimit = fields.integer("prefix_limit", in: 1...100_000)
        unit = fields.choice("tokens", default: .word)
        if levelCount * nodeLimit > 10_000_000 {
            fields.report("prefix_limit", "times the number of rounds must be 10,000,000 at most")
        }
    }

    package var layout: ParameterLayout { PrefixTrie.layout(levelCount: levelCount, nodeLimit: nodeLimit) }

    package func supports(_ task: TrainingTask) -> Bool { task == .train }

    package func initialParameters(seed: UInt64) -> ParameterVector {
        PrefixTrie(levelCount: levelCount, nodeLimit: nodeLimit).vector
    }

    package func makeTrainer(data: LocalData, instructions: TrainingInstructions) throws -> any ArchitectureTrainer {
        guard case .texts(let texts) = data else {
            throw LocalTrainingError.unsuitable("words are found in texts, and the data are a table")
        }
        let level = instructions.context?.round ?? 1
        return WordAnalysis(words: ClientWords(texts, unit: unit)) { words, model in
            guard model.layout == layout, let trie = PrefixTrie(model), (1...levelCount).contains(level) else {
                throw LocalTrainingError.modelMismatch(reason: "the model is not the trie of this run")
            }
            return vote(of: words, trie: trie, level: level, seed: instructions.seed)
        }
    }

    /// The client's vote for a prefix of `level` scalars.
    func vote(of words: ClientWords, trie: PrefixTrie, level: Int, seed: UInt64) -> ParameterVector {
        Self.vote(of: words.counts, places: Self.places(in: trie, level: level), level: level, seed: seed)
    }

    /// The prefixes of the level before that can grow, with their places in that level.
    package static func places(in trie: PrefixTrie, level: Int) -> [String: Int] {
        Dictionary(
            zip(trie.prefixes(level: level - 1), 0...).filter { place in
                level == 1 || trie.levels[level - 2][place.1].scalar != 0
            },
            uniquingKeysWith: { first, _ in first }
        )
    }

    /// The vote of a client with these words and their counts.
    package static func vote(
        of words: [String: Int],
        places: [String: Int],
        level: Int,
        seed: UInt64
    ) -> ParameterVector {
        // In a fixed order: the choice depends on the seed and the words alone.
        var choices: [(node: PrefixTrie.Node, upTo: Int)] = []
        var total = 0
        for (word, count) in words.sorted(by: { $0.key < $1.key }) where isWord(word) {
            let scalars = Array(word.unicodeScalars)
            guard scalars.count >= level - 1 else { continue }
            var prefix = String.UnicodeScalarView()
            prefix.append(contentsOf: scalars.prefix(level - 1))
            guard let place = places[String(prefix)] else { continue }
            total += count
            let next = scalars.count >= level ? scalars[level - 1].value : 0
            choices.append((.init(parent: place, scalar: next), total))
        }
        var vector = ParameterVector(layout: PrefixTrie.voteLayout, values: [-1, 0])
        guard total > 0 else { return vector }
        var generator = Xoshiro256StarStar(seed: seed)
        let drawn = Int.random(in: 0..<total, using: &generator)
        if let choice = choices.first(where: { drawn < $0.upTo }) {
            vector.values = [Float(choice.node.parent), Float(choice.node.scalar)]
        }
        return vector
    }

    /// Whether a text has more than punctuation marks.
    private static func isWord(_ word: String) -> Bool {
        word.unicodeScalars.first.map { $0.properties.isAlphabetic || $0.properties.numericType != nil } ?? false
    }
}
