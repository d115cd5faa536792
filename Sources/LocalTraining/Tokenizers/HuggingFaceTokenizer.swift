public import Foundation
import StrictJSON

/// Why a vocabulary or tokeniser file cannot be used.
public struct TokenizerError: Error, Equatable, Sendable, CustomStringConvertible {
    /// What is wrong, and where.
    public var description: String

    /// Creates an error.
    public init(_ description: String) { self.description = description }
}

extension ByteLevelBPE {
    /// Reads a Hugging Face `tokenizer.json`.
    ///
    /// - Throws: ``TokenizerError`` with the part that a byte-level BPE does not have.
    public init(huggingFace data: Data) throws {
        let root: JSONValue
        do { root = try JSONValue(parsing: Array(data)) } catch {
            throw TokenizerError("tokenizer.json is not valid JSON: \(error)")
        }
        guard root.objectValue != nil else { throw TokenizerError("tokenizer.json is not a JSON object") }
        guard let model = root.field("model"), let ids = model.field("vocab")?.objectValue,
            case let vocabulary = ids.compactMapValues(\.integerValue), vocabulary.count == ids.count,
            let rawMerges = model.field("merges")?.arrayValue
        else { throw TokenizerError("tokenizer.json: /model must have a vocab and merges") }
        // Some files have no type; a vocabulary and merges together are a BPE.
        if let type = model.field("type")?.stringValue, type != "BPE" {
            throw TokenizerError("tokenizer.json: /model/type is \(type), only BPE is known")
        }
        let unset: [JSONValue?] = [nil, .string(""), .integer(0), .boolean(false)]
        for name in ["dropout", "continuing_subword_prefix", "end_of_word_suffix"] {
            guard unset.contains(model.field(name)) else {
                throw TokenizerError("tokenizer.json: /model/\(name) is set, and is not supported")
            }
        }
        guard model.field("byte_fallback") != .boolean(true) else {
            throw TokenizerError("tokenizer.json: /model/byte_fallback is in use: not a byte-level BPE")
        }
        guard root.field("normalizer") == nil else {
            throw TokenizerError("tokenizer.json: a normalizer is set, and none is supported")
        }
        guard let pre = root.field("pre_tokenizer"), pre.field("type") == .string("ByteLevel"),
            pre.field("use_regex") != .boolean(false)
        else { throw TokenizerError("tokenizer.json: /pre_tokenizer must be ByteLevel with use_regex") }
        let added = try Self.readAdded(root.field("added_tokens")?.arrayValue ?? [])
        let unknown = model.field("unk_token")?.stringValue.flatMap { vocabulary[$0] }
        let tokens = try Self.readTokens(vocabulary, added: added)
        self.init(
            tokens: tokens,
            merges: try Self.readMerges(rawMerges, vocabulary: vocabulary),
            added: added,
            specials: try Self.specials(added, unknown: unknown, count: tokens.count),
            addsPrefixSpace: pre.field("add_prefix_space")?.booleanValue ?? true,
            ignoresMerges: model.field("ignore_merges")?.booleanValue ?? false,
            postProcessor: root.field("post_processor").flatMap { $0.objectValue == nil ? nil : $0 } ?? .null
        )
    }

    /// The tokeniser as a Hugging Face `tokenizer.json`; equal tokenisers give equal bytes.
    public func huggingFaceJSON() -> Data {
        let specialIDs = Set(added.map(\.id))
        let names = tokens.enumerated().map { id, bytes in
            specialIDs.contains(id) ? added.first { $0.id == id }?.content ?? "" : Self.text(of: bytes)
        }
        let addedJSON = added.map { token in
            JSONText.object([
                ("id", String(token.id)), ("content", JSONText.quoted(token.content)), ("single_word", "false"),
                ("lstrip", "false"), ("rstrip", "false"), ("normalized", String(token.isNormalized)),
                ("special", String(token.isSpecial)),
            ])
        }
        let byteLevel = JSONText.object([
            ("type", JSONText.quoted("ByteLevel")), ("add_prefix_space", String(addsPrefixSpace)),
            ("trim_offsets", "true"), ("use_regex", "true"),
        ])
        let model = JSONText.object([
            ("type", JSONText.quoted("BPE")), ("dropout", "null"),
            ("unk_token", specials.unknown.map { JSONText.quoted(names[$0]) } ?? "null"),
            ("continuing_subword_prefix", "null"), ("end_of_word_suffix", "null"), ("fuse_unk", "false"),
            ("byte_fallback", "false"), ("ignore_merges", String(ignoresMerges)),
            ("vocab", JSONText.object(names.enumerated().map { ($1, String($0)) })),
            ("merges", JSONText.array(merges.map { JSONText.quoted(names[$0.left] + " " + names[$0.right]) })),
        ])
        let document = JSONText.object([
            ("version", JSONText.quoted("1.0")), ("truncation", "null"), ("padding", "null"),
            ("added_tokens", JSONText.array(addedJSON)), ("normalizer", "null"), ("pre_tokenizer", byteLevel),
            ("post_processor", postProcessor.text), ("decoder", byteLevel), ("model", model),
        ])
        return Data((document + "\n").utf8)
    }

