/// How often the user writes each word.
///
/// It is mixed into the model's suggestions, `p = (1 - l) p_model + l p_cache`, and is the only source of words that the vocabulary lacks.
/// It never leaves the device. Source: Kuhn and De Mori 1990, A cache-based natural language model.
public struct PersonalCache: Equatable, Sendable, Codable {
    /// Counts by word, lower-cased.
    public private(set) var counts: [String: Int]
    /// l, the cache's weight from 0 to 1.
    public var weight: Double

    /// The weights that ``fitted(to:suggester:)`` tries.
    static let weights = [0, 0.05, 0.1, 0.2]

    /// Counts the words of texts.
    public init(texts: [String], weight: Double) {
        counts = [:]
        self.weight = weight
        for text in texts { add(text) }
    }

    /// Counts the words of a text; stand-ins for redacted data do not count.
    public mutating func add(_ text: String) {
        for word in WordTokenizer.tokens(of: text)
        where word.unicodeScalars.contains(where: TextProfile.isLetter) && !PersonalDataRedactor.tokens.contains(word) {
            counts[word, default: 0] += 1
        }
    }

    /// The words with a prefix, and their shares of all counted words.
    func shares(prefix: String) -> [(String, Double)] {
        let total = Double(max(1, counts.values.reduce(0, +)))
        return counts.filter { $0.key.hasPrefix(prefix) }.map { ($0.key, Double($0.value) / total) }
    }

    /// A cache of the first four fifths of the texts, with the weight that predicts the last fifth best.
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
        // Reversed, because `max` returns the last of equals and the smallest weight should win.
        cache.weight = weights.reversed().max { score($0) < score($1) } ?? 0
        for text in texts.dropFirst(split) { cache.add(text) }
        return cache
    }
}
