// Each function answers where a match that begins at an index ends, or nil.

/// URLs, e-mail, IP and MAC addresses.
enum NetworkAddresses {
    static func url(_ text: DigitText, _ start: Int) -> Int? {
        let scheme = ["http://", "https://", "ftp://", "www."].first { text.has($0, at: start) }
        guard let scheme, scheme != "www." || !text.isAlphanumeric(start - 1) else { return nil }
        let begin = start + scheme.unicodeScalars.count
        var end = begin
        while let scalar = text.at(end), !endsURL(scalar) { end += 1 }
        while end > begin, let last = text.at(end - 1), ".,;:!?".unicodeScalars.contains(last) { end -= 1 }
        return end > begin ? end : nil
    }

    private static func endsURL(_ scalar: Unicode.Scalar) -> Bool {
        if scalar.properties.isWhitespace || "\"'`<>()[]{}“”‘’«»".unicodeScalars.contains(scalar) { return true }
        switch scalar.value {
        case 0x3000...0x303F, 0xFF00...0xFF0F, 0xFF1A...0xFF20, 0xFF3B...0xFF40, 0xFF5B...0xFF65: return true
        default: return false
        }
    }

    static func email(_ text: DigitText, _ start: Int) -> Int? {
        func isLocal(_ index: Int) -> Bool {
            text.isAlphanumeric(index) || text.at(index).map { "._%+-".unicodeScalars.contains($0) } ?? false
        }
        guard isLocal(start), !isLocal(start - 1) else { return nil }
        var at = start
        while isLocal(at) { at += 1 }
        guard text.at(at) == "@" else { return nil }
        var end = at + 1
        while text.isAlphanumeric(end) || text.at(end) == "." || text.at(end) == "-" { end += 1 }
        // The longest host that ends in a dot and 2 to 24 letters.
        while end > at + 1 {
            var label = end
            while label > at + 1, text.at(label - 1) != "." { label -= 1 }
            let isTop = (2...24).contains(end - label) && (label..<end).allSatisfy(text.isLetter)
            if isTop && label > at + 2 && text.isAlphanumeric(at + 1) && text.isAlphanumeric(label - 2) { return end }
            end = label - 1
        }
        return nil
    }

    static func internet(_ text: DigitText, _ start: Int) -> Int? {
        guard !text.isAlphanumeric(start - 1), text.at(start - 1) != ":" else { return nil }
        return version4(text, start) ?? hardware(text, start) ?? version6(text, start)
    }

    private static func version4(_ text: DigitText, _ start: Int) -> Int? {
        guard text.at(start - 1) != "." else { return nil }
        var index = start
        for octet in 0..<4 {
            var end = index
            while text.isDigit(end) { end += 1 }
            guard (1...3).contains(end - index), text.number(index..<end) < 256 else { return nil }
            if octet < 3 {
                guard text.at(end) == "." else { return nil }
                end += 1
            }
            index = end
        }
        return text.isAlphanumeric(index) || (text.at(index) == "." && text.isDigit(index + 1)) ? nil : index
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

/// Bank accounts, payment cards, and long numbers of whatever kind.
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
        guard text.isDigit(start), !text.isDigit(start - 1), ("3"..."6").contains(text.scalars[start]) else {
            return nil
        }
        let groups = text.groups(from: start)
        for last in groups.indices.reversed() {
            let digits = groups[...last].flatMap { $0 }
            guard (13...19).contains(digits.count) else { continue }
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
        guard text.isDigit(start), !text.isDigit(start - 1) else { return nil }
        let groups = text.groups(from: start)
        return groups.reduce(0) { $0 + $1.count } >= 9 ? groups.last?.upperBound : nil
    }
}

/// Chinese and American identity numbers.
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
        guard !text.isDigit(start - 1), text.at(start - 1) != "-", text.isDigits(start..<start + 3),
            text.at(start + 3) == "-", text.isDigits(start + 4..<start + 6), text.at(start + 6) == "-",
            text.isDigits(start + 7..<end), !text.isDigit(end), text.at(end) != "-" || !text.isDigit(end + 1)
        else { return nil }
        let area = text.number(start..<start + 3)
        guard area != 0, area != 666, area < 900, text.number(start + 4..<start + 6) != 0,
            text.number(start + 7..<end) != 0
        else { return nil }
        return end
    }
}

/// Telephone numbers of China, of North America, and international ones.
enum TelephoneNumbers {
    static func match(_ text: DigitText, _ start: Int) -> Int? {
        guard !text.isDigit(start - 1) else { return nil }
        if text.at(start) == "+" { return mobile(text, afterCountryCode: start) ?? international(text, start) }
        if text.at(start) == "(" { return northAmerican(text, start) }
        return mobile(text, start) ?? landline(text, start)
    }

    private static func mobile(_ text: DigitText, afterCountryCode start: Int) -> Int? {
        guard text.has("+86", at: start) else { return nil }
        let next = start + 3
        return mobile(text, text.at(next) == " " || text.at(next) == "-" ? next + 1 : next)
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
            text.at(groups[0].upperBound) == "-"
        else { return nil }
        return groups[1].upperBound
    }

    private static func international(_ text: DigitText, _ start: Int) -> Int? {
        var (index, end, digits) = (start + 1, start + 1, 0)
        while let scalar = text.at(index) {
            if text.isDigit(index) {
                digits += 1
                end = index + 1
            } else if !" -().".unicodeScalars.contains(scalar) || text.at(index - 1) == scalar {
                break
            }
            index += 1
        }
        return (8...15).contains(digits) && text.isDigit(start + 1) ? end : nil
    }

    private static func northAmerican(_ text: DigitText, _ start: Int) -> Int? {
        guard text.isDigits(start + 1..<start + 4), text.at(start + 4) == ")" else { return nil }
        let next = text.at(start + 5) == " " ? start + 6 : start + 5
        guard text.isDigits(next..<next + 3), text.at(next + 3) == "-" || text.at(next + 3) == " ",
            text.isDigits(next + 4..<next + 8), !text.isDigit(next + 8)
        else { return nil }
        return next + 8
    }
}
