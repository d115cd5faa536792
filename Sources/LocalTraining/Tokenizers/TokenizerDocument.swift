import Foundation
import StrictJSON

/// A tokeniser in a model's configuration or a model directory.
///
/// `{"type": "char", "alphabet": "…"}`, `{"type": "word", "vocabulary": ["the", …]}` or `{"type": "bpe", "tokenizer": …}`
/// with the content of a `tokenizer.json`, as an object or as text.
enum TokenizerDocument {
    private enum Kind: String, CaseIterable {
        case char, word, bpe
    }

    private static var usual: CharacterTokenizer { CharacterTokenizer(alphabet: CharacterTokenizer.messages) }

    /// The tokeniser of a model's configuration: `tokenizer`, or `alphabet` for short, or the messages' alphabet.
    static func read(of fields: FieldReader) -> any Tokenizer {
        switch (fields.value("alphabet"), fields.value("tokenizer")) {
        case (nil, nil): return usual
        case (.some, .some):
            fields.report("alphabet", "and tokenizer exclude each other")
            return usual
        case (.some, nil): return characters(fields)
        // A bare name, such as `tokenizer: char`.
        case (nil, .string(let type)?): return fields.nested("tokenizer", ["type": .string(type)], whole)
        case (nil, .some): return fields.object("tokenizer", whole)
        }
    }

    private static func whole(_ fields: FieldReader) -> any Tokenizer {
        switch fields.choice("type", default: Kind.char) {
        case .char: return characters(fields)
        case .word:
            let words: [String]
            if case .string(let text)? = fields.value("vocabulary") {
                words = text.split(separator: "\n").map(String.init)
            } else {
                words = fields.stringList("vocabulary", countLimit: .max) ?? []
            }
            let tokenizer = WordTokenizer(vocabulary: words)
            if tokenizer.vocabularySize <= 4 { fields.report("vocabulary", "must hold the words") }
            return tokenizer
        case .bpe:
            let text: String
            switch fields.value("tokenizer") {
            case nil:
                fields.report("tokenizer", "must hold the content of a tokenizer.json")
                return usual
            case .string(let content)?: text = content
            case let tree?: text = tree.text
            }
            do { return try ByteLevelBPE(huggingFace: Data(text.utf8)) } catch {
                fields.report("tokenizer", (error as? TokenizerError)?.description ?? "cannot be read: \(error)")
                return usual
            }
        }
    }

    private static func characters(_ fields: FieldReader) -> CharacterTokenizer {
        let alphabet = fields.string("alphabet", default: CharacterTokenizer.messages, lengthLimit: .max)
        guard !alphabet.isEmpty, Set(alphabet.unicodeScalars).count == alphabet.unicodeScalars.count else {
            fields.report("alphabet", "must hold each character once")
            return usual
        }
        return CharacterTokenizer(alphabet: alphabet)
    }
}

/// `vocab.txt`: one token in each line, the four specials first.
///
/// The number of the line, from 0, is the id.
public enum VocabularyFile {
    /// The file of characters or words; backslash, line feed and carriage return are written `\\`, `\n` and `\r`.
    public static func encode(_ tokens: [String]) -> String {
        (SpecialTokens.names + tokens).map { token in
            token.replacing("\\", with: "\\\\").replacing("\n", with: "\\n").replacing("\r", with: "\\r") + "\n"
        }.joined()
    }

    /// The tokens after the four specials.
    ///
    /// - Throws: ``TokenizerError`` if the specials are missing, or a token is empty or comes twice.
    public static func decode(_ text: String) throws -> [String] {
        var lines = text.split(separator: "\n", omittingEmptySubsequences: false).map { line in
            var token = ""
            var escaped = false
            for scalar in line.unicodeScalars {
                if escaped {
                    token.unicodeScalars.append(scalar == "n" ? "\n" : scalar == "r" ? "\r" : scalar)
                    escaped = false
                } else if scalar == "\\" {
                    escaped = true
                } else {
                    token.unicodeScalars.append(scalar)
                }
            }
            return token
        }
        if lines.last == "" { lines.removeLast() }
        guard lines.starts(with: SpecialTokens.names) else {
            throw TokenizerError(
                "vocab.txt: the first four lines must be \(SpecialTokens.names.joined(separator: ", "))"
            )
        }
        var seen: Set<[Unicode.Scalar]> = []
        for (index, token) in lines.enumerated() {
            guard !token.isEmpty else { throw TokenizerError("vocab.txt: line \(index + 1) is empty") }
            guard seen.insert(Array(token.unicodeScalars)).inserted else {
                throw TokenizerError("vocab.txt: line \(index + 1) repeats '\(token)'")
            }
        }
        return Array(lines.dropFirst(4))
    }
}
