/// Turns text into token ids and back.
///
/// In Martlet's own vocabularies ids 0 to 3 are `<pad>`, `<unk>`, `<bos>` and `<eos>`. A vocabulary of another program says in ``specials``
/// which ids it uses.
public protocol Tokenizer: Sendable {
    /// V, specials included.
    var vocabularySize: Int { get }
    /// The ids that have a special meaning.
    var specials: SpecialTokens { get }
    /// The kind's name in a configuration: `char`, `word` or `bpe`.
    var kind: TokenizerKind { get }

    /// The ids of a text, without `<bos>` and `<eos>`.
    func encode(_ text: String) -> [Int]
    /// The text of ids, without specials.
    func decode(_ ids: [Int]) -> String
}

/// The kinds of tokenisers.
public enum TokenizerKind: String, Sendable {
    /// One token for each character.
    case char
    /// One token for each word.
    case word
    /// Byte pairs over bytes.
    case bpe
}

/// Ids with a meaning of their own.
public struct SpecialTokens: Equatable, Sendable {
    /// Padding of batches; never in the loss.
    public var pad: Int
    /// The unknown token; `nil` if the vocabulary can write every text.
    public var unknown: Int?
    /// The beginning of every text.
    public var begin: Int
    /// The end of every record.
    public var end: Int
    /// The ordinary ids: all between the specials at the two ends of the vocabulary.
    public var ordinary: Range<Int>

    /// The four specials first, as in every vocabulary made here.
    public static func leading(vocabularySize: Int) -> SpecialTokens {
        SpecialTokens(pad: 0, unknown: 1, begin: 2, end: 3, ordinary: min(4, vocabularySize)..<vocabularySize)
    }

    /// Their names, in the order of their ids.
    public static let names = ["<pad>", "<unk>", "<bos>", "<eos>"]
}
