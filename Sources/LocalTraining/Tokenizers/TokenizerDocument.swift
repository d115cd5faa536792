import Foundation

/// A tokeniser as a configuration and a model directory carry it.
///
/// `{"type": "char", "alphabet": "…"}`, `{"type": "word", "vocabulary": ["the", …]}` or `{"type": "bpe", "tokenizer": …}`
/// with the content of a `tokenizer.json`, as an object or as text.
enum TokenizerDocument {
    /// The tokeniser of a model's configuration: `tokenizer`, or `alphabet` for short, or the messages' alphabet.
    static func read(of fields: ConfigurationReader) throws -> any Tokenizer {
        if let alphabet = fields.value("alphabet") {
            guard fields.value("tokenizer") == nil else {
                throw fields.error("alphabet", "and tokenizer exclude each other")
            }
            return try read(ConfigurationReader(["alphabet": alphabet], pointer: fields.pointer))
        }
        // A bare name, such as `tokenizer: char`.
        if let type = fields.value("tokenizer") as? String {
            return try read(ConfigurationReader(["type": type], pointer: fields.pointer + "/tokenizer"))
        }
        guard let document = try fields.object("tokenizer") else {
            return CharacterTokenizer(alphabet: CharacterTokenizer.messages)
        }
        return try read(document)
    }

    static func read(_ fields: ConfigurationReader) throws -> any Tokenizer {
        let type = try fields.choice("type", of: ["char", "word", "bpe"], default: "char")
        switch type {
        case "word":
            let words: [String]
            if fields.value("vocabulary") is String {
                words = (try fields.string("vocabulary") ?? "").split(separator: "\n").map(String.init)
            } else {
                words = try fields.strings("vocabulary") ?? []
            }
            try fields.finish()
            let tokenizer = WordTokenizer(vocabulary: words)
            guard tokenizer.vocabularySize > 4 else { throw fields.error("vocabulary", "must hold the words") }
            return tokenizer
        case "bpe":
            guard let value = fields.value("tokenizer") else {
                throw fields.error("tokenizer", "must hold the content of a tokenizer.json")
            }
            try fields.finish()
            let data: Data
            if let text = value as? String {
                data = Data(text.utf8)
            } else {
                guard JSONSerialization.isValidJSONObject(value) else {
                    throw fields.error("tokenizer", "must be JSON")
                }
                data = try JSONSerialization.data(withJSONObject: value)
            }
            do { return try ByteLevelBPE(huggingFace: data) } catch let error as TokenizerError {
                throw fields.error("tokenizer", error.description)
            }
        default:
            let alphabet = try fields.string("alphabet") ?? CharacterTokenizer.messages
            try fields.finish()
            let tokenizer = CharacterTokenizer(alphabet: alphabet)
            guard !alphabet.isEmpty, Set(alphabet.unicodeScalars).count == alphabet.unicodeScalars.count else {
                throw fields.error("alphabet", "must hold each character once")
            }
            return tokenizer
        }
    }
}

/// `vocab.txt`: one token a line, the four specials first, the line's number is the id.
public enum VocabularyFile {
    /// Characters or words, with backslash, line feed and carriage return written `\\`, `\n` and `\r`.
    public static func encode(_ tokens: [String]) -> String {
        (SpecialTokens.names + tokens).map { token in
            token.replacing("\\", with: "\\\\").replacing("\n", with: "\\n").replacing("\r", with: "\\r") + "\n"
        }.joined()
    }

    /// The tokens after the four specials.
    ///
    /// - Throws: ``TokenizerError`` where the specials are not there, or a token is empty or there twice.
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
