// Each function returns the end of a match that begins at an index, or nil.

/// URLs, e-mail, IP and MAC addresses.
enum NetworkAddresses {
    static func url(_ text: DigitText, _ start: Int) -> Int? {
        let scheme = ["http://", "https://", "ftp://", "ssh://", "ws://", "wss://", "www."].first {
            text.has($0, at: start)
        }
        guard let scheme else { return bareURL(text, start) }
        guard scheme != "www." || !text.isAlphanumeric(start - 1) else { return nil }
        let begin = start + scheme.unicodeScalars.count
        let end = endOfURL(text, begin)
        return end > begin ? end : nil
    }

    private static func endOfURL(_ text: DigitText, _ begin: Int) -> Int {
        var end = begin
        while let scalar = text.at(end), !endsURL(scalar) { end += 1 }
        while end > begin, let last = text.at(end - 1), ".,;:!?".unicodeScalars.contains(last) { end -= 1 }
        return end
    }

    /// A host of a usual domain with a path, without a scheme in front.
    private static func bareURL(_ text: DigitText, _ start: Int) -> Int? {
        func isHost(_ index: Int) -> Bool {
            text.isAlphanumeric(index) || text.isHyphen(index) || text.at(index) == "."
        }
        guard text.isAlphanumeric(start), !isHost(start - 1), text.at(start - 1) != "@", text.at(start - 1) != "/"
        else {
            return nil
        }
        var end = start
        while isHost(end) { end += 1 }
        guard text.at(end) == "/" || text.at(end) == "?" else { return nil }
        var label = end
        while label > start, text.at(label - 1) != "." { label -= 1 }
        guard label > start + 1, let top = text.word(label..<end), topDomains.contains(top) else { return nil }
        let last = endOfURL(text, end)
        // "yes.no/maybe" is three words. With such a domain only a path with digits or marks makes it an address.
        let isPlain = !(end..<last).contains { text.isDigit($0) || "?=&_".unicodeScalars.contains(text.scalars[$0]) }
        if isPlain, commonWords.contains(top) { return nil }
        return last > end + 1 ? last : nil
    }

    /// Domains that are words as well.
    private static let commonWords: Set<String> = [
        "in", "no", "at", "me", "us", "be", "it", "id", "my", "de", "es", "se", "info", "page", "site", "shop", "link",
        "cloud",
        "online", "app", "co", "ai", "ca", "eu", "net",
    ]

    private static let topDomains: Set<String> = [
        "com", "org", "net", "edu", "gov", "int", "info", "biz", "app", "dev", "io", "ai", "co", "me", "tv", "ly", "gl",
        "eu",
        "uk", "ie", "us", "ca", "au", "nz", "in", "za", "de", "at", "ch", "fr", "be", "nl", "es", "pt", "br", "mx",
        "ar", "cl",
        "it", "pl", "cz", "se", "no", "dk", "fi", "ru", "ua", "tr", "cn", "tw", "hk", "jp", "kr", "sg", "th", "vn",
        "id", "my",
        "ae", "sa", "eg", "il", "ir", "link", "site", "online", "shop", "cloud", "page", "xyz",
    ]

    /// Whether a scalar ends a URL: white space, quotes, brackets, or East Asian punctuation that has no ASCII form.
    private static func endsURL(_ scalar: Unicode.Scalar) -> Bool {
        if scalar.properties.isWhitespace || "\"'`<>()[]{}“”‘’«»".unicodeScalars.contains(scalar) { return true }
        return (0x3001...0x303F).contains(scalar.value) || (0xFF5F...0xFF65).contains(scalar.value)
    }

    static func email(_ text: DigitText, _ start: Int) -> Int? {
        guard isLocal(text, start), !text.continuesLocal(start), let at = endOfLocal(text, start) else { return nil }
        return endOfHost(text, at + 1)
    }

    private static func isLocal(_ text: DigitText, _ index: Int) -> Bool {
        text.isDigit(index) || text.isAnyLetter(index)
            || text.at(index).map { "._%+-'".unicodeScalars.contains($0) } ?? false
    }

