import StrictJSON
import Testing
import WireFormat

struct NameRuleTests {
    @Test(arguments: [
        "p", "keyboards-en", "Klinik Süd", "键盘", "हिन्दी", "a.b", "...", "%2F", "a?b#c", "\\", "🙂",
        String(repeating: "é", count: 200),
    ])
    func whatPeopleCallThingsIsAName(_ name: String) { #expect(NameRule.problem(name) == nil) }

    @Test(arguments: [
        "", ".", "..", "a/b", "/", "-x", "--help", " a", "a ", "a\nb", "a\u{0}", "\u{1B}[2J", "a\u{7F}", "\u{9B}31m",
        "a\u{202E}b",
        "a\u{200B}b", "a\u{2066}b", "a\u{FEFF}", "a\u{2028}b", "a\u{A0}b", "a\u{E000}b",
        String(repeating: "a", count: 201),
    ])
    func whatTurnsOrEndsAPathACommandOrALineIsNone(_ name: String) {
        #expect(NameRule.problem(name) != nil)
        let document = JSONValue.object(["name": .string(name)])
        #expect(throws: DocumentError.self) { try PopulationRequest.read(document) }
        #expect(throws: DocumentError.self) { try RegistrationRequest.read(document) }
        #expect(throws: DocumentError.self) { try ClientChange.read(document) }
        #expect(throws: DocumentError.self) {
            try TokenRequest.read(.object(["name": .string(name), "role": .string("viewer")]))
        }
    }

    /// As the JSON that is stored, whatever the characters: 32 labels of 100 and 200 scalars had 29 kB.
    @Test(arguments: ["a", "é", "键", "🙂", "\u{1}", "\""])
    func labelsHaveFourKilobytes(_ letter: String) throws {
        func read(_ count: Int) throws -> RegistrationRequest {
            let pairs = (0..<count).map { ("\($0)", JSONValue.string(String(repeating: letter, count: 200))) }
            return try RegistrationRequest.read(
                .object(["labels": .object(Dictionary(uniqueKeysWithValues: pairs))])
            )
        }
        #expect(throws: Never.self) { try read(3) }
        #expect(throws: DocumentError.self) { try read(32) }
        for count in 1...32 {
            guard let labels = try? read(count).labels else { break }
            #expect(try WireCoding.encode(labels).count <= 4096)
        }
    }

    /// A document of nothing but unknown fields costs a look at a hundred of them.
    @Test func unknownFieldsBeyondAHundredAreNotCollected() throws {
        let many = JSONValue.object(
            Dictionary(uniqueKeysWithValues: (0..<50_000).map { ("f\($0)", JSONValue.integer(0)) })
        )
        let error = #expect(throws: DocumentError.self) { try CheckInRequest.read(many) }
        #expect(error?.problems.count == DocumentError.countLimit + 1)
        let lists = JSONValue.object(["runs": .array((0..<1000).map { .integer($0) })])
        #expect(throws: DocumentError.self) { try CheckInRequest.read(lists) }
        let long = JSONValue.object(["runs": .array((0..<1001).map { _ in .string("r") })])
        #expect(throws: DocumentError.self) { try CheckInRequest.read(long) }
    }

    @Test func wholeNumbersBeyondTheRangeAreCalledThat() throws {
        for (text, problem) in [
            ("9223372036854775808", "is outside"), ("-1", "is outside"), ("2.5", "must be a whole number, not 2.5"),
            ("\"7\"", "must be a whole number, not a string"),
        ] {
            let document = try JSONValue.parse(Array("{\"num_examples\": \(text)}".utf8))
            let error = #expect(throws: DocumentError.self) { try CheckInRequest.read(document) }
            #expect(error?.problems.first?.detail.contains(problem) == true, "\(text): \(String(describing: error))")
        }
    }
}
