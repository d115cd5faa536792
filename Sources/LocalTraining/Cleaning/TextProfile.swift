/// Shares of letters, digits, symbols and scripts in a text, its words, and its language.
public struct TextProfile: Sendable {
    /// The scripts that a profile distinguishes.
    public enum Script: String, CaseIterable, Sendable, Codable {
        /// Chinese characters, also in Japanese.
        case han
        /// Hiragana and katakana.
        case kana
        /// Korean.
        case hangul
        /// Latin.
        case latin
        /// Cyrillic.
        case cyrillic
        /// Arabic.
        case arabic
        /// Devanagari.
        case devanagari
        /// Thai.
        case thai
    }

    /// Letters by script; letters of other scripts are in `letterCount` only.
    public private(set) var scripts: [Script: Int] = [:]
    private(set) var letterCount = 0
    private var unspacedCount = 0
    /// Counts of grapheme clusters: a flag or a family of four is one.
    private var visible = (all: 0, letters: 0, digits: 0, symbols: 0)
    private let text: String

    /// Measures a text.
    public init(_ text: String) {
        self.text = text
        for scalar in text.unicodeScalars where Self.isLetter(scalar) {
            letterCount += 1
            if let script = Self.script(of: scalar) { scripts[script, default: 0] += 1 }
            if Self.isUnspaced(scalar) { unspacedCount += 1 }
        }
        for character in text {
            guard let scalar = character.unicodeScalars.first, !Self.isSeparator(scalar) else { continue }
            visible.all += 1
            if Self.isLetter(scalar) {
                visible.letters += 1
            } else if scalar.properties.generalCategory == .decimalNumber, character.unicodeScalars.count == 1 {
                visible.digits += 1
            } else {
                visible.symbols += 1
            }
        }
    }

    /// The share of a script among the letters.
    public func share(_ script: Script) -> Double {
        letterCount > 0 ? Double(scripts[script] ?? 0) / Double(letterCount) : 0
    }

    /// Whether words are not divided by spaces: more than half of the letters are of such scripts.
    var isUnspaced: Bool { 2 * unspacedCount > letterCount }

    /// The first quality rule that the text breaks.
    var defect: CleaningRule? {
        guard visible.all > 0 else { return .fewLetters }
        let all = Double(visible.all)
        if Double(visible.letters) / all < 0.5 { return .fewLetters }
        if Double(visible.digits) / all > 0.3 { return .manyDigits }
        if Double(visible.symbols) / all > 0.3 { return .manySymbols }
        let tokens = WordTokenizer.tokens(of: text)
        let words = tokens.filter { $0.unicodeScalars.first.map(Self.isLetter) ?? false }
        if !isUnspaced && !words.isEmpty {
            let mean = Double(words.reduce(0) { $0 + $1.count }) / Double(words.count)
            // One or two long compounds may be German; many in one line are no language.
            if mean < 2 || mean > (words.count < 4 ? 40 : 15) { return .wordLength }
        }
        if tokens.count >= 20 && Double(Set(tokens).count) / Double(tokens.count) < 0.2 { return .repetition }
        return nil
    }

    /// An ISO 639 code by script and stop words, or `und`.
    public var language: String {
        guard letterCount > 0,
            let (script, _) = scripts.max(by: { ($0.value, $1.key.rawValue) < ($1.value, $0.key.rawValue) })
        else { return "und" }
        switch script {
        case .han, .kana: return share(.kana) >= 0.05 ? "ja" : "zh"
        case .hangul: return "ko"
        case .cyrillic: return "ru"
        case .arabic: return "ar"
        case .devanagari: return "hi"
        case .thai: return "th"
        case .latin: return Self.latinLanguage(WordTokenizer.tokens(of: text))
        }
    }

    private static func latinLanguage(_ tokens: [String]) -> String {
        let hits = stopWords.map { language, words in
            (language: language, count: tokens.reduce(0) { $0 + (words.contains($1) ? 1 : 0) })
        }.sorted { ($1.count, $0.language) < ($0.count, $1.language) }
        guard hits[0].count >= 2, hits[0].count > hits[1].count else { return "und" }
        return hits[0].language
    }