    /// The index of the `@` behind a local part that begins here; `nil` if there is none.
    private static func endOfLocal(_ text: DigitText, _ start: Int) -> Int? {
        var at = start
        while isLocal(text, at) {
            // In scripts without spaces, an address in Latin letters begins with the first of them.
            if at > start, text.isUnspaced(at) != text.isUnspaced(at - 1) { return nil }
            at += 1
        }
        return text.at(at) == "@" && text.at(start) != "'" ? at : nil
    }

    /// The longest host that ends in a dot and 2 to 24 letters of one kind.
    private static func endOfHost(_ text: DigitText, _ begin: Int) -> Int? {
        var end = begin
        var label = begin
        while text.isDigit(end) || text.isAnyLetter(end) || text.at(end) == "." || text.isHyphen(end) {
            // A domain in Latin letters ends where another script goes on without a space.
            if label > begin, end >= label + 2, text.isAlphanumeric(end - 1), !text.isAlphanumeric(end),
                text.isUnspaced(end)
            {
                break
            }
            end += 1
            if text.at(end - 1) == "." { label = end }
        }
        while end > begin {
            var label = end
            while label > begin, text.at(label - 1) != "." { label -= 1 }
            if label > begin + 1, text.isDigit(begin) || text.isAnyLetter(begin), text.at(label - 2) != ".",
                let top = endOfTopDomain(text, label..<end)
            {
                return top
            }
            end = label - 1
        }
        return nil
    }

    private static func endOfTopDomain(_ text: DigitText, _ label: Range<Int>) -> Int? {
        if text.isUnspaced(label.lowerBound) || text.isHangul(label.lowerBound) {
            return unspacedDomains.first { text.has($0, at: label.lowerBound) }
                .map { label.lowerBound + $0.unicodeScalars.count }
        }
        if text.has("xn--", at: label.lowerBound) { return label.upperBound }
        let isASCII = text.isLetter(label.lowerBound)
        guard (2...24).contains(label.count), label.allSatisfy({ text.isLetter($0) == isASCII && text.isAnyLetter($0) })
        else {
            return nil
        }
        return label.upperBound
    }

    /// Top-level domains in scripts without spaces, after which a sentence may go on directly.
    ///
    /// Longer ones come before their prefixes.
    private static let unspacedDomains = [
        "中国", "中國", "公司", "网络", "網絡", "香港", "台湾", "台灣", "新加坡", "澳門", "澳门", "在线", "网址", "商城", "移动", "みんな",
        "コム", "世界", "한국", "닷컴", "닷넷", "ไทย", "คอม",
    ]

    static func internet(_ text: DigitText, _ start: Int) -> Int? {
        guard text.isDigit(start) || text.isLetter(start) || text.at(start) == ":", !text.isAlphanumeric(start - 1),
            text.at(start - 1) != ":"
        else { return nil }
        return version4(text, start) ?? hardware(text, start) ?? version6(text, start)
    }

    private static func version4(_ text: DigitText, _ start: Int) -> Int? {
        guard text.at(start - 1) != ".", !isVersion(text, start) else { return nil }
        var index = start
        var isLong = false
        for octet in 0..<4 {
            var end = index
            while text.isDigit(end) { end += 1 }
            isLong = isLong || end - index > 1
            guard (1...3).contains(end - index), text.number(index..<end) < 256 else { return nil }
            if octet < 3 {
                guard text.at(end) == "." else { return nil }
                end += 1
            }
            index = end
        }
        // Four single digits are a section or a version. Real addresses of that form belong to public services.
        guard isLong else { return nil }
        return text.isAlphanumeric(index) || (text.at(index) == "." && text.isDigit(index + 1)) ? nil : index
    }

