import StrictJSON
import Testing

struct JSONTextTests {
    /// Every scalar up to U+2FFF, and some beyond, in a name and in a value: what is written is read as the same.
    @Test func whatIsWrittenReadsBack() throws {
        var text = String.UnicodeScalarView()
        for value in UInt32(0)..<0x3000 { if let scalar = Unicode.Scalar(value) { text.append(scalar) } }
        text.append(contentsOf: "👩‍👩‍👧‍👦\u{E0062}\u{10FFFF}".unicodeScalars)
        let name = String(text)
        let value = JSONValue.object([
            name: .string(name), "numbers": .array([.integer(-3), .number(0.1), .number(1e300), .number(-5e-324)]),
            "others": .array([.null, .boolean(true), .boolean(false), .array([]), .object([:])]),
        ])
        #expect(try JSONValue(parsing: Array(value.text.utf8)) == value)
        #expect(!value.text.unicodeScalars.contains { $0.value < 0x20 || (0x7F...0x9F).contains($0.value) })
    }

    @Test func fieldsKeepTheirOrderAndWhatIsNoNumberIsNull() {
        let fields = [("b", JSONText.number(.nan)), ("a\"", JSONText.array(["1", JSONText.quoted("\u{1}")]))]
        #expect(JSONText.object(fields) == #"{"b":null,"a\"":[1,"\u0001"]}"#)
    }

    /// Names that look alike are not the same name.
    @Test func namesAreComparedByCodePoints() {
        let error = #expect(throws: JSONError.self) {
            try JSONValue(parsing: Array("{\"\u{E9}\": 1, \"e\u{301}\": 2}".utf8))
        }
        #expect(error?.reason.contains("different code points") == true)
        let same = #expect(throws: JSONError.self) { try JSONValue(parsing: Array(#"{"a": 1, "a": 2}"#.utf8)) }
        #expect(same?.reason.contains("different") == false)
    }
}
