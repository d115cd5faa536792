import StrictJSON
import Testing

/// What a reader reports about one field: once, for the right reason, and in the same order each time.
struct FieldReaderTests {
    private enum Word: String, CaseIterable {
        case red, green
    }

    /// The problems that reading a document reports, as `pointer: detail`.
    private func problems(_ text: String, _ body: (FieldReader) -> Void) throws -> [String] {
        let document = try JSONValue(parsing: Array(text.utf8))
        do throws(DocumentError) {
            try FieldReader.read(document, body)
            return []
        } catch {
            return error.problems.map { "\($0.pointer): \($0.detail)" }
        }
    }

    private func integer(_ text: String, in range: ClosedRange<Int>) throws -> (value: Int, problems: [String]) {
        var value = 0
        let problems = try problems(#"{"n": \#(text)}"#) { value = $0.integer("n", in: range) }
        return (value, problems)
    }

    @Test(arguments: [
        "8999999999999999", "9000000000000000", "9007199254740991", "9007199254740991.0", "-9000000000000001", "9e15",
    ])
    func wholeNumbersBelow2To53AreRead(text: String) throws {
        let (value, problems) = try integer(text, in: -(1 << 53)...(1 << 53))
        #expect(problems.isEmpty)
        #expect(Double(value) == Double(text))
    }

    @Test func wholeNumbersThatAreNotExactAreRefusedAsSuch() throws {
        for text in ["9007199254740992", "9007199254740993", "1e18"] {
            let problems = try integer(text, in: 0...Int.max).problems
            #expect(problems.count == 1 && problems[0].contains("is too large"), "\(problems)")
        }
        // Nothing is read beyond 64 bits, and the range is named where it is the reason.
        #expect(try integer("1e300", in: 0...Int.max).problems.first?.contains("is outside 0 to") == true)
        #expect(try integer("9000000000000000", in: 0...9).problems == ["/n: 9000000000000000.0 is outside 0 to 9"])
        #expect(try integer("1.5", in: 0...9).problems == ["/n: must be a whole number, not 1.5"])
    }

    @Test(arguments: ["7", "true", "[]", #"{"a": 1}"#])
    func aWordOfAnotherTypeIsReportedOnce(value: String) throws {
        let text = #"{"w": \#(value)}"#
        let closed = try problems(text) { _ = $0.choice("w", default: Word.red) }
        let names = try problems(text) { _ = $0.choice("w", of: ["red", "green"]) }
        #expect(closed == names && closed.count == 1 && closed[0].hasPrefix("/w: must be a string, not"))
    }

    @Test func anotherWordIsReportedOnceWithThoseThatAreKnown() throws {
        for text in ["", "blue", String(repeating: "b", count: 5000)] {
            let found = try problems(#"{"w": "\#(text)"}"#) { _ = $0.choice("w", default: Word.red) }
            #expect(found == ["/w: '\(text.prefix(200))' is not one of red, green"])
        }
        #expect(try problems(#"{"w": null}"#) { _ = $0.choice("w", default: Word.red) }.count == 1)
        var absent = Word.red
        #expect(try problems("{}") { absent = $0.choice("w", default: .green) }.isEmpty)
        #expect(absent == .green)
    }

    @Test func problemsOfAnObjectOfStringsComeInTheOrderOfItsNames() throws {
        let names = (0..<20).map { "k\($0)" }
        let text = "{\"s\": {" + names.map { #""\#($0)": 1"# }.joined(separator: ", ") + "}}"
        let expected = names.sorted().map { "/s: '\($0)' must be a string of at most 200 characters" }
        #expect(try problems(text) { _ = $0.strings("s") } == expected)
    }

    @Test func wrongElementsOfAnArrayAreReportedOnce() throws {
        #expect(try problems(#"{"a": [1, 2, "x"]}"#) { _ = $0.stringList("a") } == ["/a: must hold strings only"])
        #expect(
            try problems(#"{"a": [1, "x", 99, 3]}"#) { _ = $0.integers("a", countLimit: 9, in: 0...9) }
                == ["/a: must hold whole numbers from 0 to 9"]
        )
        #expect(try problems(#"{"a": null}"#) { _ = $0.integers("a", countLimit: 9, in: 0...9) }.count == 1)
        #expect(try problems("{}") { _ = $0.integers("a", countLimit: 9, in: 0...9) } == ["/a: is required"])
        var read: [Int] = []
        let text = #"{"a": [1, 9000000000000001]}"#
        #expect(try problems(text) { read = $0.integers("a", countLimit: 9, in: 0...(1 << 53)) }.isEmpty)
        #expect(read == [1, 9_000_000_000_000_001])
    }
}