    /// Whether a word for "version" is in front.
    private static func isVersion(_ text: DigitText, _ start: Int) -> Bool {
        var end = start
        while let scalar = text.at(end - 1), " :.-".unicodeScalars.contains(scalar) { end -= 1 }
        var begin = end
        while begin > 0, end - begin < 12, text.isAnyLetter(begin - 1) { begin -= 1 }
        guard let word = text.word(begin..<end) else { return false }
        return ["v", "ver", "release", "firmware"].contains(word)
            || ["versi", "versão", "верси", "版本", "버전", "바전", "إصدار", "الإصدار", "संस्करण", "เวอร์ชัน", "バージョン"].contains {
                word.hasPrefix($0) || word.hasSuffix($0)
            }
    }

    private static func hexadecimals(_ text: DigitText, _ start: Int) -> Int {
        var end = start
        while let scalar = text.at(end), scalar.isASCII, scalar.properties.isASCIIHexDigit { end += 1 }
        return end - start
    }

    private static func hardware(_ text: DigitText, _ start: Int) -> Int? {
        guard let separator = text.at(start + 2), separator == ":" || separator == "-" else { return nil }
        for octet in 0..<6 {
            let index = start + 3 * octet
            guard hexadecimals(text, index) == 2, octet == 5 || text.at(index + 2) == separator else { return nil }
        }
        let end = start + 17
        return text.isAlphanumeric(end) || text.at(end) == separator ? nil : end
    }

    private static func version6(_ text: DigitText, _ start: Int) -> Int? {
        var (index, groups, gaps) = (start, 0, 0)
        while true {
            let digits = hexadecimals(text, index)
            guard digits <= 4 else { return nil }
            if digits > 0 {
                groups += 1
                index += digits
            }
            guard text.at(index) == ":" else { break }
            if text.at(index + 1) == ":" {
                gaps += 1
                index += 2
            } else {
                guard hexadecimals(text, index + 1) > 0 else { break }
                index += 1
            }
        }
        guard !text.isAlphanumeric(index), gaps == 1 ? (2...7).contains(groups) : gaps == 0 && groups == 8 else {
            return nil
        }
        return index
    }
}

/// Bank accounts, payment cards, and other long numbers.
enum AccountNumbers {
    static func iban(_ text: DigitText, _ start: Int) -> Int? {
        guard text.isLetter(start), text.isLetter(start + 1), text.isDigits(start + 2..<start + 4),
            !text.isAlphanumeric(start - 1)
        else { return nil }
        let isLower = (text.at(start)?.value ?? 0) & 0x20 != 0
        var (symbols, ends) = ([Unicode.Scalar](), [(end: Int, count: Int)]())
        var index = start
        while symbols.count < 34, let scalar = text.at(index) {
            if text.isDigit(index) || (text.isLetter(index) && (scalar.value & 0x20 != 0) == isLower) {
                symbols.append(scalar)
                if !text.isAlphanumeric(index + 1) { ends.append((index + 1, symbols.count)) }
            } else if scalar != " " || text.at(index - 1) == " " {
                break
            }
            index += 1
        }
        for (end, count) in ends.reversed() where count >= 15 {
            let moved = symbols[4..<count] + symbols[..<4]
            let remainder = moved.reduce(0) { rest, scalar in
                let value = Int(scalar.value)
                return value < 0x40 ? (rest * 10 + value - 0x30) % 97 : (rest * 100 + (value & ~0x20) - 55) % 97
            }
            if remainder == 1 { return end }
        }
        return nil
    }

    static func card(_ text: DigitText, _ start: Int) -> Int? {
        guard text.isDigit(start), !text.isDigit(start - 1), ("2"..."6").contains(text.scalars[start]) else {
            return nil
        }
        let groups = text.groups(from: start)
        for last in groups.indices.reversed() {
            let digits = groups[...last].flatMap { $0 }
            guard (13...19).contains(digits.count) else { continue }
            // Cards that begin with 2 have sixteen digits and begin with 2200 or more.
            if digits.count != 16, text.value(start) == 2 { continue }
            if text.value(start) == 2, digits[..<4].reduce(0, { $0 * 10 + text.value($1) }) < 2200 { continue }
            if hasValidLuhn(digits.map(text.value)) { return groups[last].upperBound }
        }
        return nil
    }

