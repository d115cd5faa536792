package import Foundation
import WireFormat

/// An answer as it came, and what it is by the table of endpoints.
package struct AnswerDocument<Answer>: Sendable {
    /// The body.
    package let bytes: Data
}

extension AnswerDocument where Answer: Decodable {
    /// The answer as a value.
    ///
    /// - Throws: `DecodingError`.
    package func decoded() throws -> Answer { try WireCoding.decode(Answer.self, from: bytes) }
}
