/// What is wrong with a document, field by field.
package struct DocumentError: Error, Equatable, Sendable, CustomStringConvertible {
    /// One problem.
    package struct Problem: Equatable, Sendable, Codable, CustomStringConvertible {
        /// A JSON pointer to the field.
        package var pointer: String
        /// What is wrong and what would be right.
        package var detail: String

        /// One line, with names and values of whoever wrote the document as words only.
        package var description: String {
            PrintableText.escaped(pointer.isEmpty ? detail : "\(pointer): \(detail)")
        }

        package init(pointer: String, detail: String) {
            self.pointer = pointer
            self.detail = detail
        }
    }

    /// So many problems are named; one more says that there are others.
    package static let countLimit = 100

    /// The problems found, in the order of the fields that were read: ``countLimit`` of them, and one more where there were.
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
    /// - Throws: ``DocumentError`` with the pointer "" and the place in the text, when the bytes are not strict JSON.
    package static func parse(_ bytes: [UInt8]) throws(DocumentError) -> JSONValue {
        do {
            return try JSONValue(parsing: bytes)
        } catch {
            throw DocumentError("", "is not valid JSON: \(error)")
        }
    }
}
