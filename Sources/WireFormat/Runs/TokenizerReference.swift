package import Foundation
import StrictJSON

extension RunSpecification.Model {
    /// Tokenisers of more bytes are fetched by clients once, in place of coming with every assignment.
    package static let inlineTokenizerByteLimit = 4096

    /// The tokeniser's JSON where it is long: what `GET /v1/runs/{run}/tokenizer` answers.
    package var longTokenizer: Data? {
        guard case .object(let fields)? = config, let tokenizer = fields["tokenizer"],
            let document = try? WireCoding.encode(tokenizer), document.count > Self.inlineTokenizerByteLimit
        else { return nil }
        return document
    }

    /// The same model with a reference in place of the tokeniser: `{"sha256": …, "url": …}`.
    package func referringToTokenizer(sha256: String, url: String) -> Self {
        guard case .object(var fields)? = config else { return self }
        fields["tokenizer"] = .object(["sha256": .string(sha256), "url": .string(url)])
        var model = self
        model.config = .object(fields)
        return model
    }

    /// The same model with the fetched tokeniser in it.
    ///
    /// - Throws: `DocumentError` when the bytes are not JSON.
    package func embedding(tokenizer document: Data) throws -> Self {
        guard case .object(var fields)? = config else { return self }
        fields["tokenizer"] = try JSONValue.parse(Array(document))
        var model = self
        model.config = .object(fields)
        return model
    }
}
