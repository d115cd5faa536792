/// A table as it was read: a header, and rows with as many cells.
///
/// An empty cell is a missing value.
public struct Table: Equatable, Sendable {
    /// Column names, each once.
    public var header: [String]
    /// Rows of `header.count` cells.
    public var rows: [[String]]
    /// Rows of the file that are not in `rows`: with another number of cells than the header, or not readable.
    private(set) var faults: [TableFault] = []
    /// Cells with a value that no table can have, by the row's number in the file and the column's index.
    ///
    /// They are faults only if the column is used.
    private(set) var cellFaults: [Int: [Int: String]] = [:]
    /// The number of each row in its file, from 1; empty if it is the row's place here.
    private var rowNumbers: [Int] = []

    /// Creates a table.
    ///
    /// - Throws: `LocalTrainingError.unusableData(reason:rule:)` for a column name that comes twice, or a row of another length.
    public init(header: [String], rows: [[String]]) throws {
        try self.init(header: header, records: rows)
        if let fault = faults.first { throw fault.error }
    }

    /// Creates a table, and collects rows of another length as faults.
    ///
    /// - Parameters:
    ///   - header: Column names.
    ///   - records: Rows; `nil` for one with a quote that never ends.
    /// - Throws: `LocalTrainingError.unusableData(reason:rule:)` for a column name that comes twice.
    private init(header: [String], records: [[String]?]) throws {
        let names = header.filter { !$0.isEmpty }
        guard Set(names).count == names.count else {
            throw LocalTrainingError.unusableData(
                reason: "the table's header names a column twice",
                rule: "the table's header names a column twice"
            )
        }
        self.header = header
        rows = []
        for (index, record) in records.enumerated() {
            guard let record else {
                faults.append(TableFault(row: index + 1, column: nil, rule: "it has a quote that never ends"))
                continue
            }
            guard record.count == header.count else {
                faults.append(
                    TableFault(
                        row: index + 1,
                        column: nil,
                        rule: "it has \(record.count) cells, the header \(header.count)"
                    )
                )
                continue
            }
            rows.append(record)
            rowNumbers.append(index + 1)
        }
    }

    /// Reads separated values as RFC 4180 has them, the first record being the header.
    ///
    /// Lines end with LF, CR LF or CR. The separator is a comma, or the semicolon, tab or bar that the header has more often. Blanks around
    /// the names of columns are removed.
    ///
    /// - Throws: `LocalTrainingError.unusableData(reason:rule:)` with the record's number.
    public init(csv: String) throws {
        var reader = SeparatedValues(csv)
        let records = try reader.records()
        guard let header = records.first ?? nil else {
            throw LocalTrainingError.unusableData(reason: "the table is empty", rule: "the table is empty")
        }
        try self.init(header: header.map(TableCell.trimmed), records: Array(records.dropFirst()))
    }

    /// Creates a table of records that may have faults.
    ///
    /// - Parameters:
    ///   - header: Column names.
    ///   - rows: Rows with their numbers in the file; a cell with a fault is empty.
    ///   - faults: Records that are no rows.
    ///   - cellFaults: Cells that cannot be used.
    /// - Throws: `LocalTrainingError.unusableData(reason:rule:)` for a column name that comes twice.
    init(
        header: [String],
        numbered rows: [(number: Int, cells: [String])],
        faults: [TableFault],
        cellFaults: [Int: [Int: String]]
    ) throws {
        try self.init(header: header, records: rows.map(\.cells))
        rowNumbers = rows.map(\.number)
        self.faults += faults
        self.cellFaults = cellFaults
    }

    /// The rows in which a column has a given value.
    ///
    /// - Throws: `LocalTrainingError.unusableData(reason:rule:)` if there is no such column.
    public func filtered(column: String, equals value: String) throws -> Table {
        let index = try position(of: column)
        var table = self
        let chosen = rows.indices.filter { TableCell.matches(rows[$0][index], level: value) }
        table.rows = chosen.map { rows[$0] }
        table.rowNumbers = chosen.map(rowNumber)
        return table
    }

    /// The number of a row in its file, from 1.
    func rowNumber(_ index: Int) -> Int { rowNumbers.count == rows.count ? rowNumbers[index] : index + 1 }

    func position(of column: String) throws -> Int {
        if let index = header.firstIndex(of: column) ?? header.firstIndex(of: TableCell.trimmed(column)) {
            return index
        }
        let missing = "the table has no column '\(column)'"
        let near = header.first { $0.lowercased() == column.lowercased() }
        let names = header.prefix(20).joined(separator: ", ")
        throw LocalTrainingError.unusableData(
            reason: missing + (near.map { ", but one named '\($0)'" } ?? "; it has \(names)"),
            rule: missing
        )
    }

    /// Throws the first fault of a row, if there is one.
    package func requireWholeRows() throws {
        if let fault = faults.first { throw fault.error }
    }
}
