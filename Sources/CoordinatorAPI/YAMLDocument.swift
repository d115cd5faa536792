import Foundation
package import StrictJSON
import WireFormat
import Yams

/// YAML as the same tree that JSON becomes.
package enum YAMLDocument {
    /// Parses one document, which must be UTF-8.
    ///
    /// - Throws: `DocumentError`, as for text.
    package static func parse(_ bytes: [UInt8]) throws -> JSONValue {
        if bytes.starts(with: [0xFE, 0xFF]) || bytes.starts(with: [0xFF, 0xFE]) {
            throw DocumentError("", "is UTF-16 by its first bytes: save it as UTF-8")
        }
        // The mark of UTF-8 at the beginning is no part of the text.
        let bytes = bytes.starts(with: [0xEF, 0xBB, 0xBF]) ? Array(bytes.dropFirst(3)) : bytes
        guard let text = String(validating: bytes, as: UTF8.self) else {
            // The longest beginning that is text ends in the line that is none.
            let line =
                1
                + bytes.split(separator: 10, omittingEmptySubsequences: false).prefix {
                    String(validating: $0, as: UTF8.self) != nil
                }.count
            throw DocumentError("", "is not valid YAML: line \(line) is not UTF-8")
        }
        return try parse(text)
    }

    /// Parses one document.
    ///
    /// - Throws: `DocumentError` with the pointer "" for text that is no YAML, or that has aliases: ten lines of them can
    ///   stand for gigabytes.
    package static func parse(_ text: String) throws -> JSONValue {
        if let name = alias(in: text) {
            throw DocumentError("", "has the alias *\(name): aliases are not taken, write out what it stands for")
        }
        do {
            guard let root = try Yams.compose(yaml: text, resolver) else { return .object([:]) }
            return try convert(root, depth: 0)
        } catch let error as DocumentError {
            throw error
        } catch {
            throw DocumentError("", "is not valid YAML: \(reason(error))")
        }
    }

    /// What is wrong and where, on one line.
    private static func reason(_ error: any Error) -> String {
        switch error {
        case YamlError.scanner(_, let problem, let mark, _), YamlError.parser(_, let problem, let mark, _),
            YamlError.composer(_, let problem, let mark, _):
            "line \(mark.line), column \(mark.column): \(problem)"
        case YamlError.duplicatedKeysInMapping(let duplicates, _):
            "a field is given twice: \(duplicates.map { "\($0)" }.joined(separator: ", "))"
        default: "\(error)"
        }
    }

    /// A node as JSON; only scalars are left to Yams, whose own way through mappings ends the process at a key that is none.
    private static func convert(_ node: Node, depth: Int) throws -> JSONValue {
        guard depth < 64 else { throw DocumentError("", "is not valid YAML: nested deeper than 64 levels") }
        switch node {
        case .scalar(let text): return try scalar(text, node.tag)
        case .sequence(let sequence): return .array(try sequence.map { try convert($0, depth: depth + 1) })
        case .mapping(let mapping):
            var fields: [String: JSONValue] = [:]
            for (key, value) in mapping {
                guard case .scalar(let name) = key else {
                    let place = key.mark.map { "line \($0.line), column \($0.column): " } ?? ""
                    throw DocumentError("", "is not valid here: \(place)the name of a field must be plain text")
                }
                guard fields.updateValue(try convert(value, depth: depth + 1), forKey: name.string) == nil else {
                    throw DocumentError("", "is not valid YAML: a field is given twice: \(name.string)")
                }
            }
            return .object(fields)
        case .alias(let alias):
            throw DocumentError("", "has the alias *\(alias.anchor.rawValue): aliases are not taken")
        }
    }

    /// The core schema of YAML 1.2 (section 10.3.2), which is JSON's kinds and no others: `yes`, `010` as eight, `1:30` and `1_000`
    /// were YAML 1.1's.
    private static let resolver: Resolver = {
        let rules: [(Tag.Name, String)] = [
            (.null, "^(~|null|Null|NULL|)$"), (.bool, "^(true|True|TRUE|false|False|FALSE)$"),
            (.int, "^([-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$"),
            (.float, #"^([-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$"#),
        ]
        return rules.reduce(Resolver.basic) { resolver, rule in
            guard let next = try? resolver.appending(rule.0, rule.1) else {
                preconditionFailure("the patterns of the core schema are regular expressions")
            }
            return next
        }
    }()

    /// A scalar as JSON would have it: numbers by the same rule, and what JSON has no kind for (dates, bytes) as it is written.
    private static func scalar(_ written: Node.Scalar, _ tag: Tag) throws -> JSONValue {
        let text = written.string
        switch tag {
        case Tag(.null) where ["", "~"].contains(text) || text.lowercased() == "null": return .null
        case Tag(.bool) where ["true", "false"].contains(text.lowercased()):
            return .boolean(text.lowercased() == "true")
        case Tag(.int), Tag(.float):
            guard let number = number(text) else { return .string(text) }
            return try finite(number, written)
        default: return .string(text)
        }
    }

    /// The number that a text is in the core schema; `nil` where it is none.
    private static func number(_ text: String) -> Double? {
        for (prefix, radix) in [("0o", 8), ("0x", 16)] where text.hasPrefix(prefix) {
            let digits = text.dropFirst(2)
            guard !digits.isEmpty, digits.allSatisfy(\.isHexDigit) else { return nil }
            return UInt64(digits, radix: radix).map { Double($0) }
        }
        let sign = text.hasPrefix("-") ? -1.0 : 1
        let plain = text.hasPrefix("-") || text.hasPrefix("+") ? text.dropFirst() : text[...]
        switch plain.lowercased() {
        case ".inf": return sign * .infinity
        case ".nan": return .nan
        default: break
        }
        // Double would take more: hexadecimal fractions, `infinity`, `nan(1)`.
        let isDecimal = plain.utf8.allSatisfy { (48...57).contains($0) || [43, 45, 46, 69, 101].contains($0) }
        guard isDecimal, let value = Double(plain.hasPrefix(".") ? "0" + plain : String(plain)) else { return nil }
        return sign * value
    }

    private static func finite(_ number: Double, _ written: Node.Scalar) throws -> JSONValue {
        guard number.isFinite else {
            let place = written.mark.map { "line \($0.line), column \($0.column): " } ?? ""
            throw DocumentError("", "is not valid here: \(place)\(written.string) is no finite number")
        }
        return JSONValue(number)
    }

    /// A name that stands behind `&` in one place and behind `*` in another, wherever that is: an alias needs both.
    private static func alias(in text: String) -> String? {
        let bytes = Array(text.utf8)
        var anchors: Set<String> = []
        var aliases: Set<String> = []
        var position = 0
        while position < bytes.count {
            let mark = bytes[position]
            position += 1
            guard mark == UInt8(ascii: "&") || mark == UInt8(ascii: "*") else { continue }
            let start = position
            while position < bytes.count, isNameByte(bytes[position]) { position += 1 }
            guard position > start else { continue }
            let name = String(decoding: bytes[start..<position], as: UTF8.self)
            if mark == UInt8(ascii: "&") { anchors.insert(name) } else { aliases.insert(name) }
        }
        return anchors.intersection(aliases).min()
    }

    /// Whether a byte may be in an anchor's name; libyaml takes letters, digits, `-` and `_`, and more is on the safe side.
    private static func isNameByte(_ byte: UInt8) -> Bool {
        switch byte {
        case 48...57, 65...90, 97...122, UInt8(ascii: "-"), UInt8(ascii: "_"), 128...: true
        default: false
        }
    }
}
