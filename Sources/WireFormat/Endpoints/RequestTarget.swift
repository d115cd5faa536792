/// A method and a target: what goes into the first line of a request.
package struct RequestTarget<Body, Answer>: Sendable {
    package let method: RequestMethod
    /// Percent-encoded, without a query.
    package let path: String
    private var fields: [(name: String, value: String)] = []

    init(method: RequestMethod, path: String) {
        self.method = method
        self.path = path
    }

    /// Path and query.
    package var target: String {
        guard !fields.isEmpty else { return path }
        let query = fields.map { "\(PathEncoding.component($0.name))=\(PathEncoding.component($0.value))" }
        return path + "?" + query.joined(separator: "&")
    }

    /// The same with a query parameter; without a value the same.
    package func with(_ name: String, _ value: (some CustomStringConvertible)?) -> Self {
        guard let value else { return self }
        var copy = self
        copy.fields.append((name, value.description))
        return copy
    }

    /// The same target, whose answer is read as another document: by its query it has another form.
    package func answering<Other>(_ type: Other.Type) -> RequestTarget<Body, Other> {
        var copy = RequestTarget<Body, Other>(method: method, path: path)
        copy.fields = fields
        return copy
    }
}

/// Percent-encoding of paths and queries (RFC 3986).
enum PathEncoding {
    private static let unreserved = Set("-._~".utf8)

    /// A text with everything but unreserved characters encoded.
    static func component(_ text: String) -> String {
        guard !text.utf8.allSatisfy({ $0.isLetterOrDigit || unreserved.contains($0) }) else { return text }
        var encoded = ""
        for byte in text.utf8 {
            if byte.isLetterOrDigit || unreserved.contains(byte) {
                encoded.unicodeScalars.append(Unicode.Scalar(byte))
            } else {
                encoded += byte < 16 ? "%0" : "%"
                encoded += String(byte, radix: 16, uppercase: true)
            }
        }
        return encoded
    }

    /// A segment of a path.
    static func segment(_ text: String) -> String {
        // Dots alone would be taken for a step in the path; a population of that name has its id.
        guard text != ".", text != ".." else { return text == "." ? "%2E" : "%2E%2E" }
        return component(text)
    }
}
