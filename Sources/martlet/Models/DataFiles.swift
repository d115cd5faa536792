import Foundation
import LocalTraining

/// Reads a device's data: text, JSON lines, or a table.
enum DataFiles {
    /// Records of a text file (one a line), a JSONL file's field, or a CSV file's column.
    ///
    /// Bytes that are no UTF-8 become U+FFFD, which cleaning counts; a broken line of JSON or a missing column is an error
    /// that names it.
    static func texts(at path: String, field: String) throws -> [String] {
        let bytes = try read(path)
        if path.hasSuffix(".csv") {
            let table = try Failure.explaining(path) { try Table(csv: String(decoding: bytes, as: UTF8.self)) }
            guard let column = table.header.firstIndex(of: field) else {
                throw Failure("\(path) has no column '\(field)'; it has \(table.header.joined(separator: ", "))")
            }
            return table.rows.map { $0[column] }.filter { !$0.isEmpty }
        }
        // Empty ones too: an error names the line as an editor counts it.
        let lines = bytes.split(separator: 0x0A, omittingEmptySubsequences: false)
        guard path.hasSuffix(".jsonl") || path.hasSuffix(".ndjson") else {
            return lines.map { String(decoding: $0, as: UTF8.self) }
                .map { $0.hasSuffix("\r") ? String($0.dropLast()) : $0 }
                .filter { !$0.allSatisfy(\.isWhitespace) }
        }
        return try lines.enumerated().compactMap { number, line in
            if line.allSatisfy({ $0 == 0x20 || $0 == 0x0D || $0 == 0x09 }) { return nil }
            // JSON must be UTF-8; what is not is replaced first, so that one bad byte costs a character, not the file.
            let text = String(decoding: line, as: UTF8.self)
            guard let object = try? JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any] else {
                throw Failure("\(path), line \(number + 1): not a JSON object")
            }
            guard let value = object[field] as? String else {
                throw Failure("\(path), line \(number + 1): no text in field '\(field)'")
            }
            return value
        }
    }

    /// What a client trains on: a table for `.csv` without a text field, else texts.
    static func data(at path: String, field: String?, filters: [String]) throws -> LocalData {
        guard path.hasSuffix(".csv"), field == nil else {
            return .texts(try texts(at: path, field: field ?? "text"))
        }
        return try Failure.explaining(path) {
            var table = try Table(csv: String(decoding: try read(path), as: UTF8.self))
            for filter in filters {
                let parts = filter.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(
                    String.init
                )
                guard parts.count == 2 else { throw Failure("--where must be COLUMN=VALUE, not '\(filter)'") }
                table = try table.filtered(column: parts[0], equals: parts[1])
            }
            return .table(table)
        }
    }

    private static func read(_ path: String) throws -> Data {
        var isDirectory: ObjCBool = false
        guard FileManager.default.fileExists(atPath: path, isDirectory: &isDirectory), !isDirectory.boolValue,
            let data = FileManager.default.contents(atPath: path)
        else { throw Failure("cannot read the file \(path)") }
        return data
    }
}
