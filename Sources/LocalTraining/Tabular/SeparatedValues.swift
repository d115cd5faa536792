/// Divides text into records and cells.
struct SeparatedValues {
    private var scalars: Substring.UnicodeScalarView
    let separator: Unicode.Scalar

    init(_ text: String) {
        scalars = text.unicodeScalars[...]
        if scalars.first == "\u{FEFF}" { scalars.removeFirst() }
        // Spreadsheets write the separator into a first line `sep=;`.
        if scalars.starts(with: "sep=".unicodeScalars), let named = scalars.dropFirst(4).first,
            let end = scalars.dropFirst(5).first, end == "\n" || end == "\r"
        {
            separator = named
            scalars = scalars.dropFirst(5)
            return
        }
        separator = Self.separator(of: scalars)
    }

    /// The candidate that the first record has most often outside of quotes; a comma if it has none.
    private static func separator(of scalars: Substring.UnicodeScalarView) -> Unicode.Scalar {
        let candidates: [Unicode.Scalar] = [",", ";", "\t", "|"]
        var counts = [0, 0, 0, 0]
        var (isQuoted, isEmpty) = (false, true)
        for scalar in scalars {
            if scalar == "\"" { isQuoted.toggle() }
            if isQuoted { continue }
            if scalar == "\n" || scalar == "\r" {
                if isEmpty { continue }
                break
            }
            isEmpty = false
            if let index = candidates.firstIndex(of: scalar) { counts[index] += 1 }
        }
        let most = counts.max() ?? 0
        return candidates[counts.firstIndex(of: most) ?? 0]
    }

    /// The most lines that are dropped because of a quote that never ends.
    private static let brokenLimit = 100

    /// All records that are not empty.
    ///
    /// A line with a quote that never ends gives `nil`, and reading goes on behind it.
    ///
    /// - Throws: `LocalTrainingError.unusableData(reason:rule:)` for such a quote in the first record, or in more than 100.
    mutating func records() throws -> [[String]?] {
        var records: [[String]?] = []
        var recordStart = scalars
        var brokenCount = 0
        var record: [String] = []
        var cell = String.UnicodeScalarView()
        var (isQuoted, wasQuoted, isEmpty) = (false, false, true)
        func endCell() {
            record.append(String(cell))
            (cell, wasQuoted) = (.init(), false)
        }
        func endRecord() {
            if !isEmpty { endCell() }
            if !record.isEmpty { records.append(record) }
            (record, isEmpty) = ([], true)
            recordStart = scalars
        }
        while true {
            guard let scalar = scalars.popFirst() else {
                guard isQuoted else { break }
                // The open quote would make one cell of the rest of the file. Only its line is dropped.
                brokenCount += 1
                guard !records.isEmpty, brokenCount <= Self.brokenLimit else { throw endless(records.count + 1) }
                records.append(nil)
                scalars = recordStart.drop { $0 != "\n" && $0 != "\r" }
                (record, cell, isQuoted, wasQuoted, isEmpty) = ([], .init(), false, false, true)
                recordStart = scalars
                continue
            }
            if isQuoted {
                if scalar != "\"" {
                    cell.append(scalar)
                } else if scalars.first == "\"" {
                    cell.append(scalars.removeFirst())
                } else {
                    isQuoted = false
                }
                continue
            }
            switch scalar {
            case "\"" where !wasQuoted && opensCell(after: cell):
                (isQuoted, wasQuoted, isEmpty, cell) = (true, true, false, .init())
            case separator:
                isEmpty = false
                endCell()
            case "\n", "\r":
                if scalar == "\r", scalars.first == "\n" { scalars.removeFirst() }
                endRecord()
            // Blanks between a closing quote and the separator.
            case " " where wasQuoted, "\t" where wasQuoted: break
            default:
                isEmpty = false
                cell.append(scalar)
            }
        }
        endRecord()
        return records
    }

    private func endless(_ record: Int) -> LocalTrainingError {
        .unusableData(
            reason: "record \(record) has a quote that never ends",
            rule: "a record has a quote that never ends"
        )
    }

    /// Whether a quote begins a quoted cell: at the cell's beginning, or after blanks if the closing quote ends the cell.
    private func opensCell(after cell: String.UnicodeScalarView) -> Bool {
        if cell.isEmpty { return true }
        guard cell.allSatisfy({ $0 == " " || $0 == "\t" }) else { return false }
        var rest = scalars
        while let scalar = rest.popFirst() {
            guard scalar == "\"" else { continue }
            if rest.first == "\"" {
                rest.removeFirst()
                continue
            }
            let next = rest.first { $0 != " " && $0 != "\t" || $0 == separator }
            return next == nil || next == separator || next == "\n" || next == "\r"
        }
        return false
    }
}
