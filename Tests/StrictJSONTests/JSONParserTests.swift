import Foundation
import StrictJSON
import Testing

@Suite
struct JSONParserTests {
    private func parse(_ text: String) throws -> JSONValue { try JSONValue(parsing: Array(text.utf8)) }

    @Test(arguments: [
        ("null", JSONValue.null), ("true", .boolean(true)), ("false", .boolean(false)), ("0", .integer(0)),
        ("-0", .integer(0)), ("-7", .integer(-7)), ("999999999999999", .integer(999_999_999_999_999)),
        ("8999999999999999", .integer(8_999_999_999_999_999)), ("9000000000000001", .number(9_000_000_000_000_001)),
        ("9223372036854775808", .number(0x1p63)), ("1e3", .integer(1000)), ("1E+2", .integer(100)),
        // Correctly rounded, where Foundation loses the last bit.
        ("0.30000000000000004", .number(0.1 + 0.2)), ("25e-1", .number(2.5)), ("-0.5", .number(-0.5)),
        ("1e-400", .integer(0)), ("5e-324", .number(.leastNonzeroMagnitude)),
        (#""""#, .string("")), (#""é\n\"\\\/\b\f\r\t""#, .string("é\n\"\\/\u{8}\u{C}\r\t")),
        (#""\u0041\u00e9\u20AC\uD83D\ude00\u0000""#, .string("Aé€😀\0")), (" [ ] ", .array([])), ("{}", .object([:])),
        ("[1,[2,{}],\"a\"]", .array([.integer(1), .array([.integer(2), .object([:])]), .string("a")])),
        ("\t{ \"a\" : 1 ,\r\n\"b\":{\"a\":null}} \n", .object(["a": .integer(1), "b": .object(["a": .null])])),
    ])
    func documentsAreRead(_ text: String, _ value: JSONValue) throws {
        #expect(try parse(text) == value)
    }

    /// A text of many small values would need many times its length in memory.
    @Test(arguments: ["[0,0,0,0]", "[[],[],{},[]]", #"{"a":[1,2],"b":0}"#])
    func valuesAreCounted(_ text: String) throws {
        let bytes = Array(text.utf8)
        #expect(throws: Never.self) { try JSONValue(parsing: bytes, countLimit: 5) }
        let error = #expect(throws: JSONError.self) { try JSONValue(parsing: bytes, countLimit: 4) }
        #expect(error?.reason.contains("more than 4 values") == true)
    }

    @Test(arguments: [
        ("", 1, 1, "expected a value, but the text ends"), ("  \n ", 2, 2, "expected a value, but the text ends"),
        ("{", 1, 2, "expected a name in quotes, but the text ends"),
        ("{\"a\":1,}", 1, 8, "expected a name in quotes, not '}'"),
        ("[1,]", 1, 4, "expected a value, not ']'"), ("[1 2]", 1, 4, "expected ',' or ']', not '2'"),
        ("{\"a\" 1}", 1, 6, "expected ':', not '1'"), ("{\"a\":1 \"b\":2}", 1, 8, "expected ',' or '}', not '\"'"),
        ("{a:1}", 1, 2, "expected a name in quotes, not 'a'"), ("{'a':1}", 1, 2, "expected a name in quotes, not '''"),
        ("{\n  \"é\": 1,\n  \"é\": 2\n}", 3, 3, "the name \"é\" comes twice in one object"),
        ("{\"é\": 1, \"a\": 2, \"\\u0061\": 3}", 1, 18, "the name \"a\" comes twice in one object"),
        ("[{\"a\":1},{\"b\":{\"b\":1},\"b\":1}]", 1, 23, "the name \"b\" comes twice in one object"),
        ("1 2", 1, 3, "expected nothing more, not '2'"), ("{} x", 1, 4, "expected nothing more, not 'x'"),
        ("\u{FEFF}{}", 1, 1, "expected a value, not byte 0xef"), ("// a\n1", 1, 1, "expected a value, not '/'"),
        ("tru", 1, 1, "expected true"), ("nul1", 1, 1, "expected null"), ("True", 1, 1, "expected a value, not 'T'"),
        ("NaN", 1, 1, "expected a value, not 'N'"), ("Infinity", 1, 1, "expected a value, not 'I'"),
        ("+1", 1, 1, "expected a value, not '+'"), (".5", 1, 1, "expected a value, not '.'"),
        ("-", 1, 2, "expected a digit, but the text ends"), ("[-a]", 1, 3, "expected a digit, not 'a'"),
        ("[01]", 1, 2, "a number does not begin with a zero"), ("-00", 1, 1, "a number does not begin with a zero"),
        ("1.", 1, 3, "expected a digit, but the text ends"), ("1.e3", 1, 3, "expected a digit, not 'e'"),
        ("1e", 1, 3, "expected a digit, but the text ends"), ("1e+", 1, 4, "expected a digit, but the text ends"),
        ("0x1F", 1, 2, "expected nothing more, not 'x'"), ("[1,\n 1e999]", 2, 2, "the number 1e999 is too large"),
        ("\"a", 1, 1, "the string that begins here has no end"),
        ("[\"\\", 1, 4, "expected the rest of an escape, but the text ends"),
        ("\"\t\"", 1, 2, "a control character in a string is written with a backslash"),
        ("\"a\\n\n\"", 1, 5, "a control character in a string is written with a backslash"),
        ("\"\\x41\"", 1, 2, "there is no such escape"), ("\"\\u12g4\"", 1, 6, "expected a hexadecimal digit, not 'g'"),
        ("\"\\u12", 1, 6, "expected a hexadecimal digit, but the text ends"),
        ("\"\\ud800\"", 1, 2, "half of a surrogate pair"), ("\"\\udc00\"", 1, 2, "half of a surrogate pair"),
        ("\"\\ud800\\ud800\"", 1, 2, "half of a surrogate pair"), ("\"\\ud800\\n\"", 1, 2, "half of a surrogate pair"),
        ("\"\\ud800x\"", 1, 2, "half of a surrogate pair"),
    ])
    func whatIsNoJSONIsRefusedWithItsPlace(_ text: String, _ line: Int, _ column: Int, _ reason: String) {
        let error = #expect(throws: JSONError.self) { try parse(text) }
        #expect(error?.description == "line \(line), column \(column): \(reason)")
    }

    @Test(arguments: [
        [0x22, 0xFF, 0x22], [0x22, 0xED, 0xA0, 0x80, 0x22], [0x22, 0xC0, 0xAF, 0x22], [0x22, 0xE2, 0x82, 0x22],
    ])
    func textThatIsNotUTF8IsRefused(_ bytes: [UInt8]) {
        let plain = #expect(throws: JSONError.self) { try JSONValue(parsing: bytes) }
        #expect(plain?.description == "line 1, column 2: a string that is not UTF-8")
        // The other way through strings, with escapes.
        let escaped = Array(#""\n"#.utf8) + bytes.dropFirst()
        #expect(throws: JSONError.self) { try JSONValue(parsing: escaped) }
    }

    @Test func otherEncodingsAreRefused() throws {
        for encoding in [String.Encoding.utf16, .utf16LittleEndian, .utf32BigEndian] {
            let bytes = Array(try #require("{\"a\": 1}".data(using: encoding)))
            #expect(throws: JSONError.self) { try JSONValue(parsing: bytes) }
        }
    }

    @Test func nestingHasABound() throws {
        let deepest = String(repeating: "[", count: 64) + String(repeating: "]", count: 64)
        _ = try parse(deepest)
        // Depth is not how many there are.
        _ = try parse("[" + Array(repeating: deepest.dropFirst().dropLast(), count: 100).joined(separator: ",") + "]")
        let error = #expect(throws: JSONError.self) { try parse("[" + deepest + "]") }
        #expect(error?.description == "line 1, column 65: nested deeper than 64 levels")
        #expect(throws: JSONError.self) { try parse(String(repeating: "{\"a\":", count: 100_000)) }
    }

    /// A peer's text in a message has a bound too.
    @Test func messagesAreShort() {
        let name = String(repeating: "n", count: 10_000)
        let twice = #expect(throws: JSONError.self) { try parse("{\"\(name)\":1,\"\(name)\":2}") }
        #expect(twice.map { $0.reason.count < 120 } == true)
        let large = #expect(throws: JSONError.self) { try parse(String(repeating: "9", count: 10_000)) }
        #expect(large.map { $0.reason.count < 120 } == true)
    }
}