    private static func hasValidLuhn(_ digits: [Int]) -> Bool {
        let sum = digits.reversed().enumerated().reduce(0) { sum, item in
            let doubled = item.element * 2
            return sum + (item.offset % 2 == 0 ? item.element : doubled > 9 ? doubled - 9 : doubled)
        }
        return sum % 10 == 0
    }

    static func otherNumber(_ text: DigitText, _ start: Int) -> Int? {
        guard text.isDigit(start), !text.isDigit(start - 1), !text.isHarmless(start) else { return nil }
        var groups = text.groups(from: start)
        // Digits at a word, such as f11, belong to it; digits after a space do not.
        if text.isWordLetter(start - 1) { groups = Array(groups.prefix(1)) }
        return groups.reduce(0) { $0 + $1.count } >= 9 ? groups.last?.upperBound : nil
    }
}

/// Identity numbers with a form of their own; others are found as long numbers.
enum IdentityNumbers {
    static func chinese18(_ text: DigitText, _ start: Int) -> Int? {
        guard !text.isDigit(start - 1), text.isDigits(start..<start + 17), text.value(start) != 0 else { return nil }
        let end = start + 18
        guard text.isDigit(end - 1) || text.has("x", at: end - 1), !text.isAlphanumeric(end) else { return nil }
        let year = text.number(start + 6..<start + 10)
        guard (1800...2099).contains(year),
            DigitText.isDate(
                year: year,
                month: text.number(start + 10..<start + 12),
                day: text.number(start + 12..<start + 14)
            )
        else { return nil }
        // ISO 7064, mod 11-2.
        let weights = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2]
        let sum = weights.enumerated().reduce(0) { $0 + $1.element * text.value(start + $1.offset) }
        let check = Array("10X98765432".unicodeScalars)[sum % 11]
        return text.has(String(check), at: end - 1) ? end : nil
    }

    static func chinese15(_ text: DigitText, _ start: Int) -> Int? {
        let end = start + 15
        guard !text.isDigit(start - 1), text.isDigits(start..<end), !text.isDigit(end), text.value(start) != 0,
            DigitText.isDate(
                year: 1900 + text.number(start + 6..<start + 8),
                month: text.number(start + 8..<start + 10),
                day: text.number(start + 10..<start + 12)
            )
        else { return nil }
        return end
    }

    static func socialSecurity(_ text: DigitText, _ start: Int) -> Int? {
        let end = start + 11
        guard !text.isDigit(start - 1), !text.isHyphen(start - 1), text.isDigits(start..<start + 3),
            text.isHyphen(start + 3), text.isDigits(start + 4..<start + 6), text.isHyphen(start + 6),
            text.isDigits(start + 7..<end), !text.isDigit(end), !text.isHyphen(end) || !text.isDigit(end + 1)
        else { return nil }
        let area = text.number(start..<start + 3)
        guard area != 0, area != 666, area < 900, text.number(start + 4..<start + 6) != 0,
            text.number(start + 7..<end) != 0
        else { return nil }
        return end
    }

    /// Letters and digits in a fixed order: Spain's, Italy's, Britain's and India's.
    static func lettered(_ text: DigitText, _ start: Int) -> Int? {
        guard text.isAlphanumeric(start), !text.isAlphanumeric(start - 1) else { return nil }
        for form in ["99999999A", "A9999999A", "AAAAAA99A99A999A", "AA999999A", "AAAAA9999A"] {
            let end = start + form.utf8.count
            guard !text.isAlphanumeric(end), end <= text.count else { continue }
            let isForm = zip(form.utf8, start..<end).allSatisfy { symbol, index in
                symbol == UInt8(ascii: "9") ? text.isDigit(index) : text.isLetter(index)
            }
            guard isForm, hasCheckLetter(text, start..<end) else { continue }
            return end
        }
        return nil
    }

    /// Spain's last letter is a remainder of the number; the other forms have no check as simple as that.
    private static func hasCheckLetter(_ text: DigitText, _ range: Range<Int>) -> Bool {
        guard range.count == 9, !text.isLetter(range.lowerBound + 1) else { return true }
        var number = 0
        if text.isLetter(range.lowerBound) {
            guard
                let place = "xyz".unicodeScalars.map({ String($0) }).firstIndex(where: {
                    text.has($0, at: range.lowerBound)
                })
            else { return false }
            number = place * 10_000_000 + text.number(range.lowerBound + 1..<range.upperBound - 1)
        } else {
            number = text.number(range.lowerBound..<range.upperBound - 1)
        }
        let letter = Array("TRWAGMYFPDXBNJZSQVHLCKE".unicodeScalars)[number % 23]
        return text.has(String(letter), at: range.upperBound - 1)
    }

    /// 123.456.789-09.
    static func brazilian(_ text: DigitText, _ start: Int) -> Int? {
        let end = start + 14
        guard !text.isDigit(start - 1), text.at(start - 1) != ".", end <= text.count, !text.isDigit(end) else {
            return nil
        }
        let isForm = zip("999.999.999-99".unicodeScalars, start..<end).allSatisfy { symbol, index in
            symbol == "9" ? text.isDigit(index) : text.at(index) == symbol
        }
        return isForm ? end : nil
    }
}

