/// Replaces personal data that have a form: addresses of the net, bank and identity numbers, cards, telephones.
///
/// Rules apply in order, each to what the ones before have left; none matches inside a longer run of digits. Names and
/// street addresses have no form and are not found.
public enum PersonalDataRedactor {
    /// The words that stand in; each is one token of a vocabulary and is never suggested.
    public static let tokens = ["<url>", "<email>", "<iban>", "<id>", "<card>", "<phone>", "<ip>", "<number>"]

    private static let rules: [(rule: CleaningRule, token: String, match: @Sendable (DigitText, Int) -> Int?)] = [
        (.url, "<url>", NetworkAddresses.url), (.email, "<email>", NetworkAddresses.email),
        (.iban, "<iban>", AccountNumbers.iban), (.id, "<id>", IdentityNumbers.chinese18),
        (.id, "<id>", IdentityNumbers.chinese15), (.id, "<id>", IdentityNumbers.socialSecurity),
        (.card, "<card>", AccountNumbers.card), (.phone, "<phone>", TelephoneNumbers.match),
        (.ip, "<ip>", NetworkAddresses.internet), (.number, "<number>", AccountNumbers.otherNumber),
    ]

    /// The text with tokens in place of what was found; adds to `counts`.
    static func redact(_ text: String, _ counts: inout [CleaningRule: Int]) -> String {
        // Without an `@`, a digit or an address's beginning there is nothing to find.
        guard text.utf8.contains(where: { $0 == 0x40 || (0x30...0x39).contains($0) || $0 == 0x3A || $0 == 0x2E }) else {
            return text
        }
        var scalars = Array(text.unicodeScalars)
        // A token that has come in can end a run in which nothing was to be found before; each pass leaves less to find.
        while true {
            let found = pass(&scalars, &counts)
            if !found { break }
        }
        return String(String.UnicodeScalarView(scalars))
    }

    /// All rules once; `false` when none found anything.
    private static func pass(_ scalars: inout [Unicode.Scalar], _ counts: inout [CleaningRule: Int]) -> Bool {
        var found = false
        for (rule, token, match) in rules {
            let source = DigitText(scalars)
            var result: [Unicode.Scalar] = []
            var index = 0
            while index < scalars.count {
                if let end = match(source, index), end > index {
                    result.append(contentsOf: token.unicodeScalars)
                    counts[rule, default: 0] += 1
                    found = true
                    index = end
                } else {
                    result.append(scalars[index])
                    index += 1
                }
            }
            scalars = result
        }
        return found
    }

    /// Redacts one text.
    public static func redact(_ text: String) -> String {
        var counts: [CleaningRule: Int] = [:]
        return redact(text, &counts)
    }

    /// The text without the words that stand in.
    static func withoutTokens(_ text: String) -> String {
        guard text.utf8.contains(UInt8(ascii: "<")) else { return text }
        return tokens.reduce(text) { $0.replacing($1, with: "") }
    }
}

/// A text with what matching asks of it again and again.
struct DigitText {
    let scalars: [Unicode.Scalar]

    init(_ scalars: [Unicode.Scalar]) { self.scalars = scalars }

    var count: Int { scalars.count }

    func isDigit(_ index: Int) -> Bool {
        index >= 0 && index < scalars.count && (0x30...0x39).contains(scalars[index].value)
    }

    func isLetter(_ index: Int) -> Bool {
        guard index >= 0 && index < scalars.count else { return false }
        return (0x41...0x5A).contains(scalars[index].value & ~0x20) && scalars[index].isASCII
    }

    func isAlphanumeric(_ index: Int) -> Bool { isDigit(index) || isLetter(index) }

    func value(_ index: Int) -> Int { Int(scalars[index].value) - 0x30 }

    func number(_ range: Range<Int>) -> Int { range.reduce(0) { $0 * 10 + value($1) } }

    func isDigits(_ range: Range<Int>) -> Bool { range.upperBound <= count && range.allSatisfy(isDigit) }

    func has(_ text: String, at index: Int) -> Bool {
        let wanted = Array(text.unicodeScalars)
        guard index >= 0, index + wanted.count <= count else { return false }
        return wanted.indices.allSatisfy { scalars[index + $0].value | 0x20 == wanted[$0].value | 0x20 }
    }

    func at(_ index: Int) -> Unicode.Scalar? { index >= 0 && index < count ? scalars[index] : nil }

    /// Groups of digits from `start` on, with single spaces or hyphens between them.
    func groups(from start: Int) -> [Range<Int>] {
        var groups: [Range<Int>] = []
        var index = start
        while isDigit(index) {
            var end = index
            while isDigit(end) { end += 1 }
            groups.append(index..<end)
            guard at(end) == " " || at(end) == "-" else { break }
            index = end + 1
        }
        return groups
    }

    /// Whether a date is one of the calendar.
    static func isDate(year: Int, month: Int, day: Int) -> Bool {
        guard (1...12).contains(month), day >= 1 else { return false }
        let isLeap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
        return day <= [31, isLeap ? 29 : 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month - 1]
    }
}
