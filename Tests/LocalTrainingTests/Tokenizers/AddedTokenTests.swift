import Foundation
import LocalTraining
import StrictJSON
import Testing

/// Added tokens against Hugging Face's `tokenizers` (`Fixtures/added-tokens.json`), and what is written of them.
struct AddedTokenTests {
    private struct Fixture {
        var tokenizer: Data
        var cases: [(text: String, ids: [Int])]

        init() throws {
            let url = try #require(
                Bundle.module.url(forResource: "added-tokens", withExtension: "json", subdirectory: "Fixtures")
            )
            let root = try #require(
                try JSONSerialization.jsonObject(with: Data(contentsOf: url)) as? [String: Any]
            )
            tokenizer = try JSONSerialization.data(withJSONObject: try #require(root["tokenizer"]))
            cases = try #require(root["cases"] as? [[String: Any]]).map {
                (try #require($0["text"] as? String), try #require($0["ids"] as? [Int]))
            }
        }
    }

    @Test func addedTokensAreFoundByCodePoints() throws {
        let fixture = try Fixture()
        let tokenizer = try ByteLevelBPE(huggingFace: fixture.tokenizer)
        #expect(fixture.cases.count == 11)
        for (text, ids) in fixture.cases { #expect(tokenizer.encode(text) == ids, "\(text.debugDescription)") }
    }

    /// Controls and quotes in tokens, `normalized` and the post-processor outlive reading and writing.
    @Test func whatIsWrittenIsJSONAndTheSameTokenizer() throws {
        let fixture = try Fixture()
        let written = try ByteLevelBPE(huggingFace: fixture.tokenizer).huggingFaceJSON()
        // Strict: a raw control character is an error.
        guard case .object(let root) = try JSONValue(parsing: Array(written)) else {
            Issue.record("not an object")
            return
        }
        let before = try JSONValue(parsing: Array(fixture.tokenizer))
        guard case .object(let old) = before else { return }
        #expect(root["post_processor"] == old["post_processor"])
        #expect(root["added_tokens"] == old["added_tokens"])
        let copy = try ByteLevelBPE(huggingFace: written)
        for (text, ids) in fixture.cases { #expect(copy.encode(text) == ids, "\(text.debugDescription)") }
        #expect(copy.huggingFaceJSON() == written)
    }
}
