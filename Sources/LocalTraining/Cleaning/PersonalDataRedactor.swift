/// Replaces personal data that have a recognisable form: network addresses, bank and identity numbers, cards, telephone numbers, keys.
///
/// Rules apply in order, each to the text that the rules before it left. No rule matches inside a longer run of digits. Digits of every
/// script count as digits. Dates, times, years, amounts and versions stay. Names and street addresses have no such form and are not
/// found.
public enum PersonalDataRedactor {
    /// The stand-ins for redacted data; each is one token of a vocabulary and is never suggested.
    public static let tokens = ["<url>", "<email>", "<iban>", "<id>", "<card>", "<phone>", "<ip>", "<number>", "<key>"]

    private static let rules: [(rule: CleaningRule, token: String, match: @Sendable (DigitText, Int) -> Int?)] = [
        (.url, "<url>", NetworkAddresses.url), (.email, "<email>", NetworkAddresses.email), (.key, "<key>", Keys.match),
        (.iban, "<iban>", AccountNumbers.iban), (.id, "<id>", IdentityNumbers.chinese18),
        (.id, "<id>", IdentityNumbers.chinese15), (.id, "<id>", IdentityNumbers.socialSecurity),
        (.id, "<id>", IdentityNumbers.lettered), (.id, "<id>", IdentityNumbers.brazilian),
        (.card, "<card>", AccountNumbers.card), (.phone, "<phone>", TelephoneNumbers.match),
        (.ip, "<ip>", NetworkAddresses.internet), (.number, "<number>", AccountNumbers.otherNumber),
    ]

    /// The text with stand-ins for what was found; adds to `counts`.
    static func redact(_ text: String, _ counts: inout [CleaningRule: Int]) -> String {
        guard mayHold(text) else { return text }
        var scalars = Array(text.unicodeScalars)
        // A stand-in may split a run in which nothing matched before, so passes repeat until one finds nothing.
        while true {
            let found = pass(&scalars, &counts)
            if !found { break }
        }
        return String(String.UnicodeScalarView(scalars))
    }

    /// Whether a match is possible: the text has a digit of any script, or a mark of addresses and keys.
    private static func mayHold(_ text: String) -> Bool {
        text.unicodeScalars.contains { scalar in
            if scalar.isASCII { return ("0"..."9").contains(scalar) || "@:._-".unicodeScalars.contains(scalar) }
            return DigitText.folded(scalar) != scalar || DigitText.ideographicDigit(scalar) != nil
        }
    }

    /// Applies all rules once; `false` if none matched.
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

    /// The text without stand-ins.
    static func withoutTokens(_ text: String) -> String {
        guard text.utf8.contains(UInt8(ascii: "<")) else { return text }
        return tokens.reduce(text) { $0.replacing($1, with: "") }
    }
}

/// A text prepared for matching.
///
/// Each scalar has the same index as the scalar of the original text.
struct DigitText {
    /// Digits of every script as ASCII ones, and full-width marks, dashes and blanks as those of ASCII.
    let scalars: [Unicode.Scalar]
    /// For each scalar, whether it is a digit of a date, a time, a year or an amount, which is no part of a number to hide.
    private let isHarmless: [Bool]

    init(_ original: [Unicode.Scalar]) {
        var scalars = original.map(Self.folded)
        // Numbers written in ideographs, such as telephone numbers. Years have four.
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

    /// The scalar that the rules see in place of this one.
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

    /// Whether a letter belongs to words that may contain digits, as in f11; not in scripts without spaces between words.
    func isWordLetter(_ index: Int) -> Bool { isAnyLetter(index) && !isUnspaced(index) && !isHangul(index) }

    /// Lower-cased.
    func word(_ range: Range<Int>) -> String? {
        guard !range.isEmpty, range.lowerBound >= 0, range.upperBound <= count else { return nil }
        return String(String.UnicodeScalarView(scalars[range])).lowercased()
    }

    /// A letter of a script that puts no spaces between words.
    func isUnspaced(_ index: Int) -> Bool { at(index).map { !$0.isASCII && TextProfile.isUnspaced($0) } ?? false }

    func isHangul(_ index: Int) -> Bool { at(index).map { (0xAC00...0xD7AF).contains($0.value) } ?? false }

    /// Whether an e-mail address that contains `index` began before it.
    func continuesLocal(_ index: Int) -> Bool {
        guard let before = at(index - 1) else { return false }
        if isDigit(index - 1) { return true }
        // A letter continues the address if both or neither are of a script without spaces, an apostrophe only behind a letter or digit.
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

    /// Groups of digits from `start` on with one of `separators` between them, without digits of dates, times, years and amounts.
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
