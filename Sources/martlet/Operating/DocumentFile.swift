import CoordinatorAPI
import Foundation
import StrictJSON
import WireFormat

/// A JSON or YAML file that somebody wrote.
enum DocumentFile {
    /// Reads a file, by its name as JSON or YAML, and makes something of it.
    ///
    /// - Parameters:
    ///   - path: Where it is; `.json` at its end means JSON.
    ///   - kind: What it should be, for messages: "a run file".
    ///   - make: Makes it; what it says in a ``DocumentError`` is listed.
    /// - Returns: What `make` made.
    /// - Throws: ``Failure`` with the file's name and everything that is wrong, each with its place.
    static func read<Result>(_ path: String, as kind: String, _ make: (JSONValue) throws -> Result) throws -> Result {
        let bytes = try bytes(path)
        do {
            return try make(path.hasSuffix(".json") ? JSONValue.parse(bytes) : YAMLDocument.parse(bytes))
        } catch let error as DocumentError {
            throw Failure("\(path) is not \(kind):" + error.problems.map { "\n  \($0)" }.joined())
        }
    }

    /// A file's bytes.
    static func bytes(_ path: String) throws -> [UInt8] {
        guard let data = FileManager.default.contents(atPath: path) else {
            throw Failure("cannot read \(path): \(reason(path))")
        }
        return Array(data)
    }

    /// Why a file has no contents for this process.
    static func reason(_ path: String) -> String {
        var isDirectory: ObjCBool = false
        guard FileManager.default.fileExists(atPath: path, isDirectory: &isDirectory) else { return "no such file" }
        return isDirectory.boolValue ? "it is a directory; name one file in it" : "is it a file that you may read?"
    }
}
