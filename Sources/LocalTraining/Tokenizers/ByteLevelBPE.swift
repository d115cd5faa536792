import StrictJSON

/// Byte-pair encoding over bytes, for any text in any script, without an unknown token.
///
/// Equal to Hugging Face's `BPE` model with a `ByteLevel` pre-tokeniser. Source: Sennrich et al. 2016, arXiv:1508.07909;
/// bytes instead of characters: Radford et al. 2019.
public struct ByteLevelBPE: Tokenizer {
    /// A merge of two tokens into one.
    struct Merge: Equatable, Sendable {
        var left: Int
        var right: Int
        var result: Int
    }

    /// A token that is found in text before anything else.
    struct AddedToken: Equatable, Sendable {
        var id: Int
        var content: String
        var isSpecial: Bool
        /// Whether it is found only after all tokens that are not normalised.
        var isNormalized = false
    }

    /// The bytes of each id; empty for added tokens.
    let tokens: [[UInt8]]
    /// The merges in the order of their ranks.
    let merges: [Merge]
    let added: [AddedToken]
    /// The post-processor of a `tokenizer.json`, which is kept for other programs and not used here.
    let postProcessor: JSONValue
    let addsPrefixSpace: Bool
    let ignoresMerges: Bool
    /// The ids with a special meaning.
    public let specials: SpecialTokens
    private let ranks: [UInt64: (rank: Int32, result: Int32)]
    private let byteIDs: [Int]
    private let wholeTokens: [[UInt8]: Int]
    private let addedTokens: AddedTokens

    init(
        tokens: [[UInt8]],
        merges: [Merge],
        added: [AddedToken],
        specials: SpecialTokens,
        addsPrefixSpace: Bool = false,
        ignoresMerges: Bool = false,
        postProcessor: JSONValue = .null
    ) {
        self.tokens = tokens
        self.merges = merges
        self.added = added
        self.specials = specials
        self.addsPrefixSpace = addsPrefixSpace
        self.ignoresMerges = ignoresMerges
        self.postProcessor = postProcessor
        addedTokens = AddedTokens(added)
        ranks = Dictionary(
            merges.enumerated().map { (Self.key($1.left, $1.right), (Int32($0), Int32($1.result))) },
            uniquingKeysWith: { first, _ in first }
        )
        var byteIDs = [Int](repeating: -1, count: 256)
        for (id, bytes) in tokens.enumerated() where bytes.count == 1 { byteIDs[Int(bytes[0])] = id }
        self.byteIDs = byteIDs
        wholeTokens =
            ignoresMerges
            ? Dictionary(tokens.enumerated().map { ($1, $0) }, uniquingKeysWith: { first, _ in first }) : [:]
    }

    /// V.
    public var vocabularySize: Int { tokens.count }
    /// `bpe`.
    public var kind: TokenizerKind { .bpe }

    /// The ids of a text.
    ///
    /// The content of an added token becomes that token wherever it is.
    public func encode(_ text: String) -> [Int] {
        var ids: [Int] = []
        for piece in addedTokens.pieces(of: text) {
            switch piece {
            case .token(let id): ids.append(id)
            case .text(let scalars): encodePlain(scalars, into: &ids)
            }
        }
        return ids
    }

    /// The text of ids, without specials; bytes that are no UTF-8 become U+FFFD.
    public func decode(_ ids: [Int]) -> String { String(decoding: bytes(of: ids), as: UTF8.self) }

    /// The bytes of ids, without specials.
    public func bytes(of ids: [Int]) -> [UInt8] {
        ids.flatMap { id in id >= 0 && id < tokens.count ? tokens[id] : [] }
    }

    /// The ids of bytes, which need not be UTF-8, without division into words.
    public func encode(bytes: [UInt8]) -> [Int] {
        var ids: [Int] = []
        merge(bytes, into: &ids)
        return ids
    }

    // MARK: -

    private static func key(_ left: Int, _ right: Int) -> UInt64 { UInt64(left) << 32 | UInt64(right) }

    private func encodePlain(_ text: ArraySlice<Unicode.Scalar>, into ids: inout [Int]) {
        guard let first = text.first else { return }
        let prefixed = addsPrefixSpace && !first.properties.isWhitespace ? [" "] + Array(text) : Array(text)
        for piece in GPT2PreTokenizer.pieces(of: prefixed) { merge(piece, into: &ids) }
    }

    /// Merges the pair of lowest rank, the leftmost among equals, until no pair has a rank.
    private func merge(_ piece: [UInt8], into ids: inout [Int]) {
        if ignoresMerges, let whole = wholeTokens[piece] {
            ids.append(whole)
            return
        }
        var symbols: [Int] = []
        for byte in piece {
            let id = byteIDs[Int(byte)]
            if id >= 0 { symbols.append(id) } else if let unknown = specials.unknown { symbols.append(unknown) }
        }
        var pairRanks: [Int32] = []
        func rank(_ index: Int) -> Int32 {
            index + 1 < symbols.count ? ranks[Self.key(symbols[index], symbols[index + 1])]?.rank ?? .max : .max
        }
        pairRanks = symbols.indices.map(rank)
        while let best = pairRanks.min(), best != .max, let index = pairRanks.firstIndex(of: best) {
            symbols[index] = merges[Int(best)].result
            symbols.remove(at: index + 1)
            pairRanks.remove(at: index + 1)
            pairRanks[index] = rank(index)
            if index > 0 { pairRanks[index - 1] = rank(index - 1) }
        }
        ids.append(contentsOf: symbols)
    }
}
