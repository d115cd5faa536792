/// A reader of JSON that takes what RFC 8259 calls JSON and nothing else.
///
/// A document that two readers understand differently gets past the one that checks it. Whatever RFC 8259 leaves open is therefore
/// refused: a name that comes twice in an object, a lone surrogate, a number that no double holds, a byte order mark, any
/// encoding but UTF-8. Nesting and the number of values are limited, so no document exhausts the stack or the memory.
struct JSONParser {
    /// The deepest nesting that is read.
    static let depthLimit = 64

    private let bytes: [UInt8]
    private var position = 0
    private var depth = 0
    private let valueLimit: Int
    private var valueCount = 0

    init(_ bytes: [UInt8], valueLimit: Int) { (self.bytes, self.valueLimit) = (bytes, valueLimit) }

    /// Parses the text, which must be exactly one value.
    mutating func document() throws(JSONError) -> JSONValue {
        skipSpace()
        let value = try value()
        skipSpace()
        guard position == bytes.count else { throw unexpected("nothing more") }
        return value
    }

    private mutating func value() throws(JSONError) -> JSONValue {
        guard let byte = current else { throw unexpected("a value") }
        valueCount += 1
        guard valueCount <= valueLimit else {
            throw failure("there are more than \(valueLimit) values", at: position)
        }
        switch byte {
        case UInt8(ascii: "{"): return try object()
        case UInt8(ascii: "["): return try array()
        case UInt8(ascii: "\""): return .string(try string())
        case UInt8(ascii: "t"): return try word("true", .boolean(true))
        case UInt8(ascii: "f"): return try word("false", .boolean(false))
        case UInt8(ascii: "n"): return try word("null", .null)
        case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"): return try number()
        default: throw unexpected("a value")
        }
    }

    private mutating func object() throws(JSONError) -> JSONValue {
        try enter()
        var fields: [String: JSONValue] = [:]
        skipSpace()
        guard !take(UInt8(ascii: "}")) else { return leave(.object(fields)) }
        while true {
            guard current == UInt8(ascii: "\"") else { throw unexpected("a name in quotes") }
            let start = position
            let name = try string()
            skipSpace()
            guard take(UInt8(ascii: ":")) else { throw unexpected("':'") }
            skipSpace()
            // Swift compares strings by canonical equivalence: é is one key, written as one code point or as two. To RFC 8259
            // these are two names.
            if let place = fields.index(forKey: name) {
                let isSame = fields[place].key.utf8.elementsEqual(name.utf8)
                let twice = isSame ? "comes twice" : "comes twice, written with different code points,"
                throw failure("the name \(name.prefix(60).debugDescription) \(twice) in one object", at: start)
            }
            fields[name] = try value()
            skipSpace()
            if take(UInt8(ascii: "}")) { return leave(.object(fields)) }
            guard take(UInt8(ascii: ",")) else { throw unexpected("',' or '}'") }
            skipSpace()
        }
    }

    private mutating func array() throws(JSONError) -> JSONValue {
        try enter()
        var items: [JSONValue] = []
        skipSpace()
        guard !take(UInt8(ascii: "]")) else { return leave(.array(items)) }
        while true {
            items.append(try value())
            skipSpace()
            if take(UInt8(ascii: "]")) { return leave(.array(items)) }
            guard take(UInt8(ascii: ",")) else { throw unexpected("',' or ']'") }
            skipSpace()
        }
    }

    // MARK: - Scalars

    private mutating func word(_ text: StaticString, _ value: JSONValue) throws(JSONError) -> JSONValue {
        let end = position + text.utf8CodeUnitCount
        let isThere = end <= bytes.count && text.withUTF8Buffer { bytes[position..<end].elementsEqual($0) }
        guard isThere else { throw failure("expected \(text)", at: position) }
        position = end
        return value
    }

    private mutating func number() throws(JSONError) -> JSONValue {
        let start = position
        let isNegative = take(UInt8(ascii: "-"))
        let first = current
        var magnitude = 0
        let wholeCount = digits { magnitude = $0 < 16 ? 10 * magnitude + $1 : magnitude }
        guard wholeCount > 0 else { throw unexpected("a digit") }
        guard first != UInt8(ascii: "0") || wholeCount == 1 else {
            throw failure("a number does not begin with a zero", at: start)
        }
        var isWhole = true
        if take(UInt8(ascii: ".")) {
            isWhole = false
            guard digits() > 0 else { throw unexpected("a digit") }
        }
        if take(UInt8(ascii: "e")) || take(UInt8(ascii: "E")) {
            isWhole = false
            if !take(UInt8(ascii: "+")) { _ = take(UInt8(ascii: "-")) }
            guard digits() > 0 else { throw unexpected("a digit") }
        }
        if isWhole && wholeCount < 16 { return .integer(isNegative ? -magnitude : magnitude) }
        let text = String(decoding: bytes[start..<position], as: UTF8.self)
        guard let number = Double(text), number.isFinite else {
            throw failure("the number \(text.prefix(60)) is too large", at: start)
        }
        return JSONValue(number)
    }