/// Telephone numbers: national forms, and international ones.
enum TelephoneNumbers {
    static func match(_ text: DigitText, _ start: Int) -> Int? {
        guard !text.isDigit(start - 1) else { return nil }
        if text.at(start) == "+" { return mobile(text, afterCountryCode: start) ?? international(text, start) }
        if text.at(start) == "(" { return northAmerican(text, start) ?? withAreaCode(text, start) }
        guard text.isDigit(start), !text.isHarmless(start) else { return nil }
        return mobile(text, start) ?? landline(text, start) ?? divided(text, start) ?? behindTrunkCode(text, start)
    }

    private static func mobile(_ text: DigitText, afterCountryCode start: Int) -> Int? {
        guard text.has("+86", at: start) else { return nil }
        let next = start + 3
        return mobile(text, text.at(next) == " " || text.isHyphen(next) ? next + 1 : next)
    }

    /// Eleven digits, or 3-4-4 with spaces or hyphens.
    private static func mobile(_ text: DigitText, _ start: Int) -> Int? {
        guard text.at(start) == "1", let second = text.at(start + 1), ("3"..."9").contains(second) else { return nil }
        if text.isDigits(start..<start + 11) && !text.isDigit(start + 11) { return start + 11 }
        let groups = text.groups(from: start)
        return groups.map(\.count) == [3, 4, 4] ? groups[2].upperBound : nil
    }

    private static func landline(_ text: DigitText, _ start: Int) -> Int? {
        guard text.at(start) == "0" else { return nil }
        let groups = text.groups(from: start)
        guard groups.count == 2, (3...4).contains(groups[0].count), (7...8).contains(groups[1].count),
            text.isHyphen(groups[0].upperBound)
        else { return nil }
        return groups[1].upperBound
    }

    /// National numbers divided by dots or slashes: 06.12.34.56.78, 030/1234567, 415.555.2671.
    private static func divided(_ text: DigitText, _ start: Int) -> Int? {
        guard !text.isWordLetter(start - 1), text.at(start - 1) != "." else { return nil }
        let groups = text.groups(from: start, separators: ".-/ ")
        let counts = groups.map(\.count)
        let marks = groups.dropLast().map { text.at($0.upperBound) }
        guard marks.contains("."), !marks.contains("/") else {
            let isTrunk = text.at(start) == "0" && counts.count >= 2 && (3...6).contains(counts[0])
            return isTrunk && marks.first == "/" && (9...13).contains(counts.reduce(0, +))
                ? groups.last?.upperBound : nil
        }
        if counts == [3, 3, 4], marks.allSatisfy({ $0 == "." }) { return groups[2].upperBound }
        guard text.at(start) == "0", counts[0] >= 2, counts.allSatisfy({ $0 >= 2 }) else { return nil }
        return (9...11).contains(counts.reduce(0, +)) ? groups.last?.upperBound : nil
    }

