/// The id of one kind of thing: what is safe as a segment of a path and as part of a file's name.
///
/// Up to 100 letters and digits of ASCII, `_`, `-` and `.`, the first of them a letter, a digit or `_`: never `.` or `..`,
/// nothing hidden, no option of a command.
package protocol Identifier: CheckedText, Comparable {
    /// Takes a text that is known to have the form.
    init(known text: String)
}

extension Identifier {
    package static var rule: String {
        "must have 1 to 100 letters, digits, '_', '-' or '.', and begin with a letter, a digit or '_'"
    }

    package init?(_ text: String) {
        guard (1...100).contains(text.utf8.count), let first = text.utf8.first, first.isLetterOrDigit || first == 95,
            text.utf8.allSatisfy({ $0.isLetterOrDigit || $0 == 95 || $0 == 45 || $0 == 46 })
        else { return nil }
        self.init(known: text)
    }

    package static func < (left: Self, right: Self) -> Bool { left.text < right.text }
}

/// The id of a run.
package struct RunID: Identifier {
    package let text: String
    package init(known text: String) { self.text = text }
}

/// The id of one client's work in one round.
package struct AssignmentID: Identifier {
    package let text: String
    package init(known text: String) { self.text = text }
}

/// The id of a client.
package struct ClientID: Identifier {
    package let text: String
    package init(known text: String) { self.text = text }
}

/// What proves who asks: goes into a header field, so it holds nothing that could end one.
package struct BearerToken: CheckedText {
    package let text: String
    package static let rule = "must have 1 to 500 letters, digits, '-', '.', '_', '~', '+', '/' or '='"

    package init?(_ text: String) {
        let others = Set("-._~+/=".utf8)
        guard (1...500).contains(text.utf8.count),
            text.utf8.allSatisfy({ $0.isLetterOrDigit || others.contains($0) })
        else { return nil }
        self.text = text
    }

    /// Not the token: a value that is printed by mistake tells nothing.
    package var description: String { "a token" }
}
