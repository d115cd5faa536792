/// Characters by code point; ids 0 to 3 are `<pad>`, `<unk>`, `<bos>` and `<eos>`.
public struct CharacterTokenizer: Tokenizer {
    /// Padding.
    public static let pad = 0
    /// A character that is not in the alphabet.
    public static let unknown = 1
    /// The beginning of every text.
    public static let begin = 2
    /// The end of every record.
    public static let end = 3
    /// Lower-case English messages: letters, digits, the usual marks, space and newline.
    public static let messages = "\n !'(),-.0123456789:;?abcdefghijklmnopqrstuvwxyz"

    private let characters: [Unicode.Scalar]
    private let ids: [Unicode.Scalar: Int]
    private let foldsCase: Bool

    /// Creates a tokeniser; the first character of the alphabet has id 4.
    ///
    /// Text is lower-cased if the alphabet has no capital letter.
    public init(alphabet: String) {
        characters = Array(alphabet.unicodeScalars)
        ids = Dictionary(characters.enumerated().map { ($1, $0 + 4) }, uniquingKeysWith: { first, _ in first })
        let hasCapitals = characters.contains { $0.properties.isUppercase }
        foldsCase = !hasCapitals && characters.contains { $0.properties.isLowercase }
    }

    /// The distinct characters of texts in the order of their code points; if they are more than `limit`, the most frequent ones.
    public static func alphabet(of texts: [String], limit: Int = .max) -> String {
        var counts: [Unicode.Scalar: Int] = [:]
        for text in texts { for scalar in text.unicodeScalars { counts[scalar, default: 0] += 1 } }
        let chosen = counts.sorted { ($1.value, $0.key) < ($0.value, $1.key) }.prefix(limit).map(\.key).sorted()
        var alphabet = String.UnicodeScalarView()
        alphabet.append(contentsOf: chosen)
        return String(alphabet)
    }

    /// The alphabet, without specials.
    public var alphabet: String {
        var text = String.UnicodeScalarView()
        text.append(contentsOf: characters)
        return String(text)
    }

    /// V.
    public var vocabularySize: Int { characters.count + 4 }
    /// The four specials first.
    public var specials: SpecialTokens { .leading(vocabularySize: vocabularySize) }
    /// `char`.
    public var kind: TokenizerKind { .char }

    /// The ids of a text, without specials but for unknown characters.
    public func encode(_ text: String) -> [Int] {
        (foldsCase ? text.lowercased() : text).unicodeScalars.map { ids[$0] ?? Self.unknown }
    }

    /// The text of ids, without specials.
    public func decode(_ ids: [Int]) -> String {
        var text = String.UnicodeScalarView()
        for id in ids where id >= 4 && id < vocabularySize { text.append(characters[id - 4]) }
        return String(text)
    }
}
