public import Foundation
import StrictJSON

/// A device's data in a file, whose kind the content decides.
///
/// JSON begins as JSON and parses: an array of records, or one record in each line. A table is a file named `.csv`, `.tsv` or `.tab`,
/// or other text in columns: lines with the same number of cells under a header of names, with one column of numbers. Everything
/// else is text, one record in each line.
public struct DataFile: Sendable {
    /// The kind of the content.
    public enum Kind: String, Sendable {
        /// Text, one record in each line.
        case text
        /// JSON objects: an array of them, or one in each line.
        case json
        /// A header and rows.
        case table
    }

    /// The kind of the content.
    public let kind: Kind
    private let text: String
    private let records: [Record]
    /// Lines and items that cannot be read as records.
    private let faults: [RecordFault]
    private let table: Table?

    private struct Record {
        /// The number of the line, or of the item in its array, from 1.
        var number: Int
        var place: String
        var fields: [String: JSONValue]
    }

    private struct RecordFault {
        var number: Int
        var sentence: String
        /// The fault without the record's number and without anything that was read.
        var rule: String
    }

    /// Reads a file.
    ///
    /// - Parameters:
    ///   - data: The file's bytes: UTF-8, or UTF-16 or UTF-32 with a byte order mark.
    ///   - name: The file's name; a suffix of tables or JSON decides if the content alone does not.
    /// - Throws: `LocalTrainingError.unusableData(reason:rule:)` with the line or row.
    public init(_ data: Data, name: String) throws {
        text = try TextEncoding.text(of: data)
        let suffix = (name as NSString).pathExtension.lowercased()
        if let found = try Self.jsonRecords(text, isPromised: ["json", "jsonl", "ndjson"].contains(suffix)) {
            (kind, records, faults, table) = (.json, found.records, found.faults, nil)
        } else if ["csv", "tsv", "tab"].contains(suffix) {
            (kind, records, faults, table) = (.table, [], [], try Table(csv: text))
        } else if let table = Self.obviousTable(text) {
            (kind, records, faults, self.table) = (.table, [], [], table)
        } else {
            (kind, records, faults, table) = (.text, [], [], nil)
        }
    }

    /// Texts: lines, a JSON field, or a table's column without its empty cells.
    ///
    /// - Throws: `LocalTrainingError.unusableData(reason:rule:)` for a record without that field as text.
    public func texts(field: String) throws -> [String] {
        switch kind {
        case .text:
            return TextEncoding.lines(of: text).map(String.init).filter { !$0.allSatisfy(\.isWhitespace) }
        case .json:
            if let fault = faults.first { throw Self.failure(fault.sentence) }
            return try records.map { record in
                guard case .string(let value)? = record.fields[field] else {
                    throw LocalTrainingError.unusableData(
                        reason: "\(record.place): no text in field '\(field)'",
                        rule: "a record has no text field '\(field)'"
                    )
                }
                return value
            }
        case .table:
            guard let table else { return [] }
            try table.requireWholeRows()
            let column = try table.position(of: field)
            return table.rows.map { $0[column] }.filter { !$0.isEmpty }
        }
    }

    /// The data for a model: a table, or texts.
    ///
    /// - Parameter field: The field or column with the text. With `nil` a table stays a table, and JSON records become one unless the first
    ///   record has text in `text`.
    /// - Returns: The data, not cleaned.
    /// - Throws: `LocalTrainingError.unusableData(reason:rule:)` as for ``texts(field:)``.
    public func localData(field: String?) throws -> LocalData {
        if field == nil {
            if let table { return .table(table) }
            if kind == .json, let first = records.first {
                guard case .string? = first.fields["text"] else { return .table(try recordTable()) }
            }
        }
        return .texts(try texts(field: field ?? "text"))
    }

    // MARK: - JSON

