package import Tensors

/// A word that may come next.
public struct Suggestion: Equatable, Sendable {
    /// The word.
    public var word: String
    /// Its probability by the model, mixed with the user's cache if there is one.
    public var probability: Double
}

/// Suggests how a text goes on: with the next word, or with the rest of a word that has begun.
///
/// It keeps its place in the text, so that a call with a longer text costs one step for each new token. It never suggests specials,
/// stand-ins for redacted data, or words of a blocklist. Not `Sendable`: one thread at a time may use it.
public final class Suggester {
    private let architecture: any LanguageArchitecture
    private let network: any LanguageNetwork<Float>
    private let forms: TokenForms
    /// For word models, the words that have a letter, by id.
    private let words: [String?]
    private let blocked: Set<String>
    /// The user's own words.
    public var cache: PersonalCache?
    private var state: (ids: [Int], context: LanguageContext<Float>, scores: [Float])?
    private let contextLimit: Int

    /// Creates a suggester for a language model.
    ///
    /// - Throws: `LocalTrainingError.modelMismatch(reason:)` if the tensors are not the architecture's.
    package init(
        architecture: any LanguageArchitecture,
        model: ParameterVector,
        base: ParameterVector? = nil,
        blocklist: Set<String> = [],
        cache: PersonalCache? = nil
    ) throws {
        try architecture.check(model, base: base)
        self.architecture = architecture
        network = try architecture.makeNetwork(model: model, base: base)
        forms = TokenForms(architecture.tokenizer)
        let tokenizer = architecture.tokenizer as? WordTokenizer
        words = (0..<(tokenizer?.vocabularySize ?? 0)).map { id in
            tokenizer?.word(id).flatMap { word in
                word.unicodeScalars.contains(where: TextProfile.isLetter) && !PersonalDataRedactor.tokens.contains(word)
                    ? word : nil
            }
        }
        blocked = Set(blocklist.map { $0.lowercased() })
        self.cache = cache
        let usual = max(32, 2 * architecture.textSettings.windowLength)
        contextLimit = network.lengthLimit.map { max(2, min(usual, $0 - BeamSearch.lengthLimit - 1)) } ?? usual
    }

    /// The most likely words, the likeliest first.
    ///
    /// - Parameters:
    ///   - text: The text so far. Without `prefix`, letters at its end are the beginning of the word.
    ///   - prefix: The beginning of the word, in place of the text's end.
    ///   - count: The most words.
    /// - Returns: Words in the order of falling probability; fewer than `count` if the model knows no more.
    public func suggest(after text: String, prefix: String? = nil, count: Int) -> [Suggestion] {
        let (context, begun) = prefix.map { (text, $0) } ?? Self.divide(text)
        var candidates: [String: Double]
        if architecture.tokenizer.kind == .word {
            candidates = nextWords(architecture.tokenizer.encode(context), begun)
        } else {
            candidates = searchedWords(context, begun)
        }
        if let cache {
            candidates = candidates.mapValues { $0 * (1 - cache.weight) }
            for (word, share) in cache.shares(prefix: begun.lowercased()) {
                candidates[word, default: 0] += cache.weight * share
            }
        }
        return ranked(candidates, count: count)
    }

    /// The natural logarithm of the probability of `word` after `text`; `nil` if the vocabulary lacks the word.
    func logProbability(of word: String, after text: String) -> Double? {
        let tokenizer = architecture.tokenizer
        let before = tokenizer.encode(text)
        let all = tokenizer.kind == .word ? before + tokenizer.encode(word) : tokenizer.encode(text + word)
        guard all.count > before.count, Array(all[..<before.count]) == before else { return nil }
        var total = 0.0
        for position in before.count..<all.count {
            if all[position] == tokenizer.specials.unknown { return nil }
            let scores = scores(after: Array(all[..<position]))
            total += Double(scores[all[position]]) - Self.logSum(scores)
        }
        return total
    }

    // MARK: -

    /// The text without the unfinished word at its end, and that word.
    static func divide(_ text: String) -> (context: String, begun: String) {
        let end = text.unicodeScalars.lastIndex { !TokenForms.isInner($0) || $0.properties.isIdeographic }
        guard let end else { return ("", text) }
        let cut = text.unicodeScalars.index(after: end)
        return (String(text[..<cut]), String(text[cut...]))
    }

    private func nextWords(_ ids: [Int], _ begun: String) -> [String: Double] {
        let scores = scores(after: ids)
        let logSum = Self.logSum(scores)
        let wanted = begun.lowercased()
        var candidates: [String: Double] = [:]
        for (id, word) in words.enumerated() {
            guard let word, wanted.isEmpty || word.hasPrefix(wanted) else { continue }
            candidates[word] = Double.exponential(Double(scores[id]) - logSum)
        }
        return candidates
    }

    private func searchedWords(_ context: String, _ begun: String) -> [String: Double] {
        var before = context
        var forced = begun
        // With byte pairs the space is part of the word's first token, so the context ends before it.
        if architecture.tokenizer.kind == .bpe, before.last == " " {
            before.removeLast()
            forced = " " + forced
        }
        let ids = architecture.tokenizer.encode(before)
        let scores = scores(after: ids)
        guard let context = state?.context else { return [:] }
        var search = BeamSearch(network: network, forms: forms, forced: Array(forced.utf8))
        return search.words(from: context, scores: scores)
    }

    private func ranked(_ candidates: [String: Double], count: Int) -> [Suggestion] {
        var merged: [String: (word: String, best: Double, sum: Double)] = [:]
        for (word, probability) in candidates {
            let key = word.lowercased()
            guard !blocked.contains(key), probability > 0 else { continue }
            guard let known = merged[key] else {
                merged[key] = (word, probability, probability)
                continue
            }
            let isBetter = (probability, known.word) > (known.best, word)
            merged[key] = (isBetter ? word : known.word, max(known.best, probability), known.sum + probability)
        }
        let sorted = merged.values.sorted { ($1.sum, $0.word) < ($0.sum, $1.word) }
        return sorted.prefix(max(0, count)).map { Suggestion(word: $0.word, probability: $0.sum) }
    }

    /// The scores of the next token.
    ///
    /// Continues from the last call if the ids begin with that call's ids.
    private func scores(after ids: [Int]) -> [Float] {
        let whole = [architecture.tokenizer.specials.begin] + windowed(ids)
        if let state, state.ids == whole { return state.scores }
        var (context, scores, start) = (network.emptyContext(), [Float](), 0)
        if let state, whole.starts(with: state.ids) {
            (context, scores, start) = (state.context, state.scores, state.ids.count)
        }
        for id in whole[start...] { scores = network.advance(&context, by: id) }
        state = (whole, context, scores)
        return scores
    }

    /// The last tokens.
    ///
    /// The window moves by half its length at a time, so that most calls can continue from the last one.
    private func windowed(_ ids: [Int]) -> [Int] {
        guard ids.count > contextLimit else { return ids }
        let half = max(1, contextLimit / 2)
        let start = (ids.count - contextLimit + half - 1) / half * half
        return Array(ids[start...])
    }

    static func logSum(_ scores: [Float]) -> Double {
        let largest = Double(scores.max() ?? 0)
        return largest + Double.logarithm(scores.reduce(0) { $0 + Double.exponential(Double($1) - largest) })
    }
}
