/// The writer of JSON text: strings are quoted in one place, so that no content can end a string or a line.
package enum JSONText {
    /// A string in quotes; controls, also those of C1, are escaped.
    package static func quoted(_ text: some StringProtocol) -> String {
        // Fast path: printable ASCII without quotes and backslashes.
        if text.utf8.allSatisfy({ $0 >= 0x20 && $0 < 0x7F && $0 != 0x22 && $0 != 0x5C }) { return "\"\(text)\"" }
        var result = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": result += "\\\""
            case "\\": result += "\\\\"
            case "\n": result += "\\n"
            case "\r": result += "\\r"
            case "\t": result += "\\t"
            case _ where scalar.value < 0x20 || (0x7F...0x9F).contains(scalar.value):
                let digits = String(scalar.value, radix: 16)
                result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result + "\""
    }

    /// A number that reads back the same; null for what JSON has no number for.
    package static func number(_ value: Double) -> String { value.isFinite ? "\(value)" : "null" }

    /// An array whose items are JSON text already.
    package static func array(_ items: some Sequence<String>) -> String { "[" + items.joined(separator: ",") + "]" }

    /// An object whose values are JSON text already, in the order given.
    package static func object(_ fields: some Sequence<(String, String)>) -> String {
        "{" + fields.lazy.map { quoted($0.0) + ":" + $0.1 }.joined(separator: ",") + "}"
    }
}

extension JSONValue {
    /// The value as text in one line, the names of objects in the order of their UTF-8 bytes; reading it gives the value again.
    package var text: String {
        switch self {
        case .null: "null"
        case .boolean(let value): value ? "true" : "false"
        case .integer(let value): String(value)
        case .number(let value): JSONText.number(value)
        case .string(let value): JSONText.quoted(value)
        case .array(let items): JSONText.array(items.map(\.text))
        case .object(let fields):
            JSONText.object(
                fields.sorted { $0.key.utf8.lexicographicallyPrecedes($1.key.utf8) }.map { ($0.key, $0.value.text) }
            )
        }
    }

    /// The value as text for people: a line for each field and item, two spaces deeper for each level.
    package var prettyText: String { prettyText(indent: "") }

    private func prettyText(indent: String) -> String {
        let deeper = indent + "  "
        switch self {
        case .array(let items) where !items.isEmpty:
            let lines = items.map { deeper + $0.prettyText(indent: deeper) }
            return "[\n" + lines.joined(separator: ",\n") + "\n\(indent)]"
        case .object(let fields) where !fields.isEmpty:
            let lines = fields.sorted { $0.key.utf8.lexicographicallyPrecedes($1.key.utf8) }
                .map { deeper + JSONText.quoted($0.key) + ": " + $0.value.prettyText(indent: deeper) }
            return "{\n" + lines.joined(separator: ",\n") + "\n\(indent)}"
        default: return text
        }
    }
}