    // MARK: - GPT-2's table

    /// The printable characters for the 256 bytes: visible characters of Latin-1 for themselves, the others from U+0100 on.
    private static let byteCharacters: [Unicode.Scalar] = {
        var next: UInt32 = 0x100
        return (UInt32(0)...255).map { byte in
            if (0x21...0x7E).contains(byte) || (0xA1...0xAC).contains(byte) || (0xAE...0xFF).contains(byte) {
                return Unicode.Scalar(byte) ?? " "
            }
            defer { next += 1 }
            return Unicode.Scalar(next) ?? " "
        }
    }()

    private static let characterBytes = Dictionary(
        uniqueKeysWithValues: byteCharacters.enumerated().map { ($1, UInt8($0)) }
    )

    private static func text(of bytes: [UInt8]) -> String {
        var text = String.UnicodeScalarView()
        for byte in bytes { text.append(byteCharacters[Int(byte)]) }
        return String(text)
    }

    // MARK: - Reading

    private static func readAdded(_ items: [JSONValue]) throws -> [AddedToken] {
        try items.map { item in
            guard let id = item.field("id")?.integerValue, let content = item.field("content")?.stringValue, id >= 0
            else { throw TokenizerError("tokenizer.json: an added token needs an id and a content") }
            for name in ["lstrip", "rstrip", "single_word"] where item.field(name) == .boolean(true) {
                throw TokenizerError("tokenizer.json: added token '\(content)' uses \(name), which is not supported")
            }
            let isSpecial = item.field("special")?.booleanValue ?? false
            return AddedToken(
                id: id,
                content: content,
                isSpecial: isSpecial,
                isNormalized: item.field("normalized")?.booleanValue ?? !isSpecial
            )
        }
    }

    private static func readTokens(_ vocabulary: [String: Int], added: [AddedToken]) throws -> [[UInt8]] {
        let count = max(vocabulary.values.max() ?? -1, added.map(\.id).max() ?? -1) + 1
        let addedIDs = Set(added.map(\.id))
        guard count > 0, count <= vocabulary.count + added.count else {
            throw TokenizerError(
                "tokenizer.json: the ids have gaps: \(vocabulary.count) tokens, ids up to \(count - 1)"
            )
        }
        var tokens = [[UInt8]](repeating: [], count: count)
        for (text, id) in vocabulary {
            guard id >= 0 else { throw TokenizerError("tokenizer.json: token '\(text)' has a negative id") }
            if addedIDs.contains(id) { continue }
            tokens[id] = try text.unicodeScalars.map { scalar in
                guard let byte = characterBytes[scalar] else {
                    throw TokenizerError("tokenizer.json: token '\(text)' is not written in GPT-2's byte characters")
                }
                return byte
            }
        }
        return tokens
    }

    private static func readMerges(_ items: [JSONValue], vocabulary: [String: Int]) throws -> [Merge] {
        try items.enumerated().map { index, item in
            let parts =
                item.stringValue?.split(separator: " ").map(String.init)
                ?? item.arrayValue?.compactMap(\.stringValue) ?? []
            guard parts.count == 2, let left = vocabulary[parts[0]], let right = vocabulary[parts[1]],
                let result = vocabulary[parts[0] + parts[1]]
            else { throw TokenizerError("tokenizer.json: /model/merges/\(index) is not two tokens whose union is one") }
            return Merge(left: left, right: right, result: result)
        }
    }

    private static func specials(_ added: [AddedToken], unknown: Int?, count: Int) throws -> SpecialTokens {
        func find(_ names: [String]) -> Int? {
            for name in names { if let token = added.first(where: { $0.content == name }) { return token.id } }
            return nil
        }
        guard let end = find(["<eos>", "</s>", "<|endoftext|>", "<|end_of_text|>", "<|im_end|>"]) else {
            throw TokenizerError("tokenizer.json: no end-of-text token among the added tokens")
        }
        let begin = find(["<bos>", "<s>", "<|begin_of_text|>"]) ?? end
        var ordinary = 0..<count
        let special = Set(added.filter(\.isSpecial).map(\.id))
        while let first = ordinary.first, special.contains(first) { ordinary = (first + 1)..<count }
        while let last = ordinary.last, special.contains(last) { ordinary = ordinary.lowerBound..<last }
        return SpecialTokens(
            pad: find(["<pad>", "<|pad|>"]) ?? end,
            unknown: unknown,
            begin: begin,
            end: end,
            ordinary: ordinary
        )
    }
}
