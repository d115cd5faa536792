/// A value behind a reference, encoded as the value itself.
///
/// For large values that are seldom there: an optional structure takes its whole size even when it is `nil`, in every frame
/// of a task that passes it on; a long poll that waits keeps such frames for as long as it waits.
package final class Boxed<Value: Codable & Equatable & Sendable>: Codable, Equatable, Sendable {
    package let value: Value

    package init(_ value: Value) { self.value = value }

    package init(from decoder: any Decoder) throws { value = try Value(from: decoder) }

    package func encode(to encoder: any Encoder) throws { try value.encode(to: encoder) }

    package static func == (left: Boxed, right: Boxed) -> Bool { left.value == right.value }
}
