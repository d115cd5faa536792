/// A JSON document as a tree, read before its meaning is known.
package enum JSONValue: Sendable, Equatable {
    case null
    case boolean(Bool)
    case integer(Int)
    case number(Double)
    case string(String)
    case array([JSONValue])
    case object([String: JSONValue])

    /// Values of one document, at most: as a tree small ones need ten times as much memory as their text.
    package static let countLimit = 4_000_000

    /// Reads JSON text: what RFC 8259 calls JSON and nothing else.
    ///
    /// - Parameters:
    ///   - bytes: The text.
    ///   - countLimit: Values that it may hold, those inside others included.
    /// - Throws: ``JSONError`` with the place of the first byte that is wrong.
    package init(parsing bytes: [UInt8], countLimit: Int = Self.countLimit) throws(JSONError) {
        var parser = JSONParser(bytes, valueLimit: countLimit)
        self = try parser.document()
    }

    /// A number, however it was written: an integer where a double holds it exactly, and so reads the same after it was written.
    package init(_ number: Double) {
        if let integer = Int(exactly: number), abs(number) < 9e15 {
            self = .integer(integer)
        } else {
            self = .number(number)
        }
    }

    /// A short name of the value's kind, for messages.
    package var kindName: String {
        switch self {
        case .null: "null"
        case .boolean: "a boolean"
        case .integer, .number: "a number"
        case .string: "a string"
        case .array: "an array"
        case .object: "an object"
        }
    }
}
