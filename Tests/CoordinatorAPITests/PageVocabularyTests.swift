import Foundation
import Testing

@testable import CoordinatorAPI

/// The pages' scripts say the protocol's words by name only.
struct PageVocabularyTests {
    @Test func everyWordOfTheScriptsIsOneOfTheProtocol() throws {
        let pages =
            URL(fileURLWithPath: #filePath).deletingLastPathComponent().path + "/../../Sources/CoordinatorAPI/Pages"
        let known = Set(PageVocabulary.sets.flatMap { name, words in words.map { "Word.\(name).\($0)" } })
            .union(["Word.source.heldOut"])
        var used: Set<String> = []
        for file in try FileManager.default.contentsOfDirectory(atPath: pages) where file.hasSuffix(".js") {
            let text = try String(contentsOfFile: pages + "/" + file, encoding: .utf8)
            for match in text.matches(of: /\bWord\.\w+\.\w+/) { used.insert(String(match.output)) }
        }
        #expect(used.isSubset(of: known), "\(used.subtracting(known))")
        #expect(used.count >= 10)
        #expect(PageVocabulary.script.contains(#""runPhase":{"created":"created","running":"running""#))
    }
}
