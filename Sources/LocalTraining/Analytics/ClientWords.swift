/// The distinct words of a device's texts and how often each occurs.
///
/// They stay on the device.
struct ClientWords {
    /// What counts as one word.
    enum Unit: String, CaseIterable {
        case word, character, record
    }

    let counts: [String: Int]

    /// Counts the words of cleaned texts.
    ///
    /// Stand-ins for redacted data and separators are not words.
    init(_ texts: [String], unit: Unit) {
        var counts: [String: Int] = [:]
        for text in texts {
            for word in Self.words(of: text, unit: unit) { counts[word, default: 0] += 1 }
        }
        self.counts = counts
    }

    /// A text's words, in the form in which they are counted.
    static func words(of text: String, unit: Unit) -> [String] {
        switch unit {
        case .word: WordTokenizer.tokens(of: text).filter { !isStandIn($0) }
        case .character: text.unicodeScalars.filter { $0.value >= 0x20 }.map { String($0) }
        case .record: [record(text)].filter { !$0.isEmpty }
        }
    }

    /// A whole record in lower case with single spaces; empty if it held personal data.
    private static func record(_ text: String) -> String {
        let record = text.lowercased().split(whereSeparator: \.isWhitespace).joined(separator: " ")
        guard !PersonalDataRedactor.tokens.contains(where: record.contains) else { return "" }
        return String(String.UnicodeScalarView(record.unicodeScalars.filter { $0.value >= 0x20 }))
    }

    private static func isStandIn(_ word: String) -> Bool {
        word.hasPrefix("<") && PersonalDataRedactor.tokens.contains(word)
    }
}
