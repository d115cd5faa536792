/// Characters by code point; ids 0 to 3 are `<pad>`, `<unk>`, `<bos>` and `<eos>`.
public struct CharacterTokenizer: Sendable {
    /// Padding.
    public static let pad = 0
    /// What the alphabet does not have.
    public static let unknown = 1
    /// Before every text.
    public static let begin = 2
    /// After every short record.
    public static let end = 3
    /// Lower-case English messages: letters, digits, the usual marks, space and newline.
    public static let messages = "\n !'(),-.0123456789:;?abcdefghijklmnopqrstuvwxyz"

    private let alphabet: [Unicode.Scalar]
    private let ids: [Unicode.Scalar: Int]
    private let foldsCase: Bool

    /// Takes an alphabet, whose first character gets id 4; text is lower-cased when the alphabet has no capital letter.
    public init(alphabet: String) {
        self.alphabet = Array(alphabet.unicodeScalars)
        ids = Dictionary(self.alphabet.enumerated().map { ($1, $0 + 4) }, uniquingKeysWith: { first, _ in first })
        foldsCase = !self.alphabet.contains { $0.properties.isUppercase }
    }

    /// V.
    public var vocabularySize: Int { alphabet.count + 4 }

    /// The ids of a text, without specials but for unknown characters.
    public func encode(_ text: String) -> [Int] {
        (foldsCase ? text.lowercased() : text).unicodeScalars.map { ids[$0] ?? Self.unknown }
    }

    /// The text of ids; specials vanish.
    public func decode(_ ids: [Int]) -> String {
        var text = String.UnicodeScalarView()
        for id in ids where id >= 4 && id < vocabularySize { text.append(alphabet[id - 4]) }
        return String(text)
    }
}
