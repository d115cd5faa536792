import Foundation
import Logging
import StrictJSON
import WireFormat

/// One line for people on standard error: time, level, message, and the metadata by its dotted keys, with nothing in it that
/// acts on a terminal or looks like another line.
struct TextLogHandler: LogHandler {
    let label: String
    var metadata: Logger.Metadata = [:]
    var logLevel: Logger.Level = .notice

    init(label: String) { self.label = label }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        let all = metadata.merging(event.metadata ?? [:]) { _, new in new }
        let fields = all.sorted { $0.key < $1.key }.map { " \($0.key)=\($0.value)" }.joined()
        let line = "\(Date().wireTimestamp) \(event.level.rawValue) \(label): \(event.message)" + fields
        printError(PrintableText.escaped(line))
    }
}