    /// 8 (912) 345-67-89.
    private static func behindTrunkCode(_ text: DigitText, _ start: Int) -> Int? {
        guard !text.isDigit(start + 1), !text.isWordLetter(start - 1) else { return nil }
        let open = text.at(start + 1) == "(" ? start + 1 : start + 2
        guard text.at(open) == "(", open == start + 1 || " -".unicodeScalars.contains(text.scalars[start + 1]) else {
            return nil
        }
        return withAreaCode(text, open)
    }

    /// (912) 345-67-89, (11) 91234-5678: an area code in parentheses, ten digits or more.
    private static func withAreaCode(_ text: DigitText, _ open: Int) -> Int? {
        var close = open + 1
        while text.isDigit(close) { close += 1 }
        guard (2...5).contains(close - open - 1), text.at(close) == ")" else { return nil }
        let begin = text.at(close + 1) == " " || text.isHyphen(close + 1) ? close + 2 : close + 1
        guard text.isDigit(begin) else { return nil }
        let groups = text.groups(from: begin)
        let count = close - open - 1 + groups.reduce(0) { $0 + $1.count }
        return (10...12).contains(count) ? groups.last?.upperBound : nil
    }

    private static func international(_ text: DigitText, _ start: Int) -> Int? {
        var (index, end, digits, zeros) = (start + 1, start + 1, 0, 0)
        while let scalar = text.at(index) {
            if text.isDigit(index) {
                digits += 1
                zeros = scalar == "0" ? zeros + 1 : 0
                end = index + 1
            } else if !" -().".unicodeScalars.contains(scalar) || text.at(index - 1) == scalar {
                break
            }
            index += 1
        }
        // +100 000 000 is an amount.
        return (8...15).contains(digits) && zeros < 6 && text.isDigit(start + 1) && text.at(start + 1) != "0"
            ? end : nil
    }

    private static func northAmerican(_ text: DigitText, _ start: Int) -> Int? {
        guard text.isDigits(start + 1..<start + 4), text.at(start + 4) == ")" else { return nil }
        let next = text.at(start + 5) == " " ? start + 6 : start + 5
        guard text.isDigits(next..<next + 3), text.isHyphen(next + 3) || text.at(next + 3) == " ",
            text.isDigits(next + 4..<next + 8), !text.isDigit(next + 8)
        else { return nil }
        return next + 8
    }
}

/// API keys and access tokens.
enum Keys {
    private static let prefixes = [
        "sk-", "sk_", "pk_", "rk_", "ghp_", "gho_", "ghs_", "github_pat_", "glpat-", "xoxb-", "xoxp-", "xoxa-", "akia",
        "asia",
        "aiza", "hf_", "npm_", "pypi-", "eyj", "ya29.",
    ]

    static func match(_ text: DigitText, _ start: Int) -> Int? {
        guard text.isAlphanumeric(start), !isPart(text, start - 1) else { return nil }
        var end = start
        while isPart(text, end) || (text.at(end) == "." && isPart(text, end + 1)) { end += 1 }
        let length = end - start
        guard length >= 16 else { return nil }
        if prefixes.contains(where: { text.has($0, at: start) }), length >= 20 { return end }
        if isUUID(text, start..<end) { return end }
        // Letters and digits mixed as in no word.
        guard length >= 24, !(start..<end).contains(where: { text.at($0) == "." || text.isHyphen($0) }) else {
            return nil
        }
        let digits = (start..<end).count(where: text.isDigit)
        let changes = (start..<(end - 1)).count { text.isDigit($0) != text.isDigit($0 + 1) }
        return digits >= 4 && length - digits >= 4 && changes >= 6 ? end : nil
    }

    private static func isPart(_ text: DigitText, _ index: Int) -> Bool {
        text.isAlphanumeric(index) || text.at(index) == "_" || text.isHyphen(index)
    }

    private static func isUUID(_ text: DigitText, _ range: Range<Int>) -> Bool {
        guard range.count == 36 else { return false }
        return range.allSatisfy { index in
            [8, 13, 18, 23].contains(index - range.lowerBound)
                ? text.isHyphen(index) : text.scalars[index].properties.isASCIIHexDigit
        }
    }
}