    private static func jsonRecords(
        _ text: String,
        isPromised: Bool
    ) throws -> (records: [Record], faults: [RecordFault])? {
        let first = text.unicodeScalars.first { !$0.properties.isWhitespace }
        guard isPromised || first == "[" || first == "{" else { return nil }
        if first == "[" {
            let document: JSONValue
            do { document = try JSONValue(parsing: Array(text.utf8)) } catch {
                // Not JSON: a line such as "[laughs] hello" is text.
                guard isPromised else { return nil }
                throw failure(error.description)
            }
            guard case .array(let items) = document, isPromised || items.contains(where: isObject) else { return nil }
            var (records, faults): ([Record], [RecordFault]) = ([], [])
            for (index, item) in items.enumerated() {
                let (number, place) = (index + 1, "record \(index + 1)")
                guard case .object(let fields) = item else {
                    let rule = "it is \(item.kindName), not an object"
                    faults.append(
                        .init(number: number, sentence: "\(place) is \(item.kindName), not an object", rule: rule)
                    )
                    continue
                }
                records.append(.init(number: number, place: place, fields: fields))
            }
            return (records, faults)
        }
        var (records, faults): ([Record], [RecordFault]) = ([], [])
        for (index, line) in TextEncoding.lines(of: text).enumerated() where !line.allSatisfy(\.isWhitespace) {
            let number = index + 1
            var why = ""
            do {
                if case .object(let fields) = try JSONValue(parsing: Array(line.utf8)) {
                    records.append(.init(number: number, place: "line \(number)", fields: fields))
                    continue
                }
            } catch {
                if records.isEmpty && faults.isEmpty {
                    // One object over several lines is JSON, but not one record in each line.
                    if case .object(let fields)? = try? JSONValue(parsing: Array(text.utf8)) {
                        return ([.init(number: 1, place: "record 1", fields: fields)], [])
                    }
                    guard isPromised else { return nil }
                }
                why = ": column \(error.column): \(error.reason)"
            }
            let rule = "it is not a JSON object"
            faults.append(.init(number: number, sentence: "line \(number): not a JSON object\(why)", rule: rule))
        }
        if records.isEmpty, let fault = faults.first { throw failure(fault.sentence) }
        return (records, faults)
    }

    private static func isObject(_ value: JSONValue) -> Bool {
        if case .object = value { true } else { false }
    }

    private static func failure(_ reason: String) -> LocalTrainingError {
        .unusableData(reason: reason, rule: "the data are not JSON records")
    }

    /// Records as rows; the columns are all names that occur, sorted.
    ///
    /// A nested value is a fault only if its column is used.
    private func recordTable() throws -> Table {
        let header = Set(records.flatMap { $0.fields.keys }).sorted()
        var cellFaults: [Int: [Int: String]] = [:]
        let rows = records.map { record in
            let cells = header.enumerated().map { column, name in
                switch record.fields[name] {
                case nil, .null: return ""
                case .string(let value): return value
                case .integer(let value): return String(value)
                case .number(let value): return String(value)
                case .boolean(let value): return value ? "true" : "false"
                case .array, .object:
                    cellFaults[record.number, default: [:]][column] = "the field is no single value"
                    return ""
                }
            }
            return (number: record.number, cells: cells)
        }
        return try Table(
            header: header,
            numbered: rows,
            faults: faults.map { TableFault(row: $0.number, column: nil, rule: $0.rule) },
            cellFaults: cellFaults
        )
    }

    // MARK: - Tables

    /// A table in a file whose name does not say so: a header of names, lines with the same number of cells, and one column of
    /// numbers.
    ///
    /// Messages do not look like that.
    private static func obviousTable(_ text: String) -> Table? {
        let start = text.prefix(64 << 10)
        var head = TextEncoding.lines(of: String(start))
        // The last line may be cut, so it does not count.
        if start.endIndex < text.endIndex { head.removeLast() }
        head = Array(head.prefix(20))
        guard head.count >= 3, head.first?.contains(where: { ",;\t|".contains($0) }) == true,
            let sample = try? Table(csv: head.joined(separator: "\n")),
            (try? sample.requireWholeRows()) != nil, sample.header.count >= 2, sample.rows.count >= 2,
            sample.header.allSatisfy(isName),
            sample.header.indices.contains(where: { column in
                sample.rows.allSatisfy { TableCell.number($0[column]) != nil || TableCell.isMissing($0[column]) }
                    && sample.rows.contains { TableCell.number($0[column]) != nil }
            })
        else { return nil }
        return try? Table(csv: text)
    }

    private static func isName(_ text: String) -> Bool {
        guard let first = text.unicodeScalars.first, text.utf8.count <= 64,
            first.properties.isAlphabetic || first == "_"
        else { return false }
        return text.unicodeScalars.allSatisfy {
            $0.properties.isAlphabetic || $0.properties.numericType != nil || " _-.()%/".unicodeScalars.contains($0)
        } && text.split(separator: " ").count <= 4
    }
}
