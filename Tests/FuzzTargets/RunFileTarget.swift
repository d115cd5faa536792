import CoordinatorAPI
import StrictJSON
package import Tensors
import WireFormat

/// Run files as JSON.
package struct RunFileTarget: FuzzTarget {
    package static let name = "runfile"
    package static let testCaseCount = 2000
    private static let fragments = ["\"", "\\", "{", "}", "[[", ":", ",", "\\ud800", "é", "0", "-", "1e999"].map {
        Array($0.utf8)
    }

    package init() {}

    package mutating func run(_ generator: inout Xoshiro256StarStar) throws -> Bool {
        var bytes = RunDocuments.make(&generator).compactText
        if generator.oneIn(4) { generator.damage(&bytes, with: Self.fragments) }
        guard let document = try? JSONValue.parse(bytes), let specification = try? RunSpecification.read(document)
        else {
            return false
        }
        try RunDocuments.check(specification, bytes)
        return true
    }
}

/// Run files as YAML; any JSON is YAML too, and means the same.
package struct YAMLTarget: FuzzTarget {
    package static let name = "yaml"
    package static let testCaseCount = 500
    private static let fragments = [
        "\n", "  ", "- ", ": ", "&a ", "*a", "!!binary ", "? ", "|\n", ">-\n", "#", "'", "\"", "{", "[", "---\n",
        "...\n", "\t",
        "%YAML 1.2\n", "<<: ", "~", ".inf", ".nan", "0x1F", "0o7", "1_000", "2026-11-25", "é", "\0", "@",
    ].map { Array($0.utf8) }

    package init() {}

    package mutating func run(_ generator: inout Xoshiro256StarStar) throws -> Bool {
        var bytes: [UInt8]
        let document = RunDocuments.make(&generator)
        let isBlock = generator.oneIn(2)
        if isBlock {
            bytes = Array(Self.block(document, "").utf8)
        } else {
            bytes = document.compactText
        }
        let isDamaged = generator.oneIn(2)
        if isDamaged {
            for _ in 0...generator.nextIndex(below: 3) { generator.damage(&bytes, with: Self.fragments) }
        }
        let json = isDamaged || isBlock ? nil : try? RunSpecification.read(JSONValue.parse(bytes))
        let parsed = try? YAMLDocument.parse(bytes)
        let specification = parsed.flatMap { try? RunSpecification.read($0) }
        if let json { try expect(specification == json, "YAML reads JSON otherwise than JSON does", bytes) }
        guard let specification else { return false }
        try RunDocuments.check(specification, bytes)
        return true
    }

    /// Block style, as people write it.
    private static func block(_ value: JSONValue, _ indent: String) -> String {
        switch value {
        case .object(let fields) where !fields.isEmpty:
            return fields.sorted { $0.key < $1.key }.map { name, item in
                switch item {
                case .object(let inner) where !inner.isEmpty: "\(indent)\(name):\n" + block(item, indent + "  ")
                default: "\(indent)\(name): " + flow(item) + "\n"
                }
            }.joined()
        default: return indent + flow(value) + "\n"
        }
    }

    private static func flow(_ value: JSONValue) -> String {
        if case .string(let text) = value, text.utf8.allSatisfy({ (97...122).contains($0) }), !text.isEmpty {
            return text
        }
        return String(decoding: value.compactText, as: UTF8.self)
    }
}
