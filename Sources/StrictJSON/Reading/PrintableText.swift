/// Escapes text of peers for a terminal, a log or a page.
package enum PrintableText {
    /// Whether a character can control a terminal or change how other text looks: control characters (C0, DEL, C1), format
    /// characters (writing direction, zero width, tags), line and paragraph separators.
    package static func isUnsafe(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.properties.generalCategory {
        case .control, .format, .lineSeparator, .paragraphSeparator, .surrogate: true
        // Private-use and unassigned characters show a glyph and do nothing.
        default: false
        }
    }

    /// The text with unsafe characters written as `\u{1B}`, on one line.
    ///
    /// - Parameters:
    ///   - text: Text of a peer.
    ///   - limit: The most characters of the result; a text that is cut ends in one more, `…`.
    /// - Returns: Text without unsafe characters.
    package static func escaped(_ text: some StringProtocol, limit: Int = .max) -> String {
        var result = String.UnicodeScalarView()
        var count = 0
        for scalar in text.unicodeScalars {
            let isUnsafe = isUnsafe(scalar)
            let written = isUnsafe ? "\\u{\(String(scalar.value, radix: 16, uppercase: true))}" : ""
            count += isUnsafe ? written.count : 1
            guard count <= limit else {
                result.append("…")
                break
            }
            if isUnsafe { result.append(contentsOf: written.unicodeScalars) } else { result.append(scalar) }
        }
        return String(result)
    }

    /// Escapes each line of a text and keeps the line breaks.
    package static func escapedLines(_ text: some StringProtocol) -> String {
        text.split(omittingEmptySubsequences: false) { $0 == "\n" || $0 == "\r\n" }.map { escaped($0) }
            .joined(separator: "\n")
    }
}
