import Foundation

/// A JSON document as a tree, read before its meaning is known.
package enum JSONValue: Sendable, Equatable {
    case null
    case boolean(Bool)
    case integer(Int)
    case number(Double)
    case string(String)
    case array([JSONValue])
    case object([String: JSONValue])

    /// Parses JSON text; nesting deeper than 64 levels is refused.
    ///
    /// - Throws: ``DocumentError`` with the pointer "" when the bytes are not JSON.
    package static func parse(_ bytes: [UInt8]) throws(DocumentError) -> JSONValue {
        guard nestingDepth(bytes) <= 64 else { throw DocumentError("", "is nested deeper than 64 levels") }
        do {
            return try convert(JSONSerialization.jsonObject(with: Data(bytes), options: .fragmentsAllowed))
        } catch {
            throw DocumentError("", "is not valid JSON")
        }
    }

    /// A number, however it was written: an integer where a double holds it exactly, and so reads the same after it was written.
    package init(_ number: Double) {
        if let integer = Int(exactly: number), abs(number) < 9e15 {
            self = .integer(integer)
        } else {
            self = .number(number)
        }
    }

    /// A short name of the value's kind, for messages.
    package var kindName: String {
        switch self {
        case .null: "null"
        case .boolean: "a boolean"
        case .integer, .number: "a number"
        case .string: "a string"
        case .array: "an array"
        case .object: "an object"
        }
    }

    private static func convert(_ value: Any) -> JSONValue {
        switch value {
        case let number as NSNumber:
            if CFBooleanLike.isBoolean(number) { return .boolean(number.boolValue) }
            return JSONValue(number.doubleValue)
        case let text as String: return .string(text)
        case let array as [Any]: return .array(array.map(convert))
        case let object as [String: Any]: return .object(object.mapValues(convert))
        default: return .null
        }
    }

    private static func nestingDepth(_ bytes: [UInt8]) -> Int {
        var depth = 0
        var deepest = 0
        var insideString = false
        var escaped = false
        for byte in bytes {
            if insideString {
                if escaped {
                    escaped = false
                } else if byte == UInt8(ascii: "\\") {
                    escaped = true
                } else if byte == UInt8(ascii: "\"") {
                    insideString = false
                }
                continue
            }
            switch byte {
            case UInt8(ascii: "\""): insideString = true
            case UInt8(ascii: "{"), UInt8(ascii: "["):
                depth += 1
                deepest = max(deepest, depth)
            case UInt8(ascii: "}"), UInt8(ascii: "]"): depth -= 1
            default: break
            }
        }
        return deepest
    }
}

/// `JSONSerialization` gives booleans and numbers both as `NSNumber`; only their Objective-C type tells them apart.
private enum CFBooleanLike {
    static func isBoolean(_ number: NSNumber) -> Bool {
        String(cString: number.objCType) == "c"
    }
}

/// What is wrong with a document, field by field.
package struct DocumentError: Error, Equatable, Sendable {
    /// One problem.
    package struct Problem: Equatable, Sendable, Codable {
        /// A JSON pointer to the field.
        package var pointer: String
        /// What is wrong and what would be right.
        package var detail: String

        package init(pointer: String, detail: String) {
            self.pointer = pointer
            self.detail = detail
        }
    }

    /// All problems found, in the order of the fields that were read.
    package var problems: [Problem]

    package init(problems: [Problem]) {
        self.problems = problems
    }

    package init(_ pointer: String, _ detail: String) {
        problems = [Problem(pointer: pointer, detail: detail)]
    }
}