    /// Consumes digits and returns their count; `each` receives the position and the value of a digit.
    private mutating func digits(_ each: (Int, Int) -> Void = { _, _ in }) -> Int {
        let start = position
        while let byte = current, (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) {
            each(position - start, Int(byte - UInt8(ascii: "0")))
            position += 1
        }
        return position - start
    }

    private mutating func string() throws(JSONError) -> String {
        let quote = position
        position += 1
        let start = position
        // Fast path: most strings have no escape.
        while let byte = current, byte != UInt8(ascii: "\""), byte != UInt8(ascii: "\\"), byte >= 0x20 { position += 1 }
        guard current != UInt8(ascii: "\"") else {
            let text = try utf8(bytes[start..<position])
            position += 1
            return text
        }
        var content = Array(bytes[start..<position])
        while let byte = current {
            switch byte {
            case UInt8(ascii: "\""):
                let text = try utf8(content[...], writtenFrom: start)
                position += 1
                return text
            case UInt8(ascii: "\\"): content += try escape()
            case 0..<0x20: throw failure("a control character in a string is written with a backslash", at: position)
            default:
                content.append(byte)
                position += 1
            }
        }
        throw failure("the string that begins here has no end", at: quote)
    }

    /// Consumes one escape and returns its UTF-8 bytes.
    private mutating func escape() throws(JSONError) -> [UInt8] {
        let start = position
        position += 1
        guard let kind = current else { throw unexpected("the rest of an escape") }
        position += 1
        switch kind {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): return [kind]
        case UInt8(ascii: "b"): return [0x08]
        case UInt8(ascii: "f"): return [0x0C]
        case UInt8(ascii: "n"): return [0x0A]
        case UInt8(ascii: "r"): return [0x0D]
        case UInt8(ascii: "t"): return [0x09]
        case UInt8(ascii: "u"):
            var code = try fourHexadecimalDigits()
            if (0xD800..<0xDC00).contains(code), take(UInt8(ascii: "\\")), take(UInt8(ascii: "u")) {
                let low = try fourHexadecimalDigits()
                guard (0xDC00..<0xE000).contains(low) else { throw failure("half of a surrogate pair", at: start) }
                code = 0x10000 + (code - 0xD800) << 10 + (low - 0xDC00)
            }
            guard let scalar = Unicode.Scalar(code) else { throw failure("half of a surrogate pair", at: start) }
            return Array(String(scalar).utf8)
        default: throw failure("there is no such escape", at: start)
        }
    }

    private mutating func fourHexadecimalDigits() throws(JSONError) -> UInt32 {
        var code: UInt32 = 0
        for _ in 0..<4 {
            guard let byte = current, let digit = Character(Unicode.Scalar(byte)).hexDigitValue, byte < 0x80 else {
                throw unexpected("a hexadecimal digit")
            }
            code = code << 4 | UInt32(digit)
            position += 1
        }
        return code
    }

    /// Decodes bytes that must be UTF-8.
    private func utf8(_ content: ArraySlice<UInt8>, writtenFrom start: Int? = nil) throws(JSONError) -> String {
        guard let text = String(validating: content, as: UTF8.self) else {
            throw failure("a string that is not UTF-8", at: start ?? content.startIndex)
        }
        return text
    }

    // MARK: - Bytes

    private var current: UInt8? { position < bytes.count ? bytes[position] : nil }

    private mutating func skipSpace() {
        while let byte = current, byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 { position += 1 }
    }

    /// Consumes `byte` if it is next.
    private mutating func take(_ byte: UInt8) -> Bool {
        guard current == byte else { return false }
        position += 1
        return true
    }

    private mutating func enter() throws(JSONError) {
        guard depth < Self.depthLimit else {
            throw failure("nested deeper than \(Self.depthLimit) levels", at: position)
        }
        depth += 1
        position += 1
    }

    private mutating func leave(_ value: JSONValue) -> JSONValue {
        depth -= 1
        return value
    }

    private func unexpected(_ expected: String) -> JSONError {
        guard let byte = current else { return failure("expected \(expected), but the text ends", at: position) }
        let isPrinted = (0x21..<0x7F).contains(byte)
        let found = isPrinted ? "'\(Character(Unicode.Scalar(byte)))'" : "byte 0x\(String(byte, radix: 16))"
        return failure("expected \(expected), not \(found)", at: position)
    }

    private func failure(_ reason: String, at position: Int) -> JSONError {
        JSONError(reason, at: position, of: bytes)
    }
}
