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
            guard let root = try Yams.compose(yaml: text) else { return .object([:]) }
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
        case .scalar(let text): return try scalar(node.any, written: text)
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

    /// A scalar as JSON would have it: numbers by the same rule, and what JSON has no kind for (dates, bytes) as it is written.
    private static func scalar(_ value: Any, written: Node.Scalar) throws -> JSONValue {
        switch value {
        case let boolean as Bool: return .boolean(boolean)
        case let integer as Int: return JSONValue(Double(integer))
        case let number as Double: return try finite(number, written)
        case is NSNull: return .null
        default:
            // An integer of more than 64 bits comes back as text, and is a number in JSON.
            let isWhole = written.tag == Tag(.int) && written.string.wholeMatch(of: /[-+]?[1-9][0-9]*/) != nil
            if isWhole, let number = Double(written.string) {
                return try finite(number, written)
            }
            return .string(written.string)
        }
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
