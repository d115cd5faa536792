/// Replaces personal data that have a form: addresses of the net, bank and identity numbers, cards, telephones, keys.
///
/// Rules apply in order, each to what the ones before have left; none matches inside a longer run of digits. Digits of every
/// script count as digits. Dates, times, years, amounts and versions are left. Names and street addresses have no form and
/// are not found.
public enum PersonalDataRedactor {
    /// The words that stand in; each is one token of a vocabulary and is never suggested.
    public static let tokens = ["<url>", "<email>", "<iban>", "<id>", "<card>", "<phone>", "<ip>", "<number>", "<key>"]

    private static let rules: [(rule: CleaningRule, token: String, match: @Sendable (DigitText, Int) -> Int?)] = [
        (.url, "<url>", NetworkAddresses.url), (.email, "<email>", NetworkAddresses.email), (.key, "<key>", Keys.match),
        (.iban, "<iban>", AccountNumbers.iban), (.id, "<id>", IdentityNumbers.chinese18),
        (.id, "<id>", IdentityNumbers.chinese15), (.id, "<id>", IdentityNumbers.socialSecurity),
        (.id, "<id>", IdentityNumbers.lettered), (.id, "<id>", IdentityNumbers.brazilian),
        (.card, "<card>", AccountNumbers.card), (.phone, "<phone>", TelephoneNumbers.match),
        (.ip, "<ip>", NetworkAddresses.internet), (.number, "<number>", AccountNumbers.otherNumber),
    ]

    /// The text with tokens in place of what was found; adds to `counts`.
    static func redact(_ text: String, _ counts: inout [CleaningRule: Int]) -> String {
        guard mayHold(text) else { return text }
        var scalars = Array(text.unicodeScalars)
        // A token that has come in can end a run in which nothing was to be found before; each pass leaves less to find.
        while true {
            let found = pass(&scalars, &counts)
            if !found { break }
        }
        return String(String.UnicodeScalarView(scalars))
    }

    /// Whether there is anything to look for: a digit of any script, or a mark that addresses and keys have.
    private static func mayHold(_ text: String) -> Bool {
        text.unicodeScalars.contains { scalar in
            if scalar.isASCII { return ("0"..."9").contains(scalar) || "@:._-".unicodeScalars.contains(scalar) }
            return DigitText.folded(scalar) != scalar || DigitText.ideographicDigit(scalar) != nil
        }
    }

