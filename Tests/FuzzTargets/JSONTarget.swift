import Foundation
import StrictJSON
package import Tensors

/// The strict reader of JSON beside Foundation's.
package struct JSONTarget: FuzzTarget {
    package static let name = "json"
    package static let testCaseCount = 10_000

    private static let scalars = [
        "null", "true", "false", "0", "-0", "1", "-17", "9007199254740993", "9223372036854775807",
        "-9223372036854775808",
        "18446744073709551616", "1e3", "0.1", "-2.5E-3", "1e308", "1e309", "5e-324", "1e-400",
        "123456789012345678901234567890",
        "0.30000000000000004", "\"\"", "\"a\"", "\"\\u0061\"", "\"\\ud83d\\ude00\"", "\"é\"", "\"\\n\\\"\\\\\\/\"",
        "[]", "{}",
    ]
    private static let names = ["\"a\"", "\"b\"", "\"\\u0061\"", "\"é\"", "\"e\\u0301\"", "\"\"", "\"c\""]
    private static let fragments = [
        "\"", "\\", "{", "}", "[", "]", ":", ",", " ", "\n", "\t", "\0", "\u{FEFF}", "\\ud800", "\\udc00", "0", "-",
        "+", ".",
        "e", "1e999", "é", "//", "'", "NaN",
    ].map { Array($0.utf8) }
    private static let halves: [[UInt8]] = [
        [0xFF], [0xC0, 0xAF], [0xED, 0xA0, 0x80], [0xE2, 0x82], [0xF4, 0x90, 0x80, 0x80],
    ]
    /// What Foundation takes beyond the standard, or the standard leaves open; the number under a name that comes again it does not
    /// look at.
    private static let strictness = [
        "comes twice", "expected a name in quotes, not '}'", "expected a value, not ']'", "nested deeper",
        "not byte 0xef", "not byte 0xfe",
        "is too large",
    ]

    package init() {}

    package mutating func run(_ generator: inout Xoshiro256StarStar) throws -> Bool {
        var bytes = Array(Self.text(&generator, depth: 0).utf8)
        if generator.oneIn(500) {
            bytes = Array(repeating: UInt8(ascii: "["), count: 60 + generator.nextIndex(below: 10)) + bytes
        }
        for _ in 0..<generator.nextIndex(below: 3) {
            generator.damage(&bytes, with: generator.oneIn(5) ? Self.halves : Self.fragments)
        }
        let foundation = try? JSONSerialization.jsonObject(with: Data(bytes), options: .fragmentsAllowed)
        let value: JSONValue
        do {
            value = try JSONValue(parsing: bytes)
        } catch {
            let lines = 1 + bytes.count { $0 == 10 }
            try expect(
                (1...lines).contains(error.line) && error.column > 0,
                "an error outside the text: \(error)",
                bytes
            )
            // Text in another encoding is told by its zeros.
            let isStricter = Self.strictness.contains { error.reason.contains($0) } || bytes.contains(0)
            try expect(foundation == nil || isStricter, "Foundation reads it, and it is refused: \(error)", bytes)
            return false
        }
        try expect(foundation != nil, "Foundation does not read it", bytes)
        let isSame = foundation.map { Self.isSame(Self.convert($0), value) } ?? false
        // It drops byte order marks inside of strings.
        let hasMark = String(decoding: bytes, as: UTF8.self).unicodeScalars.contains("\u{FEFF}")
        try expect(isSame || hasMark, "Foundation reads it otherwise than \(value)", bytes)
        return true
    }

    private static func text(_ generator: inout Xoshiro256StarStar, depth: Int) -> String {
        func space() -> String { generator.oneIn(6) ? generator.pick([" ", "\n", "\r\n", "\t "]) : "" }
        guard depth < 5, !generator.oneIn(3) else { return space() + generator.pick(scalars) + space() }
        let isObject = generator.oneIn(2)
        let items = (0..<generator.nextIndex(below: 4)).map { _ in
            let value = text(&generator, depth: depth + 1)
            return isObject ? space() + generator.pick(names) + space() + ":" + value : value
        }
        return isObject ? "{" + items.joined(separator: ",") + space() + "}" : "[" + items.joined(separator: ",") + "]"
    }

    /// Whether two trees are the same, but for the last bits of numbers: Foundation does not round them correctly.
    private static func isSame(_ left: JSONValue, _ right: JSONValue) -> Bool {
        switch (left, right) {
        case (.number(let left), .number(let right)): abs(left - right) <= 1e-15 * abs(right)
        case (.integer(let left), .number): isSame(.number(Double(left)), right)
        case (.number, .integer(let right)): isSame(left, .number(Double(right)))
        case (.array(let left), .array(let right)):
            left.count == right.count && zip(left, right).allSatisfy(isSame)
        case (.object(let left), .object(let right)):
            left.count == right.count
                && left.allSatisfy { name, value in right[name].map { isSame(value, $0) } ?? false }
        default: left == right
        }
    }

    private static func convert(_ value: Any) -> JSONValue {
        switch value {
        case let number as NSNumber:
            // Booleans are numbers too; only their Objective-C type tells.
            String(cString: number.objCType) == "c" ? .boolean(number.boolValue) : JSONValue(number.doubleValue)
        case let text as String: .string(text)
        case let array as [Any]: .array(array.map(convert))
        case let object as [String: Any]: .object(object.mapValues(convert))
        default: .null
        }
    }
}
