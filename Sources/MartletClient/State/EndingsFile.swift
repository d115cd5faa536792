import CLibrary
import Foundation
import MartletTransport
import StrictJSON

/// `endings.jsonl`: for the device's owner, one line for each assignment that ended, with the sentence that says why.
///
/// It stays on the device and is bounded: what is older than the last 64 KiB or so goes to `endings.old.jsonl`, which the next
/// turn replaces.
struct EndingsFile: Sendable {
    let files: StateFiles

    static let name = "endings.jsonl"
    static let oldName = "endings.old.jsonl"
    static let byteLimit = 64 << 10

    private struct Line: Encodable {
        var at: String
        var assignment: String
        var run: String
        var round: Int
        var code: String
        var reason: String?
    }

    /// Adds a line; a device that cannot write it takes part all the same.
    func add(assignment: String, run: String, round: Int, code: String, reason: String?, at time: Date) {
        let line = Line(
            at: time.formatted(.iso8601),
            assignment: assignment,
            run: run,
            round: round,
            code: code,
            reason: reason.map { String($0.prefix(2000)) }
        )
        guard let text = try? JSONValue(encoding: line).text else { return }
        if FileManager.default.byteCount(atPath: files.path(Self.name)) > Self.byteLimit {
            rename(files.path(Self.name), files.path(Self.oldName))
        }
        let descriptor = PlainFile.open(files.path(Self.name), O_WRONLY | O_CREAT | O_APPEND)
        guard descriptor >= 0 else { return }
        defer { close(descriptor) }
        let bytes = Array(text.utf8) + [10]
        _ = CLibrary.write(descriptor, bytes, bytes.count)
    }
}
