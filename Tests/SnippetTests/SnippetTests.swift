import Foundation
import Testing

/// The Swift in the documents compiles: each block is a marked part of a file of this target.
struct SnippetTests {
    private static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()

    /// Marked parts of this target's files, without their indentation, and what each file imports.
    private static func snippets() throws -> [(text: String, imports: Set<String>)] {
        let folder = root.appendingPathComponent("Tests/SnippetTests")
        var found: [(String, Set<String>)] = []
        for file in try FileManager.default.contentsOfDirectory(atPath: folder.path) where file != "SnippetTests.swift"
        {
            let lines = try String(contentsOf: folder.appendingPathComponent(file), encoding: .utf8)
                .components(separatedBy: "\n")
            let imports = Set(lines.filter { $0.hasPrefix("import ") })
            var block: [String]?
            for line in lines {
                switch line.trimmingCharacters(in: .whitespaces) {
                case "// snippet": block = []
                case "// end":
                    found.append((unindented(block ?? []), imports))
                    block = nil
                default: block?.append(line)
                }
            }
        }
        return found
    }

    private static func unindented(_ lines: [String]) -> String {
        let indents = lines.filter { !$0.isEmpty }.map { $0.prefix { $0 == " " }.count }
        return lines.map { String($0.dropFirst(indents.min() ?? 0)) }.joined(separator: "\n")
    }

    /// The Swift blocks of a document, but for those that say why they are none.
    private static func blocks(of document: URL) throws -> [String] {
        var found: [String] = []
        var block: [String]?
        for line in try String(contentsOf: document, encoding: .utf8).components(separatedBy: "\n") {
            if let lines = block {
                if line.hasPrefix("```") {
                    found.append(lines.joined(separator: "\n"))
                    block = nil
                } else {
                    block?.append(line)
                }
            } else if line == "```swift" {
                block = []
            }
        }
        return found
    }

    @Test func everySwiftBlockOfTheDocumentsCompiles() throws {
        let snippets = try Self.snippets()
        var documents = ["README.md", "docs/client-sdk.md"].map(Self.root.appendingPathComponent)
        let sources = Self.root.appendingPathComponent("Sources")
        for name in try FileManager.default.subpathsOfDirectory(atPath: sources.path)
        where name.hasSuffix(".md") && name.contains(".docc/") {
            documents.append(sources.appendingPathComponent(name))
        }
        var used = Set<String>()
        for document in documents {
            for block in try Self.blocks(of: document) {
                let lines = block.components(separatedBy: "\n")
                let imports = Set(lines.prefix { $0.hasPrefix("import ") || $0.isEmpty }.filter { !$0.isEmpty })
                let code = lines.drop { $0.hasPrefix("import ") || $0.isEmpty }.joined(separator: "\n")
                let match = snippets.first { $0.text == code }
                #expect(match != nil, "\(document.lastPathComponent) has Swift that is not compiled:\n\(block)")
                #expect(imports.isSubset(of: match?.imports ?? []), "\(document.lastPathComponent): \(imports)")
                used.insert(code)
            }
        }
        #expect(snippets.allSatisfy { used.contains($0.text) }, "a snippet is in no document")
        #expect(snippets.count >= 6)
    }
}
