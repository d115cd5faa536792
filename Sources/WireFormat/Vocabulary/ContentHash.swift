/// The SHA-256 of a file, as 64 lower-case hexadecimal digits.
package struct ContentHash: CheckedText {
    package let text: String
    package static let rule = "must be 64 lower-case hexadecimal digits"

    package init?(_ text: String) {
        guard text.utf8.count == 64, text.utf8.allSatisfy(\.isLowerHexadecimal) else { return nil }
        self.text = text
    }

    /// The hash of 32 bytes; `nil` for another number of them.
    package init?(digest: some Sequence<UInt8>) {
        self.init(digest.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined())
    }
}
