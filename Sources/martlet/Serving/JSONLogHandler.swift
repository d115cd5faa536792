import Foundation
import Logging
import StrictJSON
import WireFormat

/// One JSON object a line on standard error: `time`, `level`, `message`, and the metadata by its dotted keys.
struct JSONLogHandler: LogHandler {
    var metadata: Logger.Metadata = [:]
    var logLevel: Logger.Level = .notice

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        let all = metadata.merging(event.metadata ?? [:]) { _, new in new }
        var fields = [
            ("time", JSONText.quoted(Self.now())), ("level", JSONText.quoted(event.level.rawValue)),
            ("message", JSONText.quoted("\(event.message)")),
        ]
        for (key, value) in all.sorted(by: { $0.key < $1.key }) { fields.append((key, JSONText.quoted("\(value)"))) }
        // One write, so that lines of several threads do not mix.
        let bytes = Array((Terminal.json(JSONText.object(fields)) + "\n").utf8)
        _ = bytes.withUnsafeBytes { write(2, $0.baseAddress, $0.count) }
    }

    private static func now() -> String { Date().wireTimestamp }
}
