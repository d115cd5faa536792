/// A span of time that a peer has named: finite, not negative, and no longer than ``limitSeconds``.
///
/// Such a number can be waited for and added to any clock's time without a trap.
package struct PeerDuration: Codable, Hashable, Comparable, Sendable {
    package let seconds: Double
    /// 31 days: more than any deadline, lease or wait of the protocol.
    package static let limitSeconds = 2_678_400.0
    /// No time.
    package static let zero = PeerDuration(unchecked: 0)

    package init?(seconds: Double) {
        guard seconds >= 0, seconds <= Self.limitSeconds else { return nil }
        self.seconds = seconds
    }

    private init(unchecked seconds: Double) { self.seconds = seconds }

    /// As the clocks take it.
    package var duration: Duration { .seconds(seconds) }

    /// Reads what a header field such as `Retry-After` says in whole seconds; a longer time reads as the longest one.
    package init?(field: String) {
        guard (1...18).contains(field.utf8.count), field.utf8.allSatisfy({ (48...57).contains($0) }),
            let seconds = Double(field)
        else { return nil }
        self.init(unchecked: min(seconds, Self.limitSeconds))
    }

    package init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        guard let value = Self(seconds: try container.decode(Double.self)) else {
            throw DecodingError.dataCorruptedError(
                in: container,
                debugDescription: "must be 0 to \(Self.limitSeconds) seconds"
            )
        }
        self = value
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(seconds)
    }

    package static func < (left: Self, right: Self) -> Bool { left.seconds < right.seconds }
}
