import Foundation
import StrictJSON
import Testing

/// The one writer, held to Foundation's wherever the two should agree.
struct JSONEncodingTests {
    private enum Word: String, Codable, CaseIterable { case first, second }

    private struct Inner: Codable, Equatable {
        var maxSteps = 3
        var minS: Double? = 0.5
        var p95Seconds: Double?
        var modelURLOfIt = "a/b\"c\\\n\u{1}é👩‍👩‍👧‍👦"
        var word = Word.second
    }

    private struct Outer: Codable, Equatable {
        var isOn = true
        var ratio: Float = 0.1
        var numbers: [Double] = [1, -0.5, 1e-5, 1e300, 123_456_789.25, 3e15, 5e-324]
        var integers: [Int] = [.min, 0, .max]
        var small: [UInt8] = [0, 255]
        var unsigned: UInt64 = 9_223_372_036_854_775_807
        var nested = [Inner(), Inner(maxSteps: 4, minS: nil)]
        var none: Inner?
        var keysAreAsTheyAre: [String: Inner] = ["camelCase": Inner(), "": Inner()]
        var pairs: [[String]] = [[], ["a"]]
        var ordered: [Word: Int] = [.first: 1]
    }

    private func foundation(_ value: some Encodable, hasSnakeCaseNames: Bool) throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        if hasSnakeCaseNames { encoder.keyEncodingStrategy = .convertToSnakeCase }
        encoder.nonConformingFloatEncodingStrategy = .convertToString(
            positiveInfinity: "Infinity",
            negativeInfinity: "-Infinity",
            nan: "NaN"
        )
        return String(decoding: try encoder.encode(value), as: UTF8.self)
    }

    @Test(arguments: [true, false])
    func theBytesAreThoseOfFoundation(_ hasSnakeCaseNames: Bool) throws {
        let rules = JSONEncodingRules(hasSnakeCaseNames: hasSnakeCaseNames, writesNonFinite: true)
        let text = try JSONValue(encoding: Outer(), rules).text
        #expect(try text == foundation(Outer(), hasSnakeCaseNames: hasSnakeCaseNames))
        if !hasSnakeCaseNames {
            #expect(try JSONDecoder().decode(Outer.self, from: Data(text.utf8)) == Outer())
        }
        let odd = [Double.infinity, -.infinity, .nan, 0]
        #expect(try JSONValue(encoding: odd, rules).text == foundation(odd, hasSnakeCaseNames: false))
        #expect(throws: EncodingError.self) { try JSONValue(encoding: odd) }
        #expect(throws: EncodingError.self) { try JSONValue(encoding: [UInt64.max]) }
    }

    /// Containers that a type asks for by hand.
    private struct ByHand: Encodable {
        private enum Key: String, CodingKey { case someName, list, base }
        func encode(to encoder: any Encoder) throws {
            var fields = encoder.container(keyedBy: Key.self)
            try fields.encodeNil(forKey: .someName)
            var list = fields.nestedUnkeyedContainer(forKey: .list)
            try list.encode(1)
            try list.encodeNil()
            var inner = list.nestedContainer(keyedBy: Key.self)
            try inner.encode("x", forKey: .someName)
            #expect(list.count == 3)
            try Inner().encode(to: fields.superEncoder(forKey: .base))
        }
    }

    @Test func containersThatATypeAsksForByHandAreThoseOfFoundation() throws {
        let text = try JSONValue(encoding: ByHand(), .init(hasSnakeCaseNames: true)).text
        #expect(try text == foundation(ByHand(), hasSnakeCaseNames: true))
    }

    private struct Named: Encodable {
        struct Key: CodingKey {
            var stringValue: String
            var intValue: Int? { nil }
            init(stringValue: String) { self.stringValue = stringValue }
            init?(intValue: Int) { nil }
        }
        var name: String
        func encode(to encoder: any Encoder) throws {
            var fields = encoder.container(keyedBy: Key.self)
            try fields.encode(1, forKey: Key(stringValue: name))
        }
    }

    /// Every name of a stored property in the sources, and some that nobody has.
    @Test func namesBecomeSnakeCaseAsFoundationMakesThem() throws {
        var names: Set<String> = ["aBC", "aBc", "A", "already_snake", "sha256", "minS", "httpURLOf"]
        let property = try Regex(#"(?:var|let|case) ([a-z][A-Za-z0-9]*)"#)
        for (_, text) in try Repository.sources("Sources") {
            for match in text.matches(of: property) { names.insert(match.output[1].substring.map(String.init) ?? "") }
        }
        #expect(names.count > 2000)
        for name in names where !name.isEmpty {
            #expect(
                try JSONValue(encoding: Named(name: name), .init(hasSnakeCaseNames: true)).text
                    == foundation(Named(name: name), hasSnakeCaseNames: true)
            )
        }
    }

    @Test func prettyTextIsTheSameDocument() throws {
        let tree = try JSONValue(encoding: Outer())
        #expect(try JSONValue(parsing: Array(tree.prettyText.utf8)) == JSONValue(parsing: Array(tree.text.utf8)))
        #expect(
            JSONValue.object(["b": .array([.integer(1), .object([:])]), "a": .null]).prettyText == """
                {
                  "a": null,
                  "b": [
                    1,
                    {}
                  ]
                }
                """
        )
    }

    @Test func whatFoundationHasReadIsWrittenTheSame() throws {
        let text = #"{"a":[1,-2.5,true,false,null,"é\n"],"b":{"c":123456789012345,"d":1e-7,"e":0,"f":1}}"#
        let object = try JSONSerialization.jsonObject(with: Data(text.utf8))
        #expect(JSONValue(foundation: object) == (try JSONValue(parsing: Array(text.utf8))))
        #expect(
            JSONValue(foundation: ["x": [1, 2.5, true, "s"] as [Any]] as [String: Any])?.text
                == #"{"x":[1,2.5,true,"s"]}"#
        )
        #expect(JSONValue(foundation: Double.nan) == nil && JSONValue(foundation: Date()) == nil)
    }
}

/// All JSON that is written is written by one writer: no other is in the sources, and nothing puts its text together by hand.
struct OneWriterTests {
    @Test func noOtherWriterOfJSONIsInTheSources() throws {
        let others = ["JSONEncoder(", "JSONSerialization.data(", "JSONSerialization.writeJSONObject("]
        let measuring = ["Sources/BenchmarkHarness/", "Sources/Benchmarks/", "Sources/Experiments/"]
        var found: [String] = []
        var count = 0
        for (path, text) in try Repository.sources("Sources") {
            count += 1
            for (number, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
                if others.contains(where: line.contains) { found.append("\(path):\(number + 1): \(line)") }
                // Text that begins an object and lets something in. Benchmarks and experiments ask servers as anybody may.
                guard !measuring.contains(where: path.hasPrefix) else { continue }
                if line.contains(#"{\""#), line.contains(#"\("#) { found.append("\(path):\(number + 1): \(line)") }
                if line.contains(##"#"{""##), line.contains(##"\#("##) {
                    found.append("\(path):\(number + 1): \(line)")
                }
            }
        }
        #expect(count > 300)
        #expect(found.isEmpty, Comment(rawValue: found.joined(separator: "\n")))
    }
}

/// This repository's own files.
enum Repository {
    static func sources(_ folder: String) throws -> [(path: String, text: String)] {
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().path
        let names = try FileManager.default.subpathsOfDirectory(atPath: root + "/" + folder)
        return try names.filter { $0.hasSuffix(".swift") }.sorted().map { name in
            (folder + "/" + name, try String(contentsOfFile: root + "/\(folder)/" + name, encoding: .utf8))
        }
    }
}
