/// Text of a form that is checked when it is made: whoever holds one need not look again.
///
/// Goes over the wire as the text itself. What a peer sends becomes such a value before anything is done with it.
package protocol CheckedText: Codable, Hashable, Sendable, CustomStringConvertible {
    /// The text, which has the form.
    var text: String { get }
    /// What the text must be, as the end of a sentence: "must be …".
    static var rule: String { get }
    /// Takes the text where it has the form.
    init?(_ text: String)
}

extension CheckedText {
    package var description: String { text }

    package init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        guard let value = Self(try container.decode(String.self)) else {
            throw DecodingError.dataCorruptedError(in: container, debugDescription: Self.rule)
        }
        self = value
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(text)
    }
}

extension UInt8 {
    /// A lower-case hexadecimal digit.
    var isLowerHexadecimal: Bool { (48...57).contains(self) || (97...102).contains(self) }
    /// A letter or digit of ASCII.
    var isLetterOrDigit: Bool {
        (48...57).contains(self) || (65...90).contains(self) || (97...122).contains(self)
    }
}
