/// What is wrong with a document, field by field.
package struct DocumentError: Error, Equatable, Sendable, CustomStringConvertible {
    /// One problem.
    package struct Problem: Equatable, Sendable, Codable, CustomStringConvertible {
        /// A JSON pointer to the field.
        package var pointer: String
        /// What is wrong, and what would be right.
        package var detail: String

        /// One line that is safe for a terminal: names and values of the document are escaped.
        package var description: String {
            PrintableText.escaped(pointer.isEmpty ? detail : "\(pointer): \(detail)")
        }

        package init(pointer: String, detail: String) {
            self.pointer = pointer
            self.detail = detail
        }
    }

    /// The most problems that an answer names.
    ///
    /// The list holds one more if there are more.
    package static let countLimit = 100

    /// The problems, in the order in which the fields were read: at most ``countLimit`` and one more.
    package var problems: [Problem]

    package var description: String { problems.map(\.description).joined(separator: "; ") }

    package init(problems: [Problem]) {
        self.problems = problems
    }

    package init(_ pointer: String, _ detail: String) {
        problems = [Problem(pointer: pointer, detail: detail)]
    }
}

extension JSONValue {
    /// Reads JSON text.
    ///
    /// - Throws: ``DocumentError`` with the pointer "" and the line and column, if the bytes are not strict JSON.
    package static func parse(_ bytes: [UInt8]) throws(DocumentError) -> JSONValue {
        do {
            return try JSONValue(parsing: bytes)
        } catch {
            throw DocumentError("", "is not valid JSON: \(error)")
        }
    }
}
