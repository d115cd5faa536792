/// How often the user writes each word.
///
/// Mixed into the model's suggestions, and the only source of words that the vocabulary lacks. It never leaves the device.
/// `p = (1 - l) p_model + l p_cache`. Source: Kuhn and De Mori 1990, A cache-based natural language model.
public struct PersonalCache: Equatable, Sendable, Codable {
    /// Counts by word, lower-cased.
    public private(set) var counts: [String: Int]
    /// l.
    public var weight: Double

    /// The weights that are tried.
    static let weights = [0, 0.05, 0.1, 0.2]

    /// Counts the words of texts.
    public init(texts: [String], weight: Double) {
        counts = [:]
        self.weight = weight
        for text in texts { add(text) }
    }

    /// Counts more words; what stands in for redacted data is no word.
    public mutating func add(_ text: String) {
        for word in WordTokenizer.tokens(of: text)
        where word.unicodeScalars.contains(where: TextProfile.isLetter) && !PersonalDataRedactor.tokens.contains(word) {
            counts[word, default: 0] += 1
        }
    }

    /// The words with a prefix, and their share of all words counted.
    func shares(prefix: String) -> [(String, Double)] {
        let total = Double(max(1, counts.values.reduce(0, +)))
        return counts.filter { $0.key.hasPrefix(prefix) }.map { ($0.key, Double($0.value) / total) }
    }

    /// A cache of the first four fifths of texts, with the weight that suits the last fifth best.
    ///
    /// The suggester's own cache is ignored.
    ///
    /// - Complexity: One pass of the model over at most 300 words.
    public static func fitted(to texts: [String], suggester: Suggester) -> PersonalCache {
        let split = max(1, texts.count * 4 / 5)
        var cache = PersonalCache(texts: Array(texts.prefix(split)), weight: 0)
        let shares = Dictionary(uniqueKeysWithValues: cache.shares(prefix: ""))
        var positions: [(model: Double, cache: Double)] = []
        for text in texts.dropFirst(split) {
            var before = ""
            for word in WordTokenizer.tokens(of: text) where positions.count < 300 {
                let context = before.isEmpty ? "" : before + " "
                let model = suggester.logProbability(of: word, after: context).map(Double.exponential) ?? 0
                positions.append((model, shares[word] ?? 0))
                before = context + word
            }
        }
        func score(_ weight: Double) -> Double {
            positions.reduce(0) { $0 + Double.logarithm((1 - weight) * $1.model + weight * $1.cache + 1e-9) }
        }
        // Of equals the smallest: `max` takes the last one.
        cache.weight = weights.reversed().max { score($0) < score($1) } ?? 0
        for text in texts.dropFirst(split) { cache.add(text) }
        return cache
    }
}
