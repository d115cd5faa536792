extension JSONValue {
    /// The value as canonical JSON, in which equal documents are equal bytes whoever writes them.
    ///
    /// Source: RFC 8785. Names are sorted by their UTF-16 code units, numbers are written as ECMAScript writes doubles, and strings escape
    /// what they must and nothing else.
    package var canonicalText: String {
        switch self {
        case .null: "null"
        case .boolean(let value): value ? "true" : "false"
        case .integer(let value): Self.canonical(Double(value))
        case .number(let value): Self.canonical(value)
        case .string(let value): Self.canonical(value)
        case .array(let items): JSONText.array(items.map(\.canonicalText))
        case .object(let fields):
            "{"
                + fields.sorted { $0.key.utf16.lexicographicallyPrecedes($1.key.utf16) }
                .map { Self.canonical($0.key) + ":" + $0.value.canonicalText }.joined(separator: ",") + "}"
        }
    }

    private static func canonical(_ text: String) -> String {
        var result = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": result += "\\\""
            case "\\": result += "\\\\"
            case "\u{8}": result += "\\b"
            case "\t": result += "\\t"
            case "\n": result += "\\n"
            case "\u{C}": result += "\\f"
            case "\r": result += "\\r"
            case _ where scalar.value < 0x20:
                result += scalar.value < 0x10 ? "\\u000" : "\\u00"
                result += String(scalar.value, radix: 16)
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result + "\""
    }

    /// ECMAScript's `Number::toString` of the shortest digits that read back the same; null for what JSON has no number for.
    private static func canonical(_ value: Double) -> String {
        guard value.isFinite else { return "null" }
        guard value != 0 else { return "0" }
        // Swift prints the same shortest digits, with another placing of the point.
        let parts = "\(value.magnitude)".split(separator: "e")
        let mantissa = parts[0].split(separator: ".", omittingEmptySubsequences: false)
        let exponent = parts.count > 1 ? Int(parts[1]) ?? 0 : 0
        let fraction = mantissa.count > 1 ? mantissa[1] : ""
        let all = Array(String(mantissa[0]) + fraction)
        let leading = all.prefix { $0 == "0" }.count
        var digits = all.dropFirst(leading)
        while digits.last == "0" { digits.removeLast() }
        // The value is 0.d₁d₂… · 10ᵖ.
        let place = mantissa[0].count - leading + exponent
        let text: String
        switch place {
        case digits.count...21 where digits.count <= 21:
            text = String(digits) + String(repeating: "0", count: place - digits.count)
        case 1...21: text = String(digits.prefix(place)) + "." + String(digits.dropFirst(place))
        case -5...0: text = "0." + String(repeating: "0", count: -place) + String(digits)
        default:
            let rest = digits.dropFirst()
            let power = place - 1
            text =
                String(digits.prefix(1)) + (rest.isEmpty ? "" : "." + String(rest)) + "e" + (power < 0 ? "-" : "+")
                + String(power.magnitude)
        }
        return (value < 0 ? "-" : "") + text
    }
}
