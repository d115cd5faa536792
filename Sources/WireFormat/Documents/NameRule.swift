package import StrictJSON

/// What people may call populations, runs, clients and tokens.
///
/// A name is a segment of a path, an argument of a command, a cell of a table and a line of a log: whatever would end or
/// turn one of them is no name. What older versions stored stays as it is until it is changed.
package enum NameRule {
    /// The most Unicode scalars that a name may have.
    package static let lengthLimit = 200

    /// Why a text is no name, as the rest of a sentence about it; `nil` when it is one.
    ///
    /// - Complexity: O(``lengthLimit``), however long the text.
    package static func problem(_ name: String) -> String? {
        let scalars = name.unicodeScalars.prefix(lengthLimit + 1)
        guard (1...lengthLimit).contains(scalars.count) else { return "must have 1 to \(lengthLimit) characters" }
        guard !scalars.contains(where: { !isPrintable($0) }) else {
            return "must have printable characters only: no control characters, none that turn or hide text"
        }
        guard !scalars.contains("/") else { return "must not have a '/'" }
        guard name != ".", name != ".." else { return "must not be '.' or '..'" }
        guard scalars.first != "-" else { return "must not begin with '-': commands would take it for an option" }
        guard scalars.first != " ", scalars.last != " " else { return "must not begin or end with a space" }
        return nil
    }

    /// Whether a scalar has a look of its own; of spaces only the plain one does.
    package static func isPrintable(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.properties.generalCategory {
        case .control, .format, .surrogate, .privateUse, .unassigned, .lineSeparator, .paragraphSeparator: false
        case .spaceSeparator: scalar == " "
        default: true
        }
    }
}

extension FieldReader {
    /// A name, which must follow ``NameRule``.
    package func name(_ field: String) -> String {
        checked(string(field, lengthLimit: .max), field)
    }

    /// A name that may be absent.
    package func optionalName(_ field: String) -> String? {
        optionalString(field, lengthLimit: .max).map { checked($0, field) }
    }

    private func checked(_ name: String, _ field: String) -> String {
        // An empty one has been reported, and a missing one too.
        if !name.isEmpty, let problem = NameRule.problem(name) { report(field, problem) }
        return name
    }

    /// Labels of a client, whose JSON has at most ``labelByteLimit`` bytes.
    package func labels(_ field: String) -> [String: String] {
        let labels = strings(field)
        if Self.byteCount(labels) > Self.labelByteLimit {
            report(field, "must have at most \(Self.labelByteLimit) bytes as JSON")
        }
        return labels
    }

    /// The most bytes that a client's labels may have, as the JSON that is stored; its capabilities likewise.
    package static let labelByteLimit = 4096

    /// The size of the JSON object of some strings.
    private static func byteCount(_ strings: [String: String]) -> Int {
        (try? WireCoding.encode(strings).count) ?? .max
    }
}
