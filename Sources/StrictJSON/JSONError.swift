/// Why bytes are not JSON, and where.
package struct JSONError: Error, Equatable, Sendable, CustomStringConvertible {
    /// The line, counted from 1.
    package let line: Int
    /// The character in that line, counted from 1.
    package let column: Int
    /// What is wrong at that place, as the end of a sentence.
    package let reason: String

    /// An error at a byte of a text.
    init(_ reason: String, at position: Int, of bytes: [UInt8]) {
        let before = bytes[..<min(position, bytes.count)]
        let start = before.lastIndex(of: UInt8(ascii: "\n")).map { $0 + 1 } ?? 0
        line = 1 + before.count { $0 == UInt8(ascii: "\n") }
        // Continuation bytes of UTF-8 begin with the bits 10 and start no character.
        column = 1 + before[start...].count { $0 & 0xC0 != 0x80 }
        self.reason = reason
    }

    package var description: String { "line \(line), column \(column): \(reason)" }
}
