/// Text from elsewhere on its way to a terminal, a log or a page.
package enum PrintableText {
    /// Whether a character can act on what shows it, or change how other text looks: control characters (C0, DEL, C1),
    /// format characters (directions of writing, zero widths, tags), and dividers of lines and paragraphs.
    package static func isUnsafe(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.properties.generalCategory {
        case .control, .format, .lineSeparator, .paragraphSeparator, .surrogate: true
        // A private character shows whatever a font says, an unassigned one what a later Unicode says.
        default: false
        }
    }

    /// The text with unsafe characters written as `\u{1B}`, on one line.
    ///
    /// - Parameters:
    ///   - text: Whatever a peer has sent.
    ///   - limit: Characters of the result, at most; what is cut ends in `…`.
    /// - Returns: Text that shows and does nothing.
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

    /// The same for a text of several lines, which stay apart.
    package static func escapedLines(_ text: some StringProtocol) -> String {
        text.split(omittingEmptySubsequences: false) { $0 == "\n" || $0 == "\r\n" }.map { escaped($0) }
            .joined(separator: "\n")
    }
}
