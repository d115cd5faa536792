import CoordinatorAPI
import StrictJSON
import Testing
import WireFormat

struct YAMLDocumentTests {
    @Test func scalarsAndStructureAreThoseOfJSON() throws {
        let text = "a: 1\nb: [true, 2.5, 'x', \"1\", null]\nc: {d: {}, e: []}\n1: y\n"
        let expected = #"{"a": 1, "b": [true, 2.5, "x", "1", null], "c": {"d": {}, "e": []}, "1": "y"}"#
        #expect(try YAMLDocument.parse(text) == JSONValue.parse(Array(expected.utf8)))
        #expect(try YAMLDocument.parse("") == .object([:]))
    }

    /// Found by `Fuzz yaml`, seed 2, case 2096: of integers that a double does not hold the two readers made different values.
    @Test(arguments: [
        "-9223372036854775808", "9223372036854775807", "-9223372036854775809", "9007199254740993", "9000000000000000",
        "8999999999999999", "2.0", "-0.0", "0", "1e3", "1e+19", "5e-324", "1.5", "true", "null", "\"2026-11-25\"",
        "\"~\"",
    ])
    func aScalarMeansTheSameInBothLanguages(_ text: String) throws {
        let document = #"{"a": \#(text)}"#
        #expect(try YAMLDocument.parse(document) == JSONValue.parse(Array(document.utf8)))
    }

    /// The core schema of YAML 1.2: what YAML 1.1 read as other numbers and as truth values is not.
    @Test(arguments: [
        ("010", "10"), ("-010", "-10"), ("+7", "7"), ("0o17", "15"), ("0x1F", "31"), ("1:30", "\"1:30\""),
        ("1_000", "\"1_000\""), ("0b11", "\"0b11\""), ("017e1", "170"), (".5", "0.5"), ("1.", "1"), ("yes", "\"yes\""),
        ("no", "\"no\""), ("on", "\"on\""), ("Off", "\"Off\""), ("y", "\"y\""), ("True", "true"), ("FALSE", "false"),
        ("Null", "null"), ("0x1p4", "\"0x1p4\""), ("0o8", "\"0o8\""), ("infinity", "\"infinity\""),
        ("190:20:30.15", "\"190:20:30.15\""), ("!!str 12", "\"12\""), ("12e03", "12000"), ("=", "\"=\""),
    ])
    func plainScalarsAreThoseOfTheCoreSchema(_ text: String, _ json: String) throws {
        let expected = try JSONValue.parse(Array("{\"a\": \(json), \"b\": [\(json)]}".utf8))
        #expect(try YAMLDocument.parse("a: \(text)\nb: [\(text)]\n") == expected)
    }

    @Test func marksOfAnEncodingAreUnderstoodOrNamed() throws {
        #expect(try YAMLDocument.parse([0xEF, 0xBB, 0xBF] + Array("a: 1".utf8)) == .object(["a": .integer(1)]))
        for bytes: [UInt8] in [[0xFF, 0xFE, 0x61, 0], [0xFE, 0xFF, 0, 0x61]] {
            let error = #expect(throws: DocumentError.self) { try YAMLDocument.parse(bytes) }
            #expect(error?.problems.first?.detail == "is UTF-16 by its first bytes: save it as UTF-8")
        }
    }

    @Test func whatJSONHasNoKindForIsTextOrRefused() throws {
        let dated = try YAMLDocument.parse("a: 2026-11-25\nb: !!binary eA==\nc: ~\n")
        #expect(dated == .object(["a": .string("2026-11-25"), "b": .string("eA=="), "c": .null]))
        for number in [".inf", "-.inf", ".nan", "1e999"] {
            let error = #expect(throws: DocumentError.self) { try YAMLDocument.parse("a: 1\nb: [\(number)]\n") }
            let detail = try #require(error?.problems.first?.detail)
            #expect(detail.contains("line 2, column 5: \(number) is no finite number"), "\(detail)")
        }
    }

    /// The first four ended the process: found by `Fuzz yaml`, seed 2, case 5, under AddressSanitizer.
    @Test(arguments: [
        "? [a]\n: 1", "{[a]: 1}", "{{a: 1}: 2}", "x: {? {a: b} : c}", "!!set {[a]}", "? !!set {a}\n: 1",
        "!!omap [a: 1, [b]]",
        "a: 1\na: 2", "a: 1\n\"a\": 2", "1: x\n\"1\": y", "&a x: *a", "<<: [1]", "<<: {a: {[b]: c}}", "- ? - a",
        String(repeating: "[", count: 100_000),
        String(repeating: "{a: ", count: 500) + "1" + String(repeating: "}", count: 500),
        String(repeating: "- ", count: 900), "!!binary x", "!!float x", "!!int x", "!!timestamp 9999999999-1-1",
        "a: !<x> b",
    ])
    func whatIsNoDocumentIsRefusedAndNothingEnds(_ text: String) throws {
        let read = Result { try YAMLDocument.parse(text) }
        if case .failure(let error) = read { #expect(error is DocumentError, "\(error)") }
        // None of them is a run file, whatever it is read as.
        #expect(throws: (any Error).self) { try RunSpecification.read(read.get()) }
        for name in ["? [a]", "{[a]", "{{a", "a: 1\na", "a: 1\n\"a\"", "1: x"] where text.hasPrefix(name) {
            #expect(throws: DocumentError.self) { try read.get() }
        }
    }
}