    /// The twenty most frequent words of a language.
    private static let stopWords: [String: Set<String>] = [
        "en": [
            "the", "of", "and", "to", "a", "in", "is", "you", "that", "it", "he", "was", "for", "on", "are", "with",
            "as",
            "i", "his", "they",
        ],
        "es": [
            "de", "la", "que", "el", "en", "y", "a", "los", "se", "del", "las", "un", "por", "con", "no", "una", "su",
            "para", "es", "al",
        ],
        "fr": [
            "de", "la", "le", "et", "les", "des", "en", "un", "du", "une", "que", "est", "pour", "qui", "dans", "a",
            "par",
            "plus", "pas", "au",
        ],
        "de": [
            "der", "die", "und", "in", "den", "von", "zu", "das", "mit", "sich", "des", "auf", "für", "ist", "im",
            "dem",
            "nicht", "ein", "eine", "als",
        ],
        "it": [
            "di", "e", "il", "la", "che", "a", "in", "un", "per", "è", "non", "una", "con", "sono", "da", "del", "si",
            "le", "della", "i",
        ],
        "pt": [
            "de", "a", "o", "que", "e", "do", "da", "em", "um", "para", "é", "com", "não", "uma", "os", "no", "se",
            "na",
            "por", "mais",
        ],
        "nl": [
            "de", "van", "een", "en", "het", "in", "is", "dat", "op", "te", "zijn", "met", "die", "voor", "niet", "aan",
            "er", "om", "ik", "ook",
        ],
    ]

    static func isLetter(_ scalar: Unicode.Scalar) -> Bool {
        if scalar.isASCII { return ("a"..."z").contains(scalar) || ("A"..."Z").contains(scalar) }
        switch scalar.properties.generalCategory {
        case .uppercaseLetter, .lowercaseLetter, .titlecaseLetter, .modifierLetter, .otherLetter, .nonspacingMark,
            .spacingMark:
            return true
        default: return false
        }
    }

    /// Whether a scalar separates words: white space, the Tibetan tsheg, the Ethiopic word space.
    static func isSeparator(_ scalar: Unicode.Scalar) -> Bool {
        scalar.properties.isWhitespace || scalar == "\u{F0B}" || scalar == "\u{F0C}" || scalar == "\u{1361}"
    }

    /// Whether a letter's script puts no spaces between words.
    ///
    /// Ideographs by their property; other scripts are those that Unicode 15's LineBreak.txt gives the class SA (words are found by
    /// a dictionary), and by blocks kana, Tibetan, Yi and the Indonesian and Philippine scripts that are written without spaces.
    static func isUnspaced(_ scalar: Unicode.Scalar) -> Bool {
        if scalar.value < 0xE00 { return false }
        if scalar.properties.isIdeographic { return true }
        return switch scalar.value {
        case 0xE00...0xEFF, 0xF00...0xFFF, 0x1000...0x109F, 0x1780...0x17FF: true  // Thai, Lao; Tibetan; Burmese; Khmer
        case 0x1950...0x19FF, 0x1A00...0x1AAF, 0x1B00...0x1B7F, 0x1BC0...0x1BFF: true  // Tai; Buginese; Balinese; Batak
        case 0x3005...0x3007, 0x3040...0x30FF, 0x3100...0x312F, 0x31A0...0x31BF, 0x31F0...0x31FF: true  // kana
        case 0xA000...0xA4CF, 0xA980...0xA9FF, 0xAA00...0xAADF: true  // Yi; Javanese, Burmese; Cham, Burmese, Tai Viet
        case 0xFF66...0xFF9F, 0x11700...0x1174F, 0x16FE0...0x1B2FF: true  // kana; Ahom; Tangut
        default: false
        }
    }

    static func isWordPart(_ scalar: Unicode.Scalar) -> Bool {
        isLetter(scalar) || scalar.properties.generalCategory == .decimalNumber
    }

    private static func script(of scalar: Unicode.Scalar) -> Script? {
        switch scalar.value {
        case 0x41...0x5A, 0x61...0x7A, 0xAA, 0xBA, 0xC0...0x24F, 0x1E00...0x1EFF: .latin
        case 0x400...0x52F: .cyrillic
        case 0x600...0x6FF, 0x750...0x77F, 0x8A0...0x8FF, 0xFB50...0xFDFF, 0xFE70...0xFEFF: .arabic
        case 0x900...0x97F: .devanagari
        case 0xE00...0xE7F: .thai
        case 0x1100...0x11FF, 0x3130...0x318F, 0xAC00...0xD7AF: .hangul
        case 0x3040...0x30FF, 0x31F0...0x31FF, 0xFF66...0xFF9F: .kana
        case 0x3400...0x4DBF, 0x4E00...0x9FFF, 0xF900...0xFAFF, 0x20000...0x323AF, 0x3005, 0x3007: .han
        default: nil
        }
    }
}
