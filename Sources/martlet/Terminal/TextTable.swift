import Foundation

/// Columns that line up: words to the left, numbers to the right, two spaces between.
struct TextTable {
    enum Alignment { case left, right }
    private let titles: [String]
    private let alignments: [Alignment]
    private var rows: [[String]] = []

    init(_ columns: (String, Alignment)...) {
        titles = columns.map(\.0)
        alignments = columns.map(\.1)
    }

    mutating func add(_ cells: String...) {
        precondition(cells.count == titles.count, "a row has a cell for each column")
        rows.append(cells)
    }

    /// The table with its heading; the last column is not padded.
    func lines(on terminal: Terminal) -> [String] {
        // Before they are measured: an escaped cell is longer.
        let rows = rows.map { $0.map(terminal.safeCell) }
        let widths = titles.indices.map { column in
            ([titles] + rows).map { Terminal.columns($0[column]) }.max() ?? 0
        }
        func line(_ cells: [String]) -> String {
            var text = ""
            for (column, cell) in cells.enumerated() {
                let padding = String(repeating: " ", count: widths[column] - Terminal.columns(cell))
                let isLast = column == cells.count - 1
                text += alignments[column] == .right ? padding + cell : isLast ? cell : cell + padding
                if !isLast { text += "  " }
            }
            return text
        }
        return [terminal.styled(line(titles), .bold)] + rows.map(line)
    }

    func show(on terminal: Terminal = .standardOutput) {
        for line in lines(on: terminal) { print(line) }
    }
}

/// Numbers as people read them.
enum Readable {
    static func bytes(_ count: Int) -> String {
        let value = Double(count)
        switch value {
        case ..<1e3: return "\(count) B"
        case ..<1e6: return rounded(value / 1e3, 1) + " kB"
        case ..<1e9: return rounded(value / 1e6, 1) + " MB"
        default: return rounded(value / 1e9, 2) + " GB"
        }
    }

    static func seconds(_ value: Double) -> String {
        switch value {
        case ..<100: return rounded(value, 1) + " s"
        case ..<5400: return "\(Int(value / 60)) min \(Int(value) % 60) s"
        default: return "\(Int(value / 3600)) h \(Int(value) % 3600 / 60) min"
        }
    }

    static func rounded(_ value: Double, _ digits: Int) -> String {
        var scale = 1.0
        for _ in 0..<digits { scale *= 10 }
        guard abs(value) < 1e15 / scale else { return "\(value)" }
        let whole = Int((abs(value) * scale).rounded())
        let sign = value < 0 && whole > 0 ? "-" : ""
        guard digits > 0 else { return "\(sign)\(whole)" }
        let digitsText = String(whole % Int(scale))
        return "\(sign)\(whole / Int(scale))." + String(repeating: "0", count: digits - digitsText.count) + digitsText
    }

    /// Four significant digits, for sentences; programs read all digits in JSON.
    static func significant(_ value: Double) -> String { String(format: "%.4g", value) }

    /// `1 round`, `2 rounds`.
    static func count(_ number: Int, _ noun: String) -> String { "\(number) \(noun)\(number == 1 ? "" : "s")" }
}
