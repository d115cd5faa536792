package import Foundation

extension Date {
    /// RFC 3339 in UTC, with milliseconds.
    package var wireTimestamp: String {
        formatted(Date.ISO8601FormatStyle(includingFractionalSeconds: true))
    }

    /// Reads what ``wireTimestamp`` wrote; `nil` when it is something else.
    package init?(wireTimestamp: String) {
        guard let date = try? Date.ISO8601FormatStyle(includingFractionalSeconds: true).parse(wireTimestamp) else {
            return nil
        }
        self = date
    }
}
