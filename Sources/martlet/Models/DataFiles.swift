import Foundation
import LocalTraining

/// Reads a device's data: text, JSON records, or a table.
enum DataFiles {
    /// Records of a text file (one a line), a JSON field, or a table's column.
    ///
    /// Bytes that are no UTF-8 become U+FFFD, which cleaning counts; a broken line of JSON or a missing column is an error
    /// that names it.
    static func texts(at path: String, field: String) throws -> [String] {
        let data = try read(path)
        return try explaining(path) { try DataFile(data, name: path).texts(field: field) }
    }

    /// What a client trains on: a table where the file holds one and no text field is named, else texts.
    static func data(at path: String, field: String?, filters: [String]) throws -> LocalData {
        let bytes = try read(path)
        let data = try explaining(path) { try DataFile(bytes, name: path).localData(field: field) }
        guard !filters.isEmpty else { return data }
        guard case .table(var table) = data else {
            throw Failure("--where chooses rows of a table, and \(path) is none")
        }
        for filter in filters {
            let parts = filter.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
            guard parts.count == 2 else { throw Failure("--where must be COLUMN=VALUE, not '\(filter)'") }
            table = try explaining(path) { try table.filtered(column: parts[0], equals: parts[1]) }
        }
        return .table(table)
    }

    /// An error names the file, and the line as editors take it: `in.jsonl, line 3: …`.
    private static func explaining<Result>(_ path: String, _ body: () throws -> Result) throws -> Result {
        do { return try body() } catch let error as LocalTrainingError {
            let reason = error.ownerSentence
            let separator = ["line ", "record ", "row "].contains(where: reason.hasPrefix) ? ", " : ": "
            throw Failure(path + separator + reason)
        }
    }

    private static func read(_ path: String) throws -> Data {
        var isDirectory: ObjCBool = false
        guard FileManager.default.fileExists(atPath: path, isDirectory: &isDirectory), !isDirectory.boolValue,
            let data = FileManager.default.contents(atPath: path)
        else { throw Failure("cannot read the file \(path): \(DocumentFile.reason(path))") }
        return data
    }
}
