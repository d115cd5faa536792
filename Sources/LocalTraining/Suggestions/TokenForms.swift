/// The bytes of each token of a vocabulary, and the part that the token can have in a word.
struct TokenForms {
    enum Role: UInt8 {
        /// Special, or of no use in a suggestion.
        case none
        /// Letters, marks, digits or apostrophes, which continue a word. Also a part of a character.
        case inner
        /// A space and then such characters, which begin a word.
        case opening
        /// One word by itself, such as an ideograph.
        case whole
        /// Anything else: it ends the word before it.
        case ending
    }

    private(set) var bytes: [[UInt8]]
    private(set) var roles: [Role]

    init(_ tokenizer: any Tokenizer) {
        let count = tokenizer.vocabularySize
        bytes = (0..<count).map { id in
            (tokenizer as? ByteLevelBPE)?.bytes(of: [id]) ?? Array(tokenizer.decode([id]).utf8)
        }
        let ordinary = tokenizer.specials.ordinary
        let end = tokenizer.specials.end
        roles = bytes.enumerated().map { id, bytes in
            if id == end { return .ending }
            return ordinary.contains(id) && !bytes.isEmpty ? Self.role(bytes) : .none
        }
    }

    private static func role(_ bytes: [UInt8]) -> Role {
        let text = String(decoding: bytes, as: UTF8.self)
        // A part of a character can only continue what is before it.
        if text.unicodeScalars.contains("\u{FFFD}") { return .inner }
        let hasSpace = text.first == " "
        let rest = hasSpace ? text.dropFirst() : text[...]
        guard !rest.isEmpty, rest.unicodeScalars.allSatisfy(isInner) else { return .ending }
        if rest.unicodeScalars.allSatisfy({ $0.properties.isIdeographic }) { return .whole }
        return hasSpace ? .opening : .inner
    }

    static func isInner(_ scalar: Unicode.Scalar) -> Bool {
        TextProfile.isWordPart(scalar) || scalar == "'" || scalar == "\u{2019}"
    }
}
