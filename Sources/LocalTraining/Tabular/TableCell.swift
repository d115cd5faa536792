import Foundation

/// Reads a cell of a table: as a number, as a level, or as a missing value.
package enum TableCell {
    /// What programs write for a missing value, in lower case.
    private static let missingMarks: Set<String> = [
        "", "na", "n/a", "#n/a", "#na", "nan", "+nan", "-nan", "null", "none", "nil", "<na>", "?", ".", "-", "--",
    ]

    /// The cell without the blanks around it.
    package static func trimmed(_ cell: String) -> String {
        // Fast path: most cells have no blanks around them.
        guard let first = cell.unicodeScalars.first, let last = cell.unicodeScalars.last,
            first.properties.isWhitespace || last.properties.isWhitespace
        else { return cell }
        return cell.trimmingCharacters(in: .whitespacesAndNewlines)
    }

    /// Whether the cell is a missing value: empty, `NA`, `NaN`, `null`, `None`, `?` and the like, in any case.
    package static func isMissing(_ cell: String) -> Bool {
        cell.isEmpty || (cell.utf8.count < 16 && missingMarks.contains(trimmed(cell).lowercased()))
    }

    /// A finite decimal number, with or without blanks around it; `nil` for other text.
    ///
    /// Hexadecimal digits, separators, a decimal comma and `inf` are refused.
    package static func number(_ cell: String) -> Double? {
        let text = trimmed(cell)
        guard isDecimal(text), let value = Double(text), value.isFinite else { return nil }
        return value
    }

    /// Why a cell is no number, as the end of a sentence, without the cell's content.
    package static func numberFault(_ cell: String) -> String {
        let text = trimmed(cell)
        if isDecimal(text) { return "the number is too large" }
        if hasGroups(text) {
            return "the number has thousands separators or a decimal comma; write digits and a point only"
        }
        if text.unicodeScalars.contains("\0") { return "the cell holds a NUL character" }
        return "the cell is no decimal number"
    }

    /// Whether a cell is a level: the same text without blanks around it, or the same whole number with a fraction of zeros.
    ///
    /// Programs store a column of whole numbers with gaps as floating point, and then write `1` as `1.0`.
    package static func matches(_ cell: String, level: String) -> Bool {
        if cell == level { return true }
        let (left, right) = (trimmed(cell), trimmed(level))
        return left == right || (wholeNumber(left) != nil && wholeNumber(left) == wholeNumber(right))
    }

    /// The index of a cell's level: a level with the same text first, then one that ``matches(_:level:)``; `nil` for none.
    package static func index(of cell: String, in levels: [String]) -> Int? {
        levels.firstIndex(of: cell) ?? levels.firstIndex(of: trimmed(cell))
            ?? levels.firstIndex { matches(cell, level: $0) }
    }

    // MARK: -

    private static func isDecimal(_ text: String) -> Bool {
        var bytes = Substring(text).utf8
        func digits() -> Int {
            let count = bytes.prefix { (0x30...0x39).contains($0) }.count
            bytes = bytes.dropFirst(count)
            return count
        }
        if let sign = bytes.first, sign == UInt8(ascii: "+") || sign == UInt8(ascii: "-") { bytes = bytes.dropFirst() }
        var count = digits()
        if bytes.first == UInt8(ascii: ".") {
            bytes = bytes.dropFirst()
            count += digits()
        }
        guard count > 0 else { return false }
        if let mark = bytes.first, mark | 0x20 == UInt8(ascii: "e") {
            bytes = bytes.dropFirst()
            if let sign = bytes.first, sign == UInt8(ascii: "+") || sign == UInt8(ascii: "-") {
                bytes = bytes.dropFirst()
            }
            guard digits() > 0 else { return false }
        }
        return bytes.isEmpty
    }

    /// Digits with marks between groups, such as `1,233`, `1 233.5`, `1_000` or `1,5`.
    private static func hasGroups(_ text: String) -> Bool {
        var sawMark = false
        var lastWasDigit = false
        for (index, scalar) in text.unicodeScalars.enumerated() {
            switch scalar {
            case "0"..."9": lastWasDigit = true
            case "+" where index == 0, "-" where index == 0: break
            case ",", ".", "'", "_", " ", "\u{A0}", "\u{202F}", "\u{2009}", "\u{2019}", "\u{66B}", "\u{66C}":
                guard lastWasDigit else { return false }
                if scalar != "." { sawMark = true }
                lastWasDigit = false
            default: return false
            }
        }
        return sawMark && lastWasDigit
    }

    /// The digits of a whole number, without a fraction of zeros; `nil` for anything else.
    private static func wholeNumber(_ text: String) -> Substring? {
        let parts = text.split(separator: ".", maxSplits: 1, omittingEmptySubsequences: false)
        let digits = parts[0].hasPrefix("-") ? parts[0].dropFirst() : parts[0]
        guard !digits.isEmpty, digits.utf8.allSatisfy({ (0x30...0x39).contains($0) }),
            parts.count == 1 || parts[1].utf8.allSatisfy({ $0 == UInt8(ascii: "0") })
        else { return nil }
        return parts[0]
    }
}

/// A row or a cell of a device's table that cannot be used.
package struct TableFault: Error, Equatable {
    /// The row in the file, from 1, without the header.
    package var row: Int
    /// A column of the schema; `nil` for a fault of the whole row.
    package var column: String?
    /// What is wrong, without anything that was read from the table.
    package var rule: String

    /// The sentence for the device's owner.
    package var ownerSentence: String { "row \(row)" + (column.map { ", column '\($0)'" } ?? "") + ": " + rule }
    /// The sentence for the server, which knows the schema.
    package var serverDetail: String { (column.map { "column '\($0)': " } ?? "a row: ") + rule }

    package var error: LocalTrainingError { .unusableData(reason: ownerSentence, rule: serverDetail) }
}

/// Rows that were left out of a device's table, for its owner.
public struct LeftOutRows: Equatable, Sendable, Codable {
    /// The number of rows without a label, or without a feature if the schema says `drop`.
    public var missing = 0
    /// The number of rows that cannot be read.
    public var unreadable = 0
    /// What is wrong with the first unreadable rows, by row and column.
    public var examples: [String] = []

    /// How many sentences are kept.
    static let exampleLimit = 20

    mutating func add(_ fault: TableFault) {
        unreadable += 1
        if examples.count < Self.exampleLimit { examples.append(fault.ownerSentence) }
    }
}