    /// All rules once; `false` when none found anything.
    private static func pass(_ scalars: inout [Unicode.Scalar], _ counts: inout [CleaningRule: Int]) -> Bool {
        var found = false
        var source = DigitText(scalars)
        for (rule, token, match) in rules {
            var result: [Unicode.Scalar] = []
            var (index, matches) = (0, 0)
            while index < scalars.count {
                if let end = match(source, index), end > index {
                    result.append(contentsOf: token.unicodeScalars)
                    matches += 1
                    index = end
                } else {
                    result.append(scalars[index])
                    index += 1
                }
            }
            guard matches > 0 else { continue }
            counts[rule, default: 0] += matches
            found = true
            scalars = result
            source = DigitText(scalars)
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

/// A text with what matching asks of it again and again; scalar by scalar in the place of the one that it was made of.
struct DigitText {
    /// Digits of every script as ASCII ones, and full-width marks, dashes and blanks as those of ASCII.
    let scalars: [Unicode.Scalar]
    /// Digits of dates, times, years and amounts, which are no part of a number to hide.
    private let isHarmless: [Bool]

    init(_ original: [Unicode.Scalar]) {
        var scalars = original.map(Self.folded)
        // Telephone numbers and the like written out in ideographs; years have four of them.
        var start = 0
        while start < scalars.count {
            var end = start
            while end < scalars.count, Self.ideographicDigit(scalars[end]) != nil { end += 1 }
            if end - start >= 7 {
                for index in start..<end { scalars[index] = Self.digit(Self.ideographicDigit(scalars[index])) }
            }
            start = max(end, start + 1)
        }
        self.scalars = scalars
        isHarmless = HarmlessNumbers.marks(in: scalars)
    }

    /// What a scalar is to the rules.
    static func folded(_ scalar: Unicode.Scalar) -> Unicode.Scalar {
        if scalar.isASCII { return scalar }
        switch scalar.value {
        case 0xFF01...0xFF5E: return Unicode.Scalar(scalar.value - 0xFEE0) ?? scalar
        case 0xA0, 0x2007, 0x2009, 0x202F, 0x3000: return " "
        case 0x2010...0x2013, 0x2212, 0xFE63: return "-"
        case 0xFE6B: return "@"
        case 0x2019: return "'"
        default: break
        }
        guard scalar.properties.generalCategory == .decimalNumber else { return scalar }
        return digit(scalar.properties.numericValue.map { Int($0) })
    }

    /// 0 to 9 of an ideograph.
    static func ideographicDigit(_ scalar: Unicode.Scalar) -> Int? {
        guard (0x3007...0x96F6).contains(scalar.value) else { return nil }
        if scalar == "〇" || scalar == "零" { return 0 }
        return ["一", "二", "三", "四", "五", "六", "七", "八", "九"].firstIndex(of: scalar).map { $0 + 1 }
    }

    private static func digit(_ value: Int?) -> Unicode.Scalar {
        Unicode.Scalar(UInt8(0x30 + min(9, max(0, value ?? 0))))
    }

    var count: Int { scalars.count }

    func isDigit(_ index: Int) -> Bool {
        index >= 0 && index < scalars.count && (0x30...0x39).contains(scalars[index].value)
    }

    /// Whether a digit is one of a date, a time, a year or an amount.
    func isHarmless(_ index: Int) -> Bool { isHarmless[index] }

    /// A letter or mark of any script.
    func isAnyLetter(_ index: Int) -> Bool {
        guard let scalar = at(index) else { return false }
        return scalar.isASCII ? isLetter(index) : TextProfile.isLetter(scalar)
    }

    func isLetter(_ index: Int) -> Bool {
        guard index >= 0 && index < scalars.count else { return false }
        return (0x41...0x5A).contains(scalars[index].value & ~0x20) && scalars[index].isASCII
    }

    func isAlphanumeric(_ index: Int) -> Bool { isDigit(index) || isLetter(index) }

    func value(_ index: Int) -> Int { Int(scalars[index].value) - 0x30 }

    func number(_ range: Range<Int>) -> Int { range.reduce(0) { $0 * 10 + value($1) } }

    func isDigits(_ range: Range<Int>) -> Bool { range.upperBound <= count && range.allSatisfy(isDigit) }

    /// A letter of a word that digits may belong to, as in f11; scripts that write words without spaces have no such.
    func isWordLetter(_ index: Int) -> Bool { isAnyLetter(index) && !isUnspaced(index) && !isHangul(index) }

    /// Lower-cased.
    func word(_ range: Range<Int>) -> String? {
        guard !range.isEmpty, range.lowerBound >= 0, range.upperBound <= count else { return nil }
        return String(String.UnicodeScalarView(scalars[range])).lowercased()
    }

    /// A letter of a script that puts no spaces between words.
    func isUnspaced(_ index: Int) -> Bool { at(index).map { !$0.isASCII && TextProfile.isUnspaced($0) } ?? false }

    func isHangul(_ index: Int) -> Bool { at(index).map { (0xAC00...0xD7AF).contains($0.value) } ?? false }

    /// Whether an address that began at `index` would have begun before it.
    func continuesLocal(_ index: Int) -> Bool {
        guard let before = at(index - 1) else { return false }
        if isDigit(index - 1) { return true }
        // In front of what divides words a mark is part of an address only behind a letter.
        if isAnyLetter(index - 1) { return isUnspaced(index - 1) == isUnspaced(index) }
        guard "._%+-'".unicodeScalars.contains(before) else { return false }
        return before != "'" || isDigit(index - 2) || isAnyLetter(index - 2)
    }

    func has(_ text: String, at index: Int) -> Bool {
        let wanted = Array(text.unicodeScalars)
        guard index >= 0, index + wanted.count <= count else { return false }
        return wanted.indices.allSatisfy { scalars[index + $0].value | 0x20 == wanted[$0].value | 0x20 }
    }

    func at(_ index: Int) -> Unicode.Scalar? { index >= 0 && index < count ? scalars[index] : nil }

    func isHyphen(_ index: Int) -> Bool { at(index) == "-" }

    /// Groups of digits from `start` on, with one of `separators` between them; none of them in a date, time, year or amount.
    func groups(from start: Int, separators: String = " -") -> [Range<Int>] {
        var groups: [Range<Int>] = []
        var index = start
        while isDigit(index), !isHarmless[index] {
            var end = index
            while isDigit(end) { end += 1 }
            groups.append(index..<end)
            guard let separator = at(end), separators.unicodeScalars.contains(separator) else { break }
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
