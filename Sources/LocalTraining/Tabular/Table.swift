/// A table as it was read: a header, and rows of as many cells; an empty cell is a missing value.
public struct Table: Equatable, Sendable {
    /// Column names, each once.
    public var header: [String]
    /// Rows of `header.count` cells.
    public var rows: [[String]]

    /// Creates a table.
    ///
    /// - Throws: ``LocalTrainingError/unusableData(reason:)`` for a column that is there twice or a row of another length.
    public init(header: [String], rows: [[String]]) throws {
        guard Set(header).count == header.count else {
            throw LocalTrainingError.unusableData(reason: "the table's header names a column twice")
        }
        for (index, row) in rows.enumerated() where row.count != header.count {
            throw LocalTrainingError.unusableData(
                reason: "row \(index + 1) has \(row.count) cells, the header \(header.count)"
            )
        }
        self.header = header
        self.rows = rows
    }

    /// Reads comma-separated values as RFC 4180 has them, the first record being the header.
    ///
    /// - Throws: ``LocalTrainingError/unusableData(reason:)`` naming the record.
    public init(csv: String) throws {
        var records: [[String]] = []
        var record: [String] = []
        var cell = ""
        var (isQuoted, wasQuoted, isEmpty) = (false, false, true)
        var scalars = csv.unicodeScalars[...]
        if scalars.first == "\u{FEFF}" { scalars.removeFirst() }
        func endCell() {
            record.append(cell)
            (cell, wasQuoted) = ("", false)
        }
        func endRecord() {
            if !isEmpty { endCell() }
            if !record.isEmpty { records.append(record) }
            (record, isEmpty) = ([], true)
        }
        while let scalar = scalars.popFirst() {
            if isQuoted {
                if scalar != "\"" {
                    cell.unicodeScalars.append(scalar)
                } else if scalars.first == "\"" {
                    cell.unicodeScalars.append(scalars.removeFirst())
                } else {
                    isQuoted = false
                }
                continue
            }
            switch scalar {
            case "\"" where cell.isEmpty && !wasQuoted: (isQuoted, wasQuoted, isEmpty) = (true, true, false)
            case ",":
                isEmpty = false
                endCell()
            case "\n": endRecord()
            case "\r" where scalars.first == "\n": break
            default:
                isEmpty = false
                cell.unicodeScalars.append(scalar)
            }
        }
        guard !isQuoted else {
            throw LocalTrainingError.unusableData(reason: "record \(records.count + 1) has a quote that never ends")
        }
        endRecord()
        guard let header = records.first else { throw LocalTrainingError.unusableData(reason: "the table is empty") }
        try self.init(header: header, rows: Array(records.dropFirst()))
    }

    /// The rows in which a column has a value.
    ///
    /// - Throws: ``LocalTrainingError/unusableData(reason:)`` when there is no such column.
    public func filtered(column: String, equals value: String) throws -> Table {
        let index = try position(of: column)
        return try Table(header: header, rows: rows.filter { $0[index] == value })
    }

    func position(of column: String) throws -> Int {
        guard let index = header.firstIndex(of: column) else {
            throw LocalTrainingError.unusableData(reason: "the table has no column '\(column)'")
        }
        return index
    }
}
