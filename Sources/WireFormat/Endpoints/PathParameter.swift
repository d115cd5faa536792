/// A segment of a path that names something.
///
/// A value is a reference, not the thing: whether it exists is for the server to look up.
package protocol PathParameter: Hashable, Sendable {
    /// What stands in braces in the templates.
    static var placeholder: String { get }
    /// The segment, without percent-encoding.
    var segment: String { get }
    /// Reads a segment that was percent-decoded.
    ///
    /// - Throws: ``PathParameterError`` for what can name nothing.
    init(segment: String) throws(PathParameterError)
}

/// A segment that cannot name anything of its kind.
package struct PathParameterError: Error {
    /// Why, for the caller.
    package var detail: String
}

/// A parameter that any text may be.
package protocol TextParameter: PathParameter, ExpressibleByStringLiteral {
    /// What the caller calls it.
    var text: String { get }
    /// Takes a text.
    init(_ text: String)
}

extension TextParameter {
    package var segment: String { text }
    package init(segment: String) throws(PathParameterError) { self.init(segment) }
    package init(stringLiteral value: String) { self.init(value) }
}

/// A run, by its id.
package struct RunReference: TextParameter {
    package static var placeholder: String { "run" }
    package let text: String
    package init(_ text: String) { self.text = text }
}

/// A population, by its id or name.
package struct PopulationReference: TextParameter {
    package static var placeholder: String { "population" }
    package let text: String
    package init(_ text: String) { self.text = text }
}

/// A client, by its id.
package struct ClientReference: TextParameter {
    package static var placeholder: String { "client" }
    package let text: String
    package init(_ text: String) { self.text = text }
}

/// One client's work in one round, by its id.
package struct AssignmentReference: TextParameter {
    package static var placeholder: String { "assignment" }
    package let text: String
    package init(_ text: String) { self.text = text }
    package init(_ id: AssignmentID) { text = id.text }
}

/// A token, by its id.
package struct TokenReference: TextParameter {
    /// The token that the request comes with.
    package static let current = TokenReference("current")
    package static var placeholder: String { "token" }
    package let text: String
    package init(_ text: String) { self.text = text }
}

/// A model version, by its number.
package struct VersionReference: TextParameter {
    /// The newest version.
    package static let latest = VersionReference("latest")
    package static var placeholder: String { "version" }
    package let text: String
    package init(_ text: String) { self.text = text }
    package init(_ number: Int) { text = String(number) }
}

/// A round, or the evaluation of a version, by its number.
package struct RoundReference: PathParameter {
    package static var placeholder: String { "round" }
    package let number: Int
    package var segment: String { String(number) }
    package init(_ number: Int) { self.number = number }

    package init(segment: String) throws(PathParameterError) {
        guard let number = Int(segment), number >= 0 else {
            throw PathParameterError(detail: "rounds are numbered from 1")
        }
        self.number = number
    }
}
