/// Lower-case words, and every other visible character as a token of its own.
///
/// A word is a maximal run of letters, combining marks and digits, with single apostrophes allowed between two of them (U+2019 counts as
/// one). A Han ideograph, a punctuation mark and an emoji cluster are tokens of their own.
public struct WordTokenizer: Tokenizer {
    private let words: [String]
    private let ids: [String: Int]

    /// Creates a tokeniser with words in the order of their ids, from id 4 on; leading names of the specials are skipped.
    public init(vocabulary: [String]) {
        words = Array(vocabulary.starts(with: SpecialTokens.names) ? vocabulary.dropFirst(4) : vocabulary[...])
        ids = Dictionary(words.enumerated().map { ($1, $0 + 4) }, uniquingKeysWith: { first, _ in first })
    }

    /// The most frequent tokens of texts, as many as fit beside the four specials; ties are sorted by code point.
    public static func vocabulary(of texts: [String], size: Int) -> [String] {
        var counts: [String: Int] = [:]
        for text in texts { for token in tokens(of: text) { counts[token, default: 0] += 1 } }
        return counts.sorted {
            $0.value != $1.value
                ? $0.value > $1.value : $0.key.unicodeScalars.lexicographicallyPrecedes($1.key.unicodeScalars)
        }.prefix(max(0, size - 4)).map(\.key)
    }

    /// V.
    public var vocabularySize: Int { words.count + 4 }
    /// The four specials first.
    public var specials: SpecialTokens { .leading(vocabularySize: vocabularySize) }
    /// `word`.
    public var kind: TokenizerKind { .word }
    /// The words in the order of their ids, without specials.
    public var vocabulary: [String] { words }

    /// The word of an id; `nil` for specials.
    public func word(_ id: Int) -> String? { id >= 4 && id < vocabularySize ? words[id - 4] : nil }

    /// The ids of a text.
    public func encode(_ text: String) -> [Int] {
        Self.tokens(of: text).map { ids[$0] ?? CharacterTokenizer.unknown }
    }

    /// The words with spaces between them, but without spaces before closing and after opening marks.
    public func decode(_ ids: [Int]) -> String {
        var text = ""
        var glue = true
        for word in ids.compactMap({ word($0) }) {
            let closes = word.unicodeScalars.count == 1 && ".,;:!?)]}%”’…。，！？；：、」』）".contains(word)
            if !glue && !closes { text += " " }
            text += word
            glue = ["(", "[", "{", "“", "‘", "「", "『", "（", "#", "$"].contains(word)
        }
        return text
    }

    /// The tokens of a text in lower case.
    ///
    /// A stand-in for redacted data, such as `<url>`, is one token.
    public static func tokens(of text: String) -> [String] {
        guard text.utf8.contains(UInt8(ascii: "<")) else { return plainTokens(of: text) }
        var tokens: [String] = []
        var rest = text.lowercased()[...]
        while let (stand, range) = PersonalDataRedactor.tokens.compactMap({ stand in
            rest.firstRange(of: stand).map { (stand, $0) }
        }).min(by: { $0.1.lowerBound < $1.1.lowerBound }) {
            tokens += plainTokens(of: String(rest[..<range.lowerBound]))
            tokens.append(stand)
            rest = rest[range.upperBound...]
        }
        return tokens + plainTokens(of: String(rest))
    }

    private static func plainTokens(of text: String) -> [String] {
        let characters = Array(text.lowercased())
        let kinds = characters.map(kind(of:))
        var tokens: [String] = []
        var word = ""
        for (index, character) in characters.enumerated() {
            switch kinds[index] {
            case .word: word.append(character)
            case .apostrophe
            where !word.isEmpty && index + 1 < characters.count && kinds[index + 1] == .word:
                word.append("'")
            case .space, .apostrophe, .single:
                if !word.isEmpty { tokens.append(word) }
                word = ""
                if kinds[index] == .single { tokens.append(String(character)) }
                if kinds[index] == .apostrophe { tokens.append("'") }
            }
        }
        if !word.isEmpty { tokens.append(word) }
        return tokens
    }

    private enum Kind { case word, apostrophe, space, single }

    private static func kind(of character: Character) -> Kind {
        guard let scalar = character.unicodeScalars.first else { return .space }
        if scalar == "'" || scalar == "\u{2019}" { return .apostrophe }
        if scalar.isASCII {
            switch scalar.value {
            case 0x30...0x39, 0x41...0x5A, 0x61...0x7A: return .word
            case 0...0x20, 0x7F: return .space
            default: return .single
            }
        }
        if scalar.properties.isIdeographic { return .single }
        switch scalar.properties.generalCategory {
        case .uppercaseLetter, .lowercaseLetter, .titlecaseLetter, .modifierLetter, .otherLetter, .nonspacingMark,
            .spacingMark, .enclosingMark, .decimalNumber:
            return .word
        case .control, .format, .lineSeparator, .paragraphSeparator, .spaceSeparator, .unassigned, .privateUse,
            .surrogate:
            return .space
        default: return .single
        }
    }
}
