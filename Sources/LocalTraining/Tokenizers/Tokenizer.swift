/// Turns text into token ids and back.
///
/// In the vocabularies that we make, ids 0 to 3 are `<pad>`, `<unk>`, `<bos>` and `<eos>`; one made elsewhere says which
/// ids it uses for them.
public protocol Tokenizer: Sendable {
    /// V, specials included.
    var vocabularySize: Int { get }
    /// The ids that have a special meaning.
    var specials: SpecialTokens { get }
    /// The kind's name in a configuration: `char`, `word` or `bpe`.
    var kind: TokenizerKind { get }

    /// The ids of a text, without `<bos>` and `<eos>`.
    func encode(_ text: String) -> [Int]
    /// The text of ids; specials vanish.
    func decode(_ ids: [Int]) -> String
}

/// The kinds of tokenisers.
public enum TokenizerKind: String, Sendable {
    /// One token a character.
    case char
    /// One token a word.
    case word
    /// Byte pairs over bytes.
    case bpe
}

/// Ids with a meaning of their own.
public struct SpecialTokens: Equatable, Sendable {
    /// Fills batches up; never in the loss.
    public var pad: Int
    /// What the vocabulary does not have; `nil` where it has everything.
    public var unknown: Int?
    /// Before every text.
    public var begin: Int
    /// After every record.
    public var end: Int
    /// The ids that are ordinary: all between the specials at both ends of the vocabulary.
    public var ordinary: Range<Int>

    /// The four specials first, as in every vocabulary made here.
    public static func leading(vocabularySize: Int) -> SpecialTokens {
        SpecialTokens(pad: 0, unknown: 1, begin: 2, end: 3, ordinary: min(4, vocabularySize)..<vocabularySize)
    }

    /// Their names, in the order of their ids.
    public static let names = ["<pad>", "<unk>", "<bos>", "<eos>"]
}
