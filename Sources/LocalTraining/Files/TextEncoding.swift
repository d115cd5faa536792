package import Foundation

/// Turns a file's bytes into text; the first bytes decide the encoding.
package enum TextEncoding {
    /// The text of UTF-8, or of UTF-16 or UTF-32 with a byte order mark, without the mark.
    ///
    /// Bytes that are no UTF-8 become U+FFFD.
    ///
    /// - Throws: `LocalTrainingError.unusableData(reason:rule:)` for UTF-16 without a mark, for archives and other files
    ///   that are no text.
    package static func text(of data: Data) throws -> String {
        let bytes = [UInt8](data.prefix(4096))
        // UTF-32 first: its mark begins with the mark of UTF-16.
        if bytes.starts(with: [0xFF, 0xFE, 0, 0]) { return try wide(data.dropFirst(4), .utf32LittleEndian, "UTF-32") }
        if bytes.starts(with: [0, 0, 0xFE, 0xFF]) { return try wide(data.dropFirst(4), .utf32BigEndian, "UTF-32") }
        if bytes.starts(with: [0xFF, 0xFE]) { return try wide(data.dropFirst(2), .utf16LittleEndian, "UTF-16") }
        if bytes.starts(with: [0xFE, 0xFF]) { return try wide(data.dropFirst(2), .utf16BigEndian, "UTF-16") }
        if bytes.starts(with: [0xEF, 0xBB, 0xBF]) { return String(decoding: data.dropFirst(3), as: UTF8.self) }
        if let kind = archives.first(where: { bytes.starts(with: $0.magic) })?.kind {
            throw unreadable("it is \(kind), not text; save it as text, JSONL or CSV in UTF-8")
        }
        let zeros = bytes.count { $0 == 0 }
        // Letters of UTF-16 have their zeros all in even places, or all in odd ones.
        let even = bytes.indices.count { $0.isMultiple(of: 2) && bytes[$0] == 0 }
        if zeros * 4 > bytes.count, max(even, zeros - even) * 10 > zeros * 9 {
            throw unreadable("it looks like UTF-16 without a byte order mark; save it as UTF-8")
        }
        if zeros * 20 > bytes.count { throw unreadable("it is no text: it is full of NUL bytes") }
        return String(decoding: data, as: UTF8.self)
    }

    /// The lines of a text, which end with LF, CR LF or CR.
    ///
    /// Empty lines are included, so that numbers in errors are those of editors.
    package static func lines(of text: String) -> [Substring] {
        var lines: [Substring] = []
        let bytes = text.utf8
        var start = bytes.startIndex
        var index = start
        while index < bytes.endIndex {
            let byte = bytes[index]
            let next = bytes.index(after: index)
            guard byte == 0x0A || byte == 0x0D else {
                index = next
                continue
            }
            lines.append(text[start..<index])
            let endsTwice = byte == 0x0D && next < bytes.endIndex && bytes[next] == 0x0A
            start = endsTwice ? bytes.index(after: next) : next
            index = start
        }
        lines.append(text[start...])
        return lines
    }

    private static let archives: [(magic: [UInt8], kind: String)] = [
        ([0x50, 0x4B, 3, 4], "a zip archive or a spreadsheet"), ([0x1F, 0x8B], "a gzip archive"),
        ([0xD0, 0xCF, 0x11, 0xE0], "an old Office document"), (Array("%PDF".utf8), "a PDF"),
        (Array("PAR1".utf8), "a Parquet file"), (Array("SQLite format 3".utf8), "an SQLite database"),
        ([0x28, 0xB5, 0x2F, 0xFD], "a zstd archive"), ([0x7F, 0x45, 0x4C, 0x46], "a program or a library"),
    ]

    private static func wide(_ data: Data, _ encoding: String.Encoding, _ name: String) throws -> String {
        guard let text = String(data: data, encoding: encoding) else {
            throw unreadable("it begins as \(name) and is broken further on; save it as UTF-8")
        }
        return text
    }

    private static func unreadable(_ reason: String) -> LocalTrainingError {
        .unusableData(reason: reason, rule: "the data are in a file that cannot be read as text")
    }
}
